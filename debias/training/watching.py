"""What happens between steps: the ends of epochs, checkpoints, the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from .folder import RunFolder
from .schedule import Progress

_LOGGED = ("loss", "learning_rate", "grad_norm", "consistency")


@dataclass(slots=True)
class Watch(TrainerCallback):
    """Told by Trainer of every step.

    Attributes:
        folder: of the run.
        progress: of the run.
        save_steps: steps between checkpoints within an epoch; None for none.
        state_of_data: where the data stand.
        epoch_ended: told the epochs and steps done; says why to stop, or nothing.
        told: told the steps done and the steps of the epochs known so far.
        writes: this process writes the run's files.
        stopped: why training was stopped early; empty where it was not.
    """

    folder: RunFolder
    progress: Progress
    save_steps: int | None
    state_of_data: Callable[[], Mapping[str, Any]]
    epoch_ended: Callable[[int, int], str | None]
    told: Callable[[int, int], None]
    writes: bool
    stopped: str = field(default="", init=False)

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A run that was trained to its end before has no step left."""
        control.should_training_stop = len(self.progress.spans) == self.progress.epochs

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say where training is, and what is to be done there."""
        step, epochs = state.global_step, len(self.progress.spans)
        state.epoch = self.progress.at(step)
        self.told(step, self.progress.end)
        if step < self.progress.end:
            control.should_save = self.save_steps is not None and step % self.save_steps == 0
            return
        self.stopped = self.epoch_ended(epochs, step) or ""
        control.should_save = not self.stopped
        control.should_training_stop = bool(self.stopped) or epochs == self.progress.epochs

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The data's place makes a checkpoint whole."""
        if self.writes:
            self.folder.note_place(state.global_step, self.state_of_data())

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """A line for each step; what follows the clock is left out."""
        if self.writes and "loss" in (logs or {}):
            facts = {name: logs[name] for name in _LOGGED if name in logs}
            self.folder.log(
                {"kind": "step", "step": state.global_step, "epoch": round(state.epoch or 0.0, 6), **facts}
            )
