"""Candidates of one shard: generate, score, judge, and go on until every planned set is kept or its tries are used up."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from PIL import Image

from storage.images import decoded, encode_png
from storage.provenance import Provenance, version
from storage.records import Sample, sample_key

from .engine import Engine, SetRequest
from .filters import Score, Verdict, judge
from .plan import PlannedSet, candidate_seed, members
from .scorers import Scorers
from .spec import Spec, Thresholds

_LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "open_clip_torch",
    "numpy",
    "pillow",
    "pyarrow",
)


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """One candidate's verdict, for progress and tables; `images` is empty unless the candidate was kept.

    `restored` says that it was not made now but by a run before, which was killed.
    """

    set_id: str
    concept: str
    candidate: int
    tries: int
    kept: bool
    reason: str | None
    images: tuple[Image.Image, ...] = ()
    restored: bool = False


class Saved(Protocol):
    """Where finished candidates of a shard outlive a kill."""

    def load(self, set_id: str, candidate: int) -> list[Sample] | None:
        """Return a candidate as it was made before, or None."""
        ...

    def save(self, samples: Sequence[Sample], seconds: float) -> None:
        """Keep a candidate that took so long, if that is long enough."""
        ...


@dataclass(frozen=True)
class Factory:
    """A spec with the engine and the scorers that carry it out."""

    spec: Spec
    engine: Engine
    scorers: Scorers

    def make_shard(
        self,
        planned: Sequence[PlannedSet],
        on_candidate: Callable[[CandidateReport], None] | None = None,
        saved: Saved | None = None,
    ) -> list[Sample]:
        """Return the samples of every candidate of these sets, kept ones with their image.

        Over-generation is adaptive: a set's next candidate is made only if the one before was rejected. What is made
        depends on the shard's sets alone, never on other shards or workers, nor on what was `saved` of it before.
        """
        samples: list[Sample] = []
        for one in planned:
            for candidate in range(self.spec.tries(one.concept)):
                made, report = self._next(one, candidate, saved)
                samples.extend(made)
                if on_candidate:
                    on_candidate(report)
                if report.kept:
                    break
        return samples

    def _next(
        self, planned: PlannedSet, candidate: int, saved: Saved | None
    ) -> tuple[list[Sample], CandidateReport]:
        """Take a candidate from where it was saved, or make and save it."""
        before = saved.load(planned.set_id, candidate) if saved else None
        if before is not None:
            shown = [decoded(one.image, one.key) for one in before if one.image is not None]
            return before, self._report(planned, before[0], shown, restored=True)
        start = time.monotonic()
        made, verdict, images = self.make_candidate(planned, candidate)
        if saved:
            saved.save(made, time.monotonic() - start)
        return made, self._report(planned, made[0], images if verdict.keep else [])

    def _report(
        self, planned: PlannedSet, first: Sample, shown: Sequence[Image.Image], restored: bool = False
    ) -> CandidateReport:
        return CandidateReport(
            set_id=planned.set_id,
            concept=planned.concept,
            candidate=first.candidate,
            tries=self.spec.tries(planned.concept),
            kept=first.kept,
            reason=first.reason,
            images=tuple(shown),
            restored=restored,
        )

    def make_candidate(
        self, planned: PlannedSet, candidate: int
    ) -> tuple[list[Sample], Verdict, list[Image.Image]]:
        """Generate, score and judge one candidate; its samples, the verdict and the pictures."""
        done, images, scores, verdict = self._made(self.request(planned, candidate))
        rows = zip(done.members, images, scores, strict=True)
        made = [self._sample(planned, candidate, done, verdict, *row) for row in rows]
        return made, verdict, images

    def _made(
        self, request: SetRequest
    ) -> tuple[SetRequest, list[Image.Image], list[dict[str, Score]], Verdict]:
        """Return what was sampled, the pictures, scores and verdict; what fails the preview is not sampled whole.

        The reason of an early rejection starts with "preview_", and its scores are those of the preview.
        """
        early = self.scorers.preview(self.spec)
        if early is not None and self.spec.preview is not None:
            shown = request.as_preview(self.spec.preview)
            images, scores, verdict = self._judged(shown, early)
            if not verdict.keep:
                return shown, images, scores, Verdict(False, f"preview_{verdict.reason}")
        return request, *self._judged(request, self.scorers.thresholds(self.spec))

    def _judged(
        self, request: SetRequest, limits: Thresholds
    ) -> tuple[list[Image.Image], list[dict[str, Score]], Verdict]:
        images = self.engine.generate(request)
        scores = self.scorers.score(request, images)
        return images, scores, judge(scores, limits)

    def request(self, planned: PlannedSet, candidate: int) -> SetRequest:
        """Return what the engine is asked for."""
        return SetRequest(
            tuple(members(self.spec, planned)),
            candidate_seed(self.spec, planned, candidate),
            self.spec.sampler,
            self.spec.edit,
        )

    def check(self, plan: Sequence[PlannedSet]) -> None:
        """Refuse, before any work, a plan with a prompt that is too long or an edit that does not align."""
        seen: set[tuple[str, str, int]] = set()
        for planned in plan:
            key = (planned.template, planned.phrase, planned.rotation)
            if key not in seen:
                seen.add(key)
                request = self.request(planned, 0)
                self.engine.check(request)
                if self.spec.preview:
                    self.engine.check(request.as_preview(self.spec.preview))

    def recipe(self, planned: Sequence[PlannedSet]) -> dict[str, Any]:
        """Return all that decides the bytes of a shard; its hash gates resume."""
        return {
            "plan": [asdict(one) for one in planned],
            "candidates": {one.concept: self.spec.tries(one.concept) for one in planned},
            "model": model_name(str(self.engine.describe()["id"])),
            "weights": self.engine.describe()["sha256"],
            "scorers": self.scorers.describe(),
            "sampler": asdict(self.spec.sampler),
            "edit": asdict(self.spec.edit),
            "thresholds": asdict(self.scorers.thresholds(self.spec)),
            "preview": self._preview_recipe(),
            "axes": [{**asdict(axis), "edited": axis.name in self.spec.edit_axes} for axis in self.spec.axes],
        }

    def _preview_recipe(self) -> dict[str, Any] | None:
        limits = self.scorers.preview(self.spec)
        if limits is None or self.spec.preview is None:
            return None
        chosen = self.spec.preview
        return {"steps": chosen.steps, "scheduler": chosen.scheduler, "thresholds": asdict(limits)}

    def _sample(
        self, planned: PlannedSet, candidate: int, request: SetRequest, verdict: Verdict,
        member: Any, image: Image.Image, scores: dict[str, Score],
    ) -> Sample:  # fmt: skip
        sampler, edit = request.sampler, self.spec.edit
        return Sample(
            key=sample_key(planned.set_id, member.index),
            set_id=planned.set_id,
            member=member.index,
            candidate=candidate,
            base=member.base,
            kept=verdict.keep,
            reason=verdict.reason,
            split=planned.split,
            concept=planned.concept,
            concept_group=planned.concept_group,
            attributes=member.values,
            prompt=member.prompt,
            neutral_prompt=member.neutral_prompt,
            edited_words=member.edited_words,
            seed=request.seed,
            steps=sampler.steps,
            guidance=sampler.guidance,
            scheduler=sampler.scheduler,
            cross_replace=edit.cross_replace.get("edited") if edit.p2p else None,
            self_replace=edit.self_replace if edit.p2p else None,
            scores=scores,
            width=image.width,
            height=image.height,
            image=encode_png(image, self._provenance(member.prompt, request.seed)) if verdict.keep else None,
        )

    def _provenance(self, prompt: str, seed: int) -> Provenance:
        weights = self.engine.describe()
        return Provenance(model_name(str(weights["id"])), str(weights["sha256"]), prompt, seed)


def model_name(model: str) -> str:
    """Return a model's id, of a folder its name: pictures tell nothing of the machine they were made on."""
    local = model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model
    return re.split(r"[/\\]", model.rstrip("/\\"))[-1] if local else model


def limit_threads(count: int = 1) -> None:
    """Fix the number of intra-op threads: sums in another order differ in the last bits."""
    import torch

    torch.set_num_threads(count)


def environment() -> dict[str, Any]:
    """Return what else may touch the last bits: device, instruction set, library versions, threads."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "device": device,
        "instruction_set": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "counterpoise": version(),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
