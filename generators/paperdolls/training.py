"""The loop that every stage shares: seeded steps, progress with the loss, checkpoints, resume."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from storage.errors import CounterpoiseError

CHECKPOINT_EVERY = 250


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast a stage trains: one-cycle learning rate with a cosine fall."""

    steps: int
    batch: int
    rate: float
    warmup: float = 0.05
    decay: float = 0.01
    ema: float = 0.999


class Ema:
    """An exponential moving average of parameters, kept in float32."""

    def __init__(self, modules: nn.ModuleDict, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().clone() for name, value in modules.state_dict().items()}

    def update(self, modules: nn.ModuleDict, step: int) -> None:
        """Move the average towards the present values; early steps move it faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in modules.state_dict().items():
            if value.dtype.is_floating_point:
                self.shadow[name].lerp_(value, 1 - decay)
            else:
                self.shadow[name].copy_(value)


def generator_for(seed: int, *purpose: object) -> torch.Generator:
    """Return a torch generator that depends on the seed and the purpose alone."""
    from generators.plan import derive_seed

    return torch.Generator().manual_seed(derive_seed(seed, *map(str, purpose)))


def train(
    name: str,
    modules: nn.ModuleDict,
    loss_of: Callable[[int, torch.Generator], Tensor],
    schedule: Schedule,
    folder: Path,
    seed: int,
) -> nn.ModuleDict:
    """Train `modules` and return them holding their averaged weights.

    Step k sees the generator (seed, stage, k) alone, so a run that was stopped continues as if it had not been.

    Args:
        name: of the stage; names the checkpoint.
        modules: what is trained.
        loss_of: (step, generator) to the loss of that step's batch.
        schedule: steps, batch size, learning rate.
        folder: where checkpoints are kept.
        seed: decides every batch.
    """
    optimizer = torch.optim.AdamW(
        modules.parameters(), schedule.rate, weight_decay=schedule.decay, fused=True
    )
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.rate, total_steps=schedule.steps + 1, pct_start=schedule.warmup
    )
    ema = Ema(modules, schedule.ema)
    path = folder / f"{name}.checkpoint.pt"
    start = _restore(path, seed, modules, optimizer, rates, ema)
    modules.train()
    for step, report in _progress(name, range(start, schedule.steps)):
        torch.manual_seed(generator_for(seed, name, step, "layers").initial_seed())  # what dropout draws from
        with sdpa_kernel(
            SDPBackend.MATH
        ):  # the fused kernel's backward pass is several times slower on a CPU
            loss = loss_of(step, generator_for(seed, name, step))
            loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rates.step()
        ema.update(modules, step)
        report(loss.item())
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == schedule.steps:
            _save(path, seed, step + 1, modules, optimizer, rates, ema)
    modules.load_state_dict(ema.shadow)
    return modules.eval()


def _save(path: Path, seed: int, step: int, modules: nn.ModuleDict, optimizer, rates, ema: Ema) -> None:  # type: ignore[no-untyped-def]
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "seed": seed,
        "step": step,
        "modules": modules.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rates": rates.state_dict(),
        "ema": ema.shadow,
    }
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def _restore(path: Path, seed: int, modules: nn.ModuleDict, optimizer, rates, ema: Ema) -> int:  # type: ignore[no-untyped-def]
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if (other := state.get("seed", seed)) != seed:
        raise CounterpoiseError(
            f"{path}: made with seed {other}, wanted {seed}; give that seed or another checkpoint folder"
        )
    modules.load_state_dict(state["modules"])
    optimizer.load_state_dict(state["optimizer"])
    rates.load_state_dict(state["rates"])
    ema.shadow = state["ema"]
    return int(state["step"])


def _progress(name: str, steps: range) -> Iterable[tuple[int, Callable[[float], None]]]:
    """Yield each step with a function that takes its loss; shows the running mean."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    mean = 0.0
    with bar:
        row = bar.add_task(name, total=steps.stop, completed=steps.start, loss=0.0)

        def report(loss: float) -> None:
            nonlocal mean
            mean = loss if mean == 0 else 0.98 * mean + 0.02 * loss
            bar.update(row, advance=1, loss=mean)
            if not bar.console.is_terminal and (step + 1) % 100 == 0:
                print(f"{name} step {step + 1}/{steps.stop} loss {mean:.4f}", flush=True)

        for step in steps:
            yield step, report
