"""Prompt-to-prompt without attention maps: every controller of the paper is linear in the map, so it moves to the values.

Notation: A_b = softmax(Q_b K_b' / sqrt(d)) the map of base b and A_e that of its edit e; M the mapper, alpha the schedule
and c the equalizer of the edit's tokens; H heads, P pixels, T keys, D channels of a head. Softmax is taken in float32; its
arguments are in the model's dtype: where maps are made in half precision, on a CPU, the error is twice that of fused
attention for scores up to 5, and five to ten times for scores from 18.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

#: Most entries of a map that exist at a time, and most as a share of the values. Slices cost less the longer they are; with
#: a third of the values' size the peak of memory stays under plain attention's, which holds every query and key.
BUDGET, SHARE = 1 << 22, 0.35
#: Fewest pixels of a term that exist beside where it is written, or what it is added to; of large layers it is a sixteenth.
#: Fused attention on a CPU is slower the fewer pixels it is given, and a second term has less room.
WRITTEN, ADDED = 1024, 128
#: Keys (those of a prompt) with which the map costs so little that a pair shares it as well.
FEW_KEYS = 77


def stays_on_chip(query: Tensor) -> bool:
    """Whether fused attention never writes its map to memory, so that one call for all rows is the best form."""
    return query.is_cuda


def wide(values: Tensor) -> Tensor:
    """The same values in float32, or in float64 where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(Q K' / sqrt(d)) V (Vaswani et al. 2017, equation 1), fused.

    Args:
        query: (B, H, P, D).
        key: (B, H, T, D).
        value: (B, H, T, E).
        mask: (B, 1, 1, T), added before the softmax.
    """
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def put_family(
    query: Tensor,
    key: Tensor,
    values: Sequence[Tensor],
    results: Sequence[Tensor],
    mask: Tensor | None = None,
) -> None:
    """A_b [V_1 | ... | V_n]: one base's map over the values of its family, in the form that costs least.

    On a CPU the map is made once, but for a pair of many keys, where two fused attentions cost less. On a GPU, where a map
    never leaves the chip, one fused attention runs for the whole family (not measured).

    Args:
        query: (H, P, D) of the base.
        key: (H, T, D) of the base.
        values: n of (H, T, E).
        results: n of (H, P, E), written.
        mask: (1, 1, T), added before the softmax.
    """
    count = len(values)
    if stays_on_chip(query) or (count == 2 and key.shape[1] > FEW_KEYS):
        put_plain([query] * count, [key] * count, values, results, None if mask is None else [mask] * count)
    else:
        put_one_softmax(query, key, values, results, mask)


def put_one_softmax(
    query: Tensor,
    key: Tensor,
    values: Sequence[Tensor],
    results: Sequence[Tensor],
    mask: Tensor | None = None,
) -> None:
    """`put_family` with the products of one map instead of n; each slice of the map is made once and dropped."""
    heads, pixels, channels = query.shape
    budget = min(BUDGET, SHARE * sum(value.numel() for value in values))
    size = max(16, int(budget / (heads * key.shape[1])))
    columns, scale, nothing = key.transpose(1, 2), channels**-0.5, query.new_empty(())
    for start in range(0, pixels, size):
        rows = slice(start, min(start + size, pixels))
        scores = wide(torch.baddbmm(nothing, query[:, rows], columns, beta=0, alpha=scale))
        weights = (scores if mask is None else scores + mask).softmax(-1).to(query.dtype)
        for result, value in zip(results, values, strict=True):
            result[:, rows] = torch.bmm(weights, value)


def put_plain(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    results: Sequence[Tensor],
    masks: Sequence[Tensor] | None = None,
    add: bool = False,
) -> None:
    """Write A V of some rows, or add it to what is there: on a GPU at once, on a CPU row by row in slices of pixels.

    Args:
        queries: N of (H, P, D).
        keys: N of (H, T, D).
        values: N of (H, T, E).
        results: N of (H, P, E), written or added to.
        masks: N of (1, 1, T), added before the softmax.
        add: it is a second term.
    """
    if stays_on_chip(queries[0]):
        query, key, value = (torch.stack(list(part)) for part in (queries, keys, values))
        terms = plain(query, key, value, None if masks is None else torch.stack(list(masks)))
        for result, term in zip(results, terms, strict=True):
            result.copy_(result + term if add else term)
        return
    pixels = queries[0].shape[1]
    size = max(ADDED if add else WRITTEN, pixels // 16)
    limits: Sequence[Tensor | None] = masks or [None] * len(queries)
    for query, key, value, result, limit in zip(queries, keys, values, results, limits, strict=True):
        for start in range(0, pixels, size):
            rows = slice(start, start + size)
            term = plain(query[None, :, rows], key[None], value[None], limit)[0]
            if add:
                result[:, rows].add_(term)
            else:
                result[:, rows] = term


def guided(empty: Tensor, asked: Tensor, strength: float) -> Tensor:
    """e_0 + s (e_c - e_0), classifier-free guidance (Ho and Salimans 2022, equation 6, with s = 1 + w).

    Args:
        empty: (R, C, h, w), predicted for the empty (or negative) prompt.
        asked: (R, C, h, w), predicted for the prompt.
        strength: s; 1 is no guidance.
    """
    return empty + strength * (asked - empty)


def injected_values(value: Tensor, moved: Tensor) -> Tensor:
    """M diag(c alpha) V_e, so that A_b times it is c alpha (A_b M) V_e.

    This one product is word swap (Hertz et al. 2022, section 3.2, M = the words' mapper), prompt refinement (M = the
    index mapper, whose columns are zero for new words) and re-weighting (c).

    Args:
        value: (B, T, C) of the edits.
        moved: (B, T, T), M diag(c alpha), float32.
    """
    return (moved.to(wide(value).dtype) @ wide(value)).to(value.dtype)


def kept_values(value: Tensor, kept: Tensor) -> Tensor:
    """diag(1 - alpha + c alpha (1 - m)) V_e, so that A_e times it is what the edit keeps of its own map.

    Where a token has a counterpart (m = 1) that is 1 - alpha; new words are re-weighted too, as the paper's code has it.

    Args:
        value: (B, T, C).
        kept: (B, T) of the step's plan, float32.
    """
    return (kept[..., None] * wide(value)).to(value.dtype)
