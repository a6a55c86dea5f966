"""What only a bucket can do to a dataset: conflicts, lost answers, liars, left-overs without a lock."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3
from storage_world import HEADER, changed, fill, picture, plan_rows, publish, shard_samples, start
from storage_world import files as local_files

from storage import (
    CounterpoiseError,
    ShardDamaged,
    create_dataset,
    finish_dataset,
    load_dataset,
    objects,
    read_samples,
    uploading,
)
from storage import s3 as s3_module
from storage.backend import open_backend
from storage.metadata import yield_by_concept
from storage.verify import clean, verify

MANIFEST = "shards/00000.json"
PASSING: list[dict[str, Any]] = [
    {"status": 500, "code": "InternalError"},
    {"status": 503, "code": "SlowDown"},
    {"status": 503, "code": "ServiceUnavailable"},
    {"lose": True},
]
CONFLICT: dict[str, Any] = {"status": 409, "code": "ConditionalRequestConflict"}


@pytest.fixture(autouse=True)
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, a store that has to prove itself anew, nothing remembered of it."""
    monkeypatch.setattr(s3_module, "_PAUSE", 0.001)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)
    monkeypatch.setattr(uploading, "_conditional", set())
    objects._remembered.clear()


@pytest.fixture
def dataset(s3: S3, request: pytest.FixtureRequest) -> str:
    """A dataset with its header and plan."""
    uri = f"s3://{s3.bucket}/objects/{request.node.name}".replace("[", "/").replace("]", "")
    start(uri)
    return uri


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Header, plan and shard 0 made in peace on a disk."""
    path = tmp_path_factory.mktemp("alone")
    start(path)
    publish(path, 0)
    return local_files(path)


def prefix(dataset: str) -> str:
    return dataset.removeprefix("s3://data/")


def fresh(work: Callable[[], Any]) -> Any:
    """Call with a client that reads the environment anew, and leave none behind."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    try:
        return work()
    finally:
        S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        *((MANIFEST, rule) for rule in (*PASSING, CONFLICT)),
        *((".tar", rule) for rule in (PASSING[1], PASSING[3], CONFLICT)),
    ],
    ids=[
        *(f"manifest-{n}" for n in ("500", "slow", "503", "lost", "409")),
        "data-slow",
        "data-lost",
        "data-409",
    ],
)
def test_what_passes_is_tried_again(
    s3: S3, dataset: str, alone: dict[str, bytes], path: str, rule: dict[str, Any]
) -> None:
    s3.rules({"method": "PUT", "path": path, **rule})
    record = publish(dataset, 0)
    assert not record.already, "a lost answer to our own put leaves the shard ours"
    assert len(s3.seen("PUT", path)) == 2, "refused or lost once, and done"
    assert s3.files(prefix(dataset)) == alone


@pytest.mark.parametrize("rule", [PASSING[1], {"lose": True}, {"cut": 100}], ids=["slow", "lost", "cut"])
def test_reading_is_tried_again(s3: S3, dataset: str, rule: dict[str, Any]) -> None:
    publish(dataset, 0)
    for path in (".tar", ".parquet", MANIFEST, "dataset.json"):
        objects._remembered.clear()
        s3.rules({"method": "GET", "path": path, **rule})
        assert len(list(read_samples(dataset, 0))) == 18
        assert len(s3.seen("GET", path)) >= 2
    assert len(yield_by_concept(dataset)) == 2


@pytest.mark.parametrize(
    ("rule", "wanted"), [(CONFLICT, "the store went on refusing"), (PASSING[1], "when the store is well")]
)
def test_a_store_that_goes_on_refusing_is_one_line(
    s3: S3, dataset: str, monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any], wanted: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3.rules({"method": "PUT", "path": MANIFEST, "times": 99, **rule})
    with pytest.raises(CounterpoiseError, match=wanted) as caught:
        fresh(lambda: publish(dataset, 0))
    assert "\n" not in str(caught.value) and MANIFEST in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError), "trying the shard again may help"
    assert 2 <= len(s3.seen("PUT", MANIFEST)) <= 12
    s3.rules()
    assert not publish(dataset, 0).already and verify(dataset) == []


