"""What every place of a dataset has to keep: a folder and a bucket, held to the same contract."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from place_world import Place
from storage_world import (
    ENVIRONMENT,
    HEADER,
    NAMES,
    RECIPE,
    SPEC,
    changed,
    fill,
    picture,
    plan_rows,
    publish,
    shard_samples,
    start,
)
from storage_world import files as local_files

from storage import (
    CounterpoiseError,
    DatasetMismatch,
    ShardDamaged,
    create_dataset,
    finish_dataset,
    list_shards,
    load_dataset,
    publish_shard,
    read_samples,
)
from storage.backend import Backend
from storage.manifest import read_plan
from storage.metadata import reasons, score_histograms, shortfalls, table, yield_by_cell, yield_by_concept
from storage.shards import EnvironmentDiffers, ShardIncomplete, resume_check
from storage.verify import clean, verify


def _put(backend: Backend, name: str, content: bytes) -> None:
    with backend.staging() as staging:
        staging.put(staging.stage(name, [content]), name)


def test_an_empty_place(place: Place) -> None:
    backend = place.backend
    assert backend.names() == [] and backend.names("shards") == [] and not backend.exists("a.json")
    for ask in (backend.size, backend.open, lambda name: backend.read(name, 9), backend.quarantine):
        with pytest.raises(ShardDamaged, match=r"a\.json is missing"):
            ask("a.json")
    backend.remove("a.json")
    assert backend.unfinished() == [] and place.files() == {}


def test_what_is_put_is_there_whole_and_what_is_only_staged_is_not(place: Place) -> None:
    backend = place.backend
    with backend.staging() as staging:
        first = staging.stage("shards/a.tar", [b"one", b"", b"two"])
        staging.stage("b.json", [b"never"])
        assert (first.bytes, first.sha256[:8]) == (6, "25b6746d")
        with first.open() as file:
            assert file.read() == b"onetwo"
        assert not backend.exists("shards/a.tar")
        staging.put(first, "shards/a.tar")
    assert place.files() == {"shards/a.tar": b"onetwo"}
    assert backend.names() == ["shards"] and backend.names("shards") == ["a.tar"]
    assert backend.exists("shards/a.tar") and backend.size("shards/a.tar") == 6
    for _ in range(2):
        with backend.open("shards/a.tar") as file:
            assert (file.read(2), file.seek(0, 2), file.seek(0), file.read()) == (b"on", 6, 0, b"onetwo")
            assert os.fstat(file.fileno()).st_size == 6, "a file like any other"
    _put(backend, "shards/a.tar", b"three")
    assert place.files() == {"shards/a.tar": b"three"}
    backend.remove("shards/a.tar")
    assert place.files() == {}


def test_a_limit_refuses_larger_files(place: Place) -> None:
    _put(place.backend, "a.json", bytes(10))
    assert place.backend.read("a.json", 10) == bytes(10)
    with pytest.raises(ShardDamaged, match="larger than the 9 bytes"):
        place.backend.read("a.json", 9)


def test_an_error_leaves_nothing(place: Place) -> None:
    with pytest.raises(KeyboardInterrupt), place.backend.staging() as staging:
        staging.stage("a.tar", [b"x"])
        raise KeyboardInterrupt
    assert place.files() == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(content=st.lists(st.binary(max_size=2000), max_size=4))
def test_any_bytes_come_back(place: Place, content: list[bytes]) -> None:
    backend, whole = place.backend, b"".join(content)
    with backend.staging() as staging:
        staging.put(staging.stage("x.json", content), "x.json")
    assert backend.read("x.json", len(whole)) == whole and backend.size("x.json") == len(whole)


def test_create_succeeds_for_exactly_one(place: Place) -> None:
    def attempt(number: int) -> bool:
        with place.backend.staging() as staging:
            return staging.create(staging.stage("only.json", [b"%d" % (number % 2)]), "only.json")

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(attempt, range(12)))
    assert sum(made) == 1
    assert place.files() == {"only.json": b"%d" % (made.index(True) % 2)}
    assert not attempt(made.index(True)), "the same bytes again are not the first"


def test_quarantine_replaces_nothing(place: Place) -> None:
    found = []
    for content in (b"first", b"second", b"third"):
        _put(place.backend, "shards/00000-0.tar", content)
        found.append(place.backend.quarantine("shards/00000-0.tar"))
    assert found == ["quarantine/00000-0.tar", "quarantine/00000-0.tar.1", "quarantine/00000-0.tar.2"]
    assert place.files() == dict(zip(found, (b"first", b"second", b"third"), strict=True))


def test_a_dataset_has_the_same_bytes_everywhere(place: Place, tmp_path: Path) -> None:
    fill(place.uri)
    manifest = finish_dataset(place.uri)
    fill(tmp_path / "alone")
    assert manifest == finish_dataset(tmp_path / "alone")
    assert place.files() == local_files(tmp_path / "alone")
    assert verify(place.uri) == [] == clean(place.uri)
    for index in range(3):
        assert list(read_samples(place.uri, index)) == list(read_samples(tmp_path / "alone", index))
    assert read_plan(place.uri) == read_plan(tmp_path / "alone")
    assert load_dataset(place.uri) == manifest and len(list_shards(place.uri)) == 3


def test_questions_have_the_same_answers_everywhere(place: Place, tmp_path: Path) -> None:
    for dataset in (place.uri, tmp_path / "alone"):
        start(dataset)
        assert table(dataset).fetchall() == [] and reasons(dataset) == []
        publish(dataset, 0)
        publish(dataset, 2)
    for ask in (yield_by_concept, yield_by_cell, reasons, shortfalls, score_histograms):
        assert ask(place.uri) == ask(tmp_path / "alone")  # type: ignore[operator]
    found = table(place.uri).order("key, candidate").fetchall()
    assert found == table(tmp_path / "alone").order("key, candidate").fetchall() and len(found) == 36


def test_the_second_publisher_says_so(place: Place) -> None:
    start(place.uri)
    first = publish(place.uri, 0)
    before = place.files()
    second = publish(place.uri, 0)
    assert second == first and (first.already, second.already) == (False, True)
    other = changed(shard_samples(0), 0, image=picture(99))
    with pytest.warns(EnvironmentDiffers, match="with other bytes"):
        assert publish(place.uri, 0, other).already
    with pytest.raises(DatasetMismatch, match=r"recipe\.sampler is"):
        publish(place.uri, 0, recipe={**RECIPE, "shard": 0, "sampler": None})
    assert place.files() == before


def test_resume(place: Place) -> None:
    start(place.uri)
    given_now: dict[str, Any] = {"recipe": {**RECIPE, "shard": 0}, "environment": ENVIRONMENT}
    assert resume_check(place.uri, 0, **given_now) is None
    record = publish(place.uri, 0)
    assert resume_check(place.uri, 0, **given_now) == record
    place.write(record.parquet.path, b"cut")
    with pytest.warns(ShardIncomplete, match=r"3 bytes, its manifest says .* was moved to"):
        assert resume_check(place.uri, 0, **given_now) is None
    with pytest.warns(ShardIncomplete, match="is missing"):
        assert resume_check(place.uri, 0, **given_now) is None
    assert len(verify(place.uri)) == 1
    assert publish(place.uri, 0).already and verify(place.uri) == [], "publishing again mends it"


def test_damage_is_found_and_nothing_of_it_is_read(place: Place) -> None:
    create_dataset(place.uri, HEADER, plan_rows()[:2])
    publish(place.uri, 0)
    finish_dataset(place.uri)
    for name, content in place.files().items():
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        for bad in (bytes(flipped), content[:-1]):
            place.write(name, bad)
            assert any(name in line for line in verify(place.uri, decode_images=False)), name
            if name.startswith("versions/"):
                continue  # readers have its copy
            with pytest.raises(CounterpoiseError):
                print(next(read_samples(place.uri, 0)), read_plan(place.uri))
            if name.endswith(("json", "parquet")):
                with pytest.raises(CounterpoiseError):
                    yield_by_concept(place.uri)
        place.write(name, content)
    assert verify(place.uri) == []


def test_a_damaged_dataset_file_is_one_line(place: Place) -> None:
    start(place.uri)
    place.write("dataset.json", json.dumps({"format": "counterpoise-dataset"}).encode())
    with pytest.raises(CounterpoiseError) as caught:
        load_dataset(place.uri)
    assert "dataset.json is damaged" in str(caught.value) and "\n" not in str(caught.value)


def test_a_place_without_a_dataset(place: Place) -> None:
    for ask in (load_dataset, verify, clean, list_shards):
        with pytest.raises(CounterpoiseError, match=r"holds no dataset\.json"):
            ask(place.uri)
    with pytest.raises(CounterpoiseError, match=r"holds no dataset\.json"):
        publish_shard(place.uri, 0, shard_samples(0), NAMES, RECIPE, ENVIRONMENT)
    assert place.files() == {}


def test_another_spec_is_refused(place: Place) -> None:
    start(place.uri)
    before = place.files()
    with pytest.raises(DatasetMismatch, match=r"dataset\.json was made with other settings: spec\.steps"):
        create_dataset(place.uri, {**HEADER, "spec": {**SPEC, "steps": 9}}, plan_rows())
    assert place.files() == before


def test_a_foreign_file_among_the_shards_is_named(place: Place) -> None:
    fill(place.uri)
    place.write("shards/99999.tar", b"x")
    place.write("notes.txt", b"the user's own")
    (line,) = verify(place.uri)
    assert "shards/99999.tar is foreign" in line
    assert clean(place.uri) == [] and {"shards/99999.tar", "notes.txt"} <= set(place.files())
