"""A small campaign for the tests of the flows: prepared pictures and scores, no model, no Prefect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.campaign import Campaign, Listener, Load, Options
from flows.closing import REPORT
from flows.opening import open_campaign
from flows.settings import spec_from_dict
from generators.candidates import Factory
from generators.engine import PreparedEngine, SetRequest
from generators.plan import candidate_seed, make_plan
from generators.scorers import PreparedScorers
from generators.spec import Spec
from storage.backend import open_backend

SPEC: dict[str, Any] = {
    "name": "small",
    "seed": 5,
    "model": "embedded",
    "concepts": ["chef", "science", "weapon"],
    "axes": {
        "gender": {"values": ["woman", "man"], "neutral": "person"},
        "race": ["White", "Middle Eastern"],
    },
    "base_axes": ["gender"],
    "edit_axes": ["race"],
    "templates": ["A photo of {a} {race} {gender} {concept}"],
    "sets_per_concept": 2,
    "candidates": {"default": 2},
    "sets_per_shard": 2,
    "sampler": {"steps": 5, "guidance": 4.0},
    "scorers": {"nsfw": None, "faces": None},
}
CELLS = 4
SETS = 6
SHARDS = 3


def small(**changes: Any) -> Spec:
    """The small spec with some keys changed."""
    return spec_from_dict({**SPEC, **changes})


def spec_file(folder: Path, **changes: Any) -> str:
    """The small spec as a file."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **changes}))
    return str(path)


def bad_candidates(
    spec: Spec, sets: Mapping[str, int], score: str = "clip_text", value: Any = 0.1
) -> PreparedScorers:
    """Scorers that give the first n candidates of some sets one bad score, on member 0."""
    plan = {one.set_id: one for one in make_plan(spec)}
    bad = {
        (candidate_seed(spec, plan[set_id], candidate), 0): {score: value}
        for set_id, count in sets.items()
        for candidate in range(count)
    }
    return PreparedScorers(bad)


def load(scorers: PreparedScorers | None = None, engine: Any = None) -> Load:
    """A loader of prepared parts."""
    return lambda spec: Factory(spec, engine or PreparedEngine(24), scorers or PreparedScorers())


def opened(
    dataset: Path,
    spec: Spec | None = None,
    listeners: list[Listener] | None = None,
    factory: Load | None = None,
    **options: Any,
) -> Campaign:
    """A campaign over the small spec."""
    return open_campaign(spec or small(), str(dataset), Options(**options), listeners, factory or load())


def run_all(dataset: Path, spec: Spec | None = None, factory: Load | None = None, **options: Any) -> Any:
    """Make a whole dataset without Prefect; the outcome."""
    campaign = opened(dataset, spec, factory=factory, **options)
    campaign.run_here()
    return campaign.finish()


@contextmanager
def no_report() -> Iterator[None]:
    """Inside the block, finishing a dataset writes an empty report: drawing one takes longer than all the rest."""

    def empty(dataset: str) -> str:
        backend = open_backend(dataset)
        with backend.staging() as staging:
            staging.put(staging.stage(REPORT, [b""]), REPORT)
        return backend.where(REPORT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.report.write_report", empty)
        yield


class Interrupting(PreparedEngine):
    """Raises an error at the n-th set."""

    def __init__(self, at: int, error: Callable[[], BaseException] = KeyboardInterrupt) -> None:
        super().__init__(24)
        self.left, self.error = at, error

    def generate(self, request: SetRequest) -> list[Any]:
        """Pictures, until it is time."""
        self.left -= 1
        if self.left == 0:
            raise self.error()
        return super().generate(request)