def test_a_lost_answer_to_a_put_that_came_second_does_not_make_it_first(s3: S3, dataset: str) -> None:
    """The same bytes are there, but another writer put them: that writer alone was first."""
    publish(dataset, 0)
    body = s3.files(prefix(dataset))[MANIFEST]
    s3.rules({"method": "PUT", "path": MANIFEST, "lose": True})
    with open_backend(dataset).staging() as staging:
        assert not staging.create(staging.stage(MANIFEST, [body]), MANIFEST)
    assert len(s3.seen("PUT", MANIFEST)) == 2


@pytest.mark.parametrize("path", ["dataset.json", "plan.parquet"])
def test_lost_answers_to_the_header_and_the_plan(s3: S3, dataset: str, path: str) -> None:
    s3.rules({"method": "PUT", "path": path, "lose": True})
    start(f"{dataset}/again")
    assert s3.files(f"{prefix(dataset)}/again") == {
        name: data for name, data in s3.files(prefix(dataset)).items() if "again" not in name
    }


@pytest.mark.parametrize(
    "rule", [{"strip": "HTTP_IF_NONE_MATCH", "times": 99}, {"status": 501, "code": "NotImplemented"}]
)
def test_a_store_without_conditions_is_refused(s3: S3, rule: dict[str, Any]) -> None:
    s3.rules({"method": "PUT", "path": "versions/", **rule})
    with pytest.raises(CounterpoiseError, match=r"00000\.json: this store does not keep the condition"):
        start("s3://data/objects/careless")
    assert s3.files("objects/careless") == {}


def test_a_store_without_conditions_never_overwrites_a_shard(s3: S3, dataset: str) -> None:
    publish(dataset, 0)
    before = s3.files(prefix(dataset))
    uploading._conditional.clear()
    s3.rules({"method": "PUT", "strip": "HTTP_IF_NONE_MATCH", "times": 99})
    assert publish(dataset, 0).already
    with pytest.raises(CounterpoiseError, match="does not keep the condition"):
        publish(dataset, 1)
    after = s3.files(prefix(dataset))
    assert {name: after[name] for name in before} == before and "shards/00001.json" not in after


def test_the_condition_is_tried_once_in_a_process(s3: S3, dataset: str) -> None:
    s3.rules()
    for index in range(3):
        publish(dataset, index)
    assert len(s3.seen("PUT", ".json")) == 3, "the header has proved it already"


