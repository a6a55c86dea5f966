"""The plan of an edit: pure data that says, for every step, which row follows which, and how.

Notation: U rows of one UNet call (members, once or twice with classifier-free guidance), T tokens. The denoising loop asks
`plan.at(step)`; nobody counts calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .align import Alignment

Halves = Literal["conditional", "both"]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What holds at one step; M is the mapper, alpha the schedule, c the equalizer, m the tokens that have a counterpart.

    Attributes:
        base: the row that each of the U rows follows; a base names itself.
        pooled: the row whose pooled text embedding each row uses.
        follow_self: rows follow their base's self-attention at this step.
        self_side: in layers of at most this many pixels a side; None for all.
        moved: (U, T, T), M diag(c alpha), whose columns are zero where m is.
        kept: (U, T), 1 - alpha + c alpha (1 - m): what a token keeps of its own map.
        own: rows whose `kept` is not all zero, which therefore need their own map; with the bases.
        follows_words: some row's `moved` is not all zero.
        reweights: some token keeps other than the whole of its own map, whether or not another follows.
    """

    base: tuple[int, ...]
    pooled: tuple[int, ...]
    follow_self: bool
    self_side: int | None
    moved: Tensor
    kept: Tensor
    own: tuple[int, ...]
    follows_words: bool
    reweights: bool = False

    @property
    def edits_words(self) -> bool:
        """Cross-attention is other than plain at this step."""
        return self.follows_words or self.reweights

    def follows_self(self, pixels: int) -> bool:
        """Tell whether rows follow their base's self-attention in a layer of so many pixels, at most side squared."""
        return self.follow_self and (self.self_side is None or pixels <= self.self_side**2)

    @property
    def families(self) -> dict[int, list[int]]:
        """Rows by the row that they follow, itself not among them; rows that follow none are keys with no rows."""
        found: dict[int, list[int]] = {row: [] for row, base in enumerate(self.base) if row == base}
        for row, base in enumerate(self.base):
            if row != base:
                found[base].append(row)
        return found


@dataclass(frozen=True, slots=True)
class EditPlan:
    """The edits of one UNet call's rows over all steps.

    Attributes:
        base: U rows, see `StepPlan`.
        mapper: (U, T, T) float32; the identity for bases.
        scale: (U, T) float32, the equalizer c.
        share: (U, T) float32, the share of the steps for which a token follows.
        self_share: share of the steps with self-attention injection (Hertz et al. 2022, equation 6, tau).
        self_side: the resolution limit of self-attention injection.
        pooled_share: (U,) share of the steps with the base's pooled embedding, which bypasses attention.
        steps: how many denoising steps there are.
    """

    base: tuple[int, ...]
    mapper: NDArray[np.float32]
    scale: NDArray[np.float32]
    share: NDArray[np.float32]
    self_share: float
    self_side: int | None
    pooled_share: NDArray[np.float32]
    steps: int

    def at(self, step: int, device: torch.device | str = "cpu") -> StepPlan:
        """Return what holds at `step`, counted from 0."""
        alpha = in_force(step, self.share, self.steps).astype(np.float32)
        mapped = self.mapper.sum(1) > 0
        kept = own_share(alpha, self.scale, mapped)
        own = [row for row, base in enumerate(self.base) if row == base or (kept[row] != 0).any()]
        follows = in_force(step, self.pooled_share, self.steps)
        return StepPlan(
            base=self.base,
            pooled=tuple(base if follows[row] else row for row, base in enumerate(self.base)),
            follow_self=bool(in_force(step, np.array(self.self_share), self.steps)),
            self_side=self.self_side,
            moved=torch.from_numpy(self.mapper * (self.scale * alpha)[:, None, :]).to(device),
            kept=torch.from_numpy(kept.astype(np.float32)).to(device),
            own=tuple(own),
            follows_words=bool((alpha * mapped).any()),
            reweights=bool((kept != 1).any()),
        )


def in_force(step: int, share: NDArray[np.floating], steps: int) -> NDArray[np.bool_]:
    """alpha(t) of Hertz et al. 2022, equation 6: true while t, counted from 0, is less than tau = share x steps.

    Shares are float32, whose error times 100 steps is 6e-6, so that a product just over a whole number counts as that.
    """
    found: NDArray[np.bool_] = step < np.asarray(share, np.float64) * steps - 1e-5
    return found


def own_share(
    alpha: NDArray[np.float32], scale: NDArray[np.float32], mapped: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """1 - alpha + c alpha (1 - m): what a token keeps of its own map (Hertz et al. 2022, section 3.2).

    The refinement's alpha A_e + (1 - alpha) A_e where there is no counterpart (m = 0), with re-weighting by c on the first.
    """
    return 1 - alpha + scale * alpha * (1 - mapped)


def make_plan(
    bases: Sequence[int],
    alignments: Sequence[Alignment | None],
    self_share: float,
    pooled_share: float,
    steps: int,
    self_side: int | None = None,
) -> EditPlan:
    """Build the plan of R rows from each one's base and alignment; None for rows that are bases."""
    length = next((len(item.mapper) for item in alignments if item is not None), 77)
    eye, none, one = (
        np.eye(length, dtype=np.float32),
        np.zeros(length, np.float32),
        np.ones(length, np.float32),
    )
    return EditPlan(
        base=tuple(bases),
        mapper=np.stack([eye if item is None else item.mapper for item in alignments]),
        scale=np.stack([one if item is None else item.scale for item in alignments]),
        share=np.stack([none if item is None else item.share for item in alignments]),
        self_share=self_share,
        self_side=self_side,
        pooled_share=np.array([0.0 if item is None else pooled_share for item in alignments], np.float32),
        steps=steps,
    )


def with_empty_half(plan: EditPlan, halves: Halves, default_share: float) -> EditPlan:
    """Return the plan of 2R rows, the R unconditional ones first.

    With "both", unconditional rows follow too: their prompts are all the same, so every token follows its like for the
    default share of the steps. With "conditional" they are left alone, as in the paper's code.
    """
    rows = len(plan.base)
    edits = np.array([base != row for row, base in enumerate(plan.base)])
    share = np.zeros_like(plan.share)
    if halves == "both":
        share[edits] = default_share
    eye = np.broadcast_to(np.eye(plan.mapper.shape[1], dtype=np.float32), plan.mapper.shape)
    empty = plan.base if halves == "both" else tuple(range(rows))
    return replace(
        plan,
        base=(*empty, *(base + rows for base in plan.base)),
        mapper=np.concatenate([eye, plan.mapper]),
        scale=np.concatenate([np.ones_like(plan.scale), plan.scale]),
        share=np.concatenate([share, plan.share]),
        pooled_share=np.concatenate([np.zeros_like(plan.pooled_share), plan.pooled_share]),
    )
