"""The model in training, as what measures and evaluates it sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..models.base import MultimodalModel
from .folder import RunFolder
from .preparing import weights_sha256
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Share:
    """Which of the processes this is."""

    rank: int = 0
    processes: int = 1


@dataclass(slots=True)
class Subject:
    """The model in training, and where it stands.

    Attributes:
        recipe: what is asked for.
        folder: of the run.
        model: in training.
        share: of this process.
    """

    recipe: Recipe
    folder: RunFolder
    model: MultimodalModel
    share: Share
    _hashed: tuple[int, str] | None = field(default=None, init=False)

    def weights_sha256(self, step: int) -> str:
        """The hash of the weights as they are after so many steps, taken once: nothing but a step changes them."""
        if self._hashed is None or self._hashed[0] != step:
            self._hashed = step, weights_sha256(self.model)
        return self._hashed[1]
