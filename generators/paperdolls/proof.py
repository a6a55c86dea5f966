"""The proof of prompt-to-prompt on the shipped model: what edits change outside the person, made in three ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from generators.comparison import bootstrap_ratio
from generators.concepts import CONCEPTS
from generators.engine import Engine, SetRequest
from generators.fidelity import Lpips, Mask, Structure, mean_of, psnr_outside, ssim_outside
from generators.plan import make_plan, members
from generators.prompts import TEMPLATES
from generators.scorers import ModelScorers, load_scorers
from generators.sdxl import SdxlEngine
from generators.spec import Edit, Sampler, ScorerChoice, Spec

from .data import AXES
from .evaluation import BLEND, EDIT, GUIDANCE

#: Most background change as a share of that of independent prompts, and least PSNR outside the person, in dB.
RATIO_BAR, BLEND_RATIO_BAR, PSNR_BAR = 0.75, 1 / 3, 30.0
ACCURACY_BAR = 0.02
Measure = Callable[[Image.Image, Image.Image, Mask], float | None]
PSNR = "PSNR, dB"
MEASURES: dict[str, Measure] = {PSNR: psnr_outside, "SSIM": ssim_outside}
PLAIN, P2P, BLENDED = "independent prompts", "prompt-to-prompt", "with local blend"
ARMS: dict[str, Edit] = {
    PLAIN: replace(EDIT, p2p=False),
    P2P: EDIT,
    BLENDED: replace(EDIT, local_blend=BLEND),
}


@dataclass
class Arm:
    """What one way of making edits gave; lists hold one entry per edit, `changes` one array per set.

    Attributes:
        changes: background_change in grey levels.
        read: whether every attribute reads as prompted.
        figures: outside the person, by the name of the measure.
    """

    changes: list[NDArray[np.float64]] = field(default_factory=list)
    read: list[bool] = field(default_factory=list)
    figures: dict[str, list[float | None]] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of the edits that read as prompted."""
        return float(np.mean(self.read))

    def add(
        self,
        scorers: ModelScorers,
        request: SetRequest,
        images: Sequence[Image.Image],
        measures: Mapping[str, Measure],
    ) -> None:
        """Score the edits of one set."""
        scores = scorers.score(request, images)
        masks = scorers.segmenter.masks(images) if scorers.segmenter else []
        edits = [member for member in request.members if member.base != member.index]
        changes = [scores[m.index]["background_change"] for m in edits]
        self.changes.append(np.array([np.nan if change is None else float(change) for change in changes]))
        self.read += [bool(scores[m.index]["attribute_ok"]) for m in edits]
        for m in edits:
            pair, person = (images[m.index], images[m.base]), masks[m.index] | masks[m.base]
            for name, figure in measures.items():
                self.figures.setdefault(name, []).append(figure(*pair, person))


def spec(sets_per_concept: int, sampler: Sampler, edit: Edit) -> Spec:
    """Return a spec over the 18 concepts with the embedded model: bases over gender and age, edits over race."""
    return Spec(
        name="proof", seed=3, model="embedded", concepts=tuple(CONCEPTS.values()), axes=AXES,
        base_axes=("gender", "age"), edit_axes=("race",), templates=TEMPLATES, sets_per_concept=sets_per_concept,
        candidates={"default": 1}, sets_per_shard=4, sampler=sampler, edit=edit,
        scorers=ScorerChoice(nsfw=None, faces=None),
    )  # fmt: skip


