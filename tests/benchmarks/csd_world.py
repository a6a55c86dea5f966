"""Where the proof keeps its things, and the pools that its arms are measured on; none of them was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from debias.pools import Pool, dataset_pool
from debias.questions import Offer, choices
from flows.world.pools import Portraits, drawn_from, one_of, portrait_pool, write_portraits, write_questions
from generators.concepts import CONCEPTS

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
OUT = ROOT / "build" / "csd"
DATASET, NEUTRAL, MODELS, POOLS = OUT / "dataset", OUT / "neutral", OUT / "models", OUT / "pools"
SPECS = {DATASET: HERE / "csd.yaml", NEUTRAL: HERE / "csd_neutral.yaml"}

#: The concepts that arms are fine-tuned on, by group; the other six are held out.
TUNED: dict[str, tuple[str, ...]] = {
    "personality": ("compassionate", "authority", "unpleasant"),
    "responsibility": ("tool", "career", "chef", "earning_money"),
    "education": ("middle_school", "high_school", "good_student", "bad_student", "arts"),
}
HELD_OUT = tuple(name for name in CONCEPTS if not any(name in names for names in TUNED.values()))
_BOTH, _ALL = ("gender", "race"), ("gender", "race", "age")

#: Seeds that no training saw. "validation" is what recipes are chosen on, the others are for the table alone.
PORTRAITS = {
    "validation": Portraits(40 * 10**6, 36, _BOTH),
    "portraits": Portraits(41 * 10**6, 63, _ALL),
    "others": Portraits(42 * 10**6, 60, _BOTH),
    "ranks": Portraits(43 * 10**6, 60, _ALL),
}
QUESTIONS = {"validation": (44 * 10**6, 600), "portraits": (45 * 10**6, 1000)}


@dataclass(frozen=True, slots=True)
class Asked:
    """A pool, what is offered, and the axes that Skew is measured on.

    Attributes:
        title: in the table.
        pool: opens it.
        offer: what is offered.
        axes: of Skew.
        answers: name of the predictions; pools that are asked the same share them.
        min_count: answers that a concept needs.
    """

    title: str
    pool: Callable[[], Pool]
    offer: Callable[[], Offer]
    axes: tuple[str, ...]
    answers: str
    min_count: int = 30


def _portraits(name: str) -> Callable[[], Pool]:
    return lambda: portrait_pool(POOLS / name, PORTRAITS[name].axes)


def _tuned() -> Offer:
    return one_of(list(TUNED.values()))


ASKED: dict[str, Asked] = {
    "heldout": Asked(
        "(i) held-out generated sets",
        lambda: dataset_pool(DATASET, "test"),
        lambda: choices(TUNED),
        _BOTH,
        "heldout",
        15,
    ),
    "portraits": Asked("(ii) portraits without cues", _portraits("portraits"), _tuned, _BOTH, "portraits"),
    "concepts": Asked(
        "(iii) concepts not fine-tuned on",
        _portraits("others"),
        lambda: drawn_from(HELD_OUT, 3),
        _BOTH,
        "concepts",
    ),
    "age": Asked("(iv) an axis not fine-tuned on", _portraits("portraits"), _tuned, ("age",), "portraits"),
}
VALIDATION = Asked("validation", _portraits("validation"), _tuned, _BOTH, "validation", 20)
#: For ranks of cells: two of the 18 are offered, so that shares are as graded as the table that was put in.
RANKS = Asked("ranks", _portraits("ranks"), lambda: drawn_from(tuple(CONCEPTS), 2), _ALL, "ranks")


def write_pools() -> None:
    """Render all pools; what is there is left alone."""
    for name, pool in PORTRAITS.items():
        write_portraits(pool, POOLS / name)
    for name, (first, count) in QUESTIONS.items():
        write_questions(first, count, POOLS / f"{name}-questions")
