"""What early rejection saves and loses on the shipped model, and the limits that go with its scorers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from generators.candidates import Factory
from generators.filters import Score, judge
from generators.plan import make_plan
from generators.scorers import load_scorers
from generators.sdxl import SdxlEngine
from generators.spec import Preview, Sampler, Thresholds

from . import WEIGHTS
from .evaluation import EDIT
from .proof import spec

#: Of the previews, and of the samplings that they stand for.
PREVIEW, WHOLE = Preview(steps=4), 15
SAVED_BAR, LOST_BAR = 0.4, 0.02
_LEAST = ("clip_text", "clip_base", "clip_direction")
Scores = Sequence[Mapping[str, Score]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate's scores as a preview and in the end."""

    early: Scores
    final: Scores


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
    sets: int, preview: Preview, guidance: float, on_set: Callable[[], None] | None = None
) -> tuple[list[Candidate], Thresholds]:
    """Make the first candidate of `sets` sets, as a preview and whole; with the verdict's limits."""
    chosen = spec(-(-sets // 18), Sampler(steps=WHOLE, guidance=guidance), EDIT)
    factory, found = Factory(replace(chosen, seed=5), SdxlEngine("embedded"), load_scorers(chosen)), []
    for planned in make_plan(factory.spec)[:sets]:
        request = factory.request(planned, 0)
        early, final = (
            tuple(factory.scorers.score(one, factory.engine.generate(one)))
            for one in (request.as_preview(preview), request)
        )
        found.append(Candidate(early, final))
        if on_set:
            on_set()
    return found, factory.scorers.thresholds(chosen)


def summary(scores: Scores) -> NDArray[np.float64]:
    """What a set is judged by: the least of each CLIP score over the members, and the share that reads as prompted."""
    least = [min(float(value) for row in scores if (value := row.get(name)) is not None) for name in _LEAST]
    return np.array([*least, np.mean([bool(row["attribute_ok"]) for row in scores])])


def kept(known: Sequence[Candidate], final: Thresholds) -> NDArray[np.bool_]:
    """Tell which candidates the verdict keeps."""
    return np.array([judge(one.final, final).keep for one in known])


def tightened(known: Sequence[Candidate], final: Thresholds, rejected: float = 0.5) -> Thresholds:
    """Return the verdict's limits, the CLIP's raised by as many deviations as reject a share `rejected`."""
    spread = np.std([summary(one.final) for one in known], axis=0)
    limits = final
    for step in np.arange(0, 4, 0.1):
        raised = _vector(final) + step * spread
        limits = replace(final, **dict(zip(_LEAST, raised.tolist(), strict=False)))
        if 1 - kept(known, limits).mean() >= rejected:
            break
    return limits


def limits_for(known: Sequence[Candidate], final: Thresholds, lost: float = LOST_BAR) -> Thresholds:
    """Return the tightest limits of previews that are expected to lose at most a share `lost` of the good sets.

    They are the verdict's, shifted by how previews differ from the end on average, less some deviations of that. What
    they lose is expected from every good set's final scores with every candidate's difference added.
    """
    ends = np.array([summary(one.final) for one in known])
    change = np.array([summary(one.early) for one in known]) - ends
    seen = ends[kept(known, final), None] + change
    for slack in np.arange(0, 6, 0.05):
        limits = np.round(_vector(final) + change.mean(0) - slack * change.std(0), 3)
        if (seen < limits).any(-1).mean() <= lost:
            break
    values = [None if np.isinf(value) else float(value) for value in limits]
    return Thresholds(
        **dict(zip(_LEAST, values, strict=False)),
        background_change=None,
        attribute_share=None if values[-1] is None else min(1.0, max(0.0, values[-1])),
        nsfw=final.nsfw,
        faces=None,
    )


def _vector(limits: Thresholds) -> NDArray[np.float64]:
    """The limits of `summary`; what has none is never too low."""
    given = [getattr(limits, name) for name in (*_LEAST, "attribute_share")]
    return np.array([-np.inf if limit is None else limit for limit in given])


def saving(
    tried: Sequence[Candidate], final: Thresholds, limits: Thresholds, steps: int = PREVIEW.steps
) -> Saving:
    """Count what `limits` save and lose among candidates, each preview's own steps included."""
    stopped = np.array([not judge(one.early, limits).keep for one in tried])
    good = kept(tried, final)
    spent = np.where(stopped, steps, steps + WHOLE) / WHOLE

    def share(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
        return float(values.mean()) if len(values) else float("nan")

    return Saving(
        saved=1 - share(spent[~good]),
        lost=share(stopped[good]),
        rejected=int((~good).sum()),
        kept=int(good.sum()),
        spent=share(spent),
    )


def run(
    sets: int, preview: Preview, guidance: float, keep: bool, on_set: Callable[[], None] | None = None
) -> dict[str, Saving]:
    """Set limits on one half of the candidates and measure them on the other; `keep` writes them beside the CLIP.

    Returns:
        what is saved and lost, with the verdict's own limits and with tighter ones that reject every other candidate.
    """
    made, final = candidates(sets, preview, guidance, on_set)
    if keep:
        write(replace(preview, filters=limits_for(made[::2], final)))
    tight = tightened(made, final)
    return {
        name: saving(made[1::2], limits, limits_for(made[::2], limits), preview.steps)
        for name, limits in (("shipped filters", final), ("tighter filters", tight))
    }


def write(preview: Preview, weights: Path = WEIGHTS) -> None:
    """Write a preview's limits beside the CLIP that they go with."""
    (weights / "clip" / "preview.json").write_text(json.dumps(asdict(preview), indent=2) + "\n")
