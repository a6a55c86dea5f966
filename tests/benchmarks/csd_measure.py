"""Asking a model about the pools of the proof, and what follows from its answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from csd_world import ASKED, POOLS, RANKS, VALIDATION, Asked
from scipy.stats import spearmanr

from debias.asking import Asker
from debias.models.opening import open_model
from debias.predicting import predict, write_predictions
from debias.predictions import Predictions, predictions_from
from debias.skew import skew_table_from
from debias.skew_table import Extreme, SkewTable
from debias.training.capability import answered, read_questions
from flows.world.stereotypes import Table
from generators.paperdolls.world import CLASSES

BATCH = 24
PERMUTATIONS, DRAWS = 199, 300
GENERAL = "general.json"


def ask(model: Path, folder: Path, pools: Iterable[Asked], questions: str) -> None:
    """Ask a model about pools and general questions; predictions and which answers were right go to a folder."""
    opened = open_model(str(model))
    folder.mkdir(parents=True, exist_ok=True)
    for one in {asked.answers: asked for asked in pools}.values():
        table = predict(Asker(opened), one.pool(), one.offer(), BATCH)
        write_predictions(table, folder / f"{one.answers}.parquet")
    right = answered(opened, read_questions(str(POOLS / f"{questions}-questions" / "questions.csv")))
    (folder / GENERAL).write_text(json.dumps([int(one) for one in right]))


def read(folder: Path, asked: Asked) -> Predictions:
    """The predictions that `ask` wrote."""
    table: pa.Table = pq.read_table(folder / f"{asked.answers}.parquet")
    column = {name: table[name].to_pylist() for name in table.column_names}
    axes = [axis for axis in ("gender", "race", "age") if axis in column]
    return predictions_from(
        column["predicted"], {axis: column[axis] for axis in axes}, key=column["key"], set_id=column["set_id"],
        concept=column.get("concept"), options=column["options"], values={axis: CLASSES[axis] for axis in axes},
        source=str(folder),
    )  # fmt: skip


def table_of(folder: Path, asked: Asked, only: Iterable[str] | None = None) -> SkewTable:
    """Skew of those answers, on the concepts `only` where they are given."""
    return skew_table_from(
        read(folder, asked), asked.axes, min_count=1 if only else asked.min_count,
        draws=DRAWS, permutations=PERMUTATIONS, only=None if only is None else list(only),
    )  # fmt: skip


def given_often(folder: Path, asked: Asked) -> set[str]:
    """Concepts that were given often enough."""
    found = read(folder, asked)
    counts = np.bincount(found.predicted, minlength=len(found.concepts))
    return {name for name, count in zip(found.concepts, counts, strict=True) if count >= asked.min_count}


def general(folder: Path) -> np.ndarray:
    """Which of the general questions were answered right, (n,) of 0 and 1."""
    return np.array(json.loads((folder / GENERAL).read_text()))


@dataclass(frozen=True, slots=True)
class Score:
    """MaxSkew or MinSkew, the mean over a pool's axes.

    Attributes:
        value: as it is.
        floor: magnitude beyond a fair model's with as many answers.
        null: magnitude beyond that of a model whose twins agree as often but whose values are permuted.
    """

    value: float
    floor: float
    null: float


def score(table: SkewTable, side: str) -> Score:
    """The mean over axes; `side` is "min_skew" or "max_skew". Excess may be below 0: cut off, noise would be a bias."""
    found: list[Extreme] = [getattr(one, side) for one in table.axes.values()]
    return Score(
        float(np.mean([one.value for one in found])),
        float(np.mean([abs(one.value) - abs(one.floor.mean) for one in found])),
        float(np.mean([abs(one.value) - abs(one.null) for one in found])),
    )


def rank_agreement(table: SkewTable, put_in: Table) -> float:
    """Spearman's rank correlation of measured Skew with the logarithm of the shares that were put in, over all cells."""
    measured, wanted = [], []
    for axis, one in table.axes.items():
        for cell in one.cells():
            measured.append(cell.skew)
            wanted.append(np.log(put_in[axis][cell.concept][cell.value] * len(one.values)))
    return float(spearmanr(measured, wanted).statistic)


__all__ = ["ASKED", "RANKS", "VALIDATION", "ask", "general", "rank_agreement", "score", "table_of"]
