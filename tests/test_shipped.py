"""The weights that ship: safe, small, loaded by stock libraries, and as good as the project says they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from generators.engine import SetRequest
from generators.paperdolls import WEIGHTS
from generators.paperdolls.data import AXES
from generators.paperdolls.evaluation import EDIT, GUIDANCE, Classifier
from generators.paperdolls.proof import spec
from generators.paperdolls.readers import HELD_OUT
from generators.paperdolls.render import Rendered, render
from generators.paperdolls.world import sample_portrait
from generators.plan import make_plan, members
from generators.scorer_models import load_segmenter
from generators.scorers import embedded_thresholds, load_scorers
from generators.sdxl import SdxlEngine
from generators.spec import Edit, Sampler
from generators.weights import describe, model_folder

PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".npy", ".npz", ".h5", ".onnx"}


@pytest.fixture(scope="module")
def held_out() -> list[Rendered]:
    """Renders of seeds that no training saw."""
    return [render(sample_portrait(seed)) for seed in HELD_OUT[:200]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_weights_are_safetensors_and_at_most_40_mb_in_all() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert {"sdxl", "clip", "segmenter", "classifier"} <= {
        path.relative_to(WEIGHTS).parts[0] for path in files
    }
    assert not [path.name for path in files if path.suffix in PICKLES]
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in weights) <= 40 * 10**6
    assert max(path.stat().st_size for path in set(files) - set(weights)) < 4 * 10**6, "a tokenizer at most"


def test_stock_diffusers_loads_and_draws() -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(str(WEIGHTS / "sdxl"), use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    prompts = ["A photo of an old Black woman working as a chef in a kitchen", "A photo of a person"]
    noise = torch.Generator().manual_seed(0)
    images = [np.asarray(pipe(p, num_inference_steps=4, generator=noise).images[0]) for p in prompts]
    assert all(image.shape == (128, 128, 3) and image.std() > 20 for image in images)
    assert np.abs(images[0].astype(int) - images[1]).mean() > 5


def test_the_engine_takes_the_folder_as_embedded() -> None:
    folder = model_folder("embedded")
    facts = describe("embedded", folder)
    assert folder == WEIGHTS / "sdxl"
    assert (facts["licence"], facts["restrictions"]) == ("apache-2.0", None)


def test_the_segmenter_finds_the_person(held_out: list[Rendered]) -> None:
    segmenter, _ = load_segmenter("embedded")
    found = np.stack(segmenter.masks([one.image for one in held_out[:100]]))
    true = np.stack([np.asarray(one.mask) > 0 for one in held_out[:100]])
    assert (found & true).sum() / (found | true).sum() >= 0.9
    each = (found & true).sum((1, 2)) / (found | true).sum((1, 2))
    assert each.min() >= 0.6, "no picture in which it is lost"


@pytest.mark.parametrize("axis", ["gender", "age", "race", "concept"])
def test_the_classifier_reads_held_out_renders(
    held_out: list[Rendered], read: list[dict[str, str]], axis: str
) -> None:
    right = [row[axis] == one.labels[axis] for row, one in zip(read, held_out, strict=True)]
    assert np.mean(right) >= 0.98


@pytest.fixture(scope="module")
def read(held_out: list[Rendered]) -> list[dict[str, str]]:
    return Classifier().read([one.image for one in held_out])


def test_thresholds_are_calibrated() -> None:
    found = embedded_thresholds()
    limits = (
        found.clip_text,
        found.clip_base,
        found.clip_direction,
        found.background_change,
        found.attribute_share,
    )
    assert all(limit is not None for limit in limits)
    assert -1 < (found.clip_text or 0) < 1 and 0 < (found.background_change or 0) < 60
    assert found.faces is None, "there is no face counter for drawings"


@pytest.fixture(scope="module")
def made() -> tuple[SetRequest, list[Image.Image]]:
    """One planned set of 24, in 12 steps."""
    chosen = spec(1, Sampler(steps=12, guidance=GUIDANCE), EDIT)
    planned = make_plan(chosen)[0]
    request = SetRequest(tuple(members(chosen, planned)), planned.seed, chosen.sampler, chosen.edit)
    return request, SdxlEngine("embedded").generate(request)


def test_a_set_shows_the_gender_that_was_asked_for(made: tuple[SetRequest, list[Image.Image]]) -> None:
    request, images = made
    asked = [member.values["gender"] for member in request.members]
    found = [row["gender"] for row in Classifier().read(images)]
    assert len(images) == 24
    assert sum(a == f for a, f in zip(asked, found, strict=True)) >= 20


def test_members_are_pictures_of_one_scene_that_differ(made: tuple[SetRequest, list[Image.Image]]) -> None:
    request, images = made
    pictures = [np.asarray(image, np.int16) for image in images]
    changes = [
        np.abs(pictures[m.index] - pictures[m.base]).mean() for m in request.members if m.base != m.index
    ]
    apart = np.abs(pictures[0] - np.roll(pictures[0], 64, axis=1)).mean()
    assert min(changes) > 0.3, "an edit that changes nothing"
    assert np.median(changes) < apart, "an edit that keeps nothing"


def test_the_embedded_scorers_score_the_set(made: tuple[SetRequest, list[Image.Image]]) -> None:
    request, images = made
    scorers = load_scorers(spec(1, Sampler(steps=8), Edit()))
    rows = scorers.score(request, images)
    names = ("clip_text", "clip_base", "clip_direction", "background_change")
    for member, row in zip(request.members, rows, strict=True):
        known = [name for name in names if row.get(name) is not None]
        assert known == (["clip_text"] if member.base == member.index else list(names))
    assert all(len(str(scorers.describe()[part]).split()[-1]) == 64 for part in ("clip", "segmenter"))
    assert np.mean([bool(row["attribute_ok"]) for row in rows]) > 0.5, "most read as prompted even in 8 steps"


def test_the_axes_of_the_embedded_world_are_those_of_the_default() -> None:
    assert [axis.name for axis in AXES] == ["gender", "age", "race"]
    assert [len(axis.values) for axis in AXES] == [2, 2, 6]


def test_every_folder_says_how_to_load_it() -> None:
    configs = {"clip": "open_clip_config.json", "segmenter": "config.json", "classifier": "config.json"}
    missing = [
        f"{part}/{name}" for part, name in configs.items() if not Path(WEIGHTS / part / name).is_file()
    ]
    assert missing == []


def test_no_config_says_where_it_was_made() -> None:
    found = [
        path
        for path in WEIGHTS.rglob("*.json")
        if "_name_or_path" in path.read_text() and path.name == "config.json"
    ]
    assert [path for path in found if "/" in str(json.loads(path.read_text()).get("_name_or_path"))] == []
