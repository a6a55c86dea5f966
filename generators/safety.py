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
            "set it to auto (pip install 'counterpoise[scorers]')",
            f"scorers.{missing[0]}",
        )
    if _unlimited(spec) and (schools or not unsafe):
        raise SpecError(
            f"filters.nsfw: no limit with the model {spec.model!r}, wanted one such as 0.5", "filters.nsfw"
        )


def _may_show_minors(concept: Concept) -> bool:
    """Tell by the concept's name and by its words."""
    return concept.name in SCHOOL_CONCEPTS or any(_MINORS.search(phrase) for phrase in concept.phrases)


def _unlimited(spec: Spec) -> bool:
    if isinstance(spec.filters, str):
        return False
    return spec.filters.nsfw is None or spec.filters.nsfw >= 1
