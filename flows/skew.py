"""`counterpoise skew`: predictions to a skew table, printed, as JSON and, for a dataset, as a sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from storage.errors import CounterpoiseError

if TYPE_CHECKING:
    from debias.instance import Written
    from debias.predictions import Predictions
    from debias.skew_table import SkewTable

Sidecar = tuple[str, str, int]


def skew(
    predictions: Annotated[
        str,
        typer.Argument(
            metavar="PREDICTIONS",
            help="Parquet or CSV: predicted, a column per axis, and where known key, set_id, concept, options.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="TABLE.json", help="Where the table goes.")],
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            metavar="A",
            help="An axis, or a joint one such as gender*race; may be given again for more. Default: those of "
            "--dataset, or else every column that is none of the above.",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="uniform|pool",
            help="Share wanted of a value: one as large as the others', or its share among what was offered.",
        ),
    ] = "uniform",
    smoothing: Annotated[
        float, typer.Option(metavar="X", help="Answers added to every value; 0 for none.")
    ] = 0.5,
    min_count: Annotated[
        int, typer.Option(metavar="N", help="Concepts that were given less often are dropped.")
    ] = 30,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of every draw.")] = 0,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Draw towards 0 what noise may have made, for the sidecar.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            show_default=False,
            help="The dataset that was asked about: its axes, values and concepts.",
        ),
    ] = None,
    slug: Annotated[
        str | None,
        typer.Option(
            metavar="S",
            show_default=False,
            help="The model's name: write the sidecar skew/S-H-N.parquet of --dataset.",
        ),
    ] = None,
    weights_sha256: Annotated[
        str | None, typer.Option(metavar="H", show_default=False, help="Sidecar: sha256 of the weights.")
    ] = None,
    epoch: Annotated[
        int | None, typer.Option(metavar="N", show_default=False, help="Sidecar: the epoch that it is for.")
    ] = None,
    skew_clamp: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            show_default=False,
            help="Sidecar: weights are exp(-Skew) of a Skew cut off at X. Default: 2.",
        ),
    ] = None,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Sidecar: weights without a clamp, as in the paper.")
    ] = False,
) -> None:
    """Measure which concepts a model gives to whom.

    Writes a skew table from its predictions, with intervals, the floor of a fair model and a permutation test.
    """
    from .progress import counting
    from .skew_view import show_table

    sidecar = _sidecar(dataset, slug, weights_sha256, epoch)
    clamp = _clamp(skew_clamp, faithful, sidecar)
    console, err = Console(), Console(stderr=True)
    with err.status("reading the predictions"):
        from debias.skew import DRAWS, PERMUTATIONS, skew_table_from
        from debias.skew_json import to_json

        given = _read(predictions, axis, dataset)
    names = axis or list(given.axes)
    with counting(err, "measuring", DRAWS + PERMUTATIONS * len(set(names))) as advance:
        table = skew_table_from(
            given,
            names,
            target=target,
            smoothing=smoothing,
            min_count=min_count,
            seed=seed,
            advance=advance,
        )
    written = None
    if dataset and sidecar:
        with err.status("writing the sidecar"):
            written = _write(dataset, table, sidecar, seed, clamp, shrink)
    _save(out, to_json(table, shrink))
    show_table(table, console, err)
    _tell(console, written, out)


def _sidecar(
    dataset: str | None, slug: str | None, weights_sha256: str | None, epoch: int | None
) -> Sidecar | None:
    """Slug, hash and epoch, where a sidecar is asked for."""
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
    return slug, weights_sha256, epoch


def _clamp(skew_clamp: float | None, faithful: bool, sidecar: Sidecar | None) -> float | None:
    if faithful and skew_clamp is not None:
        raise CounterpoiseError(f"--skew-clamp {skew_clamp} and --faithful: wanted is one of them.")
    if (faithful or skew_clamp is not None) and sidecar is None:
        raise CounterpoiseError(
            "--skew-clamp and --faithful are for a sidecar: give --dataset, --slug, --weights-sha256 and --epoch."
        )
    from debias.instance import CLAMP

    return None if faithful else CLAMP if skew_clamp is None else skew_clamp


def _read(path: str, axes: list[str] | None, dataset: str | None) -> Predictions:
    from debias.instance import dataset_concepts
    from debias.predictions_file import read_predictions
    from storage import load_dataset

    if dataset is None:
        return read_predictions(path, axes)
    return read_predictions(path, axes, values=load_dataset(dataset).axes, concepts=dataset_concepts(dataset))


def _write(
    dataset: str, table: SkewTable, sidecar: Sidecar, seed: int, clamp: float | None, shrink: bool
) -> Written:
    from debias.instance import write_skew

    slug, weights_sha256, epoch = sidecar
    return write_skew(dataset, table, slug, weights_sha256, epoch, seed=seed, clamp=clamp, shrink=shrink)


def _save(out: str, text: str) -> None:
    from storage.backend import explain

    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(text, "utf-8")
    except OSError as error:
        raise explain(error, out) from error


def _tell(console: Console, written: Written | None, out: str) -> None:
    from .skew_view import say

    say(console, f"table       {out}")
    if written is None:
        return
    say(console, f"sidecar     {written.name}: {written.images} images, {written.copies} copies of them")
    if written.clamped:
        say(console, f"            {written.clamped} weights clamped")
    if written.dropped:
        say(console, f"            {written.dropped} images with Skew 0, as their concept was dropped")
