"""The beginning of an epoch: Skew of the model as it is, made into the epoch's sidecar, and what is logged of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from storage.backend import explain
from storage.errors import CounterpoiseError
from storage.sidecar import read_sidecar, sidecar_name

from ..instance import write_skew
from ..refresh import cell_counts, sign_flips
from ..skew_json import from_json, to_json
from ..skew_table import SkewTable
from .folder import EPOCHS, RunFolder
from .measuring import ask, checked, chosen_sets, skew_of, source_of
from .recipe import MICRO_BATCH, Recipe
from .subject import Subject


@dataclass(frozen=True, slots=True)
class Measuring:
    """Measures Skew and writes sidecars.

    Attributes:
        subject: the model in training.
    """

    subject: Subject

    def table(self) -> SkewTable:
        """Skew of the model as it is."""
        recipe, subject = self.subject.recipe, self.subject
        source = source_of(recipe, recipe.skew_pool)
        sets = chosen_sets(source, recipe.skew_images, recipe.seed)
        answers = ask(subject.model, source, sets, subject.share, recipe.micro_batch or MICRO_BATCH)
        return skew_of(checked(answers, source), recipe)

    def sidecar(self, epoch: int, weights_sha256: str) -> str:
        """Name of an epoch's sidecar."""
        return sidecar_name(self.subject.recipe.slug(), weights_sha256, epoch)

    def write(self, table: SkewTable, epoch: int, weights_sha256: str) -> None:
        """Write the epoch's sidecar in the dataset, and the table in the run's folder.

        Raises:
            CounterpoiseError: the dataset cannot be written to, or the table is not of its axes and concepts.
        """
        recipe = self.subject.recipe
        try:
            write_skew(
                recipe.dataset, table, recipe.slug(), weights_sha256, epoch,
                seed=recipe.seed, clamp=recipe.clamp, shrink=recipe.shrink and not recipe.faithful,
                tau1=recipe.tau1, tau2=recipe.tau2, resample=recipe.resample,
            )  # fmt: skip
        except OSError as error:
            reason = explain(error, f"{recipe.dataset}/skew")
            raise CounterpoiseError(
                f"{str(reason).rstrip('.')}. An epoch's Skew is kept in the dataset's skew/: make it writable, or "
                "train on a copy of the dataset."
            ) from error
        self.subject.folder.write_text(table_name(epoch), to_json(table, recipe.shrink))

    def told(self, table: SkewTable, epoch: int, step: int, sidecar: str) -> dict[str, Any]:
        """The log's line of an epoch."""
        before = stored_table(self.subject.folder, epoch - 1) if epoch else None
        flips = [] if before is None else [asdict(flip) for flip in sign_flips(before, table)]
        return {
            "kind": "skew",
            "step": step,
            "epoch": epoch,
            "sidecar": sidecar,
            "extremes": {
                axis: {"max": one.max_skew.value, "min": one.min_skew.value}
                for axis, one in table.axes.items()
            },
            "flips": flips,
            "cells": [list(cell) for cell in cell_counts(table)],
            **_weights(self.subject.recipe, sidecar),
        }


def _weights(recipe: Recipe, sidecar: str) -> dict[str, Any]:
    """Of what is handed out: copies, weights, and as how many instances of equal weight they count (Kish 1965)."""
    table = read_sidecar(recipe.dataset, sidecar).table
    weight, times = (table[name].to_numpy() for name in ("weight", "multiplicity"))
    if not recipe.weights:
        weight = np.ones_like(weight)
    total = float((weight * times).sum())
    return {
        "copies": int(times.sum()),
        "weights": {"smallest": float(weight.min()), "largest": float(weight.max())},
        "effective": total**2 / max(float((weight**2 * times).sum()), 1e-300),
    }


def table_name(epoch: int) -> str:
    """Name of an epoch's table in the run's folder."""
    return f"{EPOCHS}/{epoch}-skew.json"


def stored_table(folder: RunFolder, epoch: int) -> SkewTable | None:
    """The table that an epoch began with; None where there is none."""
    path = folder.path / table_name(epoch)
    return from_json(path.read_bytes(), str(path)) if path.exists() else None
