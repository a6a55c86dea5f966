"""Other thresholds on the stored scores: verdicts as when generating, honest about what is gone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flows_world import bad_candidates, load, run_all, small
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_world import HEADER, plan_rows, publish, shard_samples

from flows.refilter import VERDICTS, parse_limit, refilter, write_verdicts
from generators.filters import judge, verdict_sql
from generators.spec import Thresholds
from storage import CounterpoiseError, create_dataset, list_shards
from storage.metadata import table
from storage.query import connect
from storage.records import SCORES
from storage.verify import verify


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """clip_text: 0.3 where kept, 0.1 in the first candidate of a chef and in both of a weapon."""
    folder = tmp_path_factory.mktemp("refilter") / "data"
    spec = small()
    run_all(folder, spec, load(bad_candidates(spec, {"chef_0000": 1, "weapon_0001": 2})))
    return str(folder)


def counts(dataset: str, **changes: float | int | None) -> dict[str, tuple[int, int, int, int]]:
    found = refilter(dataset, changes)
    return {name: (one.planned, one.then, one.now, one.again) for name, one in found.tallies.items()}


def test_without_changes_now_is_then(dataset: str) -> None:
    found = refilter(dataset, {})
    assert found.changed == {}
    assert found.again == []
    assert {name: (one.then, one.now) for name, one in found.tallies.items()} == {
        "chef": (2, 2),
        "science": (2, 2),
        "weapon": (1, 1),
    }
    assert [verdict for _, verdict, _ in found.verdicts] == ["accept"] * 5


def test_a_lower_limit_shows_what_would_have_to_be_made_again(dataset: str) -> None:
    found = refilter(dataset, {"clip_text": 0.05})
    assert found.changed == {"clip_text": (0.2, 0.05)}
    assert found.again == ["weapon_0001"], "chef_0000 is kept already, by its second candidate"
    assert counts(dataset, clip_text=0.05)["weapon"] == (2, 1, 1, 1)


def test_no_limit_is_the_lowest(dataset: str) -> None:
    assert counts(dataset, clip_text=None) == counts(dataset, clip_text=-1.0)


def test_a_higher_limit_rejects_with_its_reason(dataset: str) -> None:
    found = refilter(dataset, {"clip_text": 0.35})
    assert {(verdict, reason) for _, verdict, reason in found.verdicts} == {("reject", "clip_text")}
    assert {one.now for one in found.tallies.values()} == {0}


def test_the_stored_verdicts_follow_from_the_stored_scores(dataset: str) -> None:
    kept = {row[0] for row in table(dataset).filter("kept").project("set_id").fetchall()}
    assert {set_id for set_id, _, _ in refilter(dataset, {}).verdicts} == kept


def test_the_verdicts_file_is_read_back(dataset: str) -> None:
    path = write_verdicts(dataset, refilter(dataset, {"clip_base": 0.95}))
    rows = pq.read_table(path).to_pylist()
    assert path.endswith(VERDICTS)
    assert len(rows) == 5
    assert rows[0] == {"set_id": "chef_0000", "verdict": "reject", "reason": "clip_base"}
    assert verify(dataset) == []


def test_an_empty_dataset_has_no_verdicts(tmp_path: Path) -> None:
    spec = small()
    every = dict.fromkeys((f"{name}_{n:04d}" for name in ("chef", "science", "weapon") for n in (0, 1)), 2)
    run_all(tmp_path / "data", spec, load(bad_candidates(spec, every)))
    assert {record.tar for record in list_shards(tmp_path / "data")} == {None}
    found = refilter(str(tmp_path / "data"), {"clip_text": 0.0})
    assert (found.verdicts, len(found.again)) == ([], 6)
    assert pq.read_table(write_verdicts(str(tmp_path / "data"), found)).num_rows == 0


@pytest.mark.parametrize(
    ("name", "text", "value"), [("clip_text", "0.2", 0.2), ("faces", "1", 1), ("nsfw", "OFF", None)]
)
def test_limits_are_parsed(name: str, text: str, value: float | None) -> None:
    found = parse_limit(name, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text"), [("clip_text", "high"), ("clip_text", "nan"), ("faces", "1.5"), ("nsfw", "")]
)
def test_other_limits_are_refused(name: str, text: str) -> None:
    with pytest.raises(CounterpoiseError, match=f"--{name.replace('_', '-')}: given '{text}', wanted a "):
        parse_limit(name, text)


CONNECTION = connect(threads=1)
numbers = st.one_of(st.floats(-1, 1), st.sampled_from([0.1, 0.2, 0.3, math.nan, math.inf]), st.none())
limits = st.one_of(st.floats(-1, 1), st.sampled_from([0.1, 0.2, 0.3]), st.none())
members = st.fixed_dictionaries(
    {
        **{name: numbers for name, kind in SCORES.items() if str(kind) == "double"},
        "attribute_ok": st.one_of(st.booleans(), st.none()),
        "face_count": st.one_of(st.integers(0, 2), st.none()),
    }
)
thresholds = st.builds(
    Thresholds,
    **dict.fromkeys(("clip_text", "clip_base", "clip_direction", "background_change", "nsfw"), limits),
    attribute_share=st.one_of(st.none(), st.floats(0, 1), st.sampled_from([1 / 3, 0.5, 2 / 3])),
    faces=st.one_of(st.none(), st.integers(0, 2)),
)


@settings(max_examples=150)
@given(
    candidates=st.lists(st.lists(members, min_size=1, max_size=6), min_size=1, max_size=8),
    given_limits=thresholds,
)
def test_the_verdict_in_sql_is_the_one_in_python(
    candidates: list[list[dict[str, Any]]], given_limits: Thresholds
) -> None:
    kinds = [pa.field("candidate", pa.int32()), *(pa.field(name, SCORES[name]) for name in candidates[0][0])]
    rows = [{"candidate": n, **row} for n, whole in enumerate(candidates) for row in whole]
    CONNECTION.register("records", pa.Table.from_pylist(rows, schema=pa.schema(kinds)))
    sql = f"SELECT {verdict_sql(given_limits)} FROM records GROUP BY candidate ORDER BY candidate"
    found = [reason for (reason,) in CONNECTION.sql(sql).fetchall()]
    assert found == [judge(whole, given_limits).reason for whole in candidates]


def test_the_share_that_reads_is_judged_alike_at_its_limit() -> None:
    counts = [(read, known) for known in range(1, 8) for read in range(known + 1)]
    rows = [
        {"candidate": n, "attribute_ok": m < read}
        for n, (read, known) in enumerate(counts)
        for m in range(known)
    ]
    CONNECTION.register("records", pa.Table.from_pylist(rows))
    for limit in {read / known for read, known in counts}:
        limits = Thresholds(attribute_share=limit, nsfw=None, faces=None)
        sql = f"SELECT {verdict_sql(limits)} FROM records GROUP BY candidate ORDER BY candidate"
        found = [reason for (reason,) in CONNECTION.sql(sql).fetchall()]
        whole = [[{"attribute_ok": m < read} for m in range(known)] for read, known in counts]
        assert found == [judge(members, limits).reason for members in whole]


def test_previews_are_not_judged_again(tmp_path: Path) -> None:
    limits = {"clip_text": 0.2, "nsfw": 0.5, "faces": None, "attribute_share": None}
    create_dataset(tmp_path, {**HEADER, "recipe": {"thresholds": limits}}, plan_rows())
    for index, reason in enumerate(("preview_clip_text", "clip_text")):
        better = {"scores": {"clip_text": 0.1, "clip_base": 0.99}, "reason": reason}
        publish(tmp_path, index, [s if s.kept else replace(s, **better) for s in shard_samples(index)])
    found = refilter(str(tmp_path), {"clip_text": 0.0, "clip_base": 0.95})
    assert found.again == ["science_0001"], "of science_0000 only a preview was scored"
    assert [verdict[1:] for verdict in found.verdicts] == [("reject", "clip_base")] * 4


def test_a_dataset_without_thresholds_is_refused(tmp_path: Path) -> None:
    create_dataset(tmp_path, {**HEADER, "recipe": {}}, plan_rows())
    with pytest.raises(CounterpoiseError, match="names no thresholds"):
        refilter(str(tmp_path), {})


def test_a_limit_of_a_score_that_nobody_has_is_named(dataset: str) -> None:
    """PreparedScorers give no faces: such a limit keeps everything, and must not look like a check that passed."""
    assert refilter(dataset, {"faces": 2}).unscored == ["faces"]
    assert refilter(dataset, {"clip_text": 0.2, "faces": None}).unscored == []
