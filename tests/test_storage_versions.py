"""Versions of dataset.json: each is made once, the newest is what writers go by, readers may name one."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_world import (
    AXES,
    HEADER,
    SHARDS,
    SPEC,
    candidate,
    files,
    fill,
    plan_rows,
    publish,
    reseal,
    start,
)

import storage.backend
from storage import (
    CounterpoiseError,
    DatasetMismatch,
    ShardDamaged,
    create_dataset,
    finish_dataset,
    list_shards,
    load_dataset,
)
from storage.backend import open_backend
from storage.manifest import newest_dataset, read_plan
from storage.metadata import shortfalls, yield_by_concept
from storage.verify import verify
from storage.versions import mend_copy, save_version, version_numbers

BIG = {**HEADER, "spec": {**SPEC, "sets": 5}, "extended_from": [{"sets": 3}]}


def more_rows(sets: int = 3, first: int = SHARDS) -> list[dict[str, Any]]:
    """The plan with some sets more, two a shard, in shards of their own."""
    added = [
        {"set_id": f"arts_{i:04d}", "shard": first + i // 2, "split": "test", "concept": "arts"}
        for i in range(sets)
    ]
    return [*plan_rows(), *({**row, "concept_group": "arts_group", "seed": i} for i, row in enumerate(added))]


def version(dataset: Path, number: int) -> bytes:
    return (dataset / f"versions/{number:05d}.json").read_bytes()


def numbers(dataset: Path) -> list[int]:
    return version_numbers(open_backend(dataset))


def test_every_content_is_a_version(tmp_path: Path) -> None:
    start(tmp_path)
    first = (tmp_path / "dataset.json").read_bytes()
    for index in (2, 0):
        publish(tmp_path, index)
        finish_dataset(tmp_path)
    assert numbers(tmp_path) == [0, 1, 2]
    assert version(tmp_path, 0) == first
    assert version(tmp_path, 2) == (tmp_path / "dataset.json").read_bytes()
    listed = [[entry.index for entry in load_dataset(tmp_path, number).shards] for number in range(3)]
    assert listed == [[], [2], [0, 2]]
    assert load_dataset(tmp_path, 2) == load_dataset(tmp_path) == newest_dataset(tmp_path)


def test_the_same_content_makes_no_new_version(tmp_path: Path) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    before = files(tmp_path)
    finish_dataset(tmp_path)
    start(tmp_path)
    assert files(tmp_path) == before and numbers(tmp_path) == [0, 1]


def test_readers_may_name_a_version(tmp_path: Path) -> None:
    start(tmp_path)
    publish(tmp_path, 1)
    finish_dataset(tmp_path)
    publish(tmp_path, 0)
    assert [record.index for record in list_shards(tmp_path)] == [0, 1], "not listed yet is fine"
    finish_dataset(tmp_path)
    found = [[record.index for record in list_shards(tmp_path, number)] for number in range(3)]
    assert found == [[], [1], [0, 1]]


@pytest.mark.parametrize("number", [2, -1, 99])
def test_a_version_that_is_not_there_is_refused(tmp_path: Path, number: int) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    for call in (load_dataset, list_shards, read_plan):
        with pytest.raises(CounterpoiseError, match=rf"given version {number}, but .* versions 0 to 1"):
            call(tmp_path, number)  # type: ignore[operator]
    with pytest.raises(CounterpoiseError, match="has no versions"):
        load_dataset(tmp_path / "nowhere", 0)


def test_a_version_refuses_a_shard_that_was_made_anew_since(tmp_path: Path) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    (tmp_path / "shards/00001.json").unlink()
    with pytest.raises(ShardDamaged, match=r"00001\.json is missing"):
        list_shards(tmp_path, 1)
    publish(tmp_path, 1, environment={"device": "other"})
    finish_dataset(tmp_path)
    assert len(list_shards(tmp_path, 2)) == SHARDS
    with pytest.raises(ShardDamaged, match=r"00001\.json is not the manifest"):
        list_shards(tmp_path, 1)


def stale(dataset: Path) -> None:
    (dataset / "dataset.json").write_bytes(version(dataset, 0))


def torn(dataset: Path) -> None:
    (dataset / "dataset.json").write_bytes(version(dataset, 1)[:-5])


def flipped(dataset: Path) -> None:
    content = bytearray(version(dataset, 1))
    content[50] ^= 4
    (dataset / "dataset.json").write_bytes(content)


def faked(dataset: Path) -> None:
    reseal(dataset / "dataset.json", {"counts": {"images": 10**6}})


def odd(dataset: Path) -> None:
    reseal(dataset / "dataset.json", {"shards": 3})


@pytest.mark.parametrize("harm", [stale, torn, flipped, faked, odd])
def test_verify_says_when_the_copy_is_not_the_newest_and_finishing_mends_it(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    before = files(tmp_path)
    harm(tmp_path)
    lines = verify(tmp_path)
    assert any("dataset.json is not the newest version, versions/00001.json" in line for line in lines)
    start(tmp_path)
    assert files(tmp_path) == before
    harm(tmp_path)
    finish_dataset(tmp_path)
    assert files(tmp_path) == before and verify(tmp_path) == []


def test_a_lost_copy_is_made_again(tmp_path: Path) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    before = files(tmp_path)
    (tmp_path / "dataset.json").unlink()
    finish_dataset(tmp_path)
    assert files(tmp_path) == before


def test_a_dataset_without_versions_gets_them(tmp_path: Path) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    content = (tmp_path / "dataset.json").read_bytes()
    shutil.rmtree(tmp_path / "versions")
    (line,) = verify(tmp_path)
    assert "versions/00000.json is missing, as is every version: `counterpoise generate`" in line
    finish_dataset(tmp_path)
    assert numbers(tmp_path) == [0] and version(tmp_path, 0) == content and verify(tmp_path) == []


def test_a_damaged_newest_version_does_not_stop_the_work(tmp_path: Path) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    content = version(tmp_path, 1)
    (tmp_path / "versions/00001.json").write_bytes(content[:-9])
    lines = verify(tmp_path)
    assert len(lines) == 2 and "versions/00001.json is damaged" in lines[0] and "delete it" in lines[0]
    with pytest.raises(ShardDamaged):
        load_dataset(tmp_path, 1)
    finish_dataset(tmp_path)
    assert numbers(tmp_path) == [0, 1, 2] and version(tmp_path, 2) == content
    (tmp_path / "versions/00001.json").unlink()
    (line,) = verify(tmp_path)
    assert "versions/00001.json is missing" in line


def test_both_damaged_is_an_error(tmp_path: Path) -> None:
    start(tmp_path)
    for name in ("versions/00000.json", "dataset.json"):
        (tmp_path / name).write_bytes(b"{}")
    for call in (start, finish_dataset, newest_dataset):
        with pytest.raises(ShardDamaged):
            call(tmp_path)


def test_foreign_files_among_the_versions_are_named(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / "versions/notes.txt").write_text("x")
    (line,) = verify(tmp_path)
    assert "versions/notes.txt is foreign" in line


def test_a_lost_race_reads_again_and_takes_the_next_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path)
    publish(tmp_path, 0)
    calls = []

    def other_is_faster(name: str) -> None:
        if name == "before_create" and not calls:
            calls.append(name)
            publish(tmp_path, 1)
            finish_dataset(tmp_path)
            publish(tmp_path, 2)

    monkeypatch.setattr(storage.backend, "fault_point", other_is_faster)
    manifest = finish_dataset(tmp_path)
    assert [entry.index for entry in manifest.shards] == [0, 1, 2]
    assert [entry.index for entry in load_dataset(tmp_path, 1).shards] == [0, 1]
    assert numbers(tmp_path) == [0, 1, 2] and verify(tmp_path) == []


def test_a_late_writer_does_not_leave_an_old_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is about to put version 1 when another makes version 2 and puts it."""
    start(tmp_path)
    publish(tmp_path, 0)
    calls = []

    def other_comes_between(name: str) -> None:
        if name == "json.before_put" and not calls:
            calls.append(name)
            publish(tmp_path, 1)
            finish_dataset(tmp_path)

    monkeypatch.setattr(storage.backend, "fault_point", other_comes_between)
    manifest = finish_dataset(tmp_path)
    assert [entry.index for entry in manifest.shards] == [0, 1]
    assert verify(tmp_path) == []


