"""Tars that one of several workers compared with their manifests, so that the others need not read them for that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Checked:
    """What the workers that share a rank's batches tell each other.

    Attributes:
        table: int64 by part, in memory that the workers share: which tar was found sound, 0 for none yet.
        worker: which of the workers this is.
        workers: how many there are.
        wanted: images that they want together, by part.
    """

    table: npt.NDArray[np.int64]
    worker: int = 0
    workers: int = 1
    wanted: Mapping[int, int] = field(default_factory=dict)

    def order(self, parts: Sequence[int]) -> list[int]:
        """Parts in the order of this worker, so that each begins elsewhere and finds done what others began with."""
        start = self.worker * len(parts) // self.workers
        return [*parts[start:], *parts[:start]]

    def note(self, part: int, tar: object) -> None:
        """Tell the others that a part's tar is sound, by what changes whenever the file does."""
        self.table[part] = _number(tar)

    def knows(self, part: int, tar: object) -> bool:
        """Did any of the workers find this very tar sound?"""
        return bool(self.table[part] == _number(tar))


def _number(tar: object) -> int:
    digest = hashlib.sha256(repr(tar).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True) or 1
