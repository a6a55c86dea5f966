"""The folder of a run: recipe, epochs as they were measured, checkpoints, log; what a later start goes on from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.backend import explain
from storage.errors import CounterpoiseError, DatasetMismatch

RECIPE, LOG, CARD = "recipe.json", "log.jsonl", "README.md"
CHECKPOINTS, EPOCHS, MODEL, EVALUATIONS = "checkpoints", "epochs", "model", "evaluations"
_PLACE = "place.json"


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """An epoch that began.

    Attributes:
        epoch: from 0.
        steps: of the optimiser.
        sidecar: of the dataset; None where none is used.
        weights_sha256: of the model before the epoch.
    """

    epoch: int
    steps: int
    sidecar: str | None
    weights_sha256: str


class RunFolder:
    """Reads and writes the folder; every file appears whole."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name it; nothing is written yet."""
        self.path = Path(path)

    def begin(self, resolved: Mapping[str, Any], identity: str, fresh: bool) -> None:
        """Make the folder, or go on in it.

        Args:
            resolved: recipe and what followed from it.
            identity: of the recipe.
            fresh: remove what an earlier run left.

        Raises:
            CounterpoiseError: it cannot be written.
            DatasetMismatch: it holds another recipe's run.
        """
        try:
            stored = None if fresh else self._recipe()
            if fresh:
                self._clear()
            if stored is None and any((self.path / name).exists() for name in (CHECKPOINTS, EPOCHS, LOG)):
                raise CounterpoiseError(
                    f"{self.path}: it holds a run without its {RECIPE}; start with --fresh, or give another --out."
                )
            if stored is not None and stored["identity"] != identity:
                self._refuse(stored["recipe"], resolved["recipe"])
            self.write(RECIPE, {"identity": identity, **resolved})
        except OSError as error:
            raise explain(error, str(self.path)) from error

    def _recipe(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.read(RECIPE)
        return found

    def _clear(self) -> None:
        for name in (CHECKPOINTS, EPOCHS, MODEL, EVALUATIONS):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (RECIPE, LOG, CARD):
            (self.path / name).unlink(missing_ok=True)

    def _refuse(self, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        name = next((key for key in given if stored.get(key) != given[key]), "launch")
        raise DatasetMismatch(
            f"The run in {self.path}", name, stored.get(name), given.get(name),
            "Give the recipe of then, another --out, or --fresh to begin anew.",
        )  # fmt: skip

    def write(self, name: str, body: Any) -> None:
        """A JSON file."""
        self.write_text(name, json.dumps(body, indent=1, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """A file, whole or not at all."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.half")
        half.write_text(text, "utf-8")
        half.replace(path)

    def read(self, name: str) -> Any:
        """A JSON file; None where there is none."""
        try:
            return json.loads((self.path / name).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CounterpoiseError(
                f"{self.path / name}: it is damaged ({error}); start with --fresh."
            ) from error

    def epoch(self, epoch: int) -> EpochRecord | None:
        """The record of an epoch that began."""
        found = self.read(f"{EPOCHS}/{epoch}.json")
        return None if found is None else EpochRecord(**found)

    def note_epoch(self, record: EpochRecord) -> None:
        """Keep an epoch's record."""
        self.write(f"{EPOCHS}/{record.epoch}.json", asdict(record))

    def note_place(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep where the data stand beside a checkpoint; what has no such file is no checkpoint yet."""
        self.write(f"{CHECKPOINTS}/checkpoint-{step}/{_PLACE}", dict(state))

    def checkpoints(self) -> list[int]:
        """Steps that have a whole checkpoint, in order."""
        found = (self.path / CHECKPOINTS).glob(f"checkpoint-*/{_PLACE}")
        return sorted(int(path.parent.name.rpartition("-")[2]) for path in found)

    def checkpoint(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.path / CHECKPOINTS / f"checkpoint-{step}"

    def place(self, step: int) -> dict[str, Any]:
        """Where the data stood at a checkpoint."""
        found: dict[str, Any] = self.read(f"{CHECKPOINTS}/checkpoint-{step}/{_PLACE}")
        return found

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines, but for a last one that was cut off."""
        path = self.path / LOG
        if not path.exists():
            return []
        whole = path.read_text("utf-8").rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def _stands(self, line: Mapping[str, Any]) -> bool:
        """Not of an epoch whose beginning was cut off."""
        return line["kind"] != "skew" or self.epoch(line["epoch"]) is not None

    def rewind(self, step: int) -> None:
        """Forget what the log says of later steps, which are made again."""
        kept = [line for line in self.lines() if line["step"] <= step and self._stands(line)]
        self.write_text(LOG, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
