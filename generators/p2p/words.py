"""A prompt's words, the tokens that each takes, and which words two prompts share. No model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from storage.errors import CounterpoiseError

Encode = Callable[[str], Sequence[int]]
#: (kind, i0, i1, j0, j1): words [i0, i1) of the base against words [j0, j1) of the edit.
Block = tuple[Literal["equal", "changed"], int, int, int, int]
_WORD = re.compile(r"[\w'-]+|[^\w\s]")
_MATCH = 1000  # more than there can be runs, so that one more match outweighs any number of them


class AlignmentError(CounterpoiseError):
    """Two prompts that cannot be aligned in the way that was asked for."""


@dataclass(frozen=True, slots=True)
class Words:
    """A prompt cut into words, each with the token positions [start, end) that it takes; `end` is that of EOS."""

    prompt: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    end: int

    @property
    def comparable(self) -> list[str]:
        """The words in small letters; "an" counts as "a", since the article changes along with the word behind it."""
        return ["a" if word.lower() == "an" else word.lower() for word in self.words]


def split_words(prompt: str, encode: Encode, length: int = 77) -> Words:
    """Find the tokens of every word of a prompt.

    Args:
        prompt: what the model reads.
        encode: text to token ids without start and end.
        length: tokens the text encoder takes, start and end included.

    Raises:
        AlignmentError: the prompt has more tokens than the encoder takes.
    """
    words = _WORD.findall(prompt)
    spans, at = [], 1
    for word in words:
        size = len(encode(word))
        spans.append((at, at + size))
        at += size
    total = len(encode(prompt))
    if total + 2 > length:
        raise AlignmentError(
            f"prompt has {total} tokens, the text encoder takes {length - 2}: shorten {prompt!r}"
        )
    if total != at - 1:
        raise AlignmentError(
            f"cannot tell which tokens belong to which word of {prompt!r}: use plain words and commas"
        )
    return Words(prompt, tuple(words), tuple(spans), at)


def word_tokens(words: Words, phrase: str) -> list[int]:
    """Return the token positions of every place in a prompt where the words of `phrase` stand in a row."""
    asked, have = _WORD.findall(phrase.lower()), [word.lower() for word in words.words]
    starts = [k for k in range(len(have) - len(asked) + 1) if asked and have[k : k + len(asked)] == asked]
    return sorted(
        {token for k in starts for span in words.spans[k : k + len(asked)] for token in range(*span)}
    )


def blocks(base: Words, edit: Words) -> list[Block]:
    """Cut two prompts into the runs of words that they share and the stretches that differ, in order."""
    found: list[Block] = []
    i0 = j0 = 0
    ends = (len(base.words), len(edit.words))
    for i, j in [*shared_words(base.comparable, edit.comparable), ends]:
        if (i, j) != (i0, j0):
            found.append(("changed", i0, i, j0, j))
        if (i, j) != ends:
            if found and found[-1][0] == "equal":
                start = found.pop()
                found.append(("equal", start[1], i + 1, start[3], j + 1))
            else:
                found.append(("equal", i, i + 1, j, j + 1))
        i0, j0 = i + 1, j + 1
    return found


def shared_words(base: Sequence[str], edit: Sequence[str]) -> list[tuple[int, int]]:
    """Align two lists of words globally: as many equal pairs in order as there can be, in as few runs as they allow.

    Dynamic programming over prefixes (Needleman and Wunsch 1970) with an affine cost (Gotoh 1982): a match scores, the
    start of a run of matches costs a little, gaps are free.

    Returns:
        (position in the base, position in the edit) of every pair.
    """
    columns = range(len(edit) + 1)
    none: list[tuple[int, int]] = []
    best = [(0, none) for _ in columns]  # of the prefixes, whatever their last words do
    run = [(-_MATCH, none) for _ in columns]  # where the last words are a pair
    for i, word in enumerate(base):
        above, above_run, best, run = best, run, [(0, none)], [(-_MATCH, none)]
        for j, other in enumerate(edit):
            paired = (-_MATCH, none)
            if word == other:
                score, pairs = max(above_run[j], (above[j][0] - 1, above[j][1]), key=lambda one: one[0])
                paired = (score + _MATCH, [*pairs, (i, j)])
            run.append(paired)
            best.append(max(paired, above[j + 1], best[j], key=lambda one: one[0]))
    return best[-1][1]
