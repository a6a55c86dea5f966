"""The denoising loop of one UNet call's rows: shared noise, guidance, the plan of the edit, local blend; stops anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from .attention import Control
from .blend import Blend, WordMaps, blend_step
from .plan import EditPlan


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the UNet is told.

    Attributes:
        tokens: (U, T, C) text features, the unconditional half first where there is guidance.
        pooled: (U, D) pooled text features.
        time_ids: (1, 6) original size, crop and target size.
        guidance: strength of classifier-free guidance; 1 is none, and then U is the number of members.
    """

    tokens: Tensor
    pooled: Tensor
    time_ids: Tensor
    guidance: float


class Sampling:
    """Some members on their way from noise to latents."""

    def __init__(
        self,
        unet: nn.Module,
        scheduler: Any,
        members: Sequence[int],
        noise: Tensor,
        conditions: Conditions,
        plan: EditPlan | None,
        seed: int,
        blend: Blend | None = None,
    ) -> None:
        """Begin.

        Args:
            unet: with the processors of `attention_edit` installed.
            scheduler: fresh, its timesteps set.
            members: which R members of the set these are.
            noise: (R, C, h, w), unit variance.
            conditions: of the U rows.
            plan: of the U rows; None samples every member plainly.
            seed: of the noise that ancestral samplers add; every member gets the same.
            blend: local blend, if any.
        """
        self.unet, self.scheduler, self.conditions, self.plan = unet, scheduler, conditions, plan
        self.members = tuple(members)
        self.latents = noise * scheduler.init_noise_sigma
        self.predicted = self.latents
        self.done = 0
        self.maps = WordMaps(blend) if blend is not None and plan is not None else None
        self._given = _own_noise(scheduler, seed, len(noise))

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.scheduler.timesteps)

    def advance(self, control: Control, until: int) -> None:
        """Denoise up to step `until`; `predicted` then holds the clean latents as seen from there."""
        for step in range(self.done, min(until, self.steps)):
            self._step(control, step)
            self.done = step + 1
        control.step, control.maps = None, None

    def _step(self, control: Control, step: int) -> None:
        time, rows = self.scheduler.timesteps[step], len(self.latents)
        halves = len(self.conditions.tokens) // rows
        now = self.plan.at(step, self.latents.device) if self.plan else None
        control.step, control.maps = now, self.maps
        given = self.scheduler.scale_model_input(torch.cat([self.latents] * halves), time)
        pooled = self.conditions.pooled if now is None else self.conditions.pooled[list(now.pooled)]
        added = {"text_embeds": pooled, "time_ids": self.conditions.time_ids.expand(len(given), -1)}
        given = given.to(self.conditions.tokens.dtype)
        found = self.unet(given, time, self.conditions.tokens, added_cond_kwargs=added, return_dict=False)[
            0
        ].to(self.latents.dtype)
        if halves == 2:
            empty, asked = found.chunk(2)
            found = empty + self.conditions.guidance * (asked - empty)
        made = self.scheduler.step(found, time, self.latents, **self._given)
        self.latents, self.predicted = made.prev_sample, _clean(self.scheduler, made)
        if self.maps is not None and now is not None:
            bases = [base % rows for base in now.base[-rows:]]
            self.latents = blend_step(self.latents, bases, self.maps, step)
            self.predicted = blend_step(self.predicted, bases, self.maps, step)


def _own_noise(scheduler: Any, seed: int, rows: int) -> dict[str, Any]:
    """Return the generators for samplers that add noise: one per row, equally seeded, so that rows share it."""
    if "generator" not in signature(scheduler.step).parameters:
        return {}
    return {"generator": [torch.Generator().manual_seed(seed) for _ in range(rows)]}


def _clean(scheduler: Any, made: Any) -> Tensor:
    """Return the scheduler's estimate of the clean latents at this step."""
    for name in ("denoised", "pred_original_sample"):
        if (found := getattr(made, name, None)) is not None:
            return found
    outputs: Sequence[Tensor | None] = getattr(scheduler, "model_outputs", ())
    known = [one for one in outputs if one is not None]
    return known[-1] if known else made.prev_sample
