"""Attention processors that follow an edit plan, without ever building an attention map.

Every controller of prompt-to-prompt is linear in the attention map, so it can be moved to the values, and fused
attention stays usable. With Q, K, V of the row's base b or of the edited row e, M the mapper and alpha its schedule:

    self-attention:   out_e = attn(Q_b, K_b, V_e)
    cross-attention:  out_e = attn(Q_b, K_b, M diag(alpha) V_e) + attn(Q_e, K_e, diag(1 - alpha) V_e)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional

from storage.errors import CounterpoiseError

from .plan import StepPlan


class Control:
    """Tells the processors what holds now; None means plain attention."""

    def __init__(self) -> None:
        self.step: StepPlan | None = None


class FollowBase:
    """A diffusers attention processor for one layer; rows are R unconditional, then R conditional."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return the layer's output (2R, pixels, channels); see the formulas at the top."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            _split_heads(project(source), attn.heads)
            for project, source in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        step = self.control.step
        if step is None:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        elif encoder_hidden_states is None:
            mixed = follow_self(query, key, value, step)
        else:
            mixed = follow_words(query, key, value, step)
        joined = mixed.transpose(1, 2).flatten(2).to(query.dtype)
        return attn.to_out[1](attn.to_out[0](joined)) / attn.rescale_output_factor


def follow_self(query: Tensor, key: Tensor, value: Tensor, step: StepPlan) -> Tensor:
    """Self-attention injection (Hertz et al. 2022, equation 6): the base's map over the row's own values.

    Args:
        query: (2R, heads, pixels, channels).
        key: (2R, heads, pixels, channels).
        value: (2R, heads, pixels, channels).
        step: what holds now.
    """
    if step.follow_self:
        rows = _both_halves(step.base, len(query))
        query, key = query[rows], key[rows]
    return functional.scaled_dot_product_attention(query, key, value)


def follow_words(query: Tensor, key: Tensor, value: Tensor, step: StepPlan) -> Tensor:
    """Cross-attention injection (Hertz et al. 2022, section 3.2) in the conditional half.

    Args:
        query: (2R, heads, pixels, channels).
        key: (2R, heads, T, channels).
        value: (2R, heads, T, channels).
        step: what holds now.
    """
    if not bool(step.alpha.any()):
        return functional.scaled_dot_product_attention(query, key, value)
    half = len(step.base)
    alpha = step.alpha.to(value.dtype)[:, None, :, None]
    own = torch.cat([value[:-half], (1 - alpha) * value[-half:]])
    plain = functional.scaled_dot_product_attention(query, key, own)
    moved = step.mapper.to(value.dtype)[:, None] @ (alpha * value[-half:])
    followed = functional.scaled_dot_product_attention(
        query[-half:][step.base], key[-half:][step.base], moved
    )
    return torch.cat([plain[:-half], plain[-half:] + followed])


def _split_heads(projected: Tensor, heads: int) -> Tensor:
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


def _both_halves(base: Tensor, rows: int) -> Tensor:
    """Row indices for every half of the classifier-free guidance batch."""
    return torch.cat([base + start for start in range(0, rows, len(base))])


def check_layer(name: str, attn: nn.Module) -> None:
    """Refuse a layer whose attention these processors would not reproduce.

    Raises:
        CounterpoiseError: names the layer and what is unusual about it.
    """
    odd = [
        what
        for what in (
            "added_kv_proj_dim",
            "spatial_norm",
            "group_norm",
            "norm_q",
            "norm_cross",
            "residual_connection",
        )
        if getattr(attn, what, None) not in (None, False)
    ]
    processor = getattr(attn, "processor", None)
    if getattr(attn, "fused_projections", False):
        odd.append("fused projections")
    if not isinstance(processor, AttnProcessor | AttnProcessor2_0):
        odd.append(f"processor {type(processor).__name__}")
    if odd:
        raise CounterpoiseError(
            f"attention layer {name}: has {', '.join(odd)}; prompt-to-prompt needs SDXL's plain attention with diffusers' "
            "own processors: unload adapters and unfuse projections first"
        )


@contextmanager
def attention_edit(unet: nn.Module) -> Iterator[Control]:
    """Install the processors on a UNet, and give its own back at the end, whatever happens."""
    layers = {name: module for name, module in unet.named_modules() if isinstance(module, Attention)}
    for name, layer in layers.items():
        check_layer(name, layer)
    control, own = Control(), {name: layer.processor for name, layer in layers.items()}
    try:
        for layer in layers.values():
            layer.processor = FollowBase(control)
        yield control
    finally:
        for name, layer in layers.items():
            layer.processor = own[name]
