"""What asking costs: all orders of a question in one forward, against every option and order run whole.

Ours packs the orders behind the image; "order by order" runs each order whole and reads all letters from one run;
"option by option" runs each option in each order whole, as scoring by log-likelihood is often done. The model is a random
LLaVA of 4 layers of width 256 whose pictures are 576 tokens, the question has 6 options. Its tokenizer knows letters alone,
so that questions are three to four times as long as with a real one, to the disadvantage of ours. Medians of paired repeats
with 95 % intervals, and the peak of memory with inputs, but without weights, of a run in a process of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny_mllm
from timing import Times, median, paired, peak, peak_of, ratio, reset_peak, shown

from debias.asking import Asker, over_orders
from debias.models.base import MultimodalModel
from debias.models.opening import adapter_of
from debias.questions import LETTER, LETTERS, Question

METHODS = ("option by option", "order by order", "ours")
OPTIONS = ("tool", "weapon", "career", "family", "chef", "earning money")
HEADINGS = (
    "score", "images", "ours s", "option by option / ours", "order by order / ours", "largest difference",
    "peak MB option by option", "ours",
)  # fmt: skip
#: Bars: how much faster than option by option, how far log-probabilities may lie apart.
FASTER_BAR, APART_BAR = 3.0, 1e-4


def big() -> MultimodalModel:
    """A LLaVA with a random language model of 4 layers of width 256 and 576 image tokens."""
    model, processor = tiny_mllm.llava(width=256, layers=4, size=336)
    return MultimodalModel("benchmark", model, processor, adapter_of(model.config, "benchmark"))


@dataclass(frozen=True)
class Case:
    """A question by one score about so many images."""

    score: str
    images: int

    def make(self, method: str, model: MultimodalModel) -> Callable[[], Tensor]:
        """Return a run that gives log-probabilities (images, options)."""
        question = Question(score=self.score)
        images = [tiny_mllm.photograph(seed, (336, 336)) for seed in range(self.images)]
        encoded = [model.encode(image) for image in images]
        if method == "ours":
            asker = Asker(model, question)
            return lambda: torch.stack(asker.log_probabilities(encoded, [OPTIONS] * self.images))
        pixels = torch.cat([image.inputs["pixel_values"] for image in encoded])
        runs = _runs(model, question, method)
        return lambda: _whole(model, pixels, runs)


@dataclass(frozen=True)
class Run:
    """A whole prompt, or prompt and answer: its tokens, and (place, token, order, option) of what is scored in it."""

    tokens: list[int]
    scored: list[tuple[int, int, int, int]]
    mean: bool


def _runs(model: MultimodalModel, question: Question, method: str) -> list[Run]:
    """Every order with every answer behind it; order by order, for letters alone, all are read from one run."""
    processor, runs = model.processor, []
    picture = tiny_mllm.photograph(0, (336, 336))
    for number, order in enumerate(question.orders(len(OPTIONS))):
        prompt = model.prompt(question.instruction([OPTIONS[place] for place in order]))
        start = processor(images=picture, text=prompt)["input_ids"][0]
        found = []
        for letter, place in zip(LETTERS, order, strict=False):
            text = f"{prompt} {letter if question.score == LETTER else OPTIONS[place]}"
            whole = processor(images=picture, text=text)["input_ids"][0]
            scored = [(at - 1, whole[at], number, place) for at in range(len(start), len(whole))]
            found.append(Run(whole[:-1], scored, question.score == "text_mean"))
        if method == "order by order":
            found = [Run(start, [one.scored[0] for one in found], False)]
        runs += found
    return runs


def _whole(model: MultimodalModel, pixels: Tensor, runs: Sequence[Run]) -> Tensor:
    """Log-probabilities from whole runs, all images at once."""
    found = torch.zeros(len(pixels), len(OPTIONS), len(OPTIONS))
    for run in runs:
        ids = torch.tensor([run.tokens] * len(pixels))
        places = torch.tensor([place for place, *_ in run.scored])
        logits = model.model(
            input_ids=ids, pixel_values=pixels, use_cache=False, logits_to_keep=places
        ).logits
        each = logits.float().log_softmax(dim=-1)
        for at, (_, token, order, option) in enumerate(run.scored):
            found[:, order, option] += each[:, at, token] / (len(run.scored) if run.mean else 1)
    return torch.stack([over_orders(one) for one in found])


@dataclass
class Row:
    """One row of the table."""

    case: Case
    times: Times
    apart: float
    memory: dict[str, int]

    def faster(self, than: str) -> tuple[float, float, float]:
        """Return the paired ratio of a method's time to ours."""
        return ratio(self.times[than], self.times["ours"])

    def times_ours(self, than: str) -> str:
        """Return the ratio as text; nothing where the method was not run."""
        return shown(self.faster(than)) if than in self.times else ""

    def cells(self) -> list[str]:
        """Return what the table shows."""
        return [
            self.case.score, str(self.case.images), f"{median(self.times['ours']):.3f}",
            *map(self.times_ours, METHODS[:2]), f"{self.apart:.1e}",
            *(f"{size / 1e6:.0f}" for size in self.memory.values()),
        ]  # fmt: skip


def measured(case: Case, model: MultimodalModel, repeats: int) -> Row:
    """Compare the ways' results, time them, and take two ways' peaks of memory."""
    methods = METHODS if case.score == LETTER else (METHODS[0], "ours")  # texts are whole runs either way
    runs = {name: case.make(name, model) for name in methods}
    results = [run() for run in runs.values()]
    apart = max(float((one - results[-1]).abs().max()) for one in results)
    times = paired(runs, repeats)
    memory = {name: peak_of(memory_of, name, case) for name in (METHODS[0], "ours")}
    return Row(case, times, apart, memory)


def missed(rows: Sequence[Row]) -> list[str]:
    """Return the bars that are missed, each with its figure."""
    failed = []
    for row in rows:
        name, faster = f"{row.case.score}, {row.case.images} images", row.faster("option by option")[0]
        if faster < FASTER_BAR:
            failed.append(f"{name}: option by option / ours {faster:.3f}, wanted {FASTER_BAR}")
        if row.apart > APART_BAR:
            failed.append(f"{name}: log-probabilities {row.apart:.1e} apart, wanted {APART_BAR}")
    return failed


def memory_of(method: str, case: Case) -> int:
    """Return the bytes at the peak of one run, its inputs among them, weights not."""
    torch.set_num_threads(1)
    model = big()
    with torch.inference_mode():
        before = reset_peak()
        case.make(method, model)()
        return peak() - before


def main() -> int:
    """Print the table; exit 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = big()
    cases = [Case("letter", 1), Case("letter", 2), Case("text_mean", 1)]
    with torch.inference_mode():
        shown_cases = track(cases, "asking", console=Console(stderr=True))
        rows = [measured(case, model, given.repeats) for case in shown_cases]
    table = Table(*HEADINGS, title="asking on a CPU, medians of paired repeats (95 % interval)")
    for row in rows:
        table.add_row(*row.cells())
    Console(width=170).print(table)
    for line in (failed := missed(rows)):
        print(line)
    print("all bars met" if not failed else f"{len(failed)} bars missed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
