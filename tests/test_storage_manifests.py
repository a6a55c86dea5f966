"""A manifest that is damaged or lost: moved out of the way, and made again from what it spoke of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_world import Called, generate, use
from flows_world import no_report
from place_world import Place
from storage_world import (
    ENVIRONMENT,
    RECIPE,
    changed,
    files,
    fill,
    flipped,
    publish,
    reseal,
    shard_samples,
    start,
)

from storage import (
    CounterpoiseError,
    ShardDamaged,
    ShardRecord,
    finish_dataset,
    list_shards,
    load_dataset,
    read_samples,
)
from storage.metadata import yield_by_concept
from storage.quarantine import quarantining
from storage.shards import EnvironmentDiffers, ShardIncomplete, resume_check
from storage.stream import stream
from storage.verify import clean, verify

NAME = "shards/00001.json"
MOVED = "quarantine/00001.json"
ELSEWHERE = {**ENVIRONMENT, "torch": "2.1"}


def resumed(dataset: Any, **changes: Any) -> ShardRecord | None:
    """What a run that goes on finds of shard 1."""
    settings = {"recipe": {**RECIPE, "shard": 1}, "environment": ENVIRONMENT, **changes}
    return resume_check(dataset, 1, **settings)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three finished shards in a folder."""
    fill(tmp_path / "data")
    finish_dataset(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("harm", [flipped, lambda content: content[:-9], lambda _: b""])
def test_a_reader_moves_it_and_its_data_files_give_it_back(
    place: Place, harm: Callable[[bytes], bytes]
) -> None:
    fill(place.uri)
    finish_dataset(place.uri)
    before, record = place.files(), list_shards(place.uri)[1]
    bad = harm(before[NAME])
    place.write(NAME, bad)
    with pytest.raises(ShardDamaged) as caught:
        list(read_samples(place.uri, 1))
    text = str(caught.value)
    assert "00001.json is damaged" in text and f"was moved to {place.backend.where(MOVED)}" in text
    assert "`counterpoise generate`" in text and "\n" not in text
    assert NAME not in place.files() and place.files()[MOVED] == bad
    with pytest.raises(ShardDamaged, match=r"is missing, though .* run `counterpoise generate`"):
        list_shards(place.uri)
    with pytest.warns(ShardIncomplete, match="made again from the shard's data files, to the byte"):
        assert resumed(place.uri) == record
    assert place.files() == {**before, MOVED: bad} and verify(place.uri) == []


FINDERS: dict[str, Callable[[Path], Any]] = {
    "list": list_shards,
    "ask": yield_by_concept,
    "stream": lambda data: list(stream(data)),
    "finish": finish_dataset,
    "verify": lambda data: verify(data, quarantine=True),
    "resume": resumed,
    "publish": lambda data: publish(data, 1),
}


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.filterwarnings("ignore::storage.shards.ShardIncomplete")
def test_whoever_finds_it_moves_it(data: Path, name: str) -> None:
    before = files(data)
    (data / NAME).write_bytes(flipped(before[NAME]))
    try:
        said = str(FINDERS[name](data))
    except ShardDamaged as error:
        said = str(error)
    assert (data / MOVED).read_bytes() == flipped(before[NAME])
    if name in ("resume", "publish"):
        assert files(data) == {**before, MOVED: flipped(before[NAME])}, "who makes shards goes on"
    else:
        assert "was moved to" in said and "`counterpoise generate`" in said and not (data / NAME).exists()


def test_verify_moves_it_only_when_told(data: Path) -> None:
    (data / NAME).write_bytes(flipped((data / NAME).read_bytes()))
    before = files(data)
    (line,) = verify(data)
    assert "00001.json is damaged" in line and "`counterpoise verify --quarantine`" in line
    assert files(data) == before
    (line,) = verify(data, quarantine=True)
    assert "was moved to" in line
    (line,) = verify(data)
    assert "00001.json is missing: `counterpoise generate`" in line


def test_environments_of_other_shards_are_tried_and_no_other(data: Path) -> None:
    before = files(data)
    (data / NAME).unlink()
    with pytest.warns(EnvironmentDiffers), pytest.warns(ShardIncomplete, match="to the byte"):
        assert resumed(data, environment=ELSEWHERE) is not None
    assert files(data) == before
    for path in (data / "shards").glob("0000[012].json"):
        path.unlink()
    left = files(data)
    assert resumed(data, environment=ELSEWHERE) is None and files(data) == left, "nothing is guessed"
    assert clean(data) == [], "it may be mended where its environment is known"
    with pytest.warns(ShardIncomplete):
        assert resumed(data) is not None


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_from_damaged_data_files_it_is_not_made(data: Path, kind: str) -> None:
    before, path = files(data), next(data.glob(f"shards/00001-*.{kind}"))
    path.write_bytes(flipped(path.read_bytes()))
    (data / NAME).write_bytes(b"{")
    with pytest.warns(ShardIncomplete, match=r"was moved to .* Shard 1 is made again\."):
        assert resumed(data) is None
    assert not publish(data, 1).already
    assert files(data) == {**before, MOVED: b"{"}


def test_another_recipe_does_not_get_it(data: Path) -> None:
    (data / NAME).unlink()
    assert resumed(data, recipe={**RECIPE, "shard": 1, "steps": 9}) is None and not (data / NAME).exists()


def test_a_shard_without_images_is_made_again_too(tmp_path: Path) -> None:
    start(tmp_path)
    rejected = [one for one in shard_samples(1) if not one.kept]
    more = [changed([one], 0, kept=False, reason="clip_text", image=None)[0] for one in shard_samples(1)[:6]]
    record = publish(tmp_path, 1, [*more, *rejected])
    finish_dataset(tmp_path)
    (tmp_path / NAME).unlink()
    (tmp_path / "shards/00001-0123456789ab.tar").write_bytes(b"a stranger")
    with pytest.warns(ShardIncomplete):
        assert record.tar is None and resumed(tmp_path) == record


def test_a_list_that_lost_the_shard_does_not_lose_its_data(data: Path) -> None:
    before = files(data)
    (data / NAME).unlink()
    assert [entry.index for entry in finish_dataset(data).shards] == [0, 2]
    assert verify(data) == [] and clean(data) == []
    with pytest.warns(ShardIncomplete):
        assert resumed(data) is not None
    finish_dataset(data)
    assert {name: files(data)[name] for name in before if name != "dataset.json"} == {
        name: content for name, content in before.items() if name != "dataset.json"
    }


def test_one_that_was_never_listed_is_not_made_from_left_overs(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / NAME).write_bytes(b"")
    with pytest.warns(ShardIncomplete, match=r"Shard 1 is made again\."):
        assert resumed(tmp_path) is None
    assert len(clean(tmp_path)) == 2 and not publish(tmp_path, 1).already


def test_a_whole_manifest_of_another_stays(data: Path) -> None:
    shutil.copy(data / "shards/00002.json", data / NAME)
    swapped = files(data)
    with pytest.raises(ShardDamaged, match=r"describes another shard.* run `counterpoise generate`"):
        list_shards(data)
    reseal(data / NAME, {"index": 1, "dataset_id": "0" * 64})
    with pytest.raises(ShardDamaged, match="run `counterpoise generate`"):
        list_shards(data)
    assert verify(data, quarantine=True) and not (data / "quarantine").exists()
    assert set(files(data)) == set(swapped)


def test_missing_data_files_say_what_to_run(data: Path) -> None:
    path = next(data.glob("shards/00001-*.tar"))
    path.unlink()
    told = verify(data)
    for read in (lambda: read_samples(data, 1), lambda: stream(data)):
        with pytest.raises(ShardDamaged) as caught:
            list(read())
        told.append(str(caught.value))
    cure = f"{path.name} is missing: `counterpoise generate` with the dataset's spec makes it again."
    assert len(told) == 3 and all(line.endswith(cure) for line in told)


def test_a_second_look_that_finds_it_whole_moves_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from storage.local import LocalBackend

    read, bad = LocalBackend.read, [NAME]

    def once(self: LocalBackend, name: str, limit: int) -> bytes:
        content = read(self, name, limit)
        return flipped(content) if name in bad and not bad.remove(name) else content

    before = files(data)
    monkeypatch.setattr(LocalBackend, "read", once)
    assert len(list_shards(data)) == 3 and bad == [] and files(data) == before
    with pytest.raises(ShardDamaged, match=r"^x$"), quarantining(LocalBackend(data), list_shards(data)[0]):
        raise ShardDamaged("x")


def test_a_flipped_header_says_what_mends_it(place: Place) -> None:
    fill(place.uri)
    finish_dataset(place.uri)
    before = place.files()
    place.write("dataset.json", flipped(before["dataset.json"]))
    with pytest.raises(ShardDamaged, match=r"`counterpoise generate` with the dataset's spec mends it\.$"):
        load_dataset(place.uri)
    start(place.uri)
    assert place.files() == before


def test_a_header_without_versions_says_what_mends_it(data: Path) -> None:
    root = load_dataset(data).root_sha256
    shutil.rmtree(data / "versions")
    (data / "dataset.json").write_bytes(b"{}")
    for look in (load_dataset, start, finish_dataset):
        with pytest.raises(ShardDamaged, match=r"delete it, then `counterpoise generate` with .* mends it"):
            look(data)
    (data / "dataset.json").unlink()
    start(data)
    assert finish_dataset(data).root_sha256 == root and verify(data) == []


def test_versions_that_are_all_damaged_say_what_mends_them(data: Path) -> None:
    root = load_dataset(data).root_sha256
    names = ["versions/00001.json", "versions/00000.json", "dataset.json"]
    for name in names:
        (data / name).write_bytes(b"{}")
    with pytest.raises(CounterpoiseError, match="delete it"):
        load_dataset(data, 0)
    for name in names:
        with pytest.raises(ShardDamaged, match=rf"{name} is damaged.* delete it"):
            start(data)
        (data / name).unlink()
    start(data)
    assert finish_dataset(data).root_sha256 == root and verify(data) == []


def test_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch)
    monkeypatch.chdir(tmp_path)
    with no_report():
        generate(capsys)
        before, data = files(tmp_path / "data"), tmp_path / "data"
        for name in (NAME, "dataset.json"):
            (data / name).write_bytes(flipped(before[name]))
        found = Called(capsys, "verify", "data")
        assert found.status == 1 and "`counterpoise generate` with the dataset's spec mends it" in found.out
        again = generate(capsys)
    assert again.status == 0 and "made     0 shards" in again.out and "Traceback" not in again.err
    assert "00001.json was moved to" in again.err and "gave it back" in again.err
    assert Called(capsys, "verify", "data").status == 0
    assert files(data) == {**before, MOVED: flipped(before[NAME])}