def measure(
    engine: Engine,
    scorers: ModelScorers,
    sets: int,
    sampler: Sampler,
    arms: Mapping[str, Edit],
    measures: Mapping[str, Measure] = MEASURES,
    on_set: Callable[[], None] | None = None,
) -> dict[str, Arm]:
    """Make the first `sets` sets in every way, from the same noise and prompts."""
    chosen = spec(-(-sets // len(CONCEPTS)), sampler, EDIT)
    found = {name: Arm() for name in arms}
    for planned in make_plan(chosen)[:sets]:
        for name, edit in arms.items():
            request = SetRequest(tuple(members(chosen, planned)), planned.seed, sampler, edit)
            found[name].add(scorers, request, engine.generate(request), measures)
        if on_set:
            on_set()
    return found


def against(arm: Arm, plain: Arm, seed: int) -> tuple[float, float, float]:
    """Return the ratio of the median background changes and its 95 % interval over sets."""
    ratio = float(np.nanmedian(np.concatenate(arm.changes)) / np.nanmedian(np.concatenate(plain.changes)))
    groups = [np.stack(pair) for pair in zip(arm.changes, plain.changes, strict=True)]
    return ratio, *bootstrap_ratio(groups, seed)


def missed(found: Mapping[str, Arm], seed: int = 0) -> list[str]:
    """Return the bars that are missed, each with its figure."""
    plain = found[PLAIN]
    failed = []
    for name, bar in ((P2P, RATIO_BAR), (BLENDED, BLEND_RATIO_BAR)):
        ratio, _, high = against(found[name], plain, seed)
        if ratio > bar or high >= 1:
            failed.append(f"{name}: ratio {ratio:.3f}, wanted at most {bar:.3f}")
        if found[name].accuracy < plain.accuracy - ACCURACY_BAR:
            failed.append(
                f"{name}: {found[name].accuracy:.1%} read as prompted, {plain.accuracy:.1%} without"
            )
    if not (psnr := mean_of(found[BLENDED].figures[PSNR])) >= PSNR_BAR:
        failed.append(f"{BLENDED}: {psnr:.1f} dB outside the person, wanted at least {PSNR_BAR}")
    return failed


def measures_with(lpips: str | None, structure: str | None) -> dict[str, Measure]:
    """Return the measures of fidelity, with those whose backbones are named: LPIPS outside the person, structure distance.

    Raises:
        CounterpoiseError: a backbone cannot be had.
    """
    found = dict(MEASURES)
    if lpips:
        found[f"LPIPS ({lpips})"] = Lpips(lpips).outside
    if structure:
        distance = Structure(structure).distance
        found["structure distance"] = lambda first, second, _: distance(first, second)
    return found


def run(
    bases: int,
    seed: int,
    sampler: Sampler | None = None,
    lpips: str | None = None,
    structure: str | None = None,
) -> bool:
    """Measure over `bases` bases (four a set), each with its five edits; print a table; are the bars met?"""
    measures = measures_with(lpips, structure)
    sampler, sets = sampler or Sampler(steps=15, guidance=GUIDANCE), -(-bases // 4)
    scorers = load_scorers(spec(1, sampler, EDIT))
    steps = iter(track(range(sets), description="comparing", console=Console(stderr=True)))
    next(steps)
    found = measure(
        SdxlEngine("embedded"), scorers, sets, sampler, ARMS, measures, on_set=lambda: next(steps, None)
    )
    Console(width=170).print(_table(found, measures, sets, seed))
    for line in (failed := missed(found, seed)):
        print(line)
    return not failed


def _table(found: Mapping[str, Arm], measures: Mapping[str, Measure], sets: int, seed: int) -> Table:
    table = Table(
        "made", "background_change, median", "90th percentile", "against independent (95 % interval)", "read as prompted",
        *measures, title=f"{4 * sets} bases, {20 * sets} edits; outside the person",
    )  # fmt: skip
    for name, arm in found.items():
        changes = np.concatenate(arm.changes)
        ratio = "{:.3f} ({:.3f} to {:.3f})".format(*against(arm, found[PLAIN], seed)) if name != PLAIN else ""
        table.add_row(
            name, f"{np.nanmedian(changes):.2f}", f"{np.nanpercentile(changes, 90):.2f}", ratio, f"{arm.accuracy:.1%}",
            *(f"{mean_of(values):.{1 if figure == PSNR else 4}f}" for figure, values in arm.figures.items()),
        )  # fmt: skip
    return table