def test_many_threads_count_together(tmp_path: Path) -> None:
    """Every one adds one to a number in the header; none of the additions is lost."""
    start(tmp_path)
    backend = open_backend(tmp_path)

    def add() -> None:
        for _ in range(5):
            save_version(backend, lambda body: {**(body or {}), "sum": (body or {}).get("sum", 0) + 1})
            mend_copy(backend)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads((tmp_path / "dataset.json").read_text())["sum"] == 20
    assert numbers(tmp_path) == list(range(21))


def test_an_extension_appends_and_keeps_the_rest(tmp_path: Path) -> None:
    fill(tmp_path)
    old = finish_dataset(tmp_path)
    before = files(tmp_path)
    manifest = create_dataset(tmp_path, BIG, more_rows(), extend=True)
    assert (manifest.dataset_id, manifest.shards) == (old.dataset_id, old.shards)
    assert (manifest.plan["rows"], manifest.plan["shards"], manifest.missing) == (9, 5, [3, 4])
    assert manifest.header["spec"]["sets"] == 5 and manifest.header["extended_from"] == [{"sets": 3}]
    after = files(tmp_path)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"dataset.json", "plan.parquet", "versions/00002.json"} and verify(tmp_path) == []
    assert create_dataset(tmp_path, BIG, more_rows()) == manifest, "then it is the dataset's spec"
    assert {row["concept"]: row["planned"] for row in yield_by_concept(tmp_path)}["arts"] == 3
    assert {row["concept"]: row["missing"] for row in shortfalls(tmp_path)} == {"arts": 3}


