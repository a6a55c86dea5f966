"""Instance skew and its sidecar: what is looked up, what is written, and tables that do not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from storage_world import AXES, CELLS, CONCEPTS
from stream_world import make

from debias.instance import Instances, dataset_concepts, instance_skew, require_same, write_skew
from debias.predictions import predictions_from
from debias.sampling import copies_of
from debias.skew import SkewTable, skew_table_from
from debias.skew_formula import shrunk
from debias.skew_json import from_json
from storage import CounterpoiseError
from storage.sidecar import read_sidecar
from storage.stream import stream
from storage.verify import verify

HASH = "ab" * 32
AXIS_NAMES = ("gender", "race", "gender*race")


def table_of(
    *axes: str,
    women: float = 0.3,
    concepts: tuple[str, ...] = CONCEPTS,
    rows: int = 50,
    smoothing: float = 0.5,
    **changes: str,
) -> SkewTable:
    """A model that gives chef to women more seldom; `changes` rename values."""
    said, gender, race = [], [], []
    for cell in CELLS:
        for number in range(rows):
            seldom = cell["gender"] == "woman" and number >= women * rows
            said.append(concepts[1] if seldom or number % 3 == 0 else concepts[0])
            gender.append(changes.get(cell["gender"], cell["gender"]))
            race.append(changes.get(cell["race"], cell["race"]))
    given = predictions_from(said, {"gender": gender, "race": race}, concepts=concepts)
    return skew_table_from(given, axes or None, draws=50, permutations=1, smoothing=smoothing)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("data") / "set", 2, 3)


def looked_up(table: SkewTable, **more: bool) -> Instances:
    rows = [(concept, cell) for concept in CONCEPTS for cell in CELLS]
    values = {axis: [cell[axis] for _, cell in rows] for axis in AXES}
    return instance_skew(table, [concept for concept, _ in rows], values, **more)


def test_the_largest_magnitude_over_the_axes_with_its_sign() -> None:
    table = table_of(*AXIS_NAMES)
    found = looked_up(table)
    place = 0
    for concept in CONCEPTS:
        for cell in CELLS:
            several = []
            for axis in AXIS_NAMES:
                one = table.axes[axis]
                value = "*".join(cell[part] for part in axis.split("*"))
                several.append(one.skew[one.concepts.index(concept), one.values.index(value)])
            assert found.skew[place] == max(several, key=abs)
            place += 1
    assert found.dropped == 0
    chef = found.skew[: len(CELLS)]
    assert (chef[:3] < 0).all() and (chef[3:] > 0).all()


def test_of_two_as_large_the_first_axis_counts() -> None:
    table = table_of("race", "gender", women=1.0)
    assert looked_up(table).skew == pytest.approx(np.zeros(12), abs=0.02)
    one = table_of("gender")
    again = from_json_with_sign(one, -1)
    both = SkewTable({"a": again.axes["gender"], "b": one.axes["gender"]}, *rest(one))
    assert looked_up(both).skew.tolist() == (-looked_up(one).skew).tolist()


def rest(table: SkewTable) -> tuple[object, ...]:
    names = ("smoothing", "target", "min_count", "seed", "rows", "sets", "answers", "warnings")
    return tuple(getattr(table, name) for name in names)


def from_json_with_sign(table: SkewTable, sign: int) -> SkewTable:
    from debias.skew_json import to_json

    body = json.loads(to_json(table))
    for one in body["axes"].values():
        for cell in one["cells"]:
            cell["skew"] *= sign
    return from_json(json.dumps(body))


def test_a_dropped_concept_counts_as_zero_and_is_counted() -> None:
    given = predictions_from(
        ["chef"] * 80 + ["science"] * 4, {"gender": ["woman", "man", "man"] * 28}, concepts=CONCEPTS
    )
    table = skew_table_from(given, draws=2, permutations=1)
    found = instance_skew(table, ["chef", "science", "science"], {"gender": ["man", "man", "woman"]})
    assert found.skew[0] > 0 and found.skew[1:].tolist() == [0.0, 0.0] and found.dropped == 2


def test_shrinking_is_of_the_cells() -> None:
    table = table_of("gender")
    one = table.axes["gender"]
    expected = shrunk(one.skew, one.low, one.high)[0, one.values.index("woman")]
    found = instance_skew(table, pa.array(["chef"]), {"gender": pa.chunked_array([["woman"]])}, shrink=True)
    assert found.skew == [expected] and abs(expected) < abs(one.skew[0, 1])


def test_noise_is_not_amplified_where_it_is_shrunk() -> None:
    """A fair model of few answers: without shrinking some weights are far from 1, with it hardly any."""
    rng = np.random.default_rng(0)
    off: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(10):
        said = rng.choice(["a", "b", "c"], 600)
        value = np.tile([f"v{k}" for k in range(6)], 100)
        table = skew_table_from(predictions_from(said, {"axis": value}), draws=200, permutations=1)
        for shrink in off:
            skews = instance_skew(table, said, {"axis": value}, shrink=shrink).skew
            off[shrink].append(float(np.mean((np.exp(-skews) - 1) ** 2)))
    assert np.mean(off[True]) < 0.1 * np.mean(off[False])


def test_the_sidecar_holds_what_training_reads(dataset: Path) -> None:
    table = table_of("gender", "race", women=0.05)
    found = write_skew(dataset, table, "llava-1.5", HASH, 3, seed=5)
    assert found.name == f"skew/llava-1.5-{HASH[:12]}-3.parquet"
    sidecar = read_sidecar(dataset, found.name).table
    assert found.images == sidecar.num_rows == 36
    items = {item["key"]: item for item in stream(dataset, skew=found.name)}
    one = table.axes["gender"]
    skews = np.array(sidecar["skew"])
    for key, skew, weight in zip(
        *(sidecar[name].to_pylist() for name in ("key", "skew", "weight")), strict=True
    ):
        if key in items and items[key]["concept"] == "chef":
            assert skew == one.skew[0, one.values.index(items[key]["gender"])]
            assert items[key]["skew"] == skew
        assert weight == pytest.approx(math.exp(-min(2.0, max(-2.0, skew))))
    assert found.clamped == (np.abs(skews) > 2).sum() > 0
    times = copies_of(skews, sidecar["key"].to_pylist(), 5, 3)
    assert sidecar["multiplicity"].to_pylist() == times.tolist() and found.copies == times.sum()
    assert (skews[skews < -2] == skews.min()).any(), "the clamp is of the weight alone"
    beside = json.loads((dataset / found.table).read_text())
    assert from_json((dataset / found.table).read_bytes()).axes["gender"].skew.tolist() == one.skew.tolist()
    assert beside["model"] == {"slug": "llava-1.5", "weights_sha256": HASH, "epoch": 3}
    assert verify(dataset) == []


def test_the_faithful_form_and_the_same_bytes_again(dataset: Path) -> None:
    table = table_of("gender", women=0.05)
    found = write_skew(dataset, table, "m", HASH, 0, clamp=None)
    content = (dataset / found.name).read_bytes(), (dataset / found.table).read_bytes()
    sidecar = read_sidecar(dataset, found.name).table
    assert np.array(sidecar["weight"]) == pytest.approx(np.exp(-np.array(sidecar["skew"])))
    assert found.clamped == 0 and max(sidecar["weight"].to_pylist()) > math.exp(2)
    write_skew(dataset, table, "m", HASH, 0, clamp=None)
    assert ((dataset / found.name).read_bytes(), (dataset / found.table).read_bytes()) == content


def test_an_infinite_skew_is_refused(dataset: Path) -> None:
    table = table_of("gender", women=0.0, smoothing=0.0)
    with pytest.raises(
        CounterpoiseError, match=r"Skew of 'chef' and gender 'woman' is infinite.*smoothing above 0"
    ):
        write_skew(dataset, table, "infinite", HASH, 0)
    assert not list((dataset / "skew").glob("infinite*"))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (table_of(woman="female"), "values of gender: only the skew table has 'female'"),
        (
            table_of("gender*race", Black="Brown"),
            r"values of gender\*race: only the skew table has 'man\*Brown'",
        ),
        (table_of(concepts=("chef", "arts")), "concepts: only the skew table has 'arts'"),
        (table_of(concepts=("chef", "science", "zoo")), "concepts: only the skew table has 'zoo'"),
    ],
)
def test_tables_of_other_datasets_are_refused(dataset: Path, table: SkewTable, words: str) -> None:
    with pytest.raises(CounterpoiseError, match=words):
        write_skew(dataset, table, "other", HASH, 0)


def test_what_only_the_dataset_has_is_refused_too(dataset: Path) -> None:
    axes = {**AXES, "race": (*AXES["race"], "Indian")}
    with pytest.raises(CounterpoiseError, match="values of race: only data has 'Indian'"):
        require_same(table_of("race"), axes, CONCEPTS, "data")
    with pytest.raises(CounterpoiseError, match="concepts: only data has 'zoo'"):
        require_same(table_of("race"), AXES, [*CONCEPTS, "zoo"], "data")
    with pytest.raises(CounterpoiseError, match="axis 'race' is none of data, which has gender"):
        require_same(table_of("race"), {"gender": AXES["gender"]}, CONCEPTS, "data")
    require_same(table_of("race"), AXES, CONCEPTS, "data")
    assert dataset_concepts(dataset) == list(CONCEPTS)


def test_images_that_the_table_does_not_know() -> None:
    table = table_of("gender*race")
    for concept, values, words in (
        ("zoo", {"gender": ["man"], "race": ["White"]}, "concept 'zoo' is not in the skew table"),
        ("chef", {"gender": ["x"], "race": ["White"]}, r"gender\*race 'x\*White' is not in the skew table"),
        ("chef", {"gender": ["man"]}, "axis 'race': given are the images' gender"),
    ):
        with pytest.raises(CounterpoiseError, match=words):
            instance_skew(table, [concept], values)


def test_names_that_cannot_be_a_sidecars(dataset: Path) -> None:
    for slug, weights, epoch in (("A b", HASH, 0), ("m", "xyz", 0), ("m", HASH, -1)):
        with pytest.raises(CounterpoiseError, match="cannot be a sidecar's name"):
            write_skew(dataset, table_of("gender"), slug, weights, epoch)
