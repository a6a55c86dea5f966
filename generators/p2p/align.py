"""Which token of an edited prompt follows which token of its base. Words and ids only; no model.

Notation: T tokens (77 for CLIP), base token i, edited token j. A mapper M is (T, T) with M[i, j] the share of base
token i's attention that edited token j takes over: edited map = base map @ M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .words import AlignmentError, Block, Words, blocks

Kind = Literal["auto", "replace", "refine"]


@dataclass(frozen=True, slots=True)
class Alignment:
    """How an edited prompt follows its base.

    Attributes:
        mapper: (T, T) float32, see the notation above; the columns of tokens that follow nothing are zero.
        share: (T,) float32, the share of the denoising steps for which edited token j follows its base, if it can.
        scale: (T,) float32, the equalizer (Hertz et al. 2022, section 3.2, attention re-weighting) of each edited token.
        edited: token positions of the words that differ.
        replaced: token positions of the base's words that differ.
    """

    mapper: NDArray[np.float32]
    share: NDArray[np.float32]
    scale: NDArray[np.float32]
    edited: tuple[int, ...]
    replaced: tuple[int, ...]

    @property
    def follows(self) -> NDArray[np.float32]:
        """(T,) 1 where edited token j has a counterpart in the base, else 0."""
        return (self.mapper.sum(0) > 0).astype(np.float32)


def align(
    base: Words,
    edit: Words,
    kind: Kind,
    cross_replace: Mapping[str, float],
    length: int = 77,
    reweight: Mapping[str, float] | None = None,
) -> Alignment:
    """Align an edited prompt with its base.

    "replace" (Hertz et al. 2022, section 3.2, word swap) lets the new word follow the old word's map; it needs one
    word for one word. "refine" (prompt refinement) lets words that both prompts have follow, and new words not.
    "auto" takes word swap wherever as many words differ on both sides, word by word, and refine elsewhere; in one prompt
    both may happen.

    Args:
        base: words of the base prompt.
        edit: words of the edited prompt.
        kind: see above.
        cross_replace: share of the steps for which a word follows: "default", "edited", or a word of the prompt.
        length: T.
        reweight: factor on the injected map of "edited" or of a word of the edited prompt; 1 for the others.

    Raises:
        AlignmentError: replace was asked for and more or fewer than one word differs on either side.
    """
    cut = blocks(base, edit)
    changed = [(i1 - i0, j1 - j0) for what, i0, i1, j0, j1 in cut if what == "changed"]
    if kind == "replace" and changed != [(1, 1)]:
        raise AlignmentError(
            f"replace needs exactly one word for one word; {base.prompt!r} to {edit.prompt!r} changes "
            f"{_differing(base, edit, cut)}: use refine, or one-word values"
        )
    mapper = np.zeros((length, length), np.float32)
    edited: list[int] = []
    replaced: list[int] = []
    for what, i0, i1, j0, j1 in cut:
        if what == "equal" or (kind != "refine" and i1 - i0 == j1 - j0):
            for i, j in zip(range(i0, i1), range(j0, j1), strict=True):
                _map_word(mapper, base.spans[i], edit.spans[j])
        if what == "changed":
            edited.extend(token for j in range(j0, j1) for token in range(*edit.spans[j]))
            replaced.extend(token for i in range(i0, i1) for token in range(*base.spans[i]))
    _map_ends(mapper, base.end, edit.end)
    return Alignment(
        mapper,
        by_word(edit, edited, cross_replace, 1.0, length),
        by_word(edit, edited, reweight or {}, 1.0, length),
        tuple(edited),
        tuple(replaced),
    )


def _differing(base: Words, edit: Words, cut: Sequence[Block]) -> str:
    parts = [
        f"{' '.join(base.words[i0:i1])!r} to {' '.join(edit.words[j0:j1])!r}"
        for what, i0, i1, j0, j1 in cut
        if what == "changed"
    ]
    return " and ".join(parts) or "nothing"


def _map_word(mapper: NDArray[np.float32], old: tuple[int, int], new: tuple[int, int]) -> None:
    """Map one word on one word: token by token where they are as many, else spread evenly."""
    if old[1] - old[0] == new[1] - new[0]:
        for i, j in zip(range(*old), range(*new), strict=True):
            mapper[i, j] = 1
    else:
        mapper[old[0] : old[1], new[0] : new[1]] = 1 / (new[1] - new[0])


def _map_ends(mapper: NDArray[np.float32], base_end: int, edit_end: int) -> None:
    """Start to start, EOS to EOS; padding shifts by the difference in length, the last of it to the last."""
    mapper[0, 0] = 1
    last = len(mapper) - 1
    for j in range(edit_end, len(mapper)):
        mapper[min(j - edit_end + base_end, last), j] = 1


def by_word(
    words: Words, edited: Sequence[int], given: Mapping[str, float], default: float, length: int
) -> NDArray[np.float32]:
    """Spread numbers given by word over tokens: "default", then "edited", then single words, each over the one before.

    Args:
        words: of the prompt.
        edited: token positions of the words that differ.
        given: numbers by word.
        default: for tokens that none names.
        length: T.

    Returns:
        (T,) float32.
    """
    found = np.full(length, given.get("default", default), np.float32)
    found[list(edited)] = given.get("edited", found[0])
    named = {
        "a" if name.lower() == "an" else name.lower(): value
        for name, value in given.items()
        if name not in ("default", "edited")
    }
    for word, span in zip(words.comparable, words.spans, strict=True):
        if word in named:
            found[span[0] : span[1]] = named[word]
    return found
