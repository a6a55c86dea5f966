"""The trainer: a step is the mean over its instances however it is cut, and every family and way trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from storage_world import AXES
from tiny_mllm import MAKERS, save
from training_world import LORA, dataset, recipe
from transformers import Trainer, TrainingArguments

from debias.losses import social_fairness_loss
from debias.models.opening import open_model
from debias.questions import choices
from debias.training.data import sizes
from debias.training.examples import Collator, Examples
from debias.training.recipe import Parts
from debias.training.run import train
from debias.training.schedule import Progress
from debias.training.trainer import answer_losses
from storage import CounterpoiseError
from storage.stream import stream


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data") / "d")


@pytest.fixture(scope="module", params=sorted(MAKERS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(request.param, tmp_path_factory.mktemp("model") / request.param)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llava", tmp_path_factory.mktemp("model") / "llava")


def lines(folder: Path, kind: str = "step") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize("way", ["full", "lora"])
def test_every_family_trains(model: Path, data: Path, tmp_path: Path, way: str) -> None:
    """The parts that are to move do, the others do not, and the folder opens as a plain model."""
    changes: dict[str, Any] = {"steps": 1, "learning_rate": 1e-2, "gradient_checkpointing": way == "full"}
    found = train(recipe(model, data, lora=LORA if way == "lora" else None, **changes), str(tmp_path / "run"))
    assert (found.steps, found.shortfall) == (1, "")
    trained = open_model(str(found.model), torch.float32, "cpu")
    before, after = dict(open_model(str(model), torch.float32, "cpu").model.named_parameters()), {}
    for name, value in trained.model.named_parameters():
        part = trained.part_of(name)
        after[part] = after.get(part, False) | (not torch.equal(value, before[name]))
    assert after == {"vision": False, "projector": True, "language": True}
    assert (tmp_path / "run" / "adapter").exists() == (way == "lora")


def test_parts_that_are_frozen_stay(llava: Path, data: Path, tmp_path: Path) -> None:
    parts = Parts(vision=True, projector=False, language=False)
    found = train(recipe(llava, data, train=parts, steps=1, learning_rate=1e-2), str(tmp_path))
    before, after = load_file(llava / "model.safetensors"), weights(tmp_path)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and all("vision_tower" in name for name in moved), found


@pytest.mark.parametrize(
    ("method", "changes"), [("sft", {}), ("csd", {}), ("consistency", {"micro_batch": 6})]
)
def test_a_step_does_not_depend_on_how_it_is_cut(
    llava: Path, data: Path, tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    cuts = (6, 12, 24) if method == "consistency" else (1, 3, 4, 24)
    found = []
    for micro in cuts:
        plain = recipe(
            llava, data, method=method, batch=24, caption_share=0.4, normalise_weights=method == "csd"
        )
        train(replace(plain, micro_batch=micro), str(tmp_path / str(micro)))
        found.append(
            (weights(tmp_path / str(micro)), [line["loss"] for line in lines(tmp_path / str(micro))])
        )
    (first, losses), *others = found
    assert len(losses) >= 2
    for other, its in others:
        assert its == pytest.approx(losses, abs=1e-5)
        assert max(float((first[name] - other[name]).abs().max()) for name in first) < 2e-6


@pytest.mark.parametrize("method", ["sft", "csd", "consistency"])
def test_each_method_lowers_its_loss(llava: Path, data: Path, tmp_path: Path, method: str) -> None:
    train(recipe(llava, data, method=method, epochs=5, learning_rate=3e-3, stop_drop=1.0), str(tmp_path))
    losses = [line["loss"] for line in lines(tmp_path)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_consistency_lowers_the_divergence_of_twins(llava: Path, data: Path, tmp_path: Path) -> None:
    found = []
    for factor in (1e-9, 100.0):
        folder = tmp_path / str(factor)
        settings = {"method": "consistency", "consistency": factor, "epochs": 3, "caption_share": 0.0}
        train(recipe(llava, data, learning_rate=2e-3, **settings), str(folder))
        found.append([line["consistency"] for line in lines(folder)])
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert sum(found[1][-4:]) < 0.5 * sum(found[0][-4:])


def test_without_skew_a_step_is_that_of_plain_transformers(llava: Path, data: Path, tmp_path: Path) -> None:
    """Letters alone are answers of one length: transformers' mean over tokens is then the mean over instances."""
    made = recipe(llava, data, caption_share=0.0, steps=1, learning_rate=1e-3, max_grad_norm=1.0)
    train(made, str(tmp_path / "ours"))
    plain = open_model(str(llava), torch.float32, "cpu")
    for name, value in plain.model.named_parameters():
        value.requires_grad_(plain.part_of(name) != "vision")
    values = [value for axis in AXES.values() for value in axis]
    examples = Examples(plain, choices({"work": ("chef", "science")}), values, made.seed, 0.0)
    items = list(stream(data, "train", seed=made.seed, batch_size=12, keep_sets=False))[:12]
    batch = Collator(examples, 0)(items)
    args = TrainingArguments(
        str(tmp_path / "plain"), per_device_train_batch_size=12, max_steps=1, learning_rate=1e-3, use_cpu=True,
        lr_scheduler_type="constant", report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    rows = [{**batch["inputs"], "labels": batch["labels"]}]
    trainer = Trainer(plain.model, args, train_dataset=rows, data_collator=lambda found: found[0])
    trainer.train()
    ours = open_model(str(tmp_path / "ours" / "model"), torch.float32, "cpu").model.state_dict()
    for name, value in plain.model.state_dict().items():
        assert torch.allclose(ours[name], value, atol=2e-6), name
    assert lines(tmp_path / "ours")[0]["loss"] == pytest.approx(
        trainer.state.log_history[-1]["train_loss"], abs=1e-5
    )


def test_a_step_of_csd_is_the_social_fairness_loss(llava: Path, data: Path, tmp_path: Path) -> None:
    """The logged loss of the first step is the formula on the sidecar's Skews, one picture after the other."""
    made = recipe(llava, data, method="csd", batch=12, micro_batch=4, skew_clamp=0.1)
    train(made, str(tmp_path))
    (told,) = lines(tmp_path, "skew")
    model = open_model(str(llava), torch.float32, "cpu")
    values = [value for axis in AXES.values() for value in axis]
    examples = Examples(model, choices({"work": ("chef", "science")}), values, made.seed, made.caption_share)
    items = list(stream(data, "train", seed=made.seed, batch_size=12, keep_sets=False, skew=told["sidecar"]))[
        :12
    ]
    with torch.no_grad():
        losses = torch.cat([answer_losses(model.model, Collator(examples, 0)([item]))[0] for item in items])
    skews = torch.tensor([item["skew"] for item in items])
    assert float(skews.abs().max()) > 0.1 and len(set(skews.tolist())) > 2
    wanted = social_fairness_loss(losses, skews, clamp=0.1)
    assert lines(tmp_path)[0]["loss"] == pytest.approx(float(wanted), abs=1e-5)


def test_each_half_of_csd_alone(llava: Path, data: Path, tmp_path: Path) -> None:
    found = {}
    for name, halves in {"both": (True, True), "weights": (False, True), "copies": (True, False)}.items():
        made = recipe(llava, data, method="csd", resample=halves[0], weights=halves[1], steps=1)
        train(made, str(tmp_path / name))
        (found[name],) = lines(tmp_path / name, "skew")
    assert found["weights"]["copies"] == 60 != found["copies"]["copies"] == found["both"]["copies"]
    assert found["copies"]["effective"] == found["copies"]["copies"]
    assert found["both"]["effective"] < found["both"]["copies"]
    first = {name: lines(tmp_path / name)[0]["loss"] for name in found}
    assert len(set(first.values())) == 3


def test_the_rate_follows_progress() -> None:
    progress = Progress(2, "cosine", 0.25)
    assert progress.factor(0) == 0
    progress.begin(4)
    assert [progress.at(step) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert progress.factor(1) == pytest.approx(0.5) and progress.factor(2) == pytest.approx(1)
    progress.begin(2)
    assert [progress.at(step) for step in (4, 5, 6)] == [1, 1.5, 2]
    assert progress.factor(6) == pytest.approx(0, abs=1e-12)
    assert progress.factor(4) == pytest.approx(0.75)
    assert Progress(1, "constant", 0.0).factor(0) == 1
    linear = Progress(1, "linear", 0.0, [(0, 4)])
    assert [linear.factor(step) for step in range(4)] == [1, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((None, None, 1, 1), (128, 8, 16)),
        ((None, None, 6, 1), (126, 1, 21)),
        ((None, None, 24, 2), (96, 1, 2)),
        ((12, None, 1, 1), (12, 6, 2)),
        ((12, None, 1, 4), (12, 3, 1)),
        ((24, 12, 6, 2), (24, 2, 1)),
    ],
)
def test_sizes(given: Any, wanted: tuple[int, int, int]) -> None:
    found = sizes(*given, (128, 8))
    assert (found.batch, found.units, found.accumulation) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((10, 4, 1, 1), "batch: given 10, wanted a multiple of 4"),
        ((8, 4, 1, 4), "multiple of 16: micro_batch 4 times 4 processes"),
        ((12, 4, 6, 1), "micro_batch: given 4, wanted a multiple of the 6"),
    ],
)
def test_sizes_that_do_not_divide(given: Any, words: str) -> None:
    with pytest.raises(CounterpoiseError, match=words):
        sizes(*given, (128, 8))
