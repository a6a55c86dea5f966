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
    """Skew max(0, 1 - (se / Skew)^2), se a quarter of the interval: what noise may have made is drawn towards 0.

    The positive part of James and Stein's rule, cell by cell, (C, K). It needs no spread that cells have in common, so that
    one biased concept among fair ones neither shelters their noise nor is levelled with it: what is within one standard
    error of 0 becomes 0, and at five standard errors 4 % are taken. An infinite Skew stays.
    """
    error = (high - low) / 4
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = skews * np.maximum(0.0, 1 - (error / skews) ** 2)
    kept = np.where(np.isfinite(error) & (skews != 0), kept, 0.0)
    return np.where(np.isinf(skews), skews, kept)
