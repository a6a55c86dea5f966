"""What CSD costs in a step: weights from a sidecar against a plain step of the same pictures.

Both are the trainer's own forward, loss and gradients of a step made of several forwards, on a random LLaVA of 2 layers of
width 128; they differ in the weights alone. Measuring Skew between epochs and handing out copies are not in it: the one is
asking (`asking.py`), the other more or fewer steps. Medians of paired repeats with 95 % intervals.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny_mllm
from timing import median, paired, ratio, shown
from training_world import dataset
from transformers import TrainingArguments

from debias.models.base import MultimodalModel
from debias.models.opening import adapter_of
from debias.questions import choices
from debias.training.examples import Collator, Examples
from debias.training.schedule import Progress
from debias.training.trainer import InstanceTrainer, Objective
from storage.stream import stream

BATCH, MICRO = 16, 4
BAR = 1.03


def model() -> MultimodalModel:
    """A LLaVA of 2 layers of width 128 with 36 image tokens."""
    made, processor = tiny_mllm.llava(width=128, layers=2, size=84)
    return MultimodalModel("benchmark", made, processor, adapter_of(made.config, "benchmark"))


def batches(opened: MultimodalModel, folder: Path, weighted: bool) -> list[dict[str, Any]]:
    """A step's batches; weighted, every picture has a weight of its own."""
    items = list(stream(dataset(folder, 1, 5), "train", keep_sets=False, seed=1))[:BATCH]
    rows = [{**item, "weight": 0.5 + number / BATCH} for number, item in enumerate(items)]
    examples = Examples(opened, choices({"work": ("chef", "science")}), [])
    collator = Collator(examples, 0, weighted)
    return [collator(rows[start : start + MICRO]) for start in range(0, BATCH, MICRO)]


def main() -> int:
    """Print the ratio; exit 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=61)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    opened = model()
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, use_cpu=True, report_to="none", gradient_accumulation_steps=BATCH // MICRO
        )
        trainer = InstanceTrainer(opened.model, args, [], Progress(1), Objective())  # type: ignore[arg-type]
        trainer.create_optimizer()
        made = {name: batches(opened, Path(folder) / name, name == "csd") for name in ("plain", "csd")}

        def step(name: str) -> None:
            found, total = trainer.get_batch_samples(iter(made[name]), BATCH // MICRO, torch.device("cpu"))
            for batch in found:
                trainer.training_step(opened.model, batch, total)
            opened.model.zero_grad()

        times = paired({name: (lambda name=name: step(name)) for name in made}, given.repeats)
    found = ratio(times["csd"], times["plain"])
    console = Console()
    console.print(
        f"a step of {BATCH} pictures: plain {median(times['plain']):.3f} s, csd / plain {shown(found)}"
    )
    console.print("bar met" if found[0] <= BAR else f"bar missed: wanted {BAR} at most")
    return 0 if found[0] <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
