"""Bias-aware resampling: how often an image is seen in an epoch, given its instance skew."""

from __future__ import annotations

import hashlib
import json
import math


def keep_probability(skew: float, tau1: float = 1.0) -> float:
    """tau1 / (skew + tau1) for an over-represented image (skew > 0), else 1."""
    return tau1 / (skew + tau1) if skew > 0 else 1.0


def multiplicity(skew: float, tau1: float = 1.0, tau2: float = 1.0) -> float:
    """Expected copies: `keep_probability` for skew > 0, else 1 + |skew| / tau2."""
    return keep_probability(skew, tau1) if skew > 0 else 1.0 + abs(skew) / tau2


def copies(skew: float, key: str, seed: int, epoch: int, tau1: float = 1.0, tau2: float = 1.0) -> int:
    """Copies of an image in an epoch, whose expectation is `multiplicity`.

    Drawn by a hash of (seed, epoch, key), so that neither order nor workers matter.
    """
    digest = hashlib.sha256(json.dumps([seed, epoch, key]).encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") / 2**64
    if skew > 0:
        return int(drawn < keep_probability(skew, tau1))
    whole = math.floor(abs(skew) / tau2)
    return 1 + whole + int(drawn < abs(skew) / tau2 - whole)
