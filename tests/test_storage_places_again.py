"""What runs that go on find in every place: versions, saved candidates, damaged files, a larger plan."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from place_world import Place
from storage_world import (
    ENVIRONMENT,
    HEADER,
    RECIPE,
    SHARDS,
    SPEC,
    candidate,
    fill,
    plan_rows,
    publish,
    start,
)

from storage import ShardDamaged, create_dataset, finish_dataset, load_dataset, read_samples
from storage.metadata import verdict_counts
from storage.progress import SavedCandidates, drop_published
from storage.query import open_records
from storage.records import to_row
from storage.sidecar import sidecar_name, sidecars, write_sidecar
from storage.skewed import join_skew
from storage.stream import stream
from storage.verdicts import write_verdicts
from storage.verify import clean, verify
from storage.versions import version_numbers

SAVED = candidate(plan_rows()[0], 0, True)


def saved(place: Place) -> SavedCandidates:
    return SavedCandidates(place.uri, 0, {**RECIPE, "shard": 0}, ENVIRONMENT)


def test_writers_at_the_same_time_list_every_shard(place: Place) -> None:
    start(place.uri)

    def work(index: int) -> None:
        publish(place.uri, index)
        finish_dataset(place.uri)

    with ThreadPoolExecutor(SHARDS) as pool:
        list(pool.map(work, range(SHARDS)))
    numbers = version_numbers(place.backend)
    assert numbers == list(range(len(numbers))) and load_dataset(place.uri).missing == []
    assert place.files()["dataset.json"] == place.files()[f"versions/{numbers[-1]:05d}.json"]
    assert verify(place.uri) == []


def test_a_lost_or_late_copy_is_mended(place: Place) -> None:
    fill(place.uri)
    manifest = finish_dataset(place.uri)
    place.write("dataset.json", place.files()["versions/00000.json"])
    assert load_dataset(place.uri).shards == () and "not the newest version" in verify(place.uri)[0]
    assert finish_dataset(place.uri) == manifest and verify(place.uri) == []
    place.delete("dataset.json")
    start(place.uri)
    assert load_dataset(place.uri) == manifest


def test_a_saved_candidate_comes_back_and_goes_with_its_shard(place: Place) -> None:
    start(place.uri)
    saved(place).save(SAVED, 61.0)
    found = saved(place).load("chef_0000", 0)
    assert found is not None and list(map(to_row, found)) == list(map(to_row, SAVED))
    assert [one.image for one in found] == [one.image for one in SAVED]
    assert verify(place.uri) == [], "what a run may go on with is no left-over"
    publish(place.uri, 0)
    drop_published(place.uri)
    assert not [name for name in place.files() if name.startswith("progress/")]
    saved(place).save(SAVED, 61.0)
    saved(place).drop()
    assert not [name for name in place.files() if name.startswith("progress/")]


def test_cleaning_asks_every_place_for_saved_candidates(place: Place) -> None:
    start(place.uri)
    saved(place).save(SAVED, 61.0)
    kept: list[str] = []
    removed = clean(place.uri, kept.append)
    assert len([*removed, *kept]) == 2 and all(name.startswith("progress/") for name in [*removed, *kept])


def test_a_damaged_file_is_moved_by_its_reader_and_made_again(place: Place) -> None:
    fill(place.uri)
    finish_dataset(place.uri)
    before = place.files()
    name = next(name for name in before if name.endswith(".tar"))
    place.write(name, before[name][:-1] + b"x")
    with pytest.raises(ShardDamaged, match="was moved to"):
        list(read_samples(place.uri, 0))
    moved = f"quarantine/{name.rpartition('/')[2]}"
    assert name not in place.files() and place.files()[moved] == before[name][:-1] + b"x"
    assert publish(place.uri, 0).already
    assert {one: content for one, content in place.files().items() if one != moved} == before
    assert list(read_samples(place.uri, 0)) and verify(place.uri) == []


def test_more_sets(place: Place) -> None:
    fill(place.uri)
    old = finish_dataset(place.uri)
    added = {**plan_rows()[0], "set_id": "chef_0003", "shard": SHARDS, "seed": 9}
    header = {**HEADER, "spec": {**SPEC, "sets": 4}, "extended_from": [{"sets": 3}]}
    create_dataset(place.uri, header, [*plan_rows(), added], extend=True)
    publish(place.uri, SHARDS, candidate(added, 0, True))
    new = finish_dataset(place.uri)
    assert new.dataset_id == old.dataset_id and new.shards[:SHARDS] == old.shards and verify(place.uri) == []
    assert load_dataset(place.uri, 1) == old


def test_skew_and_verdicts_are_applied(place: Place, tmp_path: Path) -> None:
    answers = []
    for dataset in (place.uri, str(tmp_path / "alone")):
        fill(dataset)
        finish_dataset(dataset)
        with open_records(dataset) as records:
            keys = [row["key"] for row in records.ask("SELECT key FROM records WHERE kept ORDER BY key")]
        write_verdicts(dataset, "anna", [("chef_0000", "reject", "hands")])
        name = write_sidecar(dataset, sidecar_name("model", "0" * 64, 0), keys, [0.5] * len(keys))
        assert sidecars(dataset) == [name]
        handed = [(one["key"], one["image"], one["skew"]) for one in stream(dataset, seed=3, skew=name)]
        answers.append((join_skew(dataset, name), verdict_counts(dataset), handed))
        assert verify(dataset) == []
    assert answers[0] == answers[1] and answers[0][0].total["multiplicity"] == 36
    assert len(answers[0][2]) == 30 and not [key for key, *_ in answers[0][2] if key.startswith("chef_0000")]


def test_a_stream_quarantines_what_it_finds_damaged(place: Place) -> None:
    fill(place.uri)
    finish_dataset(place.uri)
    name = next(name for name in place.files() if name.endswith(".tar"))
    place.write(name, place.files()[name].replace(b"science", b"SCIENCE"))
    with pytest.raises(ShardDamaged, match="was moved to"):
        list(stream(place.uri))
    assert name not in place.files() and f"quarantine/{name.rpartition('/')[2]}" in place.files()
