"""Installing the processors on a UNet for as long as a `with` lasts, and refusing layers that they would not reproduce."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
)
from torch import nn

from storage.errors import CounterpoiseError

from .attention import Control, FollowBase

#: Processors that compute plain attention, so that ours can stand in for them; slicing saves memory, as ours do.
_OWN = (AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor)
_ODD = (
    "added_kv_proj_dim",
    "spatial_norm",
    "group_norm",
    "norm_q",
    "norm_k",
    "norm_cross",
    "residual_connection",
)


def check_layer(name: str, attn: nn.Module) -> None:
    """Refuse a layer whose attention these processors would not reproduce.

    Raises:
        CounterpoiseError: names the layer and what is unusual about it.
    """
    odd = [what for what in _ODD if getattr(attn, what, None) not in (None, False)]
    processor = getattr(attn, "processor", None)
    if getattr(attn, "fused_projections", False):
        odd.append("fused projections")
    if type(processor) not in _OWN:
        odd.append(f"processor {type(processor).__name__}")
    if odd:
        raise CounterpoiseError(
            f"attention layer {name}: has {', '.join(odd)}; prompt-to-prompt needs SDXL's plain attention with diffusers' "
            "own processors: unload adapters and unfuse projections first"
        )


def check_layers(unet: nn.Module) -> None:
    """Refuse a UNet one of whose attention layers these processors would not reproduce; see `check_layer`."""
    for name, layer in _layers(unet).items():
        check_layer(name, layer)


def _layers(unet: nn.Module) -> dict[str, Attention]:
    return {name: module for name, module in unet.named_modules() if isinstance(module, Attention)}


@contextmanager
def attention_edit(unet: nn.Module) -> Iterator[Control]:
    """Install the processors on a UNet, and give its own back at the end, whatever happens.

    Args:
        unet: any UNet2DConditionModel of the SDXL family; its layers are called attn1 (self) and attn2 (cross).

    Yields:
        the control, whose `step` the denoising loop sets before every call of the UNet.
    """
    layers = _layers(unet)
    check_layers(unet)
    control, own = Control(), {name: layer.processor for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.processor = FollowBase(control, is_cross=name.endswith("attn2"))  # type: ignore[assignment]
        yield control
    finally:
        for name, layer in layers.items():
            layer.processor = own[name]
