"""Runs that are stopped: killed between steps, while an epoch is measured, or at the end; the result is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_mllm import save
from training_world import LORA, dataset, recipe

from debias.training import run as running
from debias.training.epochs import Measuring
from debias.training.recipe import Recipe
from debias.training.run import Outcome, train
from storage import CounterpoiseError, DatasetMismatch
from storage.sidecar import sidecars


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llava", tmp_path_factory.mktemp("model") / "llava")


@pytest.fixture
def data(tmp_path: Path, whole_data: Path) -> Path:
    return Path(shutil.copytree(whole_data, tmp_path / "data"))


@pytest.fixture(scope="module")
def whole_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("whole") / "d")


def csd(llava: Path, data: Path, **changes: Any) -> Recipe:
    settings = {"method": "csd", "epochs": 2, "save_steps": 1, "evaluate_on": ("heldout",), "stop_drop": 1.0}
    return recipe(llava, data, **{**settings, "lora": LORA, **changes})


def facts(folder: Path) -> tuple[dict[str, torch.Tensor], str]:
    return load_file(folder / "model" / "model.safetensors"), (folder / "log.jsonl").read_text()


def dies_at(step: int) -> Callable[[int, int], None]:
    def told(done: int, known: int) -> None:
        if done == step:
            raise Killed

    return told


LATER = [pytest.param(steps, marks=pytest.mark.slow) for steps in [(1,), (2,), (4,), (5,)]]


@pytest.mark.parametrize("way", ["full", "lora"])
@pytest.mark.parametrize("steps", [(3, 6), *LATER])
def test_killed_between_steps(
    llava: Path, data: Path, tmp_path: Path, steps: tuple[int, ...], way: str
) -> None:
    """A run of eight steps or so, with LoRA's dropout; each start goes on from the last checkpoint."""
    made = csd(llava, data, lora=LORA if way == "lora" else None)
    train(made, str(tmp_path / "whole"))
    for step in steps:
        with pytest.raises(Killed):
            train(made, str(tmp_path / "killed"), told=dies_at(step))
    before = sidecars(data)
    train(made, str(tmp_path / "killed"))
    (whole, log), (killed, its) = facts(tmp_path / "whole"), facts(tmp_path / "killed")
    assert len(log.splitlines()) > 8
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert sorted(its.splitlines()) == sorted(log.splitlines())
    assert sidecars(data) == before, "the same sidecars, by the hash of the weights in their names"


def test_what_was_measured_is_not_measured_again(
    llava: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, measured = csd(llava, data), []
    table = Measuring.table
    monkeypatch.setattr(Measuring, "table", lambda self: (measured.append(1), table(self))[1])
    with pytest.raises(Killed):
        train(made, str(tmp_path / "run"), told=dies_at(1))
    assert len(measured) == 1
    with pytest.raises(Killed):
        train(made, str(tmp_path / "run"), told=dies_at(1))
    assert len(measured) == 1
    train(made, str(tmp_path / "run"))
    assert len(measured) == 2
    train(made, str(tmp_path / "run"))
    assert len(measured) == 2


def test_killed_while_an_epoch_is_measured(
    llava: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = csd(llava, data, save_steps=None)
    train(made, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(running.RunFolder, "note_epoch", _dies_at_epoch(1, running.RunFolder.note_epoch))
        with pytest.raises(Killed):
            train(made, str(tmp_path / "killed"))
    train(made, str(tmp_path / "killed"))
    (whole, log), (killed, its) = facts(tmp_path / "whole"), facts(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert sorted(its.splitlines()) == sorted(log.splitlines())


def _dies_at_epoch(epoch: int, real: Callable[..., None]) -> Callable[..., None]:
    def note(self: Any, record: Any) -> None:
        if record.epoch == epoch:
            raise Killed
        real(self, record)

    return note


def test_killed_when_all_is_trained(
    llava: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = csd(llava, data)
    train(made, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(running.Run, "_save", lambda self: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(made, str(tmp_path / "killed"))
    found = train(made, str(tmp_path / "killed"))
    assert isinstance(found, Outcome) and found.steps > 4
    (whole, log), (killed, its) = facts(tmp_path / "whole"), facts(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert sorted(its.splitlines()) == sorted(log.splitlines())


def test_a_half_written_checkpoint_is_none(llava: Path, data: Path, tmp_path: Path) -> None:
    made = csd(llava, data, method="sft")
    with pytest.raises(Killed):
        train(made, str(tmp_path / "run"), told=dies_at(3))
    half = tmp_path / "run" / "checkpoints" / "checkpoint-7"
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    assert train(made, str(tmp_path / "run")).steps == 8


def test_another_recipe_is_refused_and_fresh_begins_anew(llava: Path, data: Path, tmp_path: Path) -> None:
    made = csd(llava, data, method="sft", epochs=1, lora=None)
    train(made, str(tmp_path / "run"))
    other = replace(made, learning_rate=2e-3)
    with pytest.raises(DatasetMismatch, match=r"learning_rate is 0\.001 there and 0\.002 now"):
        train(other, str(tmp_path / "run"))
    train(other, str(tmp_path / "run"), fresh=True)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"]["learning_rate"] == 2e-3
    assert (
        len([line for line in facts(tmp_path / "run")[1].splitlines() if '"step", "step": 1,' in line]) == 1
    )


def test_a_sidecar_of_another_run_is_refused(llava: Path, data: Path, tmp_path: Path) -> None:
    """The sidecar of the running epoch was written over meanwhile."""
    made = csd(llava, data)
    with pytest.raises(Killed):
        train(made, str(tmp_path / "run"), told=dies_at(2))
    (name,) = sidecars(data)
    other = replace(made, seed=4)
    with pytest.raises(Killed):
        train(other, str(tmp_path / "other"), told=dies_at(1))
    (another,) = set(sidecars(data)) - {name}
    shutil.copy(data / another, data / name)
    with pytest.raises(DatasetMismatch, match="skew_sha256"):
        train(made, str(tmp_path / "run"))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_workers_change_nothing(llava: Path, data: Path, tmp_path: Path) -> None:
    found = []
    for workers in (0, 2):
        made = csd(llava, data, workers=workers, epochs=1)
        train(made, str(tmp_path / str(workers)))
        found.append(facts(tmp_path / str(workers))[0])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_folder_that_cannot_be_written(llava: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CounterpoiseError, match="file"):
        train(csd(llava, data), str(tmp_path / "file"))
