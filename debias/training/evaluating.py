"""Evaluations of a run: pools and capability, kept in its folder, so that what was asked once is not asked again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from ..predicting import write_predictions
from ..skew_json import from_json, to_json
from .capability import answered, read_questions
from .folder import EVALUATIONS, RunFolder
from .measuring import Evaluation, ask, chosen_sets, evaluated, source_of
from .recipe import MICRO_BATCH
from .subject import Subject

_QUESTIONS = "questions"


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates the model in training.

    Attributes:
        subject: the model in training.
    """

    subject: Subject

    def pools(self, epochs: int, step: int) -> dict[str, Evaluation]:
        """All pools of the recipe, after so many epochs and steps."""
        sha256 = self.subject.weights_sha256(step)
        return {name: self._pool(name, epochs, step, sha256) for name in self.subject.recipe.evaluate_on}

    def capability(self, epochs: int, step: int) -> float | None:
        """Share of the general questions that is answered right, else of the first pool; None where there is neither."""
        sha256 = self.subject.weights_sha256(step)
        if self.subject.recipe.questions is None:
            first = self.subject.recipe.evaluate_on[:1]
            return self._pool(first[0], epochs, step, sha256).accuracy if first else None
        name = f"{EVALUATIONS}/{epochs}/{_QUESTIONS}.json"
        kept = self.subject.folder.read(name)
        if kept is None or kept["weights_sha256"] != sha256:
            every = read_questions(self.subject.recipe.questions)
            right = answered(
                self.subject.model, every[self.subject.share.rank :: self.subject.share.processes]
            )
            right = gather_object(right) if self.subject.share.processes > 1 else right
            kept = {"weights_sha256": sha256, "accuracy": sum(right) / len(right), "count": len(right)}
            self._write(name, kept)
        self._log({"pool": _QUESTIONS, "accuracy": kept["accuracy"]}, epochs, step)
        found: float = kept["accuracy"]
        return found

    def _pool(self, pool: str, epochs: int, step: int, sha256: str) -> Evaluation:
        kept = kept_evaluation(self.subject.folder, pool, epochs)
        found = kept[1] if kept is not None and kept[0] == sha256 else self._asked(pool, epochs, sha256)
        extremes = {
            axis: {"max": one.max_skew.value, "min": one.min_skew.value}
            for axis, one in (found.table.axes.items() if found.table else ())
        }
        self._log({"pool": pool, "accuracy": found.accuracy, "extremes": extremes}, epochs, step)
        return found

    def _asked(self, pool: str, epochs: int, sha256: str) -> Evaluation:
        place, subject = evaluation_place(pool, epochs), self.subject
        recipe, folder = subject.recipe, subject.folder
        source = source_of(recipe, pool)
        sets = chosen_sets(source, None, recipe.seed)
        answers = ask(subject.model, source, sets, subject.share, recipe.micro_batch or MICRO_BATCH)
        found = evaluated(answers, source, recipe)
        if subject.share.rank == 0:
            (folder.path / place).parent.mkdir(parents=True, exist_ok=True)
            write_predictions(answers, folder.path / f"{place}.parquet")
            if found.table is not None:
                folder.write_text(f"{place}-skew.json", to_json(found.table))
        self._write(
            f"{place}.json", {"weights_sha256": sha256, "accuracy": found.accuracy, "note": found.note}
        )
        return found

    def _write(self, name: str, body: Any) -> None:
        """Write, and wait until it is there for all: who found nothing asks, and all have to ask together."""
        if self.subject.share.rank == 0:
            self.subject.folder.write(name, body)
        PartialState().wait_for_everyone()

    def _log(self, facts: dict[str, Any], epochs: int, step: int) -> None:
        line = {"kind": "evaluation", "step": step, "epochs": epochs, **facts}
        if self.subject.share.rank == 0 and line not in self.subject.folder.lines():
            self.subject.folder.log(line)


def kept_evaluation(folder: RunFolder, pool: str, epochs: int) -> tuple[str, Evaluation] | None:
    """What a run kept of a pool after so many epochs, and the sha256 of the weights; None where it did not come to it."""
    place = evaluation_place(pool, epochs)
    kept = folder.read(f"{place}.json")
    if kept is None:
        return None
    table = folder.path / f"{place}-skew.json"
    read = from_json(table.read_bytes(), str(table)) if kept["note"] is None else None
    return kept["weights_sha256"], Evaluation(pool, kept["accuracy"], read, kept["note"])


def evaluation_place(pool: str, epochs: int) -> str:
    """Where a run keeps a pool's answers, table and accuracy, without the endings of their names."""
    return f"{EVALUATIONS}/{epochs}/{pool_slug(pool)}"


def pool_slug(pool: str) -> str:
    """Name of a pool's files."""
    return pool if pool.isalnum() else hashlib.sha256(pool.encode()).hexdigest()[:12]
