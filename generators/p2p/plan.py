"""The plan of an edit: pure data that says, for every step, which member follows which, and how.

Notation: R rows (members in one UNet call), T tokens. The denoising loop asks `plan.at(step)`; nobody counts calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .align import Alignment


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What holds at one step.

    Attributes:
        base: (R,) row that each row follows; a base names itself.
        mapper: (R, T, T), see `align`.
        alpha: (R, T), 1 where edited token j follows its base at this step.
        follow_self: rows follow their base's self-attention at this step.
        follow_pooled: rows use their base's pooled text embedding at this step.
    """

    base: Tensor
    mapper: Tensor
    alpha: Tensor
    follow_self: bool
    follow_pooled: bool


@dataclass(frozen=True, slots=True)
class EditPlan:
    """The edits of one UNet call's rows over all steps.

    Attributes:
        base: (R,) int64.
        mapper: (R, T, T) float32; the identity for bases.
        share: (R, T) float32, the share of the steps for which a token follows.
        self_share: share of the steps with self-attention injection (Hertz et al. 2022, equation 6, tau).
        pooled_share: share of the steps with the base's pooled embedding, which bypasses attention.
        steps: how many denoising steps there are.
    """

    base: Tensor
    mapper: Tensor
    share: Tensor
    self_share: float
    pooled_share: float
    steps: int

    def at(self, step: int) -> StepPlan:
        """Return what holds at `step`, counted from 0."""
        return StepPlan(
            base=self.base,
            mapper=self.mapper,
            alpha=(step < self.share * self.steps).float(),
            follow_self=step < self.self_share * self.steps,
            follow_pooled=step < self.pooled_share * self.steps,
        )

    def to(self, device: torch.device | str) -> EditPlan:
        """Return the plan on another device."""
        return EditPlan(
            self.base.to(device), self.mapper.to(device), self.share.to(device),
            self.self_share, self.pooled_share, self.steps,
        )  # fmt: skip


def make_plan(
    bases: Sequence[int],
    alignments: Sequence[Alignment | None],
    self_share: float,
    pooled_share: float,
    steps: int,
) -> EditPlan:
    """Build a plan from each row's base and alignment; None for rows that are bases."""
    length = next((len(item.mapper) for item in alignments if item is not None), 77)
    eye, none = torch.eye(length), torch.zeros(length)
    return EditPlan(
        base=torch.tensor(list(bases)),
        mapper=torch.stack([eye if item is None else torch.from_numpy(item.mapper) for item in alignments]),
        share=torch.stack([none if item is None else torch.from_numpy(item.share) for item in alignments]),
        self_share=self_share,
        pooled_share=pooled_share,
        steps=steps,
    )
