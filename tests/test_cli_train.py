"""`counterpoise train` and `evaluate`: what they print, write and refuse, in one process and in several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from cli_world import Called, one_line
from safetensors.torch import load_file
from tiny_mllm import photograph, save
from training_world import dataset

from debias.models.base import MultimodalModel
from debias.models.opening import adapter_of
from debias.training.recipe import LEARNING_RATES
from flows.recipes import SHIPPED, load_recipe

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data") / "d")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llava", tmp_path_factory.mktemp("model") / "llava")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    from transformers.utils import logging

    monkeypatch.chdir(tmp_path)
    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)


def written(llava: Path, data: Path, **changes: Any) -> str:
    plain = {
        "method": "csd", "model": str(llava), "dataset": str(data), "epochs": 1, "batch": 12, "micro_batch": 3,
        "learning_rate": 1e-3, "warmup": 0.0, "min_count": 1, "seed": 3, "stop_drop": 1.0, "plateau": 0.0,
    }  # fmt: skip
    Path("mine.yaml").write_text(yaml.safe_dump({**plain, **changes}))
    return "mine.yaml"


def test_a_run_from_recipe_to_model(capsys: pytest.CaptureFixture[str], llava: Path, data: Path) -> None:
    found = Called(capsys, "train", written(llava, data, plateau=1.0))
    assert found.status == 3 and found.err.startswith("bias plateaus: ")
    for words in (
        "steps       4",
        "heldout     accuracy ",
        "gender MaxSkew ",
        "model       out/train/mine/model",
    ):
        assert words in found.out
    again = Called(capsys, "train", "mine.yaml")
    assert (again.status, again.out) == (3, found.out)
    asked = ("out/train/mine/model", str(data), "--split", "test", "--min-count", "1", "--out", "e")
    evaluated = Called(capsys, "evaluate", *asked)
    assert (evaluated.status, evaluated.err) == (0, "")
    kept = json.loads(Path("out/train/mine/evaluations/1/heldout.json").read_text())
    assert json.loads(Path("e/accuracy.json").read_text())["accuracy"] == kept["accuracy"]
    assert pq.read_table("e/predictions.parquet").num_rows == 12
    assert set(json.loads(Path("e/skew.json").read_text())["axes"]) == {"gender", "race"}


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str], llava: Path, data: Path) -> None:
    found = Called(capsys, "train", written(llava, data), "--dry-run")
    assert (found.status, found.err) == (0, "")
    assert "4 an epoch before resampling" in found.out and not Path("out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tau": 1}, "mine.yaml: tau: unknown key, wanted one of method, model"),
        (
            {"method": "cds"},
            "method: given \"cds\", wanted one of sft, csd, consistency (did you mean 'csd'?)",
        ),
        (
            {"lora": {"rnk": 3}},
            "lora.rnk: unknown key, wanted one of rank, alpha, dropout (did you mean 'rank'?)",
        ),
        ({"epochs": 0}, "epochs: given 0, wanted a whole number of 1 or more"),
        ({"faithful": True, "shrink": True}, "shrink: given true, wanted false with faithful"),
        ({"batch": 10}, "batch: given 10, wanted a multiple of 3"),
        ({"model": "."}, "model '.': neither a folder"),
        ({"launch": {"processes": 2, "config": "nowhere"}}, "launch.config: given 'nowhere'"),
    ],
)
def test_bad_recipes(
    capsys: pytest.CaptureFixture[str], llava: Path, data: Path, changes: dict[str, Any], words: str
) -> None:
    one_line(Called(capsys, "train", written(llava, data, **changes)), words)


def test_pools_of_others(capsys: pytest.CaptureFixture[str], llava: Path) -> None:
    Path("pictures").mkdir()
    rows = ["file_name,gender"]
    for number in range(6):
        photograph(number).save(f"pictures/{number}.png")
        rows.append(f"{number}.png,{('woman', 'man')[number % 2]}")
    Path("pictures/metadata.csv").write_text("\n".join(rows) + "\n")
    call = (
        "evaluate",
        str(llava),
        "pictures",
        "--kind",
        "table",
        "--axis",
        "gender",
        "--min-count",
        "1",
        "--out",
        "e",
    )
    one_line(Called(capsys, *call), "have no concepts, so name those to offer: --concept")
    found = Called(capsys, *call, "--concept", "doctor", "--concept", "nurse")
    assert found.status == 0, found.err
    assert set(pq.read_table("e/predictions.parquet")["predicted"].to_pylist()) <= {"doctor", "nurse"}
    one_line(Called(capsys, "evaluate", str(llava), "x", "--kind", "y", "--out", "e"), "--kind: given 'y'")
    one_line(Called(capsys, *call[:3], "--kind", "table", "--out", "e"), "--axis: wanted with --kind table")
    one_line(Called(capsys, *call, "--split", "test"), "--split: it is for --kind dataset")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes(name: str) -> None:
    """Each is read; its rates are the paper's, its memory is counted from parameters."""
    found = load_recipe(name)
    family = {"llava": "llava", "first": "llava", "qwen2": "qwen", "bunny": "bunny"}[name.split("-")[0]]
    factor = 100 if found.lora else 1
    assert found.method == "csd" and found.learning_rate == pytest.approx(LEARNING_RATES[family] * factor)
    assert found.batch is not None and found.micro_batch is not None and found.batch % found.micro_batch == 0
    assert ("first" in name) == (found.tau1 == found.tau2 == 0.5)


