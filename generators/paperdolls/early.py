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
from .evaluation import EDIT
from .proof import spec

#: Of the previews, and of the samplings that they stand for.
STEPS, WHOLE = 4, 15
#: With the shipped specs' guidance of 3 hardly a set is rejected; with half of it about every other one.
GUIDANCE = 1.5
SAVED_BAR, LOST_BAR = 0.4, 0.02
_LEAST = ("clip_text", "clip_base", "clip_direction")
Scores = Sequence[Mapping[str, Score]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate's scores as a preview and in the end, and whether it was kept."""

    early: Scores
    final: Scores
    kept: bool


@dataclass(frozen=True, slots=True)
class Saving:
    """What limits do.

    Attributes:
        saved: share of the rejected candidates' steps that is saved; a preview that rejects nothing costs its own steps.
        lost: share of the good sets that is lost.
        rejected, kept: candidates of either kind.
        spent: steps with previews, as a share of those without, over all candidates.
    """

    saved: float
    lost: float
    rejected: int
    kept: int
    spent: float

    def passed(self) -> bool:
        """Tell whether the bars are met."""
        return self.saved >= SAVED_BAR and self.lost <= LOST_BAR


def candidates(
    sets: int, steps: int, guidance: float, on_set: Callable[[], None] | None = None
) -> list[Candidate]:
    """Make the first candidate of `sets` sets, in few steps and in all of them."""
    chosen: Spec = spec(-(-sets // 18), Sampler(steps=WHOLE, guidance=guidance), EDIT)
    factory = Factory(replace(chosen, seed=5), SdxlEngine("embedded"), load_scorers(chosen))
    limits, found = factory.scorers.thresholds(chosen), []
    for planned in make_plan(factory.spec)[:sets]:
        request = factory.request(planned, 0)
        early, final = (
            factory.scorers.score(one, factory.engine.generate(one))
            for one in (request.in_steps(steps), request)
        )
        found.append(Candidate(tuple(early), tuple(final), judge(final, limits).keep))
        if on_set:
            on_set()
    return found


def weakest(scores: Scores, name: str) -> float:
    """The least of a score over the members."""
    return min(float(value) for row in scores if (value := row.get(name)) is not None)


def read(scores: Scores) -> float:
    """Share of the members whose attributes read as prompted."""
    return float(np.mean([bool(row["attribute_ok"]) for row in scores]))


def limits_at(known: Sequence[Candidate], final: Thresholds, slack: float) -> Thresholds:
    """Return the limits of the verdict, shifted by how previews differ from the end on average, less `slack` deviations."""

    def shifted(limit: float | None, of: Callable[[Scores], float]) -> float | None:
        if limit is None:
            return None
        change = [of(one.early) - of(one.final) for one in known]
        return round(limit + float(np.mean(change)) - slack * float(np.std(change)), 3)

    least = {
        name: shifted(getattr(final, name), lambda rows, name=name: weakest(rows, name)) for name in _LEAST
    }
    share = shifted(final.attribute_share, read)
    return Thresholds(
        **least,
        background_change=None,
        attribute_share=None if share is None else min(1.0, max(0.0, share)),
        nsfw=final.nsfw,
        faces=None,
    )


def limits_for(known: Sequence[Candidate], final: Thresholds, lost: float = LOST_BAR / 2) -> Thresholds:
    """Return the tightest of `limits_at` that lose at most a share `lost` of the known good sets."""
    for slack in np.arange(0, 4, 0.25):
        limits = limits_at(known, final, float(slack))
        if not saving(known, limits, STEPS).lost > lost:
            break
    return limits


def saving(tried: Sequence[Candidate], limits: Thresholds, steps: int) -> Saving:
    """Count what `limits` save and lose among candidates, each preview's own steps included."""
    stopped = np.array([not judge(one.early, limits).keep for one in tried])
    good = np.array([one.kept for one in tried])
    spent = np.where(stopped, steps, steps + WHOLE) / WHOLE

    def share(values: np.ndarray) -> float:
        return float(values.mean()) if len(values) else float("nan")

    return Saving(
        saved=1 - share(spent[~good]),
        lost=share(stopped[good]),
        rejected=int((~good).sum()),
        kept=int(good.sum()),
        spent=share(spent),
    )


def run(
    sets: int, steps: int, guidance: float, on_set: Callable[[], None] | None = None
) -> tuple[Thresholds, Saving]:
    """Set limits on one half of the candidates, measure them on the other, and write them beside the CLIP."""
    made = candidates(sets, steps, guidance, on_set)
    final = load_scorers(spec(1, Sampler(), EDIT)).auto
    limits = limits_for(made[::2], final)
    write(steps, limits)
    return limits, saving(made[1::2], limits, steps)


def write(steps: int, limits: Thresholds, weights: Path = WEIGHTS) -> None:
    """Write the limits beside the CLIP that they go with."""
    content = {"steps": steps, "filters": asdict(limits)}
    (weights / "clip" / "preview.json").write_text(json.dumps(content, indent=2) + "\n")
