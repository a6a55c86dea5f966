"""Words that answers are made of, for training here and for chat items elsewhere: no answer names a value of an axis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

CAPTIONS = (
    "What does the picture show?",
    "Describe the picture in one sentence.",
    "What is the person in the picture doing?",
)


class Wording:
    """Words beside the values of axes."""

    def __init__(self, values: Iterable[str]) -> None:
        """Prepare the search for values, such as "woman", in texts."""
        named = "|".join(re.escape(value) for value in sorted(values, key=len, reverse=True))
        self._named = re.compile(rf"(?<!\w)(?:{named})(?!\w)", re.IGNORECASE)

    def value_in(self, text: str) -> str | None:
        """The first value that a text names, as it stands there; None where it names none."""
        found = self._named.search(text)
        return found[0] if found else None

    def sentence(self, neutral_prompt: str, concept: Callable[[], str]) -> str:
        """The neutral prompt as a sentence; where it names a value, the concept alone, in words."""
        told = neutral_prompt
        if not told or self.value_in(told):
            told = f"A picture of: {concept()}"
        return told if told.endswith((".", "!", "?")) else f"{told}."
