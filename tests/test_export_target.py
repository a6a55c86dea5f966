"""An export is there whole or not at all, over kills, other exports and foreign folders; damage never gets out."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from export_world import SKEW, exported, judge, kept, make, sidecar
from storage_world import files, tar_path

from flows.export.target import BEGUN, FORMAT, MANIFEST, outside
from storage import CounterpoiseError, DatasetMismatch, ShardDamaged, list_shards
from storage.canonical import seal, sha256, unseal

HERE = Path(__file__).parent

# A process that has imported everything forks one export after another, each killed one step later.
KILLER = """
import json, os, sys
from pathlib import Path
from export_world import exported

def run(to, data, out, fault):
    child = os.fork()
    if child == 0:
        os.environ["COUNTERPOISE_FAULT"] = fault
        try:
            exported(Path(data), to, out)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(9)
        os._exit(0)
    return os.waitpid(child, 0)[1]

to, data, root, step = sys.argv[1:]
exported(Path(data), to, Path(root) / "undisturbed")
number, ends = 1, []
while True:
    ends.append(run(to, data, Path(root) / f"step{number}", f"#{number}"))
    if ends[-1] == 0:
        break
    number += int(step)
number, chain = 2, []
while True:
    chain.append(run(to, data, Path(root) / "chain", f"#{number}"))
    if chain[-1] == 0:
        break
    number += int(step)
print(json.dumps([ends, chain]))
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("target") / "data")


_SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("to", "step", "least"),
    [("hf", 2, 4), pytest.param("energon", 1, 14, marks=_SLOW), pytest.param("chat", 3, 12, marks=_SLOW)],
)
def test_killed_at_every_step(dataset: Path, tmp_path: Path, to: str, step: int, least: int) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLER, to, str(dataset), str(tmp_path), str(step)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    ends, chain = json.loads(run.stdout)
    assert len(ends) >= least and set(ends) == {0, 9} and chain[-1] == 0, (
        "killed by the fault, not by an error"
    )
    wanted = files(tmp_path / "undisturbed")
    for number in range(1, 1 + step * len(ends), step):
        out = tmp_path / f"step{number}"
        assert not out.exists() or files(out) == wanted, "whole or not at all"
        exported(dataset, to, out)
        assert files(out) == wanted
    assert files(tmp_path / "chain") == wanted
    assert not [path.name for path in tmp_path.iterdir() if ".tmp-export" in path.name]


def test_the_manifest_names_every_file(dataset: Path, tmp_path: Path) -> None:
    exported(dataset, "hf", tmp_path / "out")
    body = unseal((tmp_path / "out" / MANIFEST).read_bytes(), "export.json")
    found = files(tmp_path / "out")
    found.pop(MANIFEST)
    assert {one["name"]: (one["bytes"], one["sha256"]) for one in body["files"]} == {
        name: (len(content), sha256(content)) for name, content in found.items()
    }
    assert body["request"]["to"] == "hf" and len(body["request"]["root_sha256"]) == 64


def test_the_same_export_again_does_nothing(dataset: Path, tmp_path: Path) -> None:
    assert not exported(dataset, "hf", tmp_path / "out").already
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert exported(dataset, "hf", tmp_path / "out").already
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_an_empty_folder_is_taken_and_a_uri_is_a_path(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    exported(dataset, "hf", (tmp_path / "a b").as_uri())
    assert (tmp_path / "a b" / MANIFEST).is_file()
    exported(dataset, "hf", tmp_path / "deep" / "er")
    assert files(tmp_path / "deep" / "er") == files(tmp_path / "a b")


def test_a_foreign_folder_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for name, words in (("mine", "is not empty, and no export"), ("file", "is a file")):
        with pytest.raises(CounterpoiseError, match=words):
            exported(dataset, "chat", tmp_path / name)
    for inside in (dataset, dataset / "shards" / "out", Path(f"{dataset}/../data/new")):
        with pytest.raises(CounterpoiseError, match="inside the dataset"):
            exported(dataset, "hf", inside)
    assert not (dataset / "new").exists() and not (dataset / "shards" / "out").exists()
    assert files(tmp_path) == {"mine/thesis.txt": b"years of work", "file": b"a file"}


def test_another_export_is_left_alone(tmp_path: Path) -> None:
    dataset = make(tmp_path / "data")
    sidecar(dataset, dict.fromkeys(kept(), 0.5))
    exported(dataset, "chat", tmp_path / "out", resample=SKEW)
    before = files(tmp_path / "out")
    for field, change in (("to", {"to": "hf"}), ("seed", {"seed": 1}), ("epoch", {"epoch": 1})):
        given = {"to": "chat", "resample": SKEW, **change}
        if given["to"] != "chat":
            given.pop("resample")
        with pytest.raises(DatasetMismatch, match=rf"export\.{field} is "):
            exported(dataset, out=tmp_path / "out", **given)  # type: ignore[arg-type]
    sidecar(dataset, dict.fromkeys(kept(), 0.6))
    with pytest.raises(DatasetMismatch, match=r"export\.skew_sha256"):
        exported(dataset, "chat", tmp_path / "out", resample=SKEW)
    judge(dataset, "ann", chef_0000="reject")
    with pytest.raises(DatasetMismatch, match=r"export\.rejected_sha256"):
        exported(dataset, "chat", tmp_path / "out", resample=SKEW)
    assert files(tmp_path / "out") == before


def test_a_damaged_export_is_told(dataset: Path, tmp_path: Path) -> None:
    exported(dataset, "hf", tmp_path / "out")
    next((tmp_path / "out" / "data").glob("train-*")).write_bytes(b"cut")
    with pytest.raises(ShardDamaged, match=r"train-.* is missing or damaged: remove .* and export again"):
        exported(dataset, "hf", tmp_path / "out")
    (tmp_path / "out" / MANIFEST).write_bytes(b"{}")
    with pytest.raises(ShardDamaged, match=r"export\.json is damaged"):
        exported(dataset, "hf", tmp_path / "out")


def test_a_flipped_bit_of_an_export_is_told(dataset: Path, tmp_path: Path) -> None:
    exported(dataset, "hf", tmp_path / "out")
    path = next((tmp_path / "out/data").iterdir())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardDamaged, match=f"{path.name} is missing or damaged"):
        exported(dataset, "hf", tmp_path / "out")


