"""Who may generate without safety scorers: the embedded flat drawings, and nobody else."""

from __future__ import annotations

import re

from .concepts import SCHOOL_CONCEPTS
from .scorers import resolve
from .spec import Concept, Spec, SpecError

_MINORS = re.compile(
    r"\b(schools?|pupils?|students?|child(ren)?|kids?|teens?|teenagers?|minors?|boys?|girls?|bab(y|ies))\b",
    re.I,
)


#: Highest NSFW limit where minors may be shown.
MOST_NSFW_SCHOOL = 0.5


def check_safety(spec: Spec, unsafe: bool = False) -> None:
    """Refuse other than the embedded weights without an NSFW scorer and a face counter.

    Args:
        spec: what is to be generated.
        unsafe: the user's word that images need no filter; never taken for school concepts, which may show minors.

    Raises:
        SpecError: names what is missing.
    """
    if spec.embedded:
        return
    choice = resolve(spec.scorers, embedded=False)
    missing = [name for name in ("nsfw", "faces") if not getattr(choice, name)]
    schools = sorted(concept.name for concept in spec.concepts if _may_show_minors(concept))
    if missing and (schools or not unsafe):
        why = (
            f"; --unsafe-no-filter is never taken for the school concepts {', '.join(schools)}"
            if unsafe
            else ""
        )
        raise SpecError(
            f"scorers.{missing[0]}: null with the model {spec.model!r}, wanted a scorer for {' and '.join(missing)}{why}; "
            "set it to auto, and install the packages with the weights (README, Safety)",
            f"scorers.{missing[0]}",
        )
    unlimited = _unlimited(spec, MOST_NSFW_SCHOOL if schools else 1.0)
    if unlimited and (schools or not unsafe):
        name, wanted = unlimited
        field = f"filters.{name}"
        raise SpecError(f"{field}: no limit with the model {spec.model!r}, wanted {wanted}", field)


def _may_show_minors(concept: Concept) -> bool:
    """Tell by the concept's name and by its words."""
    return concept.name in SCHOOL_CONCEPTS or any(_MINORS.search(phrase) for phrase in concept.phrases)


def _unlimited(spec: Spec, most: float) -> tuple[str, str] | None:
    """Return the safety score that nothing judges, and what is wanted of its limit."""
    if isinstance(spec.filters, str):
        return None
    if spec.filters.nsfw is None or spec.filters.nsfw >= 1 or spec.filters.nsfw > most:
        return "nsfw", "one such as 0.5" + (f", at most {most:g} with school concepts" if most < 1 else "")
    return ("faces", "the number of faces, such as 1") if spec.filters.faces is None else None
