"""From a request to the plans of its UNet calls: which members go together, how each follows its base, what is blended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .engine import SetRequest
from .p2p.align import Alignment, align
from .p2p.blend import Blend
from .p2p.plan import EditPlan, make_plan, with_empty_half
from .p2p.words import AlignmentError, Words, split_words, word_tokens

_FINEST = 32  # word maps of larger layers are noisy; the paper takes 16 of 64, ports to SDXL 32 of 128


@dataclass(frozen=True, slots=True)
class SetEdits:
    """The aligned edits of one request; None where a member is a base or is sampled plainly.

    Attributes:
        request: whose edits these are.
        alignments: one per member.
        marks: token positions of the local blend's words, per member; empty without one.
        length: tokens that the text encoder takes.
    """

    request: SetRequest
    alignments: tuple[Alignment | None, ...]
    marks: tuple[tuple[int, ...], ...]
    length: int

    @classmethod
    def of(cls, request: SetRequest, tokenizer: Any) -> SetEdits:
        """Align every edit.

        Raises:
            AlignmentError: a prompt is too long, an edit does not align, or a word of the local blend is not there.
        """
        members, edit = request.members, request.edit
        words = {prompt: _words(prompt, tokenizer) for prompt in request.prompts}
        alignments = tuple(
            None
            if member.base == member.index or not edit.p2p
            else align(
                words[members[member.base].prompt],
                words[member.prompt],
                edit.kind,
                edit.cross_replace,
                tokenizer.model_max_length,
                edit.reweight,
            )
            for member in members
        )
        blended = edit.local_blend is not None and edit.p2p
        marks = tuple(
            _marks(request, k, words[m.prompt], alignments) if blended else () for k, m in enumerate(members)
        )
        return cls(request, alignments, marks, tokenizer.model_max_length)

    def plan(self, rows: Sequence[int], steps: int, guided: bool) -> EditPlan:
        """Return the plan of a UNet call with these members, the unconditional half first where there is guidance."""
        edit = self.request.edit
        place = {row: k for k, row in enumerate(rows)}
        bases = [
            place[self.request.members[row].base] if self.alignments[row] else place[row] for row in rows
        ]
        plan = make_plan(
            bases,
            [self.alignments[row] for row in rows],
            edit.self_replace,
            edit.cross_replace.get("edited", edit.cross_replace.get("default", 1.0)),
            steps,
            edit.self_resolution,
        )
        return with_empty_half(plan, edit.halves, edit.cross_replace.get("default", 1.0)) if guided else plan

    def blend(
        self, rows: Sequence[int], steps: int, guided: bool, levels: Sequence[tuple[int, int]], device: str
    ) -> Blend | None:
        """Return the local blend of these members, or None.

        Args:
            rows: members of the UNet call.
            steps: how many.
            guided: whether there is an unconditional half.
            levels: height and width of every level of the UNet with cross-attention.
            device: torch device.
        """
        chosen = self.request.edit.local_blend
        if chosen is None:
            return None
        marks = torch.zeros(len(rows) * (2 if guided else 1), self.length)
        for k, row in enumerate(rows):
            marks[k - len(rows), list(self.marks[row])] = 1
        level = word_level(levels, chosen.resolution)
        return Blend(marks.to(device), level, chosen.threshold, round(chosen.start * steps), len(rows))


def word_level(levels: Sequence[tuple[int, int]], resolution: int | None) -> tuple[int, int]:
    """Return height and width of the attention layers whose word maps count.

    Args:
        levels: height and width of every level of the UNet with cross-attention.
        resolution: the larger side wanted; None takes the finest of at most 32, or else the coarsest.

    Raises:
        AlignmentError: no level has that side.
    """
    sides = {max(level): level for level in levels}
    if resolution is not None and resolution not in sides:
        raise AlignmentError(
            f"edit.local_blend.resolution: given {resolution}, wanted one of {sorted(sides)}, where this model has "
            "cross-attention, or null"
        )
    fitting = [side for side in sides if side <= _FINEST]
    return sides[resolution or max(fitting, default=min(sides))]


def _words(prompt: str, tokenizer: Any) -> Words:
    def encode(text: str) -> Sequence[int]:
        found: Sequence[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return found

    return split_words(prompt, encode, tokenizer.model_max_length)


def _marks(
    request: SetRequest, row: int, words: Words, alignments: Sequence[Alignment | None]
) -> tuple[int, ...]:
    """Return the token positions of the blend's words in one member's prompt.

    Raises:
        AlignmentError: a word is not there, or nothing differs where "edited" is asked for.
    """
    member, chosen, own = request.members[row], request.edit.local_blend, alignments[row]
    found: set[int] = set()
    for name in chosen.words if chosen else ():
        tokens = (
            _differing(request, row, alignments)
            if name == "edited"
            else word_tokens(words, member.values.get(name, name))
        )
        # an edit may do no more than leave words out; then its base's mark them
        if not tokens and (name != "edited" or (own is not None and not own.replaced)):
            raise AlignmentError(
                f'edit.local_blend.words: {name!r} is not in the prompt {words.prompt!r}; give "edited" where words '
                "differ, an axis, or a word of every prompt"
            )
        found.update(tokens)
    return tuple(sorted(found))


def _differing(request: SetRequest, row: int, alignments: Sequence[Alignment | None]) -> set[int]:
    """Return the tokens of an edit that differ from its base's, or those of a base that any of its edits changes."""
    own = alignments[row]
    if own is not None:
        return set(own.edited)
    edits = [alignments[m.index] for m in request.members if m.base == row and m.index != row]
    return {token for one in edits if one is not None for token in one.replaced}


def chunks(bases: Sequence[int], size: int | None) -> list[list[int]]:
    """Cut the members into UNet calls of at most `size` rows, each edit beside its base, which comes first."""
    families: dict[int, list[int]] = {}
    for row, base in enumerate(bases):
        families.setdefault(base, [])
        if row != base:
            families[base].append(row)
    room = max(2, size or len(bases))  # a base and one edit at least
    pieces = [
        [base, *edits[start : start + room - 1]]
        for base, edits in families.items()
        for start in range(0, max(1, len(edits)), room - 1)
    ]
    packed: list[list[int]] = []
    for piece in pieces:
        if packed and len(packed[-1]) + len(piece) <= room and piece[0] not in packed[-1]:
            packed[-1].extend(piece)
        else:
            packed.append(list(piece))
    return packed
