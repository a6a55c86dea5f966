"""The benchmark of CSD: its arms are alike but for what they are about, its pools apart, its choice and its bars honest."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import csd_arms
import csd_run
import csd_table
import csd_world
from csd_arms import ARMS
from csd_measure import Score, score
from csd_table import Row, Spread, bars, reduction, spread
from csd_world import ASKED, HELD_OUT, PORTRAITS, QUESTIONS, TUNED

from debias.predictions import predictions_from
from debias.skew import skew_table_from
from flows.settings import load_spec
from flows.world import base, tower
from generators.concepts import CONCEPTS


def test_arms_differ_in_what_they_are_about_alone() -> None:
    free = {
        "method",
        "skew_pool",
        "weights",
        "resample",
        "lora",
        "consistency",
        "normalise_weights",
        "learning_rate",
        "model",
    }
    plain = ARMS["ft"].recipe(1, 1e-3)
    for name, arm in ARMS.items():
        made = arm.recipe(1, 1e-3)
        differ = {field for field in plain.__slots__ if getattr(made, field) != getattr(plain, field)}
        assert differ <= free, name
        assert made.epochs * made.steps * made.batch == plain.epochs * plain.steps * plain.batch
        assert len(arm.rates) == len(ARMS["ft"].rates)
    halves = [ARMS[name].recipe(1, 1e-3) for name in ("resampling", "sfloss", "csd")]
    assert [(one.resample, one.weights) for one in halves] == [(True, False), (False, True), (True, True)]
    assert csd_arms.SEARCH_SEED not in csd_arms.SEEDS and len(csd_arms.SEEDS) == 5


def test_what_is_held_out_is_not_fine_tuned_on() -> None:
    tuned = {name for names in TUNED.values() for name in names}
    assert tuned.isdisjoint(HELD_OUT) and tuned | set(HELD_OUT) == set(CONCEPTS)
    for spec in csd_world.SPECS.values():
        made = load_spec(str(spec))
        assert {one.name for one in made.concepts} == tuned
        assert [axis.name for axis in made.axes] == ["gender", "race"], "age is never named"
        assert {one.group for one in made.concepts} == set(TUNED)


def test_no_pool_shares_a_portrait_with_training_or_another() -> None:
    spans = [(tower._FIRST, tower.PICTURES), (tower._HELD_OUT, 500), (base._FIRST, base.PICTURES)]
    spans += [(pool.first, pool.sets) for pool in PORTRAITS.values()] + list(QUESTIONS.values())
    ends = sorted((first, first + count) for first, count in spans)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))


def test_the_search_takes_the_fairest_rate_that_costs_no_more_than_half_a_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csd_run, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(csd_run, "SEARCH", tmp_path / "search")
    monkeypatch.setattr(csd_run, "CHOSEN", tmp_path / "search.json")
    right = {"validation": 900, "0.0003": 899, "0.001": 896, "0.003": 850}
    bias = {"0.0003": 0.9, "0.001": 0.4, "0.003": 0.1}
    monkeypatch.setattr(
        csd_run, "general", lambda folder: np.arange(1000) < right[folder.name.rpartition("ft-")[2]]
    )
    monkeypatch.setattr(csd_run, "table_of", lambda folder, asked: bias[folder.name.rpartition("ft-")[2]])
    monkeypatch.setattr(csd_run, "score", lambda table, side: Score(0, 0, table / 2))
    found = csd_run.choose(["ft"])
    assert found["ft"]["rate"] == csd_run.rate_of("ft") == 1e-3
    assert [one["bias"] for one in found["ft"]["tried"]] == [0.9, 0.4, 0.1]
    right.update({"0.0003": 880, "0.001": 870})
    assert csd_run.choose(["ft"])["ft"]["rate"] == 3e-4, "all lose too much: the one that loses least"


def test_a_finished_run_is_not_run_again_and_failures_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "done.json").write_text("{}")
    monkeypatch.setattr(csd_run, "one_thread", lambda: pytest.fail("it was run"))
    csd_run.run_arm("ft", 1, 1e-3, tmp_path, searching=False)
    with pytest.raises(SystemExit, match="one nothing 1"):
        csd_run.Pool(2, Console(quiet=True)).run([("one", "nothing", "1")])


def test_excess_is_against_both_kinds_of_fair_models() -> None:
    dice = np.random.default_rng(0)
    gender = np.tile(["man", "woman"], 600)
    sets = np.repeat([f"s{number}" for number in range(600)], 2)
    fair = np.where(dice.random(1200) < 0.5, "chef", "arts")
    biased = np.where(dice.random(1200) < np.where(gender == "man", 0.9, 0.1), "chef", "arts")
    for said, least, most in ((fair, -0.1, 0.1), (biased, 1.0, 2.0)):
        table = skew_table_from(
            predictions_from(said, {"gender": gender}, set_id=sets), draws=50, permutations=50
        )
        found = score(table, "min_skew")
        assert least <= found.null <= most and least <= found.floor <= most and found.value < 0


def row(name: str, excess: float, lost: float = 0.0, seeds: int = 5, worse: float = 0.0) -> Row:
    wobble = [excess + 0.01 * (number - 2) for number in range(seeds)]
    scores: dict[tuple[str, str], Any] = {}
    for pool in ASKED:
        scores[pool, "min_skew"] = tuple(Score(-one - 0.1, one, one) for one in wobble)
        scores[pool, "max_skew"] = tuple(Score(one, one / 2 + worse, one / 2 + worse) for one in wobble)
    return Row(name, (), scores, Spread(lost, lost - 0.002, lost + 0.002))


def good() -> dict[str, Row]:
    rows = {"base": row("base", 1.2), "ft": row("ft", 0.6), "resampling": row("resampling", 0.4)}
    return {**rows, "sfloss": row("sfloss", 0.4), "csd": row("csd", 0.29), "null": row("null", 0.01)}


def test_bars_hold_where_they_should() -> None:
    assert all(met for met, _ in bars(good(), 0.95))
    assert reduction(good()["csd"], good()["ft"]) == pytest.approx(1 - 0.29 / 0.6)


@pytest.mark.parametrize(
    ("name", "other", "agreement", "said"),
    [
        ("csd", row("csd", 0.59), 0.95, "intervals apart"),
        ("sfloss", row("sfloss", 0.61), 0.95, "sfloss"),
        ("csd", row("csd", 0.39), 0.95, "wanted 50 %"),
        ("base", row("base", 0.7), 0.95, "wanted 70 %"),
        ("csd", row("csd", 0.29, worse=2.0), 0.95, "MaxSkew no worse"),
        ("csd", row("csd", 0.29, lost=-0.006), 0.95, "within 0.5"),
        ("csd", row("csd", 0.29), 0.89, "ranks cells"),
    ],
)
def test_a_bar_that_is_missed_is_said(name: str, other: Row, agreement: float, said: str) -> None:
    missed = [text for met, text in bars({**good(), name: other}, agreement) if not met]
    assert any(said in text for text in missed)


def test_a_pool_that_got_worse_is_said() -> None:
    rows = good()
    worse = {**rows["csd"].scores, ("age", "min_skew"): rows["base"].scores["age", "min_skew"] * 2}
    rows["csd"] = replace(rows["csd"], scores=worse)
    rows["base"] = replace(
        rows["base"],
        scores={**rows["base"].scores, ("age", "min_skew"): rows["ft"].scores["age", "min_skew"]},
    )
    assert any("an axis not" in text for met, text in bars(rows, 0.95) if not met)


def test_intervals_are_students() -> None:
    found = spread([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.high - 2 == pytest.approx(4.3027 / np.sqrt(3), abs=1e-3)
    assert str(spread([1.0])) == "1.00" and str(Spread(1, 0.5, 1.5)) == "1.00 (0.50 to 1.50)"


def test_the_table_has_a_row_for_each_arm_that_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csd_table, "RUNS", tmp_path)
    monkeypatch.setattr(csd_run, "RUNS", tmp_path)
    for name in ("base", "ft-1", "ft-3", "csd-2", "csd-9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "done.json").write_text(json.dumps({}))
    (tmp_path / "ft-2").mkdir()
    found = csd_table.done_runs()
    assert {name: [one.name for one in folders] for name, folders in found.items()} == {
        "base": ["base"], "ft": ["ft-1", "ft-3"], "csd": ["csd-2"],
    }  # fmt: skip
