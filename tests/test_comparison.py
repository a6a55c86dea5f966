"""The proof of prompt-to-prompt: what it counts, what it compares, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_spec import CELLS, a_spec

from generators.candidates import Factory
from generators.comparison import Comparison, bootstrap_ratio, compare
from generators.engine import PreparedEngine, SetRequest
from generators.filters import Score
from generators.plan import candidate_seed, make_plan
from generators.spec import Edit, Thresholds


class TwoColours(PreparedEngine):
    """Blue pictures with prompt-to-prompt, red ones without; green counts members. Notes requests."""

    def __init__(self) -> None:
        super().__init__(8)
        self.requests: list[SetRequest] = []

    def generate(self, request: SetRequest) -> list[Image.Image]:
        self.requests.append(request)
        return [
            Image.new("RGB", (8, 8), (0, k, 200) if request.edit.p2p else (200, k, 0))
            for k in range(len(request.members))
        ]


class ByColour:
    """Scores that depend on the colour: a change of 2 grey levels with prompt-to-prompt, 4 without."""

    def __init__(self, changes: tuple[float | None, float | None] = (2.0, 4.0), wrong: int = 0) -> None:
        self.changes, self.wrong = changes, wrong
        self.flagged: set[tuple[int, bool]] = set()

    def score(self, request: SetRequest, images: Sequence[Image.Image]) -> list[dict[str, Score]]:
        plain = images[0].getpixel((0, 0))[0] == 200  # type: ignore[index]
        unsafe = (request.seed, plain) in self.flagged
        return [
            {
                "background_change": None if member.base == member.index else self.changes[plain],
                "attribute_ok": not (plain and member.index < self.wrong),
                "nsfw": 0.9 if unsafe else 0.0,
            }
            for member in request.members
        ]

    def thresholds(self, spec: Any) -> Thresholds:
        return Thresholds(attribute_share=1.0, nsfw=0.5)

    def describe(self) -> dict[str, object]:
        return {}


def run(scorers: ByColour | None = None, sets: int = 2, **changes: Any) -> tuple[Comparison, TwoColours]:
    spec, engine = a_spec(**changes), TwoColours()
    factory = Factory(spec, engine, scorers or ByColour())  # type: ignore[arg-type]
    return compare(factory, make_plan(spec)[:sets]), engine


def test_each_set_is_made_twice_from_the_same_seed_and_words() -> None:
    spec = a_spec()
    _, engine = run()
    assert [r.edit.p2p for r in engine.requests] == [True, False, True, False]
    for planned, edited, plain in zip(
        make_plan(spec), engine.requests[::2], engine.requests[1::2], strict=False
    ):
        assert edited.seed == plain.seed == candidate_seed(spec, planned, 0)
        assert replace(plain, edit=edited.edit) == edited, "nothing but the edit differs"


def test_the_comparison_leaves_the_factory_alone() -> None:
    spec, engine = a_spec(edit=Edit(self_replace=0.7)), TwoColours()
    factory = Factory(spec, engine, ByColour())  # type: ignore[arg-type]
    compare(factory, make_plan(spec)[:1])
    assert factory.spec == spec
    assert [r.edit.self_replace for r in engine.requests] == [0.7, 0.7]


def test_edits_are_counted_and_bases_are_not() -> None:
    found, _ = run(sets=2)
    assert found.bases == 2 * 2
    assert found.with_p2p == (2.0,) * 8 and found.without == (4.0,) * 8
    assert found.ratio == 0.5
    assert (found.low, found.high) == (0.5, 0.5)


def test_accuracy_is_the_share_of_edits_read_right() -> None:
    """Members 0 to 2 are women of one base each; the base itself does not count."""
    found, engine = run(ByColour(wrong=3), sets=1)
    edits = [m.index for m in engine.requests[0].members if m.base != m.index]
    assert found.accuracy_with == 1.0
    assert found.accuracy_without == pytest.approx(1 - sum(k < 3 for k in edits) / len(edits)) == 0.5


def test_an_example_is_the_base_and_one_of_its_edits_both_ways() -> None:
    found, engine = run(sets=2)
    assert len(found.examples) == 2
    for (base, edited, free), request in zip(found.examples, engine.requests[::2], strict=True):
        (_, b, blue), (_, e, _), (red, f, _) = (image.getpixel((0, 0)) for image in (base, edited, free))
        assert blue == red == 200
        assert e == f != b and request.members[e].base == b


@pytest.mark.parametrize("plain", [False, True])
def test_what_the_safety_scorers_flag_is_counted_and_never_shown(plain: bool) -> None:
    spec, scorers = a_spec(), ByColour()
    scorers.flagged = {(make_plan(spec)[0].seed, plain)}
    found, _ = run(scorers, sets=2)
    assert found.bases == 4 and len(found.with_p2p) == 8
    assert len(found.examples) == 1


def test_a_change_that_could_not_be_measured_is_left_out() -> None:
    class Sometimes(ByColour):
        def score(self, request: SetRequest, images: Sequence[Image.Image]) -> list[dict[str, Score]]:
            rows = super().score(request, images)
            edits = [m.index for m in request.members if m.base != m.index]
            rows[edits[0]]["background_change"] = None
            return rows

    found, _ = run(Sometimes(), sets=2)
    assert np.isnan(found.with_p2p).sum() == 2
    assert (found.ratio, found.low, found.high) == (0.5, 0.5, 0.5)


def test_progress_is_told_after_each_set() -> None:
    told: list[int] = []
    spec, engine = a_spec(), TwoColours()
    factory = Factory(spec, engine, ByColour())  # type: ignore[arg-type]
    compare(factory, make_plan(spec)[:3], on_set=lambda: told.append(len(engine.requests)))
    assert told == [2, 4, 6]


def test_no_more_than_the_given_sets() -> None:
    found, engine = run(sets=1)
    assert len(engine.requests) == 2 and len(found.without) == CELLS - 2


def groups(count: int, edits: int, ratio: float, seed: int = 0) -> list[np.ndarray]:
    """Bases whose edits are all alike: (2, edits) each, plain changes lognormal around 4."""
    rng = np.random.default_rng(seed)
    plain = np.exp(rng.normal(np.log(4), 0.4, count))
    own = plain * ratio * np.exp(rng.normal(0, 0.2, count))
    return [np.repeat(pair[:, None], edits, 1) for pair in np.stack([own, plain], 1)]


def test_the_same_seed_gives_the_same_interval_and_another_about_the_same() -> None:
    given = groups(40, 5, 0.6)
    first, again, other = (bootstrap_ratio(given, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert other == pytest.approx(first, abs=0.06)


def test_the_interval_covers_the_truth_and_excludes_one_where_it_should() -> None:
    covered = [
        low <= 0.6 <= high
        for low, high in (bootstrap_ratio(groups(40, 5, 0.6, s), 0, 300) for s in range(40))
    ]
    assert sum(covered) >= 34, "a 95 % interval may miss a few times in forty"
    low, high = bootstrap_ratio(groups(100, 5, 0.6), 0)
    assert low < 0.6 < high < 1
    low, high = bootstrap_ratio(groups(100, 5, 1.0), 0)
    assert low < 1 < high


def test_bases_are_drawn_whole() -> None:
    """Twenty copies of one edit say no more than one: the interval must not shrink."""
    few, many = (bootstrap_ratio(groups(30, edits, 0.7), 0) for edits in (1, 20))
    assert few[1] - few[0] == pytest.approx(many[1] - many[0], rel=0.15)
    assert few[1] - few[0] > 0.05


def test_one_base_alone_has_no_spread() -> None:
    low, high = bootstrap_ratio(groups(1, 5, 0.7), 0, draws=20)
    assert low == high
