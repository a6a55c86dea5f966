"""The benchmarks of the record at small sizes: their data is sound, both sides do the same work, bars are held."""

from __future__ import annotations

import gc
import hashlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import large
import metadata
import publishing
from timing import interval, ratio

from storage import list_shards, load_dataset, read_samples
from storage.metadata import table
from storage.query import open_records
from storage.verify import verify


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "data"
    assert large.make_dataset(path, 4000, 3) == 3 * 28 * 2 * 24
    return path


def test_the_large_dataset_has_the_columns_and_counts_of_a_real_one(dataset: Path) -> None:
    counts = load_dataset(dataset).counts
    found = (
        table(dataset)
        .aggregate("count(*), sum(kept::INT)::INT, count(DISTINCT key) FILTER (kept)")
        .fetchall()
    )
    assert found == [(4032, counts["images"], counts["images"])] and 0 < counts["images"] < 2016
    assert len(list_shards(dataset)) == 3 and load_dataset(dataset).missing == []
    lines = verify(dataset, decode_images=False)
    assert len(lines) == 3 and all("tar's members" in line for line in lines), (
        "its pictures alone are missing"
    )


def test_every_question_is_asked_and_answered(dataset: Path) -> None:
    seconds = metadata.once(dataset, 2)
    assert {metadata.CHECKED, *metadata.HELD} < seconds.keys() and min(seconds.values()) > 0
    with open_records(dataset) as records:
        cells = metadata.yield_by_cell(records)
        skews = metadata.join_skew(records, large.SKEWS)
        again = metadata.refilter(str(dataset), {"clip_text": 0.27})
    assert len(cells) == 24 and {row["tried"] for row in cells} == {3 * 28 * 2}
    assert skews.total["with_skew"] == skews.total["images"] == load_dataset(dataset).counts["images"]
    assert (
        skews.unknown == 0 and sum(one.then for one in again.tallies.values()) * 24 == skews.total["images"]
    )


def test_the_bars_of_metadata() -> None:
    run = dict.fromkeys(metadata.HELD, 3.0)
    assert metadata.missed([({**run, metadata.CHECKED: 99.0}, 10**8)]) == []
    slow, large_one = metadata.missed([({**run, "skew join": 4.1}, 10**9)])
    assert "10.1 s, wanted under 10 s" in slow and "1000 MB, wanted under 1000 MB" in large_one


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_both_ways_of_publishing_store_the_same(tmp_path: Path) -> None:
    shards = [publishing.shard_samples(index, 1, 300) for index in range(2)]
    work = publishing.Work(shards, tmp_path)
    work.timed("ours")
    work.timed("theirs")
    wanted = {s.key: hashlib.sha256(s.image or b"").hexdigest() for samples in shards for s in samples}
    assert verify(tmp_path / "ours") == [] and len(wanted) == 48
    ours = [sample for index in range(2) for sample in read_samples(tmp_path / "ours", index)]
    assert {s.key: hashlib.sha256(s.image or b"").hexdigest() for s in ours} == wanted
    assert dict(publishing.decoded(tmp_path / "theirs")) == wanted
    assert min(*work.cpu["ours"], *work.cpu["theirs"]) > 0
    gc.collect()  # webdataset leaves a file open, which is to be told of here and not later
    assert {round(len(s.image or b""), -2) for s in ours} <= {300, 400, 500}


def test_the_bars_of_publishing() -> None:
    assert publishing.missed({"ours": [1.0, 1.2], "theirs": [0.9, 1.0]}, 0.5) == []
    slow, large_one = publishing.missed({"ours": [1.0, 1.0], "theirs": [0.7, 0.7]}, 4.5)
    assert "0.700 (0.700 to 0.700), wanted 0.8" in slow and "4.5 times" in large_one


def test_intervals_hold_their_median() -> None:
    assert interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert interval([1.0, 2.0, 3.0, 10.0, 2.5]) == (2.5, 1.0, 10.0)
    assert interval(list(range(6))) == (2.5, 0, 5), "31 of 32"
    assert interval(list(range(9))) == (4, 1, 7), "246 of 256"
    assert interval(list(range(61)))[1:] == (22, 38)
    assert ratio([4.0, 4.0], [2.0, 4.0])[0] == 1.5
