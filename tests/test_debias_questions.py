"""Questions: their words, cyclic orders, and which options are offered."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from debias.questions import Question, of_the_group, same_for_all, turned, with_distractors, words
from storage import CounterpoiseError

JOBS = [f"job_{number}" for number in range(30)]


def test_the_form_is_that_of_llava() -> None:
    assert Question().instruction(["chef", "good student"]) == (
        "Which of the following best describes this person?\nA. chef\nB. good student\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (
        Question(score="text_mean")
        .instruction(["chef", "arts"])
        .endswith("Answer with the text of one of the given choices directly.")
    )
    assert Question("Who?", "Say.").instruction(["chef", "arts"]) == "Who?\nA. chef\nB. arts\nSay."


def test_each_option_stands_once_in_each_place() -> None:
    orders = Question().orders(5)
    assert len(orders) == 5 and orders[0] == (0, 1, 2, 3, 4)
    assert all(sorted(column) == [0, 1, 2, 3, 4] for column in zip(*orders, strict=True))
    assert Question(cyclic=False).orders(5) == [(0, 1, 2, 3, 4)]


def test_names_become_words_or_the_callers_phrases() -> None:
    assert words(("good_student", "chef"), {"chef": "a cook"}) == ("good student", "a cook")


def test_the_concepts_of_the_group_in_their_order() -> None:
    offer = of_the_group({"work": ("tool", "chef"), "school": ("science", "arts")})
    assert offer("chef_0001", "chef") == ("tool", "chef")
    assert offer("arts_0001", "arts") == ("science", "arts")


def test_distractors_hang_on_seed_and_set_alone() -> None:
    offer, again, other = with_distractors(JOBS), with_distractors(JOBS[::-1]), with_distractors(JOBS, seed=1)
    found = offer("job_3_0001", "job_3")
    assert len(found) == 10 == len(set(found)) and "job_3" in found
    assert found == again("job_3_0001", "job_3")
    assert found != other("job_3_0001", "job_3")
    assert found != offer("job_3_0002", "job_3")


def test_distractors_and_the_true_ones_place_are_drawn_evenly() -> None:
    offered = [with_distractors(JOBS)(f"set_{number}", "job_3") for number in range(1000)]
    places = Counter(names.index("job_3") for names in offered)
    assert all(60 <= places[place] <= 140 for place in range(10))
    drawn = Counter(name for names in offered for name in names)
    assert all(240 <= drawn[name] <= 380 for name in JOBS if name != "job_3")  # 9 / 29 of 1000 is 310


def test_a_turn_is_a_cyclic_order_that_hangs_on_seed_and_place() -> None:
    starts = Counter(turned(JOBS[:4], 0, f"set_{number}")[0] for number in range(400))
    assert set(starts) == {0, 1, 2, 3} and min(starts.values()) > 60
    order = turned(JOBS[:4], 0, "set_1")
    assert order == turned(JOBS[:4], 0, "set_1") and sorted(order) == [0, 1, 2, 3]
    assert all((after - before) % 4 == 1 for before, after in pairwise(order))


def test_bad_offers_are_refused() -> None:
    with pytest.raises(CounterpoiseError, match="two or more"):
        of_the_group({"work": ("chef",)})
    with pytest.raises(CounterpoiseError, match="'chef' is offered twice"):
        same_for_all(["chef", "arts", "chef"])
    with pytest.raises(CounterpoiseError, match="27 options: 26 at most"):
        same_for_all(JOBS[:27])
    with pytest.raises(CounterpoiseError, match="26 distractors beside the true one of 30 concepts: 1 to 25"):
        with_distractors(JOBS, 26)
    with pytest.raises(CounterpoiseError, match="1 to 1 are wanted"):
        with_distractors(["chef", "arts"])
    with pytest.raises(CounterpoiseError, match=r"a-00: it has no concept, .* offer the same for all"):
        of_the_group({"work": ("tool", "chef")})("a-00", None)
    with pytest.raises(CounterpoiseError, match="concept 'arts' is none of tool, chef"):
        of_the_group({"work": ("tool", "chef")})("a-00", "arts")
    with pytest.raises(CounterpoiseError, match="score 'loud': one of letter, text_mean, text_sum"):
        Question(score="loud")
