"""The recipe names all that decides a shard's bytes, and nothing else; the environment what may touch them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_spec import AXES, a_spec

from generators.candidates import Factory, environment, limit_threads
from generators.concepts import CONCEPTS
from generators.engine import PreparedEngine
from generators.plan import make_plan
from generators.scorers import PreparedScorers
from generators.spec import Axis, Edit, Sampler, Spec, Thresholds
from storage.records import to_row


def a_factory(spec: Spec | None = None, scorers: PreparedScorers | None = None) -> Factory:
    return Factory(spec or a_spec(), PreparedEngine(24), scorers or PreparedScorers())


def recipe(spec: Spec | None = None, engine: Any = None, scorers: Any = None) -> dict[str, Any]:
    spec = spec or a_spec()
    factory = Factory(spec, engine or PreparedEngine(), scorers or PreparedScorers())
    return factory.recipe(make_plan(spec)[:2])


class OtherWeights(PreparedEngine):
    def describe(self) -> Mapping[str, object]:
        return {**super().describe(), "sha256": "0" * 64}


class OtherScorers(PreparedScorers):
    def describe(self) -> dict[str, object]:
        return {**super().describe(), "clip": "another"}


CHANGES: dict[str, dict[str, Any]] = {
    "seed": {"seed": 4},
    "template": {"templates": ("A picture of {a} {race} {gender} {concept}",)},
    "concept": {"concepts": (CONCEPTS["chef"], CONCEPTS["arts"])},
    "tries": {"candidates": {"default": 4}},
    "steps": {"sampler": Sampler(steps=6, guidance=4.0)},
    "dtype": {"sampler": Sampler(steps=5, guidance=4.0, dtype="float16")},
    "chunk": {"sampler": Sampler(steps=5, guidance=4.0, chunk=2)},
    "negative prompt": {"sampler": Sampler(steps=5, guidance=4.0, negative_prompt="blurred")},
    "self_replace": {"edit": Edit(self_replace=0.5)},
    "cross_replace": {"edit": Edit(cross_replace={"default": 1.0, "edited": 0.5})},
    "p2p": {"edit": Edit(p2p=False)},
    "thresholds": {"filters": replace(Thresholds(), clip_text=0.25)},
    "values": {"axes": (AXES[0], Axis("race", ("White", "Black", "Asian")))},
    "order of values": {"axes": (AXES[0], Axis("race", ("Black", "White", "Middle Eastern")))},
    "order of axes": {"axes": AXES[::-1]},
    "neutral word": {"axes": (Axis("gender", ("woman", "man"), "human"), AXES[1])},
    "edited axes": {"base_axes": (), "edit_axes": ("gender", "race")},
}


def written(spec: Spec, plan: bool) -> str:
    """The recipe as text, with or without the plan's rows."""
    return json.dumps(
        {name: value for name, value in recipe(spec).items() if plan or name != "plan"}, sort_keys=True
    )


@pytest.mark.parametrize("what", CHANGES)
def test_what_decides_the_bytes_is_in_the_recipe(what: str) -> None:
    in_plan = what in ("seed", "template", "concept")
    assert written(a_spec(), in_plan) != written(a_spec(**CHANGES[what]), in_plan)


UNSEEN = ("tries", "dtype", "chunk", "negative prompt", "thresholds")
"""What prepared pictures and scores do not depend on, while those of models may."""


@pytest.mark.parametrize("what", [name for name in CHANGES if name not in UNSEEN])
def test_those_changes_do_decide_bytes(what: str) -> None:
    """Else the test above would ask the recipe for too much."""
    changed = a_spec(**CHANGES[what])
    same = a_factory().make_shard(make_plan(a_spec())[:2])
    other = a_factory(changed).make_shard(make_plan(changed)[:2])
    assert [to_row(s) for s in same] != [to_row(s) for s in other]


def test_weights_and_scorers_are_in_the_recipe() -> None:
    assert recipe(engine=OtherWeights())["weights"] != recipe()["weights"]
    assert recipe(scorers=OtherScorers())["scorers"] != recipe()["scorers"]


def test_what_decides_nothing_of_a_shard_is_not_in_its_recipe() -> None:
    """Its name, further rounds, and the tries of concepts that other shards hold."""
    tries = {"default": 3, "arts": 9}
    for changes in ({"name": "other"}, {"sets_per_concept": 9}, {"candidates": tries}):
        assert recipe(a_spec(**changes)) == recipe()


def test_auto_thresholds_are_written_out_in_the_recipe() -> None:
    found = recipe()["thresholds"]
    assert found["clip_base"] == 0.7 and found["nsfw"] == 0.5
    assert recipe(a_spec(filters=Thresholds(**found))) == recipe()


def test_the_recipe_is_plain_data() -> None:
    assert json.loads(json.dumps(recipe()))["plan"][0]["set_id"] == "chef_0000"


def test_environment_says_where_and_with_what() -> None:
    found = environment()
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert {"device", "instruction_set", "threads", "python", "diffusers", "transformers", "pillow"} <= set(
        found
    )
    assert json.loads(json.dumps(found)) == found


def test_threads_are_limited_and_recorded() -> None:
    before = torch.get_num_threads()
    try:
        for count in (2, 1):
            limit_threads(count)
            assert torch.get_num_threads() == environment()["threads"] == count
    finally:
        torch.set_num_threads(before)
