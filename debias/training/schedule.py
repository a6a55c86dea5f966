"""How far training is, and the learning rate that follows from it.

Epochs differ in their number of steps, since resampling changes how many images are handed out and is drawn anew each time.
So the rate is a function of progress, epochs done of all epochs, and not of a number of steps that is not known yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .recipe import Schedule


@dataclass(slots=True)
class Progress:
    """The epochs' steps, as they come to be known.

    Attributes:
        epochs: how many there will be.
        schedule: how the rate falls.
        warmup: share of the whole in which it rises.
        spans: first step and number of steps of each epoch so far.
    """

    epochs: int
    schedule: Schedule = "cosine"
    warmup: float = 0.03
    spans: list[tuple[int, int]] = field(default_factory=list)

    def begin(self, steps: int) -> None:
        """Note a further epoch of so many steps."""
        self.spans.append((self.end, steps))

    @property
    def end(self) -> int:
        """Steps of the epochs that are known."""
        start, steps = self.spans[-1] if self.spans else (0, 0)
        return start + steps

    def at(self, step: int) -> float:
        """Epochs done after so many steps, with a fraction."""
        for epoch, (start, steps) in enumerate(self.spans):
            if step < start + steps:
                return epoch + (step - start) / steps
        return float(len(self.spans))

    def factor(self, step: int) -> float:
        """Share of the learning rate that the step of this number, from 0, is made with."""
        done = self.at(step) / self.epochs
        if done < self.warmup:
            return done / self.warmup
        if self.schedule == "constant":
            return 1.0
        rest = (1 - done) / (1 - self.warmup) if self.warmup < 1 else 1.0
        return 0.5 * (1 - math.cos(math.pi * rest)) if self.schedule == "cosine" else rest
