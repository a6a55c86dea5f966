"""`counterpoise skew`: predictions to a skew table, printed, as JSON and, for a dataset, as a sidecar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from storage.errors import CounterpoiseError

if TYPE_CHECKING:
    from debias.instance import Written
    from debias.skew_table import SkewTable

    from .skewing import Request

RUNNERS = ("prefect", "none")


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
    runner: Annotated[
        str,
        typer.Option(
            metavar="prefect|none", help="prefect: a flow, with heatmaps and tables in Prefect's UI."
        ),
    ] = "none",
) -> None:
    """Measure which concepts a model gives to whom.

    Writes a skew table from its predictions, with intervals, the floor of a fair model and a permutation test.
    """
    from .skew_view import show_table
    from .skewing import open_request

    request = open_request(
        predictions=predictions,
        dataset=dataset,
        out=out,
        axes=axis,
        target=target,
        smoothing=smoothing,
        min_count=min_count,
        seed=seed,
        shrink=shrink,
        slug=slug,
        weights_sha256=weights_sha256,
        epoch=epoch,
        skew_clamp=skew_clamp,
        faithful=faithful,
    )
    if runner not in RUNNERS:
        raise CounterpoiseError(f"--runner: given {runner!r}, wanted {' or '.join(RUNNERS)}.")
    console, err = Console(), Console(stderr=True)
    table, written = _through_prefect(request, err) if runner == "prefect" else _here(request, err)
    show_table(table, console, err)
    _tell(console, written, out)


def _here(request: Request, err: Console) -> tuple[SkewTable, Written | None]:
    from .progress import counting
    from .skewing import measure, read, save, steps, write

    with err.status("reading the predictions"):
        given = read(request)
    with counting(err, "measuring", steps(request, given)) as advance:
        table = measure(request, given, advance)
    with err.status("writing"):
        written = write(request, table)
    save(request, table)
    return table, written


def _through_prefect(request: Request, err: Console) -> tuple[SkewTable, Written | None]:
    from .home import prepare_prefect

    prepare_prefect()
    with err.status("measuring through Prefect"):
        from . import skew as flow

        return flow.run(request)


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
