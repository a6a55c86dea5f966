"""The flow: from predictions, or a model and a dataset, to a skew table and a sidecar, shown in Prefect's UI."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from . import skewing
from .artifacts import Shelf
from .server import of_the_server, start_apart
from .skew_artifacts import put_skew
from .skewing import Request, open_request

if TYPE_CHECKING:
    from debias.instance import Written
    from debias.skew_table import SkewTable

logging.getLogger().addHandler(logging.NullHandler())  # as in generate.py
_INSTEAD = ", or do without a server by --runner none"


@flow(name="skew", flow_run_name="{out}")
def skew(
    out: str,
    predictions: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
    axes: list[str] | None = None,
    target: str = "uniform",
    smoothing: float = 0.5,
    min_count: int = 30,
    seed: int = 0,
    shrink: bool = False,
    slug: str | None = None,
    weights_sha256: str | None = None,
    epoch: int | None = None,
    skew_clamp: float | None = None,
    faithful: bool = False,
    batch: int = 8,
) -> dict[str, Any]:
    """Measure which concepts a model gives to whom.

    Args:
        out: where the table goes, TABLE.json; a model's predictions go beside it.
        predictions: Parquet or CSV; or else
        model: hub id or folder of a model, which is asked about
        dataset: folder or URI; with predictions, what names axes, values and concepts.
        split: of the dataset that a model is asked about; None for all.
        axes: names, joint ones such as gender*race too; None for all.
        target: uniform or pool.
        smoothing: answers added to every value.
        min_count: concepts that were given less often are dropped.
        seed: of every draw.
        shrink: draw towards 0 what noise may have made, for the sidecar.
        slug: the model's name: write the sidecar skew/SLUG-HASH-EPOCH.parquet of `dataset`.
        weights_sha256: of the sidecar; None for the asked model's.
        epoch: that the sidecar is for; with `model`, None for 0.
        skew_clamp: the sidecar's weights are exp(-Skew) of a Skew cut off at it; None for 2.
        faithful: the sidecar's weights without a clamp, as in the paper.
        batch: pictures that a model is asked about at once.
    """
    request = open_request(
        out, predictions, model, dataset, split, axes, target=target, smoothing=smoothing, min_count=min_count,
        seed=seed, shrink=shrink, slug=slug, weights_sha256=weights_sha256, epoch=epoch, skew_clamp=skew_clamp,
        faithful=faithful, batch=batch,
    )  # fmt: skip
    about = model or Path(str(predictions)).name
    answered = ask_model(request) if model else request
    table = measure_skew(answered)
    written = write_sidecar(answered, table)
    save_table(answered, table)
    publish(answered, table, about)
    return {
        "table": out,
        "predictions": answered.predictions,
        "sidecar": None if written is None else asdict(written),
        "warnings": list(table.warnings),
    }


@task(name="ask_model", cache_policy=NO_CACHE)
def ask_model(request: Request) -> Request:
    """Ask the model about the dataset; the request with its predictions."""
    return skewing.ask(request)


@task(name="measure_skew", cache_policy=NO_CACHE)
def measure_skew(request: Request) -> SkewTable:
    """Predictions to a skew table."""
    return skewing.measure(request, skewing.read(request))


@task(name="write_sidecar", cache_policy=NO_CACHE)
def write_sidecar(request: Request, table: SkewTable) -> Written | None:
    """Instance skew, loss weights and copies beside the dataset's shards, where a sidecar is asked for."""
    return skewing.write(request, table)


@task(name="save_table", cache_policy=NO_CACHE)
def save_table(request: Request, table: SkewTable) -> None:
    """The table as JSON."""
    skewing.save(request, table)


@task(name="publish", cache_policy=NO_CACHE)
def publish(request: Request, table: SkewTable, about: str) -> None:
    """Heatmaps, tables and the link to the JSON as artifacts."""
    put_skew(Shelf(), Path(request.out).stem, table, request.out, about)


def run(request: Request) -> tuple[SkewTable, Written | None]:
    """Run the flow from the command line, on predictions.

    Raises:
        CounterpoiseError: the work failed for what the user can mend, or Prefect's server did not start.
    """
    from debias.instance import Written
    from debias.skew_json import from_json

    sidecar = request.sidecar
    with of_the_server(_INSTEAD):
        start_apart()
        facts = skew(
            request.out,
            request.predictions,
            dataset=request.dataset,
            axes=list(request.axes) if request.axes else None,
            target=request.target,
            smoothing=request.smoothing,
            min_count=request.min_count,
            seed=request.seed,
            shrink=request.shrink,
            slug=sidecar.slug if sidecar else None,
            weights_sha256=sidecar.weights_sha256 if sidecar else None,
            epoch=sidecar.epoch if sidecar else None,
            skew_clamp=request.clamp if sidecar else None,
            faithful=sidecar is not None and request.clamp is None,
        )
    written = facts["sidecar"]
    table = from_json(Path(request.out).read_bytes(), request.out)
    return table, None if written is None else Written(**written)
