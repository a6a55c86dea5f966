"""Attention processors that follow an edit plan.

With Q, K, V of the base b or of its edit e, M the mapper, alpha the schedule and c the equalizer (see `formulas`):

    self-attention:   out_e = attn(Q_b, K_b, V_e)
    cross-attention:  out_e = attn(Q_b, K_b, M diag(c alpha) V_e) + attn(Q_e, K_e, diag(1 - alpha) V_e)

where a word that has no counterpart in the base keeps (1 - alpha + c alpha) of its own.

What a formula does not need is not computed: no queries and keys of rows that only follow, no second term where alpha is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from .blend import WordMaps
from .formulas import injected_values, kept_values, one_softmax, plain
from .plan import StepPlan


class Control:
    """Tells the processors of one UNet what holds now.

    Attributes:
        step: the plan of the present step; None is plain attention.
        maps: collects the word maps of a local blend, where there is one.
    """

    def __init__(self) -> None:
        self.step: StepPlan | None = None
        self.maps: WordMaps | None = None


class FollowBase:
    """A diffusers attention processor for one layer."""

    def __init__(self, control: Control, is_cross: bool) -> None:
        self.control = control
        self.is_cross = is_cross

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return the layer's output (U, P, C); see the formulas at the top."""
        step, maps = self.control.step, self.control.maps
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        mask = _row_mask(attn, attention_mask, hidden_states, context)
        maps = maps if self.is_cross and maps is not None and maps.wants(hidden_states.shape[1]) else None
        if step is not None and self.is_cross and (step.follows_words or maps is not None):
            mixed = _cross_layer(attn, hidden_states, context, mask, step, maps)
        elif step is not None and not self.is_cross and step.follows_self(hidden_states.shape[1]):
            mixed = _self_layer(attn, hidden_states, mask, step)
        else:
            mixed = _plain_layer(attn, hidden_states, context, mask)
        joined = mixed.transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](joined)) / attn.rescale_output_factor


def _row_mask(attn: Attention, mask: Tensor | None, hidden: Tensor, context: Tensor) -> Tensor | None:
    """Return an additive mask (U, 1, 1, T), or None."""
    if mask is None:
        return None
    whole = attn.prepare_attention_mask(mask, context.shape[1], len(hidden))
    return whole.unflatten(0, (len(hidden), -1))[:, :1]


def _plain_layer(attn: Attention, hidden: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
    return plain(
        _heads(attn.to_q(hidden), attn),
        _heads(attn.to_k(context), attn),
        _heads(attn.to_v(context), attn),
        mask,
    )


def _self_layer(attn: Attention, hidden: Tensor, mask: Tensor | None, step: StepPlan) -> Tensor:
    """Self-attention injection (Hertz et al. 2022, equation 6): the base's map over every row's own values.

    Args:
        attn: the layer.
        hidden: (U, P, C).
        mask: (U, 1, 1, P) or None; the base's counts.
        step: what holds now.

    Returns:
        (U, H, P, D).
    """
    families = step.families
    source = _pick(hidden, list(families))
    query, key = _heads(attn.to_q(source), attn), _heads(attn.to_k(source), attn)
    value = _heads(attn.to_v(hidden), attn)
    out: list[Tensor | None] = [None] * len(hidden)
    for place, (base, edits) in enumerate(families.items()):
        rows = [base, *edits]
        limit = None if mask is None else mask[base]
        found = one_softmax(query[place], key[place], [value[row] for row in rows], limit)
        for row, mixed in zip(rows, found, strict=True):
            out[row] = mixed
    return torch.stack(out)  # type: ignore[arg-type]


def _cross_layer(
    attn: Attention,
    hidden: Tensor,
    context: Tensor,
    mask: Tensor | None,
    step: StepPlan,
    maps: WordMaps | None,
) -> Tensor:
    """Cross-attention injection (Hertz et al. 2022, section 3.2) in the form at the top of the file.

    A local blend's word maps are one more channel of the values: 1 at its words, else 0.

    Args:
        attn: the layer.
        hidden: (U, P, C).
        context: (U, T, C').
        mask: (U, 1, 1, T) or None; the first term takes the base's, the second the edit's.
        step: what holds now.
        maps: where word maps go, if this layer's are wanted.

    Returns:
        (U, H, P, D).
    """
    own = list(step.own)
    query, key = _heads(attn.to_q(_pick(hidden, own)), attn), _heads(attn.to_k(_pick(context, own)), attn)
    value = attn.to_v(context)
    marks = None if maps is None else maps.marks
    second = _with_marks(_heads(kept_values(value[own], step.kept[own]), attn), marks, own, step.kept)
    out: list[Tensor | None] = [None] * len(hidden)
    followed = [(base, edits) for base, edits in step.families.items() if edits and step.follows_words]
    alone = [place for place, row in enumerate(own) if row not in {base for base, _ in followed}]
    if alone:
        mixed = plain(query[alone], key[alone], second[alone], None if mask is None else mask[own][alone])
        for place, found in zip(alone, mixed.unbind(), strict=True):
            out[own[place]] = found
    for base, edits in followed:
        place = own.index(base)
        moved = [
            _with_marks(
                _heads(injected_values(value[row], step.moved[row])[None], attn),
                marks,
                [row],
                None,
                step.moved,
            )[0]
            for row in edits
        ]
        limit = None if mask is None else mask[base]
        first = one_softmax(query[place], key[place], [second[place], *moved], limit)
        for row, found in zip([base, *edits], first, strict=True):
            out[row] = found if out[row] is None else out[row] + found  # type: ignore[operator]
    stacked = torch.stack(out)  # type: ignore[arg-type]
    if maps is None:
        return stacked
    maps.add(stacked[..., -1])
    return stacked[..., :-1]


def _with_marks(
    value: Tensor, marks: Tensor | None, rows: Sequence[int], kept: Tensor | None, moved: Tensor | None = None
) -> Tensor:
    """Append the word marks of `rows`, weighted as the values are, as one more channel of every head."""
    if marks is None:
        return value
    column = marks[list(rows), :, None].float()
    if kept is not None:
        column = kept[list(rows), :, None] * column
    if moved is not None:
        column = moved[list(rows)] @ column
    extra = column[:, None].to(value.dtype).expand(-1, value.shape[1], -1, -1)
    return torch.cat([value, extra], -1)


def _pick(rows: Tensor, wanted: Sequence[int]) -> Tensor:
    return rows if len(wanted) == len(rows) else rows[list(wanted)]


def _heads(projected: Tensor, attn: Attention) -> Tensor:
    return projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
