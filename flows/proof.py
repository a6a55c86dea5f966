"""The comparison with and without prompt-to-prompt, kept so that the report can be written again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from generators.comparison import Comparison
from storage.backend import open_backend

from .sheets import thumbnail, webp_uri

PROOF = "report/comparison.json"
_MAX_BYTES = 2**26
_EXAMPLES = 4
_SIDE = 128
_NUMBERS = ("ratio", "low", "high", "accuracy_with", "accuracy_without")


@dataclass(frozen=True, slots=True)
class Proof:
    """A comparison as stored.

    Attributes:
        numbers: bases, ratio of medians, its interval's low and high, accuracies; NaN where not computed.
        with_p2p: background_change of every edit, in grey levels.
        without: the same edits sampled plainly.
        examples: data URIs of (base, edit with, edit without).
    """

    numbers: Mapping[str, float]
    with_p2p: tuple[float, ...]
    without: tuple[float, ...]
    examples: tuple[tuple[str, str, str], ...]


def save_comparison(dataset: str, found: Comparison) -> None:
    """Store a comparison in the dataset's report folder."""
    body = {
        "bases": found.bases,
        **{name: _finite(getattr(found, name)) for name in _NUMBERS},
        "with_p2p": [_finite(value) for value in found.with_p2p],
        "without": [_finite(value) for value in found.without],
        "examples": [[_example(image) for image in row] for row in found.examples[:_EXAMPLES]],
    }
    with open_backend(dataset).staging() as staging:
        staging.put(staging.stage(PROOF, [json.dumps(body).encode()]), PROOF)


def load_comparison(dataset: str) -> Proof | None:
    """The stored comparison; None where there is none, or one that is not of this making."""
    backend = open_backend(dataset)
    if not backend.exists(PROOF):
        return None
    try:
        body = json.loads(backend.read(PROOF, _MAX_BYTES))
        numbers = {name: _number(body[name]) for name in ("bases", *_NUMBERS)}
        values = [tuple(_number(value) for value in body[name]) for name in ("with_p2p", "without")]
        examples = tuple((_uri(base), _uri(edit), _uri(plain)) for base, edit, plain in body["examples"])
    except (ValueError, KeyError, TypeError):
        return None
    return Proof(numbers, values[0], values[1], examples)


def _example(image: Image.Image) -> str:
    return webp_uri(thumbnail(image, _SIDE), 20_000)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _uri(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("data:image/webp;base64,"):
        raise ValueError("not a picture")
    return value
