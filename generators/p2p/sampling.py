"""The denoising loop of one UNet call's rows: shared noise, guidance, the plan of the edit, local blend."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from .attention import Control
from .blend import Blend, WordMaps, blend_step
from .formulas import guided
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
            noise: (R, C, h, w), unit variance.
            conditions: of the U rows.
            plan: of the U rows; None samples every member plainly.
            seed: of the noise that ancestral samplers add; every member gets the same.
            blend: local blend, if any.
        """
        self.unet, self.scheduler, self.conditions, self.plan = unet, scheduler, conditions, plan
        self.latents = noise * scheduler.init_noise_sigma
        self.maps = WordMaps(blend) if blend is not None and plan is not None else None
        self._given = _own_noise(scheduler, seed, len(noise))

    def run(self, control: Control) -> Tensor:
        """Denoise to the end; returns the members' latents (R, C, h, w)."""
        for step in range(len(self.scheduler.timesteps)):
            self._step(control, step)
        control.step, control.maps = None, None
        return self.latents

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
            found = guided(empty, asked, self.conditions.guidance)
        self.latents = self.scheduler.step(found, time, self.latents, **self._given).prev_sample
        if self.maps is not None and now is not None:
            bases = [base % rows for base in now.base[-rows:]]
            self.latents = blend_step(self.latents, bases, self.maps, step)


def _own_noise(scheduler: Any, seed: int, rows: int) -> dict[str, Any]:
    """Return the generators for samplers that add noise: one per row, equally seeded, so that rows share it."""
    if "generator" not in signature(scheduler.step).parameters:
        return {}
    return {"generator": [torch.Generator().manual_seed(seed) for _ in range(rows)]}
