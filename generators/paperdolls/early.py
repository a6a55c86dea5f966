"""What early rejection saves and loses on the shipped model, and the limits that go with its scorers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from generators.candidates import Factory
from generators.filters import Score, judge
from generators.plan import make_plan
from generators.scorers import load_scorers
from generators.sdxl import SdxlEngine
from generators.spec import Sampler, Spec, Thresholds

from . import WEIGHTS
from .evaluation import EDIT, GUIDANCE
from .proof import spec

SHARE = 0.4
SAVED_BAR, LOST_BAR = 0.4, 0.02
_LEAST = ("clip_text", "clip_base", "clip_direction")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate's scores when it was looked at, and whether it was kept in the end."""

    early: tuple[Mapping[str, Score], ...]
    kept: bool

    def weakest(self, name: str) -> float:
        """The least of a score over the members."""
        return min(float(value) for row in self.early if (value := row.get(name)) is not None)

    @property
    def read(self) -> float:
        """Share of the members whose attributes read as prompted."""
        return float(np.mean([bool(row["attribute_ok"]) for row in self.early]))


@dataclass(frozen=True, slots=True)
class Saving:
    """What limits do: shares of the rejected candidates' steps that are saved, and of the good sets that are lost."""

    saved: float
    lost: float
    rejected: int
    kept: int

    def passed(self) -> bool:
        """Tell whether the bars are met."""
        return self.saved >= SAVED_BAR and self.lost <= LOST_BAR


def candidates(sets: int, share: float, on_set: Callable[[], None] | None = None) -> list[Candidate]:
    """Make the first candidate of `sets` sets, look at it after `share` of its steps, and finish it all the same."""
    chosen: Spec = spec(-(-sets // 18), Sampler(steps=15, guidance=GUIDANCE), EDIT)
    factory = Factory(replace(chosen, seed=5), SdxlEngine("embedded"), load_scorers(chosen))
    limits, found = factory.scorers.thresholds(chosen), []
    for planned in make_plan(factory.spec)[:sets]:
        request = factory.request(planned, 0)
        glance = factory.engine.glance(request, share)
        early = factory.scorers.score(request, glance.images)
        final = factory.scorers.score(request, glance.finish())
        found.append(Candidate(tuple(early), judge(final, limits).keep))
        if on_set:
            on_set()
    return found


def limits_for(known: Sequence[Candidate], slack: float) -> Thresholds:
    """Return limits that every kept candidate passed, loosened by `slack` standard deviations of the kept ones' scores."""
    kept = [one for one in known if one.kept]

    def least(values: list[float]) -> float:
        return float(min(values) - slack * np.std(values))

    lowest = {name: round(least([one.weakest(name) for one in kept]), 3) for name in _LEAST}
    read = round(max(0.0, least([one.read for one in kept])), 2)
    return Thresholds(**lowest, background_change=None, attribute_share=read, nsfw=0.5, faces=None)


def saving(tried: Sequence[Candidate], limits: Thresholds, share: float) -> Saving:
    """Count what `limits` would have saved and lost among candidates that they were not set on."""
    stopped = [not judge(one.early, limits).keep for one in tried]
    rejected = [stop for one, stop in zip(tried, stopped, strict=True) if not one.kept]
    kept = [stop for one, stop in zip(tried, stopped, strict=True) if one.kept]
    saved = (1 - share) * float(np.mean(rejected)) if rejected else float("nan")
    return Saving(saved, float(np.mean(kept)) if kept else float("nan"), len(rejected), len(kept))


def run(sets: int, share: float, on_set: Callable[[], None] | None = None) -> tuple[Thresholds, Saving]:
    """Set limits on one half of the candidates, measure them on the other, and write them beside the CLIP."""
    made = candidates(sets, share, on_set)
    limits = limits_for(made[::2], slack=0.5)
    write(limits)
    return limits, saving(made[1::2], limits, share)


def write(limits: Thresholds, weights: Path = WEIGHTS) -> None:
    """Write the limits beside the CLIP that they go with."""
    (weights / "clip" / "preview.json").write_text(json.dumps(asdict(limits), indent=2) + "\n")
