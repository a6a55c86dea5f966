r"""General capability: the share of multiple-choice questions about pictures that a model answers right.

A CSV with the columns image (a path, from the file's folder), question (its options by letter, a line each) and answer:
    image,question,answer
    dog.png,"What is it?\nA. a cat\nB. a dog",B
Options are offered in the order given, as benchmarks such as MMBench score them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.errors import CounterpoiseError

from ..asking import Asker
from ..labelled import read_rows
from ..models.base import MultimodalModel
from ..pictures import picture
from ..questions import LETTERS, Question, check_options

COLUMNS = ("image", "question", "answer")
_OPTION = re.compile(r"^([A-Z])[.):]\s*(.+)$")


@dataclass(frozen=True, slots=True)
class General:
    """A question about a picture.

    Attributes:
        image: its path.
        text: the question without options.
        options: in their order.
        answer: place of the right one.
    """

    image: Path
    text: str
    options: tuple[str, ...]
    answer: int


def read_questions(path: str) -> list[General]:
    """The questions of a file.

    Raises:
        CounterpoiseError: the file or a column is missing, or a row is no multiple choice; names the row.
    """
    table = Path(path)
    rows = read_rows(table, COLUMNS)
    if not rows:
        raise CounterpoiseError(f"{path}: it has no questions, rows of {', '.join(COLUMNS)} are wanted.")
    return [_general(row, table, number) for number, row in enumerate(rows, start=1)]


def _general(row: dict[str, str], table: Path, number: int) -> General:
    lines = (row["question"] or "").strip().splitlines()
    found = [match for line in lines if (match := _OPTION.match(line.strip()))]
    options = tuple(match[2].strip() for match in found)
    answer = (row["answer"] or "").strip().upper()
    lettered = "".join(match[1] for match in found) == LETTERS[: len(options)]
    if not lettered or not options or answer not in LETTERS[: len(options)] or len(answer) != 1:
        raise CounterpoiseError(
            f"{table}: row {number}: a question with options A., B., ... a line each, and the letter of one as its answer, "
            f"is wanted; the answer given is {answer!r}."
        )
    check_options(options)
    text = "\n".join(line for line in lines if not _OPTION.match(line.strip()))
    return General(table.parent / row["image"], text, options, LETTERS.index(answer))


def answered(model: MultimodalModel, questions: Sequence[General]) -> list[bool]:
    """Of each question, whether it is answered right.

    Raises:
        CounterpoiseError: a picture cannot be read.
    """
    askers: dict[str, Asker] = {}
    found = []
    for one in questions:
        asker = askers.setdefault(one.text, Asker(model, Question(text=one.text, cyclic=False)))
        (choice,) = asker.ask([picture(one.image, str(one.image))], [one.options])
        found.append(choice.name == one.options[one.answer])
    return found