def test_the_plan_of_an_earlier_version_can_still_be_read(tmp_path: Path) -> None:
    start(tmp_path)
    create_dataset(tmp_path, BIG, more_rows(), extend=True)
    assert (
        read_plan(tmp_path, 0) == plan_rows() and read_plan(tmp_path) == read_plan(tmp_path, 1) == more_rows()
    )
    (tmp_path / "plan.parquet").write_bytes((tmp_path / "plan.parquet").read_bytes()[:-1])
    for number in (None, 0, 1):
        with pytest.raises(ShardDamaged):
            read_plan(tmp_path, number)
    create_dataset(tmp_path, BIG, more_rows())
    assert read_plan(tmp_path) == more_rows()


def test_readers_of_a_half_made_extension_see_the_dataset_as_it_was(tmp_path: Path) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    old = (tmp_path / "dataset.json").read_bytes()
    create_dataset(tmp_path, BIG, more_rows(), extend=True)
    (tmp_path / "dataset.json").write_bytes(old)  # where a writer was killed before its last step
    assert read_plan(tmp_path) == plan_rows() and len(list_shards(tmp_path)) == SHARDS
    assert len(yield_by_concept(tmp_path)) == 2
    (line,) = verify(tmp_path)
    assert "is not the newest version" in line


def test_a_shard_of_an_extension_is_published_while_a_late_copy_hides_it(tmp_path: Path) -> None:
    start(tmp_path)
    old = (tmp_path / "dataset.json").read_bytes()
    create_dataset(tmp_path, BIG, more_rows(), extend=True)
    (tmp_path / "dataset.json").write_bytes(old)
    made = [one for row in more_rows()[6:8] for one in candidate(row, 0, True)]
    assert publish(tmp_path, 3, made).index == 3
    with pytest.raises(CounterpoiseError, match="the plan has shards 0 to 4"):
        publish(tmp_path, 5, candidate(more_rows()[6], 0, True))
    finish_dataset(tmp_path)
    assert verify(tmp_path) == []


def test_without_extend_more_is_refused(tmp_path: Path) -> None:
    start(tmp_path)
    before = files(tmp_path)
    with pytest.raises(DatasetMismatch, match=r"spec\.sets is \(absent\) there and 5 now"):
        create_dataset(tmp_path, BIG, more_rows())
    assert files(tmp_path) == before


def _row_changed() -> list[dict[str, Any]]:
    rows = more_rows()
    rows[2] = {**rows[2], "seed": 1}
    return rows


@pytest.mark.parametrize(
    ("change", "rows", "field"),
    [
        ({"recipe": {}}, more_rows(), r"recipe\.weights"),
        ({"axes": dict(reversed(AXES.items()))}, more_rows(), r"axes\[0\]\.name"),
        ({"other": 1}, more_rows(), "other"),
        ({}, _row_changed(), "plan"),
        ({}, list(reversed(more_rows())), "plan"),
        ({}, plan_rows()[:-2], "plan"),
        ({}, more_rows(first=SHARDS - 1), r"plan\.shards"),
    ],
)
def test_what_is_no_mere_extension_is_refused(
    tmp_path: Path, change: dict[str, Any], rows: list[dict[str, Any]], field: str
) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    before = files(tmp_path)
    with pytest.raises(DatasetMismatch, match=rf"settings: {field} is"):
        create_dataset(tmp_path, {**BIG, **change}, rows, extend=True)
    assert files(tmp_path) == before


@settings(max_examples=10)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_any_number_of_extensions(counts: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        dataset, sets = Path(folder), 0
        start(dataset)
        for count in counts:
            sets += count + count % 2  # whole shards, so that the next ones begin anew
            header = {**BIG, "spec": {**SPEC, "sets": sets}}
            create_dataset(dataset, header, more_rows(sets), extend=True)
        assert numbers(dataset) == list(range(len(counts) + 1))
        assert read_plan(dataset) == more_rows(sets) and read_plan(dataset, 0) == plan_rows()
        assert load_dataset(dataset).dataset_id == load_dataset(dataset, 0).dataset_id
        assert verify(dataset) == []
