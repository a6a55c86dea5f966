"""Bias-aware resampling: images of over-represented cells are dropped now and then, those of the others copied.

Source: the resampling of CSD in Cheng et al. 2025 (CMSC), for tau1 = tau2 = 1. Their running sum, which inserts a copy
whenever it passes tau2, has the expectation `multiplicity`; here each image is drawn for by itself, by a hash of
(seed, epoch, key), so that neither the order nor the number of workers matters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from storage.errors import CounterpoiseError

Floats = npt.NDArray[np.float64]
Skews = float | Sequence[float] | Floats


def keep_probability(skew: Skews, tau1: float = 1.0) -> Floats:
    """tau1 / (skew + tau1) where skew > 0, else 1; of the shape of `skew`.

    Args:
        skew: instance skew, natural logarithm, finite.
        tau1: skew at which every second image is dropped, > 0.
    """
    values = _finite(skew)
    _check_tau("tau1", tau1)
    return tau1 / (np.maximum(values, 0.0) + tau1)


def multiplicity(skew: Skews, tau1: float = 1.0, tau2: float = 1.0) -> Floats:
    """Expected copies: `keep_probability` where skew > 0, else 1 + |skew| / tau2; of the shape of `skew`.

    Args:
        skew: instance skew, natural logarithm, finite.
        tau1: skew at which every second image is dropped, > 0.
        tau2: skew that is worth a further copy, > 0.
    """
    values = _finite(skew)
    _check_tau("tau2", tau2)
    return np.where(values > 0, keep_probability(values, tau1), 1 + np.maximum(-values, 0.0) / tau2)


def copies(skew: float, key: str, seed: int, epoch: int, tau1: float = 1.0, tau2: float = 1.0) -> int:
    """How often an image is handed out in an epoch: 0 or 1 where skew > 0, else 1 + |skew| / tau2 rounded at random.

    Args:
        skew: instance skew, natural logarithm, finite.
        key: of the image.
        seed: of the draw.
        epoch: each is a draw of its own.
        tau1: skew at which every second image is dropped, > 0.
        tau2: skew that is worth a further copy, > 0.

    Raises:
        CounterpoiseError: skew is not finite, or a tau is not above 0.
    """
    return int(copies_of([skew], [key], seed, epoch, tau1, tau2)[0])


def copies_of(
    skew: Sequence[float] | Floats,
    keys: Sequence[str],
    seed: int,
    epoch: int,
    tau1: float = 1.0,
    tau2: float = 1.0,
) -> npt.NDArray[np.int32]:
    """`copies` of many images, (n,), for the column `multiplicity` of a skew sidecar.

    Raises:
        CounterpoiseError: a skew is not finite, a tau not above 0, or skews and keys differ in number.
    """
    expected = multiplicity(skew, tau1, tau2)
    if expected.shape != (len(keys),):
        raise CounterpoiseError(
            f"{len(keys)} keys and skews of shape {expected.shape}: one for each is wanted."
        )
    whole = np.floor(expected)
    drawn = uniform(keys, seed, epoch) < expected - whole
    return (whole + drawn).astype(np.int32)


def uniform(keys: Sequence[str], seed: int, epoch: int) -> Floats:
    """A number in [0, 1) for every key, (n,), that depends on seed, epoch and the key alone."""
    start = hashlib.sha256(json.dumps(["copies", seed, epoch]).encode())
    return np.array([_draw(start, key) for key in keys], np.float64)


def _draw(start: hashlib._Hash, key: str) -> float:
    digest = start.copy()
    digest.update(key.encode())
    return fraction(digest.digest())


def drawn(*parts: str | int) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return fraction(hashlib.sha256(json.dumps(parts).encode()).digest())


def fraction(digest: bytes) -> float:
    """A number in [0, 1) from a hash."""
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # as many bits as a float has


def _finite(skew: Skews) -> Floats:
    values = np.asarray(skew, np.float64)
    if not np.isfinite(values).all():
        raise CounterpoiseError(
            "skew is not finite for some images: a value that a model never gives has no Skew without smoothing; "
            "make the skew table with a smoothing above 0."
        )
    return values


def _check_tau(name: str, tau: float) -> None:
    if not (np.isfinite(tau) and tau > 0):
        raise CounterpoiseError(f"{name} is {tau}: a number above 0 is wanted.")