def test_a_store_that_lies_is_noticed_before_the_commit(
    s3: S3, dataset: str, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")  # or the store itself notices
        s3.rules({"method": "PUT", "path": ".tar", "flip": True})
        with pytest.raises(CounterpoiseError, match=r"\.tar reads back otherwise than it was written"):
            fresh(lambda: publish(dataset, 0))
    assert MANIFEST not in s3.files(prefix(dataset))
    assert not publish(dataset, 0).already and s3.files(prefix(dataset)) == alone


def test_large_files_go_in_parts(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "PART", 5 * 2**20)
    content, backend = os.urandom(11 * 2**20), open_backend("s3://data/objects/parts")
    s3.rules({"method": "PUT", "path": "partNumber=2", "status": 503, "code": "SlowDown"})
    with backend.staging() as staging:
        staged = staging.stage("a.tar", [content])
        staging.put(staged, "a.tar")
        assert len(s3.seen("PUT", "partNumber")) == 4, "three parts, one of them twice"
        assert s3.files("objects/parts") == {"a.tar": content}
        for rule in (CONFLICT, {"lose": True}, {"status": 404, "code": "NoSuchUpload"}):
            s3.rules({"method": "POST", "path": "uploadId", **rule})
            staging.put(staged, "b.tar")
            assert s3.files("objects/parts")["b.tar"] == content
            open_backend("s3://data/objects/parts").remove("b.tar")
    with backend.open("a.tar") as file:
        assert file.read() == content
    assert backend.quarantine("a.tar") == "quarantine/a.tar"
    assert s3.files("objects/parts") == {"quarantine/a.tar": content}


def test_a_download_leaves_nothing(
    s3: S3, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = publish(dataset, 0)
    assert record.tar is not None
    objects._remembered.clear()
    monkeypatch.setattr(s3_module, "IN_MEMORY", 10)
    monkeypatch.setattr(objects, "IN_MEMORY", 10)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = {"Bucket": s3.bucket, "Key": f"{prefix(dataset)}/{record.tar.path}"}
    s3.client.put_object(**place, Body=bytes(record.tar.bytes))
    with pytest.raises(ShardDamaged, match="sha256"):
        list(read_samples(dataset, 0))
    s3.rules({"method": "GET", "path": ".parquet", "cut": 50, "times": 99})
    with pytest.raises(CounterpoiseError, match="went on refusing"):
        list(read_samples(dataset, 0))
    assert list(tmp_path.iterdir()) == []


def test_each_file_of_a_shard_is_fetched_once(s3: S3, dataset: str) -> None:
    publish(dataset, 0)
    objects._remembered.clear()
    for count in (1, 0):
        s3.rules()
        list(read_samples(dataset, 0))
        assert len(s3.seen("GET", ".tar")) == len(s3.seen("GET", ".parquet")) == count
        assert len(s3.seen("GET", MANIFEST)) == count


def test_what_is_remembered_is_what_is_there(s3: S3, dataset: str) -> None:
    record = publish(dataset, 0)
    assert yield_by_concept(dataset)[0]["sets"] == 1
    client, name = s3.client, f"{prefix(dataset)}/{record.parquet.path}"
    content = s3.files(prefix(dataset))[record.parquet.path]
    client.put_object(Bucket=s3.bucket, Key=name, Body=content[:-1] + b"x")
    with pytest.raises(ShardDamaged):
        yield_by_concept(dataset)
    client.put_object(Bucket=s3.bucket, Key=name, Body=content)
    assert yield_by_concept(dataset)[0]["sets"] == 1
    client.delete_object(Bucket=s3.bucket, Key=name)
    with pytest.raises(ShardDamaged, match="is missing"):
        yield_by_concept(dataset)
    client.put_object(Bucket=s3.bucket, Key=name, Body=content)
    s3.rules()
    assert verify(dataset) == []
    for path in (".tar", ".parquet", MANIFEST, "dataset.json", "plan.parquet"):
        assert s3.seen("GET", path), "verify reads every byte from the store, whatever is remembered"


ORPHAN = "shards/00001-0123456789ab.tar"
BEGUN = "shards/00002-0123456789ab.tar"


def left_over(s3: S3, dataset: str) -> str:
    """A shard's file without a manifest, and an upload that nobody ends; the name of the upload."""
    client = s3.client
    client.put_object(Bucket=s3.bucket, Key=f"{prefix(dataset)}/{ORPHAN}", Body=b"x")
    begun = client.create_multipart_upload(Bucket=s3.bucket, Key=f"{prefix(dataset)}/{BEGUN}")
    client.create_multipart_upload(Bucket=s3.bucket, Key="objects/of-others")
    return f"{BEGUN}?uploadId={begun['UploadId']}"


def test_young_left_overs_stay_and_old_ones_go(s3: S3, dataset: str) -> None:
    publish(dataset, 0)
    before, upload = s3.files(prefix(dataset)), left_over(s3, dataset)
    kept: list[str] = []
    (line,) = verify(dataset)
    assert upload in line, "moto says that every upload began in 2010"
    assert clean(dataset, kept.append) == [upload] and kept == [ORPHAN]
    assert clean(dataset) == [] and verify(dataset) == [], "a writer may be about to publish it"
    s3.rules({"method": "HEAD", "path": ORPHAN, "later": 3700, "times": 9})
    (line,) = verify(dataset)
    assert ORPHAN in line and "left over" in line
    assert clean(dataset, kept.append) == [ORPHAN] and kept == [ORPHAN]
    assert s3.files(prefix(dataset)) == before
    uploads = s3.client.list_multipart_uploads(Bucket=s3.bucket, Prefix="objects/of-others")
    assert uploads["Uploads"], "uploads beside the dataset are none of ours"


CUT_SHORT = """
import sys
from storage import s3
from storage.backend import open_backend
s3.PART = 5 * 2**20
with open_backend(sys.argv[1]).staging() as staging:
    staging.put(staging.stage("x.tar", [bytes(11 * 2**20)]), sys.argv[2])
"""


def test_an_upload_that_was_killed_is_found_and_ended(s3: S3, dataset: str) -> None:
    before = s3.files(prefix(dataset))
    s3.rules({"method": "PUT", "path": "partNumber=3", "status": 503, "code": "SlowDown", "times": 999})
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "AWS_MAX_ATTEMPTS": "20"}
    with subprocess.Popen([sys.executable, "-c", CUT_SHORT, dataset, BEGUN], env=settings) as writer:
        while not s3.seen("partNumber=3"):
            assert writer.poll() is None
            time.sleep(0.05)
        writer.kill()
    s3.rules()
    assert s3.files(prefix(dataset)) == before, "nobody sees an upload before it is whole"
    (line,) = verify(dataset)
    assert f"{BEGUN}?uploadId=" in line and "left over" in line
    assert len(clean(dataset)) == 1 and verify(dataset) == []
    assert open_backend(dataset).unfinished() == []


def test_young_uploads_stay(s3: S3, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = left_over(s3, dataset)
    monkeypatch.setattr(objects, "GRACE", timedelta(days=36500))
    kept: list[str] = []
    assert clean(dataset, kept.append) == [] and kept == [ORPHAN, upload]


def test_who_may_not_list_uploads_can_verify_and_clean(s3: S3, dataset: str) -> None:
    left_over(s3, dataset)
    s3.rules({"method": "GET", "path": "?uploads", "status": 403, "code": "AccessDenied", "times": 9})
    assert verify(dataset) == [] and clean(dataset) == []


def test_cleaning_never_takes_what_a_manifest_names(
    s3: S3, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(dataset)
    finish_dataset(dataset)
    monkeypatch.setattr(objects, "GRACE", timedelta(0))
    before = s3.files(prefix(dataset))
    assert clean(dataset) == []
    s3.client.delete_object(Bucket=s3.bucket, Key=f"{prefix(dataset)}/shards/00002.json")
    assert clean(dataset) == [], "its files are what the lost manifest's shard can be mended from"
    assert len(s3.files(prefix(dataset))) == len(before) - 1


def test_files_cleaned_away_while_a_shard_is_committed_are_put_back(
    s3: S3, dataset: str, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep(name: str) -> None:
        if name == "before_create":
            monkeypatch.setattr(objects, "GRACE", timedelta(0))
            assert len(clean(dataset)) == 2

    monkeypatch.setattr("storage.backend.fault_point", sweep)
    assert not publish(dataset, 0).already
    assert s3.files(prefix(dataset)) == alone


def test_more_names_than_fit_into_one_answer(s3: S3, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(dataset)
    store = open_backend(dataset).store  # type: ignore[attr-defined]
    marks = {"ContinuationToken": "NextContinuationToken"}
    given = {"Prefix": f"{prefix(dataset)}/shards/", "MaxKeys": 2}
    pages = list(store.pages("list_objects_v2", marks, **given))
    assert [len(page["Contents"]) for page in pages] == [2, 2, 2, 2, 1]
    assert len({one["Key"] for page in pages for one in page["Contents"]}) == 9


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("s3://", "wanted s3://BUCKET/NAME"),
        ("s3:///name", "wanted s3://BUCKET/NAME"),
        ("s3://bucket/a//b", "wanted s3://BUCKET/NAME"),
        ("s3://bucket/../b", "wanted s3://BUCKET/NAME"),
        ("gs://bucket/name", "datasets on gs:// are not supported; give a local folder or s3://"),
        ("az://bucket/name", "datasets on az:// are not supported"),
        ("http://host/name", "datasets on http:// are not supported"),
    ],
)
def test_unusable_uris_are_refused(uri: str, wanted: str) -> None:
    with pytest.raises(CounterpoiseError, match=wanted):
        open_backend(uri)


def test_a_bucket_may_be_a_dataset_and_slashes_at_the_end_do_not_count(s3: S3) -> None:
    s3.ask("PUT", "/whole")
    start("s3://whole")
    publish("s3://whole/", 0)
    assert open_backend("s3://whole/").where("x") == "s3://whole/x" and verify("s3://whole") == []
    assert open_backend("s3://whole").names() == ["dataset.json", "plan.parquet", "shards", "versions"]
    assert str(open_backend("s3://whole/a/")) == "s3://whole/a"


def test_errors_of_the_store_say_what_to_do(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CounterpoiseError, match="make the bucket, or give another one"):
        start("s3://nobody-made-this/x")
    for code, wanted in (
        ("AccessDenied", "see to the credentials"),
        ("IllegalLocationConstraintException", "set AWS_DEFAULT_REGION"),
    ):
        s3.rules({"method": "GET", "path": "list-type", "status": 403, "code": code, "times": 9})
        with pytest.raises(CounterpoiseError, match=wanted) as caught:
            start("s3://data/objects/refused")
        assert "\n" not in str(caught.value)
        refused = getattr(caught.value.__cause__, "errno", 0) == errno.EACCES
        assert refused == (code == "AccessDenied"), "what is not allowed is not tried again"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CounterpoiseError, match="cannot be reached: see to AWS_ENDPOINT_URL") as unreached:
        fresh(lambda: load_dataset("s3://data/x"))
    assert isinstance(unreached.value.__cause__, OSError), "trying the shard again may help"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CounterpoiseError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        fresh(lambda: load_dataset("s3://data/x"))
    s3.rules()
    assert s3.files("objects/refused") == {}


def test_a_full_disk_of_temporary_files_is_one_line(
    s3: S3, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    publish(dataset, 0)
    objects._remembered.clear()
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with monkeypatch.context() as patch:
        patch.setattr(s3_module, "IN_MEMORY", 10)
        patch.setattr(objects, "IN_MEMORY", 10)
        with pytest.raises(CounterpoiseError, match=r"No space left on device\. .*TMPDIR"):
            list(read_samples(dataset, 0))
    with pytest.raises(CounterpoiseError, match=r"No space left on device.*make room"):
        publish(dataset, 1)


def test_without_s3fs_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(CounterpoiseError, match=r"needs the package s3fs.*pip install 'counterpoise\[s3\]'"):
        load_dataset("s3://data/name")


def _race(dataset: str, barrier: Barrier, answers: Any, where: str, other: bool) -> None:
    """Make a dataset and its shard 0, waiting for the other writer whenever a step of this name comes."""
    import storage.backend

    def wait(name: str) -> None:
        if name == where:
            barrier.wait(60)

    start(dataset)  # type: ignore[arg-type]
    barrier.wait(60)
    storage.backend.fault_point = wait
    samples = shard_samples(0)
    if other:
        samples = changed(samples, 0, image=picture(77))
    record = publish(dataset, 0, samples)  # type: ignore[arg-type]
    answers.put((record.already, record.sha256, record.files[-1].sha256))


@pytest.mark.parametrize(
    ("step", "other"),
    [
        ("before_create", True),
        pytest.param("before_create", False, marks=pytest.mark.slow),
        pytest.param("tar.before_put", False, marks=pytest.mark.slow),
    ],
)
def test_two_processes_race_for_a_shard(
    s3: S3, dataset: str, alone: dict[str, bytes], step: str, other: bool
) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers, uri = context.Barrier(2), context.Queue(), f"{dataset}/raced"
    settings = [(uri, barrier, answers, step, odd) for odd in (False, other)]
    writers = [context.Process(target=_race, args=one) for one in settings]
    for writer in writers:
        writer.start()
    found = sorted(answers.get(timeout=120) for _ in writers)
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [already for already, *_ in found] == [False, True], (
        "one is first, the other says that it was second"
    )
    assert found[0][1:] == found[1][1:] and verify(uri) == []
    stored = s3.files(prefix(uri))
    assert other or stored == alone
    assert len(stored) == 6, "the second takes back what no manifest names"


def test_threads_race_for_every_shard(s3: S3, dataset: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        records = list(pool.map(lambda index: publish(dataset, index % 3), range(9)))
    assert sum(not record.already for record in records) == 3
    fill(tmp_path)
    assert s3.files(prefix(dataset)) == local_files(tmp_path)


def test_datasets_of_two_specs_race_for_one_name(s3: S3) -> None:
    uri = "s3://data/objects/contested"

    def create(seed: int) -> str:
        try:
            return create_dataset(uri, {**HEADER, "spec": {"seed": seed}}, plan_rows()).dataset_id
        except CounterpoiseError:
            return ""

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(create, [1, 2, 1, 2]))
    assert len({name for name in found if name}) == 1 and found.count("") == 2
    assert (create(1) or create(2)) == load_dataset(uri).dataset_id and verify(uri) == []
