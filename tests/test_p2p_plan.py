"""When a word or a map is followed: shares of the steps as people write them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from generators.p2p.align import align
from generators.p2p.plan import in_force, make_plan, own_share
from generators.p2p.words import Words, split_words


def words(prompt: str) -> Words:
    return split_words(prompt, lambda text: list(range(len(text.split()))))


@pytest.mark.parametrize("steps", [1, 10, 15, 32, 50, 75, 90, 100, 250])
def test_a_share_holds_for_exactly_its_steps(steps: int) -> None:
    for hundredth in range(101):
        share = np.array(hundredth / 100, np.float32)
        held = sum(bool(in_force(step, share, steps)) for step in range(steps))
        assert held == -(-Fraction(hundredth, 100) * steps // 1), "as many as begin before the share ends"


def test_a_new_word_is_reweighted_also_where_no_other_follows_any_more() -> None:
    shares = {"default": 0.2, "edited": 0.8}
    pair = align(words("a man"), words("a tall man"), "refine", shares, 8, {"edited": 3.0})
    plan = make_plan([0, 0], [None, pair], self_share=0.0, pooled_share=0.0, steps=10)
    early, middle, late = (plan.at(step) for step in (0, 5, 9))
    assert early.follows_words and early.edits_words
    assert not middle.follows_words and middle.edits_words and middle.kept[1].tolist().count(3.0) == 1
    assert not late.edits_words


def test_own_share_is_the_refinement_reweighted() -> None:
    alpha, scale = np.array([1, 1, 0, 1], np.float32), np.array([2, 2, 2, 1], np.float32)
    assert own_share(alpha, scale, np.array([True, False, False, False])).tolist() == [0, 2, 1, 1]
