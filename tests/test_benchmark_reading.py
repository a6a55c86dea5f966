"""The reading benchmark's own parts at small sizes: that all read the same, and that every bar is held."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import reading
import reading_case
import reading_rivals


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reading.make(tmp_path_factory.mktemp("reading") / "data", 2, 3)


def test_what_is_made_is_of_the_size_that_is_promised(dataset: Path) -> None:
    sizes = {len(sample["png"]) for sample in reading_case.samples(str(dataset / "shards"))}
    assert min(sizes) > 20_000 and max(sizes) < 20_600
    assert reading.make(dataset, 99) == dataset, "what is there is taken as it is"


# webdataset leaves files open until they are collected.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("method", ["ours", "ours, columns", "webdataset"])
def test_every_reader_reads_the_same(dataset: Path, method: str) -> None:
    found = reading_case.measure(reading_case.READERS[method](str(dataset), 1), 2)
    expected = sum(len(sample["png"]) for sample in reading_case.samples(str(dataset / "shards")))
    assert (found["images"], found["bytes"], len(found["seconds"])) == (24, expected, 2)
    gc.collect()


def test_a_process_of_its_own_reads_it_and_is_counted(dataset: Path) -> None:
    with pytest.raises(RuntimeError, match="read 24 of 25 images"):
        reading.read("ours", dataset, 1, 1, images=25)


def test_a_reader_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"holds no dataset\.json"):
        reading.read("ours", tmp_path, 1)


def a_row(ours: float, webdataset: float, mosaic: float, litdata: float) -> reading.Row:
    times = {"ours": ours, "webdataset": webdataset, "mosaicml-streaming": mosaic, "litdata": litdata}
    return reading.Row(1, "first", {name: [one] * 3 for name, one in times.items()})


def test_every_bar_is_held() -> None:
    good = {1: (100, 105), 2: (200, 200)}
    assert reading.missed([a_row(1.0, 1.0, 1.1, 0.1)], good) == []
    (slow,) = reading.missed([a_row(1.0, 0.9, 1.1, 0.1)], good)
    assert "ours / webdataset 0.900, wanted 1.0" in slow
    (behind,) = reading.missed([a_row(1.0, 1.0, 0.9, 0.8)], good)
    assert "the slower rival 0.900" in behind
    (grown,) = reading.missed([a_row(1.0, 1.0, 1.1, 0.1)], {1: (100, 111)})
    assert "memory grows 1.110 times" in grown


def test_rivals_that_cannot_be_had_are_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 'ERROR: No matching distribution found' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(reading_rivals, "PLACE", tmp_path)
    missing = reading_rivals.make()
    assert missing == dict.fromkeys(reading_rivals.RIVALS, "ERROR: No matching distribution found")
    row = reading.Row(1, "first", {"ours": [1.0], "ours, columns": [1.0], "webdataset": [1.0]})
    table = reading.table([row], missing)
    assert "litdata is skipped: ERROR: No matching distribution" in str(table.caption)
    assert reading.missed([row], {}) == ["no rival could be measured"], (
        "a bar that was not measured is not met"
    )
