"""What a family's vision tower gives its projector, for teaching with the tower frozen."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from debias.models.base import MultimodalModel

from .tower import patches_of


def seen_by(model: MultimodalModel, pixels: Tensor) -> Tensor:
    """Features before the projector, (B, ...), of pictures (B, 3, H, W) in [-1, 1]."""
    network: Any = model.network
    return patches_of(network.model.vision_tower, pixels)


def projected(model: MultimodalModel, features: Tensor) -> Tensor:
    """Features as the language model is given them, (image tokens of all pictures, width)."""
    network: Any = model.network
    found: Tensor = network.model.multi_modal_projector(features).flatten(0, 1)
    return found
