"""The join of a skew sidecar to the records, against the same by hand; the same answers on any number of threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_world import AXES, ENVIRONMENT, HEADER, RECIPE, fill, plan_rows, shard_samples, start

from flows.report import write_report
from storage import (
    CounterpoiseError,
    create_dataset,
    finish_dataset,
    load_dataset,
    publish_shard,
)
from storage.card import dataset_card
from storage.errors import SideFileBad
from storage.metadata import shortfalls, table, yield_by_concept
from storage.query import connect, open_records
from storage.sidecar import read_sidecar, sidecars
from storage.skewed import join_skew

NAME = "skew/model-0123456789ab-1.parquet"
STRANGERS = (
    "other-00",
    "chef_0000-99",
    "chef_0000-06",
    "chef_0000-+1",
    "chef_0000-1",
    "chef_0000_01",
    "-01",
    "é",
    "",
)
SCHEMA = pa.schema(
    {"key": pa.string(), "skew": pa.float64(), "weight": pa.float64(), "multiplicity": pa.int32()}
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("skewed") / "d[1]"
    fill(path)
    finish_dataset(path)
    (path / "skew").mkdir()
    return path


@pytest.fixture(scope="module")
def kept(dataset: Path) -> list[dict[str, Any]]:
    """Key, concept and values of every kept image."""
    found = table(dataset).filter("kept").project(f"key, concept, {', '.join(AXES)}")
    return [dict(zip(found.columns, row, strict=True)) for row in found.order("key").fetchall()]


def write(dataset: Path, rows: Sequence[tuple[str, float | None, int]], schema: pa.Schema = SCHEMA) -> None:
    facts = [{"key": k, "skew": s, "weight": 1.0, "multiplicity": m} for k, s, m in rows]
    pq.write_table(pa.Table.from_pylist(facts, schema=schema), dataset / NAME)


def by_hand(kept: list[dict[str, Any]], rows: Sequence[tuple[str, float | None, int]]) -> dict[str, Any]:
    """What the join has to say, with exact sums."""
    known = {key: (skew, count) for key, skew, count in rows}
    found = [known[row["key"]] for row in kept if row["key"] in known]
    skews = [skew for skew, _ in found if skew is not None]
    summable = all(abs(skew) < 1e6 for skew in skews)
    return {
        "images": len(kept),
        "with_skew": len(skews),
        "mean_skew": math.fsum(skews) / len(skews) if skews and summable else None,
        "negative": sum(skew < 0 for skew in skews) / len(skews) if skews else None,
        "zero": sum(skew == 0 for skew in skews) / len(skews) if skews else None,
        "positive": sum(skew > 0 for skew in skews) / len(skews) if skews else None,
        "multiplicity": sum(count for _, count in found),
    }


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    mean, hand = found["mean_skew"], wanted["mean_skew"]
    near = mean == hand if hand is None or mean is None else abs(mean - hand) < 1e-9
    return near and all(found[name] == value for name, value in wanted.items() if name != "mean_skew")


@settings(max_examples=25)
@given(data=st.data())
def test_the_join_is_what_python_counts(
    dataset: Path, kept: list[dict[str, Any]], data: st.DataObject
) -> None:
    number = st.one_of(st.floats(-30, 30), st.just(0.0), st.just(-1e300))
    chosen = data.draw(st.lists(st.sampled_from(range(len(kept) + len(STRANGERS))), unique=True))
    keys = [*(row["key"] for row in kept), *STRANGERS]
    rows = [(keys[place], data.draw(number), data.draw(st.integers(0, 9))) for place in chosen]
    write(dataset, rows)
    found = join_skew(dataset, NAME)
    assert same(found.total, by_hand(kept, rows))
    concepts = sorted({row["concept"] for row in kept})
    places = [(c, axis, value) for c in concepts for axis, values in AXES.items() for value in values]
    assert [(row["concept"], row["axis"], row["value"]) for row in found.values] == places
    for row, (concept, axis, value) in zip(found.values, places, strict=True):
        part = [one for one in kept if one["concept"] == concept and one[axis] == value]
        assert same(row, by_hand(part, rows))
    assert found.unknown == sum(place >= len(kept) for place in chosen)


def test_threads_and_the_order_of_rows_do_not_touch_the_answer(
    dataset: Path, kept: list[dict[str, Any]]
) -> None:
    rows = [(row["key"], (-1) ** n / (n + 3) ** 7, n) for n, row in enumerate(kept)]
    answers = []
    for threads, given_rows in ((1, rows), (2, rows[::-1]), (4, rows[5:] + rows[:5])):
        write(dataset, given_rows)
        with open_records(dataset, threads) as records:
            answers.append(join_skew(records, NAME))
            assert join_skew(records, NAME) == answers[-1], "a second question is answered alike"
    assert answers[0] == answers[1] == answers[2]


def test_a_key_that_is_named_twice_is_refused(dataset: Path, kept: list[dict[str, Any]]) -> None:
    write(dataset, [(kept[0]["key"], 1.0, 1), (kept[0]["key"], 1.0, 1)])
    with pytest.raises(CounterpoiseError, match="1 keys are there twice"):
        join_skew(dataset, NAME)
    write(dataset, [*((row["key"], 1.0, 1) for row in kept), (kept[20]["key"], 1.0, 1)])
    with pytest.raises(CounterpoiseError, match="1 keys are there twice"):
        join_skew(dataset, NAME)
    write(dataset, [("nobody-00", 1.0, 1)] * 3)
    for ask in (join_skew, read_sidecar):
        with pytest.raises(SideFileBad, match="2 keys are there twice"):
            ask(dataset, NAME)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (
            pa.schema({"key": pa.string(), "multiplicity": pa.int32()}),
            "one column 'skew' is wanted",
        ),
        (
            pa.schema({**dict(zip(SCHEMA.names, SCHEMA.types, strict=True)), "key": pa.int64()}),
            "'key' is int64, string is wanted",
        ),
    ],
)
def test_another_parquet_is_refused(dataset: Path, schema: pa.Schema, words: str) -> None:
    pq.write_table(schema.empty_table(), dataset / NAME)
    for ask in (join_skew, read_sidecar):
        with pytest.raises(SideFileBad, match=words):
            ask(dataset, NAME)


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_both_readers_refuse_the_same(dataset: Path, value: float | None) -> None:
    write(dataset, [("chef_0000-00", value, 1)])
    (dataset / "skew/strange.parquet").write_bytes((dataset / NAME).read_bytes())
    for ask in (join_skew, read_sidecar):
        with pytest.raises(SideFileBad, match=r"finite number is wanted|nulls"):
            ask(dataset, NAME)
        with pytest.raises(SideFileBad, match="a name inside the dataset is wanted"):
            ask(dataset, "skew/strange.parquet")
    (dataset / "skew/strange.parquet").unlink()


def test_a_damaged_or_missing_sidecar_is_refused(dataset: Path, kept: list[dict[str, Any]]) -> None:
    write(dataset, [(row["key"], 0.5, 1) for row in kept])
    content = (dataset / NAME).read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        (dataset / NAME).write_bytes(content[:cut])
        with pytest.raises(SideFileBad, match="is damaged"):
            join_skew(dataset, NAME)
    with pytest.raises(SideFileBad, match="is missing"):
        join_skew(dataset, "skew/none-0123456789ab-0.parquet")


def test_the_sidecars_are_those_of_the_folder(dataset: Path, tmp_path: Path) -> None:
    start(tmp_path)
    assert sidecars(tmp_path) == []
    write(dataset, [])
    (dataset / "skew/model.json").write_text("{}")
    assert sidecars(dataset) == [NAME]


def test_axes_may_have_the_names_of_sums(tmp_path: Path) -> None:
    axes = {"images": AXES["gender"], "value": AXES["race"]}
    create_dataset(tmp_path, {**HEADER, "axes": axes}, plan_rows())
    samples = [
        replace(s, attributes=dict(zip(axes, s.attributes.values(), strict=True))) for s in shard_samples(0)
    ]
    publish_shard(tmp_path, 0, samples, list(axes), RECIPE, ENVIRONMENT)
    (tmp_path / "skew").mkdir()
    write(tmp_path, [("chef_0000-00", 0.5, 1)])
    rows = join_skew(tmp_path, NAME).values
    assert [(r["axis"], r["value"]) for r in rows if r["with_skew"]] == [
        ("images", "woman"),
        ("value", "Asian"),
    ]


def test_nothing_kept_has_no_skew(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / "skew").mkdir()
    write(tmp_path, [("nobody-00", 1.0, 1)])
    found = join_skew(tmp_path, NAME)
    assert (found.total["images"], found.total["with_skew"], found.total["mean_skew"]) == (0, 0, None)
    assert (found.values, found.unknown) == ([], 1)


def test_report_and_card_tell_it(dataset: Path, kept: list[dict[str, Any]]) -> None:
    write(
        dataset,
        [*((row["key"], -0.5 if row["gender"] == "man" else 0.25, 2) for row in kept), ("nobody-00", 1.0, 1)],
    )
    page = Path(write_report(str(dataset))).read_text("utf-8")
    assert 'href="#skew"' in page and NAME in page and "1 rows of the sidecar are of no kept image." in page
    assert (
        '<td>gender</td><td>man</td><td class="n">9</td><td class="n">9</td><td class="n">-0.5</td>' in page
    )
    with open_records(dataset) as records:
        parts = (yield_by_concept(records), shortfalls(records), {"id": "x"})
        card = dataset_card(load_dataset(dataset), *parts, skews=[join_skew(records, NAME)])
    assert f"| {NAME} | 36 | 36 | -0.125 | 50% | 0% | 50% |" in card
    assert "Instance skew" not in dataset_card(load_dataset(dataset), *parts)


def test_a_question_too_large_for_the_memory_is_one_line(dataset: Path) -> None:
    with open_records(dataset, memory="10MB") as records:
        records.connection.execute("SET max_temp_directory_size = '0KB'")
        with pytest.raises(CounterpoiseError, match=r"does not fit .* set TMPDIR") as caught:
            records.ask("SELECT count(*) FROM (SELECT DISTINCT hash(range) || 'padding' FROM range(5000000))")
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_spilled_to_a_folder_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with connect(threads=2, memory="60MB") as connection:
        asked = "SELECT count(*) FROM (SELECT range::VARCHAR || 'long enough to be kept apart' AS a FROM range(800000)) x"
        asked += " JOIN (SELECT range::VARCHAR || 'long enough to be kept apart' AS a FROM range(800000)) y USING (a)"
        assert connection.sql(asked).fetchall() == [(800000,)]
        assert len(list(tmp_path.iterdir())) == 1, "it did not fit"
    assert list(tmp_path.iterdir()) == []
