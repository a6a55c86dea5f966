"""Skew, MaxSkew@C and MinSkew@C: the formulas.

Cheng et al. 2025 (CMSC) name them and print no formula that could be read; this is our reading, with the log ratio of
MaxSkew@k (Geyik et al. 2019) over the images that a model assigns to a concept instead of the k first.
"""

from __future__ import annotations

import numpy as np

from .predictions import Ints
from .sampling import Floats


def share(counts: Ints | Floats, smoothing: float) -> Floats:
    """Smoothed shares: (n_a + s) / (n + s K), n the sum of the n_a; they sum to 1.

    Args:
        counts: (..., K), n_a: answers C to images of value a.
        smoothing: s, from 0; in answers.
    """
    counts = np.asarray(counts, np.float64)
    total = counts.sum(-1, keepdims=True)
    found: Floats = (counts + smoothing) / (total + smoothing * counts.shape[-1])
    return found


def skew(share: Floats, target: Floats) -> Floats:
    """Skew_a@C: ln(share / target), natural logarithm; -inf for a share of 0.

    Args:
        share: (..., K).
        target: (..., K), above 0.
    """
    with np.errstate(divide="ignore"):
        return np.log(share / target)


def extremes(skews: Floats) -> tuple[Floats, Floats]:
    """MaxSkew@C and MinSkew@C: means over concepts of the largest and smallest Skew; (..., C, K) gives (...) twice."""
    return skews.max(-1).mean(-1), skews.min(-1).mean(-1)


def shrunk(skews: Floats, low: Floats, high: Floats) -> Floats:
    """Skew t^2 / (t^2 + se^2): Skews drawn towards 0, the more so the less is known of them.

    Empirical Bayes with a normal spread t around 0 (Efron and Morris 1973), not printed in the paper: t^2 is the mean of
    Skew^2 - se^2 over the axis, from 0, weighted by se^-4. Where all cells are noise t is 0, and so is all that is left; a
    cell alone could not tell, and a rule cell by cell, max(0, 1 - (se / Skew)^2), leaves what chance made large. An
    infinite Skew stays, one with an open interval becomes 0.

    Args:
        skews: (C, K), of one axis.
        low: (C, K), ends of the 95 % intervals, 2 * 1.96 standard errors se apart.
        high: (C, K).
    """
    known = np.isfinite(skews) & np.isfinite(low)
    found = np.where(np.isinf(skews), skews, 0.0)
    if known.any():
        noise = ((high[known] - low[known]) / 3.92) ** 2
        spread = max(0.0, np.average(skews[known] ** 2 - noise, weights=noise**-2))
        found[known] = skews[known] * spread / (spread + noise)
    return found