@pytest.mark.parametrize("to", ["hf", "chat", "energon"])
def test_a_damaged_shard_leaves_nothing(tmp_path: Path, to: str) -> None:
    dataset = make(tmp_path / "data")
    path = tar_path(dataset, list_shards(dataset)[2])
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardDamaged, match="sha256"):
        exported(dataset, to, tmp_path / "out")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["data"]


def test_only_one_export_at_a_time(dataset: Path, tmp_path: Path) -> None:
    passing = tmp_path / ".out.tmp-export"
    passing.mkdir()
    (passing / "half").write_text("half")
    descriptor = os.open(passing, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(CounterpoiseError, match=r"another export to .* is running"):
            exported(dataset, "hf", tmp_path / "out")
    finally:
        os.close(descriptor)
    assert (passing / "half").read_text() == "half"
    exported(dataset, "hf", tmp_path / "out")
    assert "half" not in files(tmp_path / "out") and not passing.exists()


def test_a_folder_that_may_not_be_written_is_one_line(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CounterpoiseError, match="Cause and cure"):
        exported(dataset, "hf", tmp_path / "file" / "out")


@pytest.fixture
def place() -> Iterator[str]:
    """A fresh place in fsspec's memory, which has no folders to rename, as an object store has none."""
    name = f"memory://{uuid.uuid4().hex}"
    yield f"{name}/out"
    fsspec.filesystem("memory").rm(name, recursive=True) if fsspec.filesystem("memory").exists(name) else None


def stored(place: str) -> dict[str, bytes]:
    """Every file below a place."""
    system, root = fsspec.core.url_to_fs(place)
    found: dict[str, bytes] = {}
    for name in system.find(root):
        found[name.removeprefix(root).lstrip("/")] = system.cat_file(name)
    return found


@pytest.mark.parametrize("to", ["hf", "chat", "energon"])
def test_an_export_to_a_place_without_folders(dataset: Path, tmp_path: Path, place: str, to: str) -> None:
    exported(dataset, to, tmp_path / "out")
    assert not exported(dataset, to, place).already
    assert stored(place) == files(tmp_path / "out")
    assert exported(dataset, to, place).already


@pytest.mark.parametrize("step", ["export.begun", "export.copied"])
def test_of_two_exports_to_a_place_one_gets_it(
    dataset: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The second begins while the first is at work; nothing of it is in what the first leaves."""
    told: list[str] = []

    def second(name: str) -> None:
        if name == step and not told:
            told.append(name)
            with pytest.raises(DatasetMismatch, match=r"export\.to"):
                exported(dataset, "chat", place)

    monkeypatch.setattr("flows.export.remote.fault_point", second)
    exported(dataset, "hf", place)
    exported(dataset, "hf", tmp_path / "out")
    assert told and stored(place) == files(tmp_path / "out")


def test_an_export_that_another_one_overtakes_is_refused(
    dataset: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first looked, found nothing, and made its files; meanwhile the second began and ended."""
    from flows.export import remote

    whole, told = remote._copy, []

    def late(*given: Any) -> None:
        if not told:
            told.append(True)
            exported(dataset, "chat", place)
        whole(*given)

    monkeypatch.setattr(remote, "_copy", late)
    with pytest.raises(DatasetMismatch, match=r"export\.to"):
        exported(dataset, "hf", place)
    exported(dataset, "chat", tmp_path / "out")
    assert stored(place) == files(tmp_path / "out")


def test_an_interrupted_copy_is_no_export_and_is_continued(
    dataset: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = type(fsspec.filesystem("memory"))
    put, left = system.put_file, [3]

    def failing(self: Any, *given: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise OSError("connection lost")
        return put(self, *given, **more)

    monkeypatch.setattr(system, "put_file", failing)
    with pytest.raises(CounterpoiseError, match="cannot be written"):
        exported(dataset, "energon", place)
    monkeypatch.undo()
    assert BEGUN in stored(place) and MANIFEST not in stored(place)
    with pytest.raises(DatasetMismatch, match=r"export\.to"):
        exported(dataset, "hf", place)
    exported(dataset, "energon", place)
    exported(dataset, "energon", tmp_path / "out")
    assert stored(place) == files(tmp_path / "out")


def test_what_does_not_arrive_as_it_was_sent_is_no_export(
    dataset: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = type(fsspec.filesystem("memory"))
    put, sent = system.put_file, []

    def flipping(self: Any, path: str, target: str, **more: Any) -> None:
        sent.append(target)
        put(self, path, target, **more)
        if target.endswith("README.md"):
            content = bytearray(self.cat_file(target))
            content[len(content) // 2] ^= 1
            self.pipe_file(target, bytes(content))

    monkeypatch.setattr(system, "put_file", flipping)
    with pytest.raises(CounterpoiseError, match=r"cannot be written .*README\.md is not what was sent"):
        exported(dataset, "hf", place)
    assert MANIFEST not in stored(place)
    monkeypatch.undo()
    exported(dataset, "hf", place)
    exported(dataset, "hf", tmp_path / "out")
    assert stored(place) == files(tmp_path / "out")


def test_a_continued_copy_sends_what_is_not_there_to_the_byte(
    dataset: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(dataset, "hf", tmp_path / "out")
    exported(dataset, "hf", place)
    system, root = fsspec.core.url_to_fs(place)
    request = unseal(system.cat_file(f"{root}/{MANIFEST}"), "x")["request"]
    system.pipe_file(f"{root}/{BEGUN}", seal({"format": FORMAT, "request": request, "files": []}))
    system.rm_file(f"{root}/{MANIFEST}")
    card = bytearray(system.cat_file(f"{root}/README.md"))
    card[7] ^= 1
    system.pipe_file(f"{root}/README.md", bytes(card))
    put, sent = type(system).put_file, []

    def noting(self: Any, path: str, target: str, **more: Any) -> None:
        sent.append(target.rpartition("/")[2])
        put(self, path, target, **more)

    monkeypatch.setattr(type(system), "put_file", noting)
    exported(dataset, "hf", place)
    assert sent == ["README.md", MANIFEST] and stored(place) == files(tmp_path / "out")
    system.pipe_file(f"{root}/README.md", bytes(card))
    with pytest.raises(ShardDamaged, match=r"README\.md is missing or damaged"):
        exported(dataset, "hf", place)


def test_a_foreign_place_is_left_alone(dataset: Path, place: str) -> None:
    system, root = fsspec.core.url_to_fs(place)
    system.pipe_file(f"{root}/mine.txt", b"years of work")
    with pytest.raises(CounterpoiseError, match="is not empty, and no export"):
        exported(dataset, "hf", place)
    assert stored(place) == {"mine.txt": b"years of work"}


def test_a_damaged_export_at_a_place_is_told(dataset: Path, place: str) -> None:
    exported(dataset, "hf", place)
    system, root = fsspec.core.url_to_fs(place)
    system.pipe_file(f"{root}/README.md", b"")
    with pytest.raises(ShardDamaged, match=r"README\.md is missing or damaged"):
        exported(dataset, "hf", place)


@pytest.mark.parametrize("out", ["nowhere://x/y", ""])
def test_a_place_that_cannot_be_reached(dataset: Path, out: str) -> None:
    with pytest.raises(CounterpoiseError, match=r"--out: given"):
        exported(dataset, "hf", out)


@pytest.mark.parametrize("out", ["s3://bucket/data", "s3://bucket/data/", "s3://bucket/data/export"])
def test_a_target_inside_a_dataset_in_a_bucket_is_refused(out: str) -> None:
    with pytest.raises(CounterpoiseError, match="is inside the dataset"):
        outside(out, "s3://bucket/data/")
    outside(out, "s3://other/data")
    outside("s3://bucket/data-2", "s3://bucket/data")
