"""Does prompt-to-prompt keep what should stay? The same seeds with and without it, over the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .candidates import Factory
from .filters import Score, judge
from .plan import PlannedSet

Row = tuple[Image.Image, Image.Image, Image.Image]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Edits made with prompt-to-prompt and plainly, from the same seeds.

    Attributes:
        bases: how many bases the edits belong to.
        with_p2p: background_change of every edit, in grey levels.
        without: the same edits sampled plainly from the same noise.
        accuracy_with: share of the edits whose every attribute reads as prompted.
        accuracy_without: the same, sampled plainly.
        ratio: median of `with_p2p` over median of `without`.
        low, high: 95 % bootstrap interval of the ratio; whole sets are resampled, since their members are related.
        examples: (base, edit with, edit without).
    """

    bases: int
    with_p2p: tuple[float, ...]
    without: tuple[float, ...]
    accuracy_with: float
    accuracy_without: float
    ratio: float
    low: float
    high: float
    examples: tuple[Row, ...]


def compare(
    factory: Factory, planned: Sequence[PlannedSet], seed: int = 0, on_set: Callable[[], None] | None = None
) -> Comparison:
    """Make the first candidate of each planned set twice, with and without prompt-to-prompt.

    A set that the safety scorers flag gives numbers but no examples.

    Args:
        factory: spec, engine and scorers.
        planned: which sets.
        seed: of the bootstrap.
        on_set: called after each set, for progress.
    """
    plain = replace(factory, spec=replace(factory.spec, edit=replace(factory.spec.edit, p2p=False)))
    groups: list[NDArray[np.float64]] = []
    read: list[tuple[float, float]] = []
    examples: list[Row] = []
    bases = 0
    for one in planned:
        request = factory.request(one, 0)
        edited = factory.engine.generate(request)
        free = plain.engine.generate(plain.request(one, 0))
        scores, plain_scores = factory.scorers.score(request, edited), factory.scorers.score(request, free)
        edits = [member for member in request.members if member.base != member.index]
        bases += len({member.base for member in edits})
        groups.append(
            np.array(
                [[_number(s[m.index], "background_change") for m in edits] for s in (scores, plain_scores)]
            )
        )
        read += [
            (_number(scores[m.index], "attribute_ok"), _number(plain_scores[m.index], "attribute_ok"))
            for m in edits
        ]
        if not {judge(s, factory.scorers.thresholds(factory.spec)).reason for s in (scores, plain_scores)} & {
            "nsfw"
        }:
            first = edits[0]
            examples.append((edited[first.base], edited[first.index], free[first.index]))
        if on_set:
            on_set()
    return _summary(bases, groups, read, examples, seed)


def _number(scores: dict[str, Score], name: str) -> float:
    value = scores.get(name)
    return float("nan") if value is None else float(value)


def _summary(
    bases: int,
    groups: list[NDArray[np.float64]],
    read: list[tuple[float, float]],
    examples: list[Row],
    seed: int,
) -> Comparison:
    both = np.concatenate(groups, axis=1)
    low, high = bootstrap_ratio(groups, seed)
    accuracy = np.array(read, dtype=float).mean(0)
    return Comparison(
        bases=bases,
        with_p2p=tuple(both[0].tolist()),
        without=tuple(both[1].tolist()),
        accuracy_with=float(accuracy[0]),
        accuracy_without=float(accuracy[1]),
        ratio=_ratio(both),
        low=low,
        high=high,
        examples=tuple(examples),
    )


def bootstrap_ratio(
    groups: Sequence[NDArray[np.float64]], seed: int, draws: int = 2000
) -> tuple[float, float]:
    """Return the 95 % interval of the ratio of medians; groups of (2, edits) are drawn whole."""
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(draws):
        both = np.concatenate([groups[k] for k in rng.integers(0, len(groups), len(groups))], axis=1)
        ratios.append(_ratio(both))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def _ratio(both: NDArray[np.float64]) -> float:
    """Return the ratio of the medians of (2, edits); NaN where nothing was computed, as without a segmenter."""
    known = both[:, np.isfinite(both).all(0)]
    return float(np.median(known[0]) / np.median(known[1])) if known.shape[1] else float("nan")
