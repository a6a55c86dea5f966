from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from storage_world import AXES, HEADER, fill, plan_rows, publish, shard_samples, start

from storage import ShardDamaged, create_dataset, finish_dataset, load_dataset
from storage.card import dataset_card, escape, write_card
from storage.metadata import (
    first_kept,
    kept_among,
    kept_by_concept,
    reasons,
    score_histograms,
    shortfalls,
    table,
    yield_by_cell,
    yield_by_concept,
)
from storage.query import open_records
from storage.verify import verify


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards 0 and 1 of three; in shard 1 the science set found no keeper."""
    path = tmp_path_factory.mktemp("data")
    start(path)
    publish(path, 0)
    lost = [s for s in shard_samples(1) if s.concept == "chef"]
    lost += [
        replace(s, candidate=n, reason=r)
        for s in shard_samples(1)
        if not s.kept
        for n, r in ((0, "nsfw"), (1, "faces"))
    ]
    publish(path, 1, lost)
    finish_dataset(path)
    return path


def test_table_has_every_row_of_the_manifests_only(dataset: Path) -> None:
    records = table(dataset)
    assert records.aggregate("count(*), sum(kept::INT), count(DISTINCT set_id)").fetchall() == [(36, 18, 4)]
    stray = dataset / "shards/00002-0123456789ab.parquet"
    stray.write_bytes(next(dataset.glob("shards/00000-*.parquet")).read_bytes())
    try:
        assert table(dataset).aggregate("count(*)").fetchall() == [(36,)]
    finally:
        stray.unlink()


def test_a_folder_whose_name_is_a_pattern_is_not_one(tmp_path: Path) -> None:
    for name in ("d[1]", "d1"):
        start(tmp_path / name)
        record = publish(tmp_path / name, 0)
    (tmp_path / "d1" / record.parquet.path).write_bytes(b"not a Parquet file")
    assert table(tmp_path / "d[1]").aggregate("count(*)").fetchall() == [(18,)]


def test_yield_by_concept(dataset: Path) -> None:
    chef, science = yield_by_concept(dataset)
    assert chef == {
        "concept_group": "chef_group",
        "concept": "chef",
        "planned": 3,
        "candidates": 2,
        "sets": 2,
        "images": 12,
        "share": 1.0,
    }
    assert (
        science["planned"],
        science["candidates"],
        science["sets"],
        science["images"],
        science["share"],
    ) == (3, 4, 1, 6, 0.25)


def test_shortfalls(dataset: Path, tmp_path: Path) -> None:
    assert shortfalls(dataset) == [
        {"concept": "chef", "planned": 3, "sets": 2, "missing": 1},
        {"concept": "science", "planned": 3, "sets": 1, "missing": 2},
    ]
    fill(tmp_path)
    assert shortfalls(tmp_path) == []


def test_yield_by_cell(dataset: Path) -> None:
    cells = yield_by_cell(dataset)
    assert [(cell["gender"], cell["race"]) for cell in cells] == [
        (g, r) for g in AXES["gender"] for r in AXES["race"]
    ]
    assert all(
        (cell["tried"], cell["kept"], cell["share"], cell["attribute_ok"]) == (6, 3, 0.5, 1.0)
        for cell in cells
    )
    by_concept = yield_by_cell(dataset, by_concept=True)
    assert len(by_concept) == 12 and {(row["concept"], row["kept"]) for row in by_concept} == {
        ("chef", 2),
        ("science", 1),
    }


def test_reasons(dataset: Path) -> None:
    found = [{"reason": name, "candidates": 1} for name in ("clip_text", "faces", "nsfw")]
    assert reasons(dataset) == found


def test_histograms_count_every_computed_score(dataset: Path) -> None:
    found = score_histograms(dataset, bins=4)
    assert set(found) == {"clip_text", "clip_base", "clip_direction", "background_change", "nsfw"}
    text = found["clip_text"]
    assert [row["kept"] + row["rejected"] for row in text] == [18, 0, 0, 18]
    assert (text[0]["rejected"], text[3]["kept"]) == (18, 18)
    assert (text[0]["low"], round(text[3]["high"], 9)) == (0.1, 0.3)
    assert found["clip_base"] == [{"low": 0.9, "high": 1.9, "kept": 12, "rejected": 12}], "one value, one bin"


def test_the_first_kept_sets_come_in_the_order_of_the_plan(dataset: Path, tmp_path: Path) -> None:
    rows = [("chef", "chef_0000", 0), ("chef", "chef_0001", 1), ("science", "science_0000", 0)]
    assert [tuple(row.values()) for row in first_kept(dataset, 5)] == rows
    assert [tuple(row.values()) for row in first_kept(dataset, 1)] == [rows[0], rows[2]]
    sets = {set_id for _, set_id, _ in rows}
    assert first_kept(dataset, 0) == [] and kept_among(dataset, [*sets, "none"]) == sets
    for shards in ((), (0,), (0, 2), (0, 1, 2)):
        wanted = Counter(concept for concept, _, shard in rows if shard in shards)
        assert kept_by_concept(dataset, shards) == wanted
    plan = [{**row, "shard": 2 - row["shard"]} for row in reversed(plan_rows())]
    create_dataset(tmp_path, HEADER, plan)
    publish(tmp_path, 2, shard_samples(0))
    publish(tmp_path, 1)
    rows = [
        ("science", "science_0001", 1),
        ("science", "science_0000", 2),
        ("chef", "chef_0001", 1),
        ("chef", "chef_0000", 2),
    ]
    assert [tuple(row.values()) for row in first_kept(tmp_path, 5)] == rows, "neither by name nor by shard"


def test_many_questions_are_answered_alike_on_any_number_of_threads(dataset: Path) -> None:
    def answers(threads: int) -> list[object]:
        with open_records(dataset, threads) as records:
            asked = (yield_by_concept, yield_by_cell, reasons, shortfalls, score_histograms)
            return [ask(records) for ask in asked]

    assert answers(1) == answers(2) == answers(4)
    assert answers(2)[0] == yield_by_concept(dataset), "or one by one"


def test_questions_to_an_empty_dataset(tmp_path: Path) -> None:
    start(tmp_path)
    assert table(tmp_path).fetchall() == [] and reasons(tmp_path) == [] and yield_by_cell(tmp_path) == []
    assert score_histograms(tmp_path) == {}
    assert [(row["planned"], row["candidates"], row["share"]) for row in yield_by_concept(tmp_path)] == [
        (3, 0, None)
    ] * 2


def test_a_damaged_parquet_is_not_queried(tmp_path: Path) -> None:
    fill(tmp_path)
    path = next(tmp_path.glob("shards/00001-*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardDamaged, match="sha256"):
        yield_by_concept(tmp_path)


OPENRAIL = {
    "id": "stabilityai/stable-diffusion-xl-base-1.0",
    "license": "CreativeML Open RAIL++-M",
    "sha256": "ab" * 32,
}
TINY = {"id": "paperdolls", "license": "apache-2.0", "sha256": "cd" * 32}


def _card(dataset: Path, model: dict[str, Any]) -> str:
    return dataset_card(load_dataset(dataset), yield_by_concept(dataset), shortfalls(dataset), model)


def _front(card: str) -> dict[str, Any]:
    import yaml

    _, front, _ = card.split("---\n", 2)
    found = yaml.safe_load(front)
    assert isinstance(found, dict)
    return found


def test_the_card_says_what_users_need(dataset: Path) -> None:
    card = _card(dataset, OPENRAIL)
    front = _front(card)
    assert front["license"] == "openrail++" and front["pretty_name"] == "small"
    assert front["size_categories"] == ["n<1K"] and front["configs"][0]["data_files"] == "shards/*.tar"
    for wanted in (
        "prompted appearance",
        "never anybody's identity",
        "Open RAIL++-M",
        "Use restrictions",
        "ab" * 32,
    ):
        assert wanted in card
    assert "| chef | 3 | 2 | 2 | 12 | 100% |" in card and "| science | 3 | 4 | 1 | 6 | 25% |" in card
    assert "| science | 3 | 1 | 2 |" in card and "1 planned shards are not in this dataset" in card
    assert (
        "| thresholds | clip\\_text | 0.2 |" in card and "| thresholds | clip\\_base | not applied |" in card
    )
    assert card == _card(dataset, dict(reversed(OPENRAIL.items()))), "no time, no order"


def test_the_card_of_free_weights_has_no_restrictions(tmp_path: Path) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    card = _card(tmp_path, TINY)
    assert _front(card)["license"] == "apache-2.0" and "Use restrictions" not in card
    assert "Nothing: every planned set is here." in card
    other = _front(_card(tmp_path, {"id": "x", "license": 'odd: "licence"\n# x', "sha256": "0"}))
    assert (other["license"], other["license_name"]) == ("other", 'odd: "licence"\n# x')


def test_the_card_does_not_let_text_of_others_out(tmp_path: Path) -> None:
    evil = "x\n---\n# <script>alert(1)</script> | [a](http://b) `c`"
    create_dataset(tmp_path, {**HEADER, "spec": {"name": evil}}, plan_rows())
    card = _card(tmp_path, {**TINY, "id": evil})
    body = card.split("---\n", 2)[2]
    assert _front(card)["pretty_name"] == evil and "<script" not in body and "[a](" not in body
    assert escape("a|b\n*c*") == r"a\|b \*c\*"


def test_the_card_is_written_whole(tmp_path: Path) -> None:
    fill(tmp_path)
    card = _card(tmp_path, TINY)
    write_card(tmp_path, "old")
    write_card(tmp_path, card)
    assert (tmp_path / "README.md").read_text("utf-8") == card and verify(tmp_path) == []


def test_the_cards_reading_lines_run_as_they_stand(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    (code,) = re.findall(r"```python\n(.*?)```", _card(tmp_path / "data", TINY), re.DOTALL)
    check = "assert (len(records), len(kept), len(list(images)), len(rows)) == (54, 2, 36, 36)\n"
    offline = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code + check],
        cwd=tmp_path / "data",
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