def test_shipped_recipes_name_their_memory() -> None:
    """16 bytes for each parameter that is trained, 4 for a frozen one; figures of the models without weights."""
    from test_debias_models import FULL

    for size in ("LLaVA-1.5 7B", "LLaVA-1.5 13B", "Qwen2-VL-7B", "Bunny-8B"):
        name = size.lower().replace(" ", "-")
        config, *_ = FULL[size]
        adapter = adapter_of(config, size)
        with torch.device("meta"):
            model = adapter.model_class(config)(config)
        opened = MultimodalModel(size, model, None, adapter)
        frozen = sum(
            value.numel() for part, value in model.named_parameters() if opened.part_of(part) == "vision"
        )
        total = sum(value.numel() for value in model.parameters())
        assert len(opened.lora_targets()) == 7 * config.get_text_config().num_hidden_layers
        text = (ROOT / "debias" / "recipes" / f"{name}.yaml").read_text()
        needs = round((16 * (total - frozen) + 4 * frozen) / 1e9)
        assert f"= {needs} GB" in text, (name, needs, total, frozen)


def command(recipe: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "flows", "train", recipe, *more]


def run(recipe: str, out: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(recipe, "--out", out), env=environment(), capture_output=True, text=True, timeout=280
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_two_processes_are_one(capsys: pytest.CaptureFixture[str], llava: Path, data: Path) -> None:
    """Over gloo: the loss of every step, and the weights at the end; an error of a rank is one line as well."""
    found = {}
    for name, processes in (("one", 1), ("two", 2)):
        recipe = written(llava, data, launch={"processes": processes}, consistency=0.5, micro_batch=6)
        done = run(recipe, name)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in Path(name, "log.jsonl").read_text().splitlines()]
        steps = [(line["loss"], line["consistency"]) for line in lines if line["kind"] == "step"]
        found[name] = (steps, load_file(Path(name) / "model" / "model.safetensors"), done.stdout)
    (one, weights, said), (two, its, told) = found["one"], found["two"]
    assert len(one) == len(two) > 2
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, abs=2e-5)
    assert max(float((weights[name] - its[name]).abs().max()) for name in weights) < 5e-6
    assert said.splitlines()[:-1] == told.splitlines()[:-1]
    recipe = written(llava, data, launch={"processes": 2}, min_count=1000, evaluate_on=[])
    done = run(recipe, "bad")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("Error: "), done.stderr
    assert "no concept was given 1000 times" in done.stderr and "Traceback" not in done.stderr


def ranks(folder: Path) -> list[int]:
    """Processes that still work on a run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words:
            found.append(int(entry.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="counts processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_rank_is_left_behind(llava: Path, data: Path, tmp_path: Path, how: signal.Signals) -> None:
    recipe = written(llava, data, launch={"processes": 2}, epochs=500, evaluate_on=[])
    folder = tmp_path / "run"
    child = subprocess.Popen(command(recipe, "--out", str(folder)), env=environment(), stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 200
        while (
            time.monotonic() < deadline
            and not (folder / "checkpoints" / "checkpoint-4" / "place.json").exists()
        ):
            assert child.poll() is None
            time.sleep(0.2)
        assert len(ranks(folder)) >= 4  # the command, its launcher, two ranks
        child.send_signal(how)
        status = child.wait(60)
        assert status == {signal.SIGKILL: -9}.get(how, 130)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and ranks(folder):
            time.sleep(0.1)
        assert ranks(folder) == []
    finally:
        for process in ranks(folder):
            os.kill(process, signal.SIGKILL)
        child.wait()
        if child.stderr:
            child.stderr.close()
