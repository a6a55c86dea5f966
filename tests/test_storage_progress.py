"""Saved candidates: given back as they were made, or not at all."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from storage_world import (
    ENVIRONMENT,
    HEADER,
    RECIPE,
    SPEC,
    candidate,
    changed,
    files,
    fill,
    plan_rows,
    publish,
    reseal,
    start,
)

from storage import CounterpoiseError, Sample, create_dataset, finish_dataset, list_shards
from storage.backend import open_backend
from storage.metadata import table
from storage.progress import SavedCandidates, drop_published
from storage.records import to_row
from storage.verify import clean, verify

ROW = plan_rows()[0]
KEPT, REJECTED = candidate(ROW, 1, True), candidate(ROW, 0, False)
OTHER = {**ENVIRONMENT, "torch": "9.9"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    start(tmp_path / "data")
    return tmp_path / "data"


def saved(data: Path, index: int = 0, **changes: Any) -> SavedCandidates:
    settings = {"recipe": {**RECIPE, "shard": index}, "environment": ENVIRONMENT, **changes}
    return SavedCandidates(data, index, **settings)


def rows(samples: Sequence[Sample] | None) -> list[dict[str, Any]]:
    assert samples is not None
    return [to_row(sample) for sample in samples]


def progress(data: Path) -> list[str]:
    return [name for name in files(data) if name.startswith("progress/")]


def test_a_candidate_comes_back_as_it_was_made(data: Path) -> None:
    first = saved(data)
    first.save(REJECTED, 61.0)
    first.save(KEPT, 61.0)
    again = saved(data)
    for made in (REJECTED, KEPT):
        found = again.load(made[0].set_id, made[0].candidate)
        assert rows(found) == rows(made)
        assert found is not None and [one.image for one in found] == [one.image for one in made]
    assert again.load("chef_0000", 2) is None and again.load("science_0000", 0) is None
    assert again.differences == [] and again.environment == ENVIRONMENT


def test_names_tell_shard_recipe_set_and_candidate_and_rejected_ones_have_no_images(data: Path) -> None:
    saved(data).save(REJECTED, 61.0)
    saved(data).save(KEPT, 61.0)
    folder = Path(progress(data)[0]).parent
    assert folder.name.startswith("00000-") and len(folder.name) == 18
    assert [Path(name).name for name in progress(data)] == [
        "chef_0000-0.json",
        "chef_0000-1.json",
        "chef_0000-1.tar",
    ]


def test_only_what_took_long_is_saved(data: Path) -> None:
    kept = saved(data, after=60.0)
    kept.save(REJECTED, 59.9)
    assert progress(data) == []
    kept.save(KEPT, 60.0)
    assert len(progress(data)) == 2


def test_no_reader_sees_it(data: Path) -> None:
    saved(data).save(KEPT, 61.0)
    assert list_shards(data) == [] and len(table(data)) == 0
    assert finish_dataset(data).counts == {} and verify(data) == [], "what goes on is no damage"


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {**RECIPE, "shard": 0, "x": 1}},
        {"index": 1},
        {"environment": OTHER, "strict": True},
    ],
)
def test_another_recipe_shard_or_strict_environment_makes_its_own(
    data: Path, changes: dict[str, Any]
) -> None:
    saved(data).save(KEPT, 61.0)
    assert saved(data, **changes).load("chef_0000", 1) is None


def test_another_datasets_are_not_used(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    create_dataset(other, {**HEADER, "spec": {**SPEC, "seed": 8}}, plan_rows())
    saved(other).save(KEPT, 61.0)
    shutil.copytree(other / "progress", data / "progress")
    assert saved(other).load("chef_0000", 1) is not None and saved(data).load("chef_0000", 1) is None


def test_another_environments_are_used_and_told(data: Path) -> None:
    saved(data, environment=OTHER).save(REJECTED, 61.0)
    saved(data, environment=OTHER).save(KEPT, 61.0)
    here = saved(data)
    assert rows(here.load("chef_0000", 0)) == rows(REJECTED) and rows(here.load("chef_0000", 1)) == rows(KEPT)
    (difference,) = here.differences
    assert 'environment.torch is "9.9" there and "2.0" now' in str(difference)
    assert "--strict-environment" in str(difference)
    assert here.environment == {**ENVIRONMENT, "earlier": [OTHER]}, "the shard's manifest tells it"


def _swap(folder: Path) -> None:
    (folder / "chef_0000-1.json").write_bytes((folder / "chef_0000-0.json").read_bytes())


def _no_tar(folder: Path) -> None:
    (folder / "chef_0000-1.tar").unlink()


def _folder_there(folder: Path) -> None:
    _no_tar(folder)
    (folder / "chef_0000-1.tar").mkdir()


def _longer(folder: Path) -> None:
    with (folder / "chef_0000-1.tar").open("ab") as file:
        file.write(bytes(512))


def _sealed(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: reseal(folder / "chef_0000-1.json", changes)


def _row(**changes: Any) -> Callable[[Path], None]:
    made = rows(KEPT)
    return _sealed(rows=[{**made[0], **changes}, *made[1:]])


ODD: dict[str, Callable[[Path], None]] = {
    "another candidate": _swap,
    "no tar": _no_tar,
    "a folder": _folder_there,
    "a longer tar": _longer,
    "no rows": _sealed(rows=[]),
    "rows of another kind": _sealed(rows=3),
    "a row of another kind": _sealed(rows=[1]),
    "too few rows": _sealed(rows=rows(KEPT)[:-1]),
    "rows in another order": _sealed(rows=rows(KEPT)[::-1]),
    "another format": _sealed(format="x"),
    "no tar named": _sealed(tar=None),
    "a tar of another kind": _sealed(tar=["a"]),
    "another hash": _sealed(tar={"bytes": 1, "sha256": "0" * 64}),
    "no environment": _sealed(environment=None),
    "another set": _row(set_id="science_0000", key="science_0000-00"),
    "a score that is text": _row(clip_text="high"),
    "a flagged picture": _row(nsfw=0.9),
    "another column": _row(more=1),
    "another seed of another kind": _row(seed="7"),
    "another axis value": _row(race="Black"),
    "another picture's hash": _row(sha256="0" * 64),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_made_again(data: Path, name: str) -> None:
    first = saved(data)
    first.save(REJECTED, 61.0)
    first.save(KEPT, 61.0)
    ODD[name](data / Path(progress(data)[0]).parent)
    assert saved(data).load("chef_0000", 1) is None
    if name != "a folder":
        saved(data).save(KEPT, 61.0)
        assert rows(saved(data).load("chef_0000", 1)) == rows(KEPT), "and saved over what was odd"


@pytest.mark.parametrize("suffix", ["tar", "json"])
def test_damage_anywhere_is_noticed(data: Path, suffix: str) -> None:
    saved(data).save(KEPT, 61.0)
    path = data / next(name for name in progress(data) if name.endswith(suffix))
    content, rng, reader = path.read_bytes(), random.Random(3), saved(data)
    for _ in range(40):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        for odd in (bytes(flipped), content[: rng.randrange(len(content))]):
            path.write_bytes(odd)
            assert reader.load("chef_0000", 1) is None
    path.write_bytes(content)
    assert reader.load("chef_0000", 1) is not None


def test_a_score_that_cannot_be_stored_is_one_line(data: Path) -> None:
    bad = changed(KEPT, 5, scores={"clip_text": float("nan")})
    with pytest.raises(CounterpoiseError, match="clip_text is nan"):
        saved(data).save(bad, 61.0)
    assert progress(data) == []


def test_a_flagged_picture_is_never_saved(data: Path) -> None:
    with pytest.raises(CounterpoiseError, match="a flagged image is never stored"):
        saved(data).save(changed(KEPT, 2, scores={"nsfw": 0.9}), 61.0)
    assert progress(data) == []


def test_it_goes_when_the_shard_is_published(data: Path) -> None:
    saved(data).save(KEPT, 61.0)
    saved(data, recipe={"older": True}).save(KEPT, 61.0)
    saved(data, 1).save(candidate(plan_rows()[2], 0, True), 61.0)
    saved(data).drop()
    assert {Path(name).parent.name[:5] for name in progress(data)} == {"00001"}
    saved(data, 1).drop()
    assert not (data / "progress").exists(), "no empty folder stays"


def test_what_a_killed_run_left_of_a_published_shard_is_named_and_cleaned(data: Path) -> None:
    publish(data, 0)
    saved(data).save(KEPT, 61.0)
    saved(data, 1).save(candidate(plan_rows()[2], 0, True), 61.0)
    lines = verify(data)
    assert len(lines) == 2 and all("/progress/00000-" in line and "left over" in line for line in lines)
    drop_published(data)
    assert verify(data) == [] and len(progress(data)) == 2
    assert len(clean(data)) == 2 and not (data / "progress").exists()


def test_half_written_ones_are_cleaned(data: Path) -> None:
    saved(data).save(KEPT, 61.0)
    folder = data / Path(progress(data)[0]).parent
    (folder / f"chef_0000-1.tar.tmp-{'a' * 16}").write_bytes(b"torn")
    (folder / "notes.txt").write_text("the user's own")
    (line,) = verify(data)
    assert "left over" in line
    clean(data)
    assert [Path(name).name for name in progress(data)] == ["notes.txt"]


def test_a_writer_is_not_hindered_by_one_who_removes_the_empty_folder(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import storage.folders

    real, removed = storage.folders.make_folder, []

    def then_remove(folder: Path) -> None:
        real(folder)
        if folder.name.startswith("00000-") and len(removed) < 3:
            folder.rmdir()
            removed.append(folder)

    monkeypatch.setattr(storage.folders, "make_folder", then_remove)
    saved(data).save(REJECTED, 61.0)
    assert len(removed) == 3 and saved(data).load("chef_0000", 0) is not None


def test_cleaning_keeps_the_folders_that_hold_something(data: Path) -> None:
    fill(data)
    (data / f"shards/00000.tar.tmp-{'a' * 16}").write_bytes(b"torn")
    clean(data)
    assert verify(data) == []
    open_backend(data).remove("nothing/there/at-all")
    assert verify(data) == []
