"""Verdicts and skew sidecars: what they change in what is handed out, and what is refused in them."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from stream_world import keys, make

from storage import CounterpoiseError, DatasetMismatch, load_dataset
from storage.order import Order
from storage.selection import select
from storage.sidecar import MAX_MULTIPLICITY, read_sidecar, sidecar_name, write_sidecar
from storage.skewed import join_skew
from storage.stream import stream
from storage.verdicts import rejected_sets, verdict_name, write_verdicts
from storage.verify import verify

NAME = sidecar_name("llava-1.5", "ab" * 32, 0)
CELLS = 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("whole"), 4, 2)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make(tmp_path, 2, 2)


def handed_out(dataset: Path, **options: Any) -> Counter[str]:
    return Counter(keys(dataset, None, skew=NAME, **options))


def test_a_sidecar_of_another_dataset_is_refused(dataset: Path, tmp_path: Path) -> None:
    """Its keys are the same: set ids repeat from one dataset to the next."""
    other = make(tmp_path / "other", 1, 2)
    names = keys(dataset, None)
    write_sidecar(other, NAME, names, [0.5] * len(names))
    (dataset / "skew").mkdir()
    (dataset / NAME).write_bytes((other / NAME).read_bytes())
    words = f"{NAME}: it was written for dataset {load_dataset(other).dataset_id[:12]}"
    for read in (
        lambda: read_sidecar(dataset, NAME),
        lambda: join_skew(dataset, NAME),
        lambda: handed_out(dataset),
    ):
        with pytest.raises(CounterpoiseError, match=words):
            read()
    assert [words in line for line in verify(dataset)] == [True]
    pq.write_table(pq.read_table(dataset / NAME).replace_schema_metadata({}), dataset / NAME)
    assert read_sidecar(dataset, NAME).table.num_rows == len(names), "other tools name no dataset"


# Verdicts


def test_a_set_that_any_file_rejects_is_not_handed_out(dataset: Path) -> None:
    every = set(keys(dataset, None))
    assert rejected_sets(dataset) == {}
    write_verdicts(
        dataset, "ann", [("science_0001", "reject", "a second person"), ("chef_0000", "accept", None)]
    )
    path = write_verdicts(
        dataset, "refilter", [("science_0001", "accept", None), ("chef_0002", "reject", None)]
    )
    assert path == str(dataset / "verdicts/refilter.parquet")
    assert rejected_sets(dataset) == {
        "chef_0002": "refilter: no reason given", "science_0001": "ann: a second person",
    }  # fmt: skip
    left = set(keys(dataset, None))
    assert {key.rpartition("-")[0] for key in left} == {"chef_0000", "science_0003"}
    assert set(keys(dataset, None, verdicts=False)) == every
    assert verify(dataset) == [], "shards are as they were"
    write_verdicts(dataset, "ann", [(name, "reject", "no") for name in ("chef_0000", "science_0003")])
    write_verdicts(dataset, "bob", [("science_0001", "reject", "no")])
    with pytest.raises(CounterpoiseError, match="the verdicts reject every set"):
        stream(dataset)


def test_a_rejected_set_leaves_the_order_of_the_others(whole: Path, tmp_path: Path) -> None:
    dataset = make(tmp_path, 4, 2)
    assert keys(dataset, None) == keys(whole, None)
    write_verdicts(dataset, "ann", [("chef_0002", "reject", "no")])
    assert keys(dataset, None) == [key for key in keys(whole, None) if not key.startswith("chef_0002")]


def test_verdicts_have_the_same_bytes_whatever_their_order(dataset: Path) -> None:
    rows: list[tuple[str, str, str | None]] = [("a", "accept", None), ("b", "reject", "no")]
    first = Path(write_verdicts(dataset, "ann", rows)).read_bytes()
    assert Path(write_verdicts(dataset, "bob", rows[::-1])).read_bytes() == first


def test_verdicts_of_other_writers_are_read(dataset: Path) -> None:
    """Polars and newer pandas write large strings; a review may have columns of its own, or no reasons at all."""
    folder = dataset / "verdicts"
    folder.mkdir()
    large = pa.large_string()
    table = pa.table({
        "set_id": pa.array(["chef_0000", "chef_0002"], large), "verdict": pa.array(["reject", "accept"], large),
        "reason": pa.nulls(2), "stars": [1, 5],
    })  # fmt: skip
    pq.write_table(table, folder / "ann.parquet")
    pq.write_table(pa.table({"set_id": ["chef_0002"], "verdict": ["reject"]}), folder / "bob.parquet")
    (folder / "notes.txt").write_text("not a table")
    assert set(rejected_sets(dataset)) == {"chef_0000", "chef_0002"}


SET, YES = ["chef_0000"], ["accept"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"set": SET, "verdict": YES}, "one column 'set_id' is wanted, its columns are set, verdict"),
        ({"set_id": SET}, "one column 'verdict' is wanted"),
        ({"set_id": [1], "verdict": YES}, "column 'set_id' is int64, string is wanted"),
        ({"set_id": SET, "verdict": [True]}, "column 'verdict' is bool"),
        ({"set_id": [None], "verdict": YES}, "column 'set_id' is null"),
        ({"set_id": [None, "a"], "verdict": YES * 2}, "column 'set_id' has 1 nulls"),
        ({"set_id": SET, "verdict": ["rejected"]}, "holds 'rejected', 'accept' or 'reject' is wanted"),
        ({"set_id": SET, "verdict": ["Reject"]}, "holds 'Reject'"),
        ({"set_id": SET * 2, "verdict": ["accept", "reject"]}, "1 sets are named twice"),
        ({"set_id": SET, "verdict": YES, "reason": [3]}, "column 'reason' is int64"),
    ],
)
def test_a_bad_file_of_verdicts_is_one_clear_line(dataset: Path, columns: dict[str, Any], words: str) -> None:
    (dataset / "verdicts").mkdir()
    pq.write_table(pa.table(columns), dataset / "verdicts/ann.parquet")
    with pytest.raises(CounterpoiseError) as caught:
        stream(dataset)
    text = str(caught.value)
    assert words in text and "ann.parquet" in text and "move it out" in text and "\n" not in text
    assert keys(dataset, None, verdicts=False)


def test_verdicts_that_are_no_parquet_are_one_clear_line(dataset: Path) -> None:
    write_verdicts(dataset, "ann", [("chef_0000", "reject", "no")])
    path = dataset / "verdicts/ann.parquet"
    content = path.read_bytes()
    for other in (b"", b"set_id,verdict\n", content[:-20], content[:200], content[:-1] + b"X"):
        path.write_bytes(other)
        with pytest.raises(CounterpoiseError, match=r"ann\.parquet is damaged") as caught:
            stream(dataset)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reviewer", ["", "../ann", "a/b", ".hidden", "x" * 101])
def test_a_reviewer_has_a_name_that_can_be_a_files(dataset: Path, reviewer: str) -> None:
    with pytest.raises(CounterpoiseError, match="reviewer"):
        write_verdicts(dataset, reviewer, [])
    assert verdict_name("ann.b-2") == "verdicts/ann.b-2.parquet"


def test_bad_verdicts_are_not_written(dataset: Path) -> None:
    for rows in ([("a", "maybe", None)], [("a", "accept", None), ("a", "reject", None)]):
        with pytest.raises(CounterpoiseError):
            write_verdicts(dataset, "ann", rows)
    assert not (dataset / "verdicts").exists()


# Skew


def test_skew_weight_and_copies_are_joined_by_key(dataset: Path) -> None:
    names = sorted(keys(dataset, None), reverse=True)
    skew = {key: i / 7 - 1 for i, key in enumerate(names)}
    values = list(skew.values())
    write_sidecar(dataset, NAME, names, values, [i / 2 for i in range(24)], [i % 4 for i in range(24)])
    for keep_sets in (True, False):
        found = list(stream(dataset, skew=NAME, keep_sets=keep_sets))
        counts = Counter(item["key"] for item in found)
        assert counts == Counter({key: i % 4 for i, key in enumerate(names) if i % 4})
        for item in found:
            place = names.index(item["key"])
            assert (item["skew"], item["weight"]) == (values[place], place / 2)
        copies = sorted((item["key"], item["copy"]) for item in found)
        assert copies == sorted((key, copy) for i, key in enumerate(names) for copy in range(i % 4))


def test_weight_and_multiplicity_are_one_where_the_sidecar_has_none(dataset: Path) -> None:
    names = keys(dataset, None)
    write_sidecar(dataset, NAME, names, np.linspace(-1, 1, len(names)))
    assert pq.read_schema(dataset / NAME).names == ["key", "skew"]
    found = list(stream(dataset, skew=NAME))
    assert [item["key"] for item in found] == names, "the order is that without a sidecar"
    assert {(item["weight"], item["copy"]) for item in found} == {(1.0, 0)}
    assert {item["key"]: item["skew"] for item in found} == dict(
        zip(names, np.linspace(-1, 1, 24), strict=True)
    )


def test_a_copy_of_a_set_has_the_images_that_have_so_many_copies(dataset: Path) -> None:
    names = sorted(keys(dataset, None))
    counts = [0, 1, 2, 3, 1, 1] + [0] * 6 + [1] * 6 + [2] * 6
    write_sidecar(dataset, NAME, names, [0.0] * 24, multiplicity=counts)
    found = list(stream(dataset, skew=NAME, batch_size=1).batches())
    units = Counter((batch[0]["set_id"], tuple(item["member"] for item in batch)) for batch in found)
    everyone = tuple(range(CELLS))
    assert units == {
        ("chef_0000", (1, 2, 3, 4, 5)): 1, ("chef_0000", (2, 3)): 1, ("chef_0000", (3,)): 1,
        ("science_0001", everyone): 1, ("science_0003", everyone): 2,
    }  # fmt: skip


def test_copies_are_placed_independently(whole: Path, tmp_path: Path) -> None:
    """The distance between two copies is that of two places drawn at random."""
    dataset = make(tmp_path, 12, 2)
    names = keys(dataset, None)
    write_sidecar(dataset, NAME, names, [0.0] * len(names), multiplicity=[2] * len(names))
    chosen, total = select(dataset, skew=NAME), 2 * len(names)
    distances: list[int] = []
    for epoch in range(60):
        places: dict[tuple[int, int], list[int]] = {}
        for units in Order(chosen, 0, epoch, sets=False, shuffle=True, window=3).windows(0, total):
            for part, unit, place in zip(units.part, units.unit, units.position, strict=True):
                places.setdefault((int(part), int(unit)), []).append(int(place))
        assert len(places) == len(names) and {len(each) for each in places.values()} == {2}
        distances += [abs(first - second) for first, second in places.values()]
    assert np.mean(distances) == pytest.approx((total + 1) / 3, rel=0.1)
    assert np.mean(np.array(distances) == 1) < 0.03
    assert handed_out(dataset, keep_sets=False) == dict.fromkeys(names, 2)


def test_without_shuffle_copies_are_next_to_each_other(dataset: Path) -> None:
    names = keys(dataset, None, shuffle=False)
    write_sidecar(dataset, NAME, names, [0.0] * 24, multiplicity=[1, 2, 0] * 8)
    found = keys(dataset, None, skew=NAME, shuffle=False, keep_sets=False)
    assert found == [key for key, count in zip(names, [1, 2, 0] * 8, strict=True) for _ in range(count)]


@hypothesis_settings(max_examples=12)
@given(
    counts=st.lists(st.integers(0, 3), min_size=48, max_size=48).filter(any),
    ranks=st.integers(1, 3), workers=st.integers(1, 3), size=st.integers(1, 4), keep=st.booleans(),
    window=st.integers(1, 5),
)  # fmt: skip
def test_copies_are_dealt_whole(
    whole: Path, counts: list[int], ranks: int, workers: int, size: int, keep: bool, window: int
) -> None:
    """Over ranks and workers every image is there as often as it should be, up to what does not divide."""
    names = sorted(keys(whole, None))
    write_sidecar(whole, NAME, names, [0.0] * 48, multiplicity=counts)
    options: dict[str, Any] = {"batch_size": size, "keep_sets": keep, "window": window, "world_size": ranks}
    units = sum(max(counts[i : i + 6]) for i in range(0, 48, 6)) if keep else sum(counts)
    if units < ranks:
        return
    found: Counter[str] = Counter()
    for rank, worker in itertools.product(range(ranks), range(workers)):
        found += handed_out(whole, rank=rank, worker=worker, workers=workers, **options)
    wanted = Counter(dict(zip(names, counts, strict=True)))
    assert not found - wanted
    assert (wanted - found).total() <= units % ranks * (6 if keep else 1)
    if units % ranks == 0:
        assert found == +wanted


def test_missing_keys_are_counted_for_the_split_alone(dataset: Path) -> None:
    names = keys(dataset, None)
    write_sidecar(dataset, NAME, [*names[3:], "stranger-00"], [0.0] * 22)
    with pytest.raises(CounterpoiseError, match="3 of 24 images to be handed out have no skew") as caught:
        stream(dataset, skew=NAME)
    assert "\n" not in str(caught.value) and any(key in str(caught.value) for key in names[:3])
    train = keys(make(dataset.parent / f"{dataset.name}-more", 3, 2), "train")
    more = dataset.parent / f"{dataset.name}-more"
    write_sidecar(more, NAME, train, [0.0] * len(train))
    assert sorted(keys(more, "train", skew=NAME)) == sorted(train), "a sidecar of one split is enough for it"
    with pytest.raises(CounterpoiseError, match="6 of 36 images"):
        stream(more, skew=NAME)


def test_rejected_sets_need_no_skew(dataset: Path) -> None:
    names = [key for key in keys(dataset, None) if not key.startswith("chef_0002")]
    write_sidecar(dataset, NAME, names, [0.0] * len(names))
    write_verdicts(dataset, "ann", [("chef_0002", "reject", "no")])
    assert sorted(keys(dataset, None, skew=NAME)) == sorted(names)


def test_nothing_left_is_an_error(dataset: Path) -> None:
    names = keys(dataset, None)
    write_sidecar(dataset, NAME, names, [0.0] * 24, multiplicity=[0] * 24)
    with pytest.raises(CounterpoiseError, match="every image has multiplicity 0"):
        stream(dataset, skew=NAME)


def test_a_state_of_another_sidecar_is_refused(dataset: Path) -> None:
    names = keys(dataset, None)
    write_sidecar(dataset, NAME, names, [0.0] * 24)
    state = stream(dataset, skew=NAME).state()
    assert stream(dataset, skew=NAME, state=state).state() == state
    write_sidecar(dataset, NAME, names, [0.1] * 24)
    for skew in (NAME, None):
        with pytest.raises(DatasetMismatch, match="skew_sha256"):
            stream(dataset, skew=skew, state=state)


def test_a_sidecar_has_the_same_bytes_whatever_the_order(dataset: Path) -> None:
    names = keys(dataset, None)
    values = np.linspace(-2, 2, 24)
    write_sidecar(dataset, NAME, names, values, values**2, np.arange(24))
    first = (dataset / NAME).read_bytes()
    write_sidecar(dataset, NAME, names[::-1], values[::-1], (values**2)[::-1], np.arange(24)[::-1])
    assert (dataset / NAME).read_bytes() == first
    found = read_sidecar(dataset, NAME)
    assert found.table["key"].to_pylist() == sorted(names) and found.name == NAME
    assert str(found.table.schema.field("multiplicity").type) == "int32"
    assert load_dataset(dataset).root_sha256 and verify(dataset) == []


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"skew": [0.0]}, "one column 'key' is wanted"),
        ({"key": ["a"]}, "one column 'skew' is wanted"),
        ({"key": ["a"], "skew": [1]}, "column 'skew' is int64, double is wanted"),
        ({"key": ["a"], "skew": ["1"]}, "column 'skew' is string"),
        ({"key": [1], "skew": [0.0]}, "column 'key' is int64"),
        ({"key": ["a"], "skew": [None]}, "column 'skew' is null"),
        ({"key": ["a", "b"], "skew": [None, 1.0]}, "column 'skew' has 1 nulls"),
        ({"key": ["a"], "skew": [float("nan")]}, "skew of 'a' is nan, a finite number is wanted"),
        ({"key": ["a"], "skew": [float("-inf")]}, "skew of 'a' is -inf"),
        ({"key": ["a", "a"], "skew": [0.0, 0.0]}, "1 keys are there twice"),
        ({"key": ["a"], "skew": [0.0], "weight": [-0.1]}, "weight of 'a' is -0.1, a finite number from 0"),
        ({"key": ["a"], "skew": [0.0], "weight": [float("inf")]}, "weight of 'a' is inf"),
        (
            {"key": ["a"], "skew": [0.0], "multiplicity": [1]},
            "column 'multiplicity' is int64, int32 is wanted",
        ),
        (
            {"key": ["a"], "skew": [0.0], "multiplicity": pa.array([-1], pa.int32())},
            "multiplicity of 'a' is -1, 0 to 1000 is wanted",
        ),
        (
            {"key": ["a"], "skew": [0.0], "multiplicity": pa.array([1001], pa.int32())},
            "multiplicity of 'a' is 1001",
        ),
    ],
)
def test_a_bad_sidecar_is_one_clear_line(dataset: Path, columns: dict[str, Any], words: str) -> None:
    (dataset / "skew").mkdir()
    pq.write_table(pa.table(columns), dataset / NAME)
    with pytest.raises(CounterpoiseError) as caught:
        stream(dataset, skew=NAME)
    text = str(caught.value)
    assert words in text and NAME in text and "write the sidecar again" in text and "\n" not in text


def test_a_sidecar_that_is_not_there_names_those_that_are(dataset: Path) -> None:
    with pytest.raises(CounterpoiseError, match="is missing; sidecars there: none"):
        stream(dataset, skew=NAME)
    write_sidecar(dataset, NAME, ["a"], [0.0])
    other = NAME.replace("-0.parquet", "-1.parquet")
    with pytest.raises(CounterpoiseError, match=f"sidecars there: {NAME}"):
        stream(dataset, skew=other)
    for name in ("../x.parquet", "skew/x.parquet", "/etc/passwd", f"skew/../{NAME}", ""):
        with pytest.raises(CounterpoiseError, match="a name inside the dataset is wanted"):
            stream(dataset, skew=name)


def test_bad_values_are_not_written(dataset: Path) -> None:
    bad: list[tuple[list[Any], list[Any], dict[str, Any]]] = [
        (["a"], [], {}),
        (["a", "a"], [0.0, 1.0], {}),
        (["a"], [float("inf")], {}),
        (["a"], [0.0], {"weight": [-1.0]}),
        (["a"], [0.0], {"weight": [float("nan")]}),
        (["a"], [0.0], {"multiplicity": [MAX_MULTIPLICITY + 1]}),
        (["a"], [0.0], {"multiplicity": [2**40]}),
        (["a"], [0.0], {"multiplicity": [0.5]}),
        ([None], [0.0], {}),
        ([1], [0.0], {}),
        (["a"], ["x"], {}),
    ]
    for names, values, options in bad:
        with pytest.raises(CounterpoiseError) as caught:
            write_sidecar(dataset, NAME, names, values, **options)
        assert "\n" not in str(caught.value)
    for parts in (
        ("", "ab" * 32, 0),
        ("a/b", "ab" * 32, 0),
        ("A", "ab" * 32, 0),
        ("a", "xyz", 0),
        ("a", "ab" * 32, -1),
    ):
        with pytest.raises(CounterpoiseError, match="cannot be a sidecar's name"):
            sidecar_name(*parts)
    assert not (dataset / "skew").exists()
