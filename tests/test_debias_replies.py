"""Answers in words: which option they mean, and models that are asked once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from PIL import Image
from tiny_mllm import photograph

from debias.replies import TextAsker, option_of
from storage import CounterpoiseError

OPTIONS = ("tool", "career", "chef", "career professional", "none of these")


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("C", 2), ("c", 2), (" C.\n", 2), ("(C)", 2), ("[c]", 2), ("C)", 2), ("C:", 2), ("**C**", 2), ("'C.'", 2),
        ("C. chef", 2), ("(C) Chef", 2), ("C. The person cooks.", 2), ("C, because of the hat", 2),
        ("The answer is C", 2), ("the answer is (c).", 2), ("Answer: C", 2), ("The correct option is C. chef", 2),
        ("The answer is C because of the hat", 2), ("Option B", 1),
        ("chef", 2), ("Chef.", 2), ("A chef", 2), ("This person is a chef.", 2), ("The answer is chef", 2),
        ("a CAREER\nprofessional", 3), ("career", 1), ("None of these.", 4), ("A", 0), ("A tool", 0),
    ],
)  # fmt: skip
def test_what_means_an_option(answer: str, place: int) -> None:
    assert option_of(answer, OPTIONS) == place


@pytest.mark.parametrize(
    "answer",
    [
        "", "   ", "F", "Z.", "I cannot say.", "I. do not know", "A person with a hat", "chefs", "masterchef",
        "chef or tool", "A, B", "(A) or (B)", "A. or B.", "A. chef", "B. It is a chef", "not a chef", "It isn't a chef",
        "a tool and a career professional", "cooking", "The answer is unclear",
    ],
)  # fmt: skip
def test_what_means_none_or_several(answer: str) -> None:
    assert option_of(answer, OPTIONS) is None


class Recorder:
    """Answers with the words given, in turn."""

    def __init__(self, *said: str) -> None:
        self.said, self.asked = list(said), []  # type: ignore[var-annotated]

    def __call__(
        self, images: Sequence[Image.Image], questions: Sequence[str], options: Sequence[Sequence[str]]
    ) -> Sequence[str]:
        self.asked += list(zip(questions, options, strict=True))
        return [self.said.pop(0) for _ in images]


def ask(answerer: Recorder, count: int, **settings: object) -> list[str | None]:
    asker = TextAsker(answerer, **settings)  # type: ignore[arg-type]
    names = [("good_student", "chef", "arts")] * count
    return asker.choose([photograph(0)] * count, names, [f"set_{number}" for number in range(count)])


def test_a_letter_means_what_stood_behind_it() -> None:
    answerer = Recorder(*["B"] * 6)
    found = ask(answerer, 6, phrases={"chef": "a cook"})
    by_words = {"good student": "good_student", "a cook": "chef", "arts": "arts"}
    assert found == [by_words[options[1]] for _, options in answerer.asked]
    assert len(set(found)) == 3, "the orders turn from set to set"
    question, options = answerer.asked[0]
    assert question.splitlines()[1:4] == [
        f"{letter}. {option}" for letter, option in zip("ABC", options, strict=True)
    ]


def test_what_cannot_be_made_out_is_no_answer() -> None:
    assert ask(Recorder("I cannot say", "chef", "a chef, or arts"), 3) == [None, "chef", None]


def test_texts_are_wanted_one_an_image() -> None:
    answerer = Recorder("chef")
    with pytest.raises(CounterpoiseError, match=r"2 pictures from 'set_0': the answerer gave \['x'\]"):
        TextAsker(lambda images, questions, options: ["x"]).choose(
            [photograph(0)] * 2, [("chef", "arts")] * 2, ["set_0", "set_1"]
        )
    with pytest.raises(CounterpoiseError, match="two or more are wanted"):
        TextAsker(answerer).choose([photograph(0)], [("chef",)], ["set_0"])
    assert answerer.asked == []
