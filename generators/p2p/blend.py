"""Local blend (Hertz et al. 2022, "local editing"): outside the words' region an edit keeps its base's latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .formulas import wide


@dataclass(frozen=True, slots=True)
class Blend:
    """What a local blend does.

    Attributes:
        marks: (U, T) 1 at the tokens of the words whose region may change; conditional rows only, else 0.
        level: height and width of the layers whose word maps count.
        threshold: of the normalised map, in [0, 1].
        start: first step that is blended, counted from 0.
        rows: how many rows the latents have; the last ones of the U.
    """

    marks: Tensor
    level: tuple[int, int]
    threshold: float
    start: int
    rows: int


class WordMaps:
    """Sums the post-edit attention of the marked words over heads, layers and steps."""

    def __init__(self, blend: Blend) -> None:
        self.blend = blend
        self.marks = blend.marks
        self.total: Tensor | None = None

    def wants(self, pixels: int) -> bool:
        """Tell whether the maps of a layer with so many pixels count."""
        return pixels == self.blend.level[0] * self.blend.level[1]

    def add(self, maps: Tensor) -> None:
        """Take the maps (U, H, P) of one layer at one step."""
        found = wide(maps[-self.blend.rows :]).mean(1)
        self.total = found if self.total is None else self.total + found


def region(total: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """Return where the words are, B(M) of the paper: 3 x 3 maximum, resized (bilinear), relative to its peak, cut.

    Args:
        total: (R, h, w) summed attention.
        height: of the latents.
        width: of the latents.
        threshold: in [0, 1].

    Returns:
        booleans (R, 1, height, width).
    """
    spread = functional.max_pool2d(total[:, None], 3, 1, 1)
    full = functional.interpolate(spread, size=(height, width), mode="bilinear", align_corners=False)
    peak = full.amax(dim=(2, 3), keepdim=True).clamp_min(torch.finfo(full.dtype).tiny)
    return full / peak > threshold


def blended(latents: Tensor, base: Sequence[int], mask: Tensor) -> Tensor:
    """x_b + m (x_e - x_b), m the union of the base's and the edit's region (Hertz et al. 2022, "local editing").

    Args:
        latents: (R, C, h, w).
        base: the row that each row follows.
        mask: booleans (R, 1, h, w).
    """
    rows = torch.tensor(list(base), device=latents.device)
    return torch.where(mask | mask[rows], latents, latents[rows])


def blend_step(latents: Tensor, base: Sequence[int], maps: WordMaps, step: int) -> Tensor:
    """Blend the latents (R, C, h, w) after step `step`, with the maps gathered so far."""
    blend = maps.blend
    if step < blend.start or maps.total is None:
        return latents
    total = maps.total.unflatten(1, blend.level)
    height, width = latents.shape[-2:]
    return blended(latents, base, region(total, height, width, blend.threshold))
