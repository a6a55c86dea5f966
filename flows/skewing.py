"""Skew as the command and the flow measure it: what is asked for, and each step of the way to table and sidecar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import CounterpoiseError

if TYPE_CHECKING:
    from debias.instance import Written
    from debias.predictions import Predictions
    from debias.skew_table import SkewTable


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What names a sidecar: the model, the sha256 of its weights (None until it is opened), the epoch that it is for."""

    slug: str
    weights_sha256: str | None
    epoch: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be measured; the flags of `counterpoise skew`.

    Attributes:
        out: where the table goes.
        predictions: file of answers; None until `model` was asked.
        model: hub id or folder of a model that is asked about `dataset`; None where there are predictions.
        dataset, split: that was asked about; its axes, values and concepts are those of the table.
        axes: names; None for all.
        target, smoothing, min_count, seed: see `debias.skew.skew_table_from`.
        shrink: see `debias.skew_formula.shrunk`.
        sidecar: to be written; None for none.
        clamp: of its weights; None for none.
        batch: pictures that a model is asked about at once.
    """

    out: str
    predictions: str | None = None
    model: str | None = None
    dataset: str | None = None
    split: str | None = None
    axes: tuple[str, ...] | None = None
    target: str = "uniform"
    smoothing: float = 0.5
    min_count: int = 30
    seed: int = 0
    shrink: bool = False
    sidecar: Sidecar | None = None
    clamp: float | None = None
    batch: int = 8


def open_request(
    out: str,
    predictions: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
    axes: Sequence[str] | None = None,
    *,
    slug: str | None = None,
    weights_sha256: str | None = None,
    epoch: int | None = None,
    skew_clamp: float | None = None,
    faithful: bool = False,
    **measuring: Any,
) -> Request:
    """What is asked for, if it goes together.

    Args:
        out: see `Request`, as the next five.
        predictions: or `model`.
        model: or `predictions`.
        dataset: wanted with `model`, and for a sidecar.
        split: with `model` alone.
        axes: None for all.
        slug: of a sidecar; with `model`, it is enough, else it wants the next two.
        weights_sha256: of a sidecar.
        epoch: of a sidecar.
        skew_clamp: of a sidecar's weights; None for the usual one.
        faithful: a sidecar's weights without a clamp.
        measuring: target, smoothing, min_count, seed, shrink and batch of `Request`.

    Raises:
        CounterpoiseError: names what is missing or too much.
    """
    if (predictions is None) == (model is None):
        given = "neither" if model is None else "both"
        raise CounterpoiseError(f"predictions and model: given {given}, wanted one of them.")
    if model is not None and dataset is None:
        raise CounterpoiseError(
            "dataset: given none, wanted the folder or URI that the model is asked about."
        )
    if split is not None and model is None:
        raise CounterpoiseError("split: it is for a model that is asked; predictions are taken whole.")
    sidecar = _sidecar(dataset, slug, weights_sha256, epoch, model is not None)
    clamp = _clamp(skew_clamp, faithful, sidecar)
    names = tuple(axes) if axes else None
    return Request(out, predictions, model, dataset, split, names, sidecar=sidecar, clamp=clamp, **measuring)


def _sidecar(
    dataset: str | None, slug: str | None, weights_sha256: str | None, epoch: int | None, asked: bool
) -> Sidecar | None:
    """Slug, hash and epoch, where a sidecar is asked for; an opened model's hash is known, and its epoch is 0."""
    if asked and slug is not None:
        return Sidecar(slug, weights_sha256, epoch or 0)
    given = {"--slug": slug, "--weights-sha256": weights_sha256, "--epoch": epoch}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if not dataset:
        missing.insert(0, "--dataset")
    if missing or slug is None or weights_sha256 is None or epoch is None:
        raise CounterpoiseError(
            f"{', '.join(missing)}: missing; a sidecar wants --dataset and {', '.join(given)}, a table alone none "
            "of the last three."
        )
    return Sidecar(slug, weights_sha256, epoch)


def _clamp(skew_clamp: float | None, faithful: bool, sidecar: Sidecar | None) -> float | None:
    if faithful and skew_clamp is not None:
        raise CounterpoiseError(f"--skew-clamp {skew_clamp} and --faithful: wanted is one of them.")
    if (faithful or skew_clamp is not None) and sidecar is None:
        raise CounterpoiseError(
            "--skew-clamp and --faithful are for a sidecar: give --dataset, --slug, --weights-sha256 and --epoch."
        )
    from debias.instance import CLAMP

    return None if faithful else CLAMP if skew_clamp is None else skew_clamp


def ask(request: Request) -> Request:
    """Ask the model; the request with its predictions, which lie beside the table, and the hash of its weights.

    Raises:
        CounterpoiseError: the model cannot be opened, or the dataset not be read.
    """
    from debias.asking import Asker
    from debias.models.opening import open_model
    from debias.pools import dataset_pool
    from debias.predicting import predict, write_predictions
    from debias.questions import choices
    from debias.training.preparing import weights_sha256

    assert request.model is not None and request.dataset is not None
    pool = dataset_pool(request.dataset, request.split)
    model = open_model(request.model)
    sidecar = request.sidecar
    if sidecar is not None and sidecar.weights_sha256 is None:
        sidecar = replace(sidecar, weights_sha256=weights_sha256(model))
    path = Path(request.out).with_suffix(".predictions.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(predict(Asker(model), pool, choices(pool.groups), request.batch), path)
    return replace(request, predictions=str(path), model=None, sidecar=sidecar)


def read(request: Request) -> Predictions:
    """The answers, with all values and concepts of the dataset where that is known."""
    from debias.instance import dataset_concepts
    from debias.predictions_file import read_predictions
    from storage import load_dataset

    assert request.predictions is not None
    axes, dataset = request.axes, request.dataset
    if dataset is None:
        return read_predictions(request.predictions, axes)
    return read_predictions(
        request.predictions, axes, values=load_dataset(dataset).axes, concepts=dataset_concepts(dataset)
    )


def steps(request: Request, given: Predictions) -> int:
    """How often `measure` calls `advance`."""
    from debias.skew import DRAWS, PERMUTATIONS

    return DRAWS + PERMUTATIONS * len(set(request.axes or given.axes))


def measure(request: Request, given: Predictions, advance: Callable[[], None] = lambda: None) -> SkewTable:
    """The skew table."""
    from debias.skew import skew_table_from

    return skew_table_from(
        given,
        request.axes or list(given.axes),
        target=request.target,
        smoothing=request.smoothing,
        min_count=request.min_count,
        seed=request.seed,
        advance=advance,
    )


def write(request: Request, table: SkewTable) -> Written | None:
    """The sidecar, where one is asked for."""
    from debias.instance import write_skew

    sidecar = request.sidecar
    if sidecar is None:
        return None
    assert request.dataset is not None and sidecar.weights_sha256 is not None
    return write_skew(
        request.dataset, table, sidecar.slug, sidecar.weights_sha256, sidecar.epoch,
        seed=request.seed, clamp=request.clamp, shrink=request.shrink,
    )  # fmt: skip


def save(request: Request, table: SkewTable) -> None:
    """The table as JSON.

    Raises:
        CounterpoiseError: it cannot be written.
    """
    from debias.skew_json import to_json
    from storage.backend import explain

    try:
        Path(request.out).parent.mkdir(parents=True, exist_ok=True)
        Path(request.out).write_text(to_json(table, request.shrink), "utf-8")
    except OSError as error:
        raise explain(error, request.out) from error
