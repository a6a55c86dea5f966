"""Attention processors that follow an edit plan.

With Q, K, V of the base b or of its edit e, M the mapper, alpha the schedule and c the equalizer (see `formulas`):

    self-attention:   out_e = attn(Q_b, K_b, V_e)
    cross-attention:  out_e = attn(Q_b, K_b, M diag(c alpha) V_e) + attn(Q_e, K_e, diag(1 - alpha) V_e)

where a word that has no counterpart in the base keeps (1 - alpha + c alpha) of its own.

What a formula does not need is not computed: no queries and keys of rows that only follow, no second term where alpha is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from .blend import WordMaps
from .formulas import injected_values, kept_values, plain, put_family, put_plain
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
        if step is not None and self.is_cross and (step.edits_words or maps is not None):
            mixed = _cross_layer(attn, hidden_states, context, mask, step, maps)
        elif step is not None and not self.is_cross and step.follows_self(hidden_states.shape[1]):
            mixed = _self_layer(attn, hidden_states, mask, step)
        else:
            mixed = _plain_layer(attn, hidden_states, context, mask)
        joined = mixed.transpose(1, 2).flatten(2)
        del mixed  # where word maps were a channel of it, the joined heads are a copy
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
    own = list(step.families)
    source = _pick(hidden, own)
    query, key = _heads(attn.to_q(source), attn), _heads(attn.to_k(source), attn)
    value = _heads(attn.to_v(hidden), attn)
    followed = {base: edits for base, edits in step.families.items() if edits}
    return attend(query, key, own, value[own], followed, value, mask)


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
    marks = None if maps is None else maps.marks[..., None].to(value.dtype)
    kept = _with_marks(
        _heads(kept_values(value[own], step.kept[own]), attn),
        None if marks is None else kept_values(marks[own], step.kept[own]),
    )
    followed = {base: edits for base, edits in step.families.items() if edits and step.follows_words}
    moved = None
    if followed:
        moved = _with_marks(
            _heads(injected_values(value, step.moved), attn),
            None if marks is None else injected_values(marks, step.moved),
        )
    mixed = attend(query, key, own, kept, followed, moved, mask)
    if maps is None:
        return mixed
    maps.add(mixed[..., -1])
    return mixed[..., :-1]


def attend(
    query: Tensor,
    key: Tensor,
    own: list[int],
    values: Tensor,
    followed: Mapping[int, Sequence[int]],
    injected: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    """Attend with every row's own map, with its base's, or with both, whose results add up.

    Args:
        query: (N, H, P, D) of the rows in `own`.
        key: (N, H, T, D) of the rows in `own`.
        own: the N rows that have a map of their own, every base among them.
        values: (N, H, T, E) that a row's own map is applied to.
        followed: edits by base, for bases whose map is applied to their edits' injected values too.
        injected: (U, H, T, E) of all rows; None where nothing follows.
        mask: (U, 1, 1, T) or None.

    Returns:
        (U, H, P, E).
    """
    rows = len(own) if injected is None else len(injected)
    # Laid out as fused attention does it: pixels before heads, so that joining the heads copies nothing.
    mixed = query.new_empty(rows, query.shape[2], query.shape[1], values.shape[-1]).transpose(1, 2)
    for base, edits in followed.items():
        assert injected is not None
        place = own.index(base)
        put_family(
            query[place],
            key[place],
            [values[place], *(injected[row] for row in edits)],
            [mixed[row] for row in (base, *edits)],
            None if mask is None else mask[base],
        )
    following = {row for edits in followed.values() for row in edits}
    for add in (False, True):
        left = [place for place, row in enumerate(own) if row not in followed and (row in following) == add]
        if left:
            put_plain(
                [query[place] for place in left],
                [key[place] for place in left],
                [values[place] for place in left],
                [mixed[own[place]] for place in left],
                None if mask is None else [mask[own[place]] for place in left],
                add,
            )
    return mixed


def _with_marks(value: Tensor, marks: Tensor | None) -> Tensor:
    """Append marks (B, T, 1) to values (B, H, T, D) as one more channel of every head."""
    if marks is None:
        return value
    return torch.cat([value, marks[:, None].expand(-1, value.shape[1], -1, -1)], -1)


def _pick(rows: Tensor, wanted: Sequence[int]) -> Tensor:
    return rows if len(wanted) == len(rows) else rows[list(wanted)]


def _heads(projected: Tensor, attn: Attention) -> Tensor:
    return projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
