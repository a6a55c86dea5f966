"""`counterpoise evaluate`: a model asked about a pool of pictures; predictions, skew table, accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pyarrow.compute as pc
import typer
from rich.console import Console

from storage.errors import CounterpoiseError

if TYPE_CHECKING:
    from debias.pools import Pool
    from debias.questions import Offer

PREDICTIONS, TABLE, ACCURACY = "predictions.parquet", "skew.json", "accuracy.json"
KINDS = ("dataset", "table", "fairface", "social-counterfactuals")


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The hub id or folder of a model.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where predictions and tables go.")],
    pool: Annotated[
        str | None,
        typer.Argument(
            metavar="POOL",
            show_default=False,
            help="A dataset's folder or URI, or what --kind says. May be left out where benchmarks are asked for.",
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            metavar="|".join(KINDS),
            help="What POOL is. table: a CSV or Parquet with paths. fairface: its CSV, or a folder of Parquet files. "
            "social-counterfactuals: a folder of Parquet files.",
        ),
    ] = KINDS[0],
    split: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="dataset: one of its splits.")
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            metavar="A",
            help="An axis, or a joint one such as gender*race; may be given again for more. table: its columns.",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(metavar="DIR", show_default=False, help="Folder that paths in a CSV start from."),
    ] = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(
            "--concept",
            metavar="C",
            help="A concept that is offered for every picture, of pools without concepts; given again for more.",
        ),
    ] = None,
    target: Annotated[str, typer.Option(metavar="uniform|pool", help="Share wanted of a value.")] = "uniform",
    smoothing: Annotated[float, typer.Option(metavar="X", help="Answers added to every value.")] = 0.5,
    min_count: Annotated[
        int, typer.Option(metavar="N", help="Concepts that were given less often are dropped.")
    ] = 30,
    batch: Annotated[int, typer.Option(metavar="N", help="Pictures asked about at once.")] = 8,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of every draw.")] = 0,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="lmms-eval:TASK,...",
            show_default=False,
            help="Public benchmarks, asked by lmms-eval in an environment of its own.",
        ),
    ] = None,
    suite_logs: Annotated[
        str | None,
        typer.Option(
            metavar="LOGS",
            show_default=False,
            help="Logs that lmms-eval wrote with --log_samples elsewhere; nothing is asked.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="An earlier --out, or logs, that benchmarks are tested against, question by question.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(metavar="X", help="What a benchmark's mean score may lose at most.")
    ] = 0.01,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="TASK=METRIC",
            help="A benchmark's metric, where it is not its first with a score for each question.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=False, help="Benchmarks: the first N questions of each, to try it out."
        ),
    ] = None,
    suite_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,KEY=VALUE...]",
            show_default=False,
            help="The model of lmms-eval that runs MODEL, and its arguments. Default: by MODEL's class.",
        ),
    ] = None,
    suite_python: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            envvar="COUNTERPOISE_SUITE_PYTHON",
            show_default=False,
            help="The python of an environment with lmms-eval. Default: one is made in the cache.",
        ),
    ] = None,
) -> None:
    """Ask a model which concept each picture shows, and measure; or about public benchmarks, and compare.

    Exit status 3 means that a benchmark was not shown to be non-inferior to the baseline.
    """
    from .suite import SuiteOptions, evaluate_suite

    asked = SuiteOptions(
        suite, suite_logs, baseline, margin, tuple(metric or ()), limit, suite_model, suite_python, seed
    )
    benchmarks = asked.check()
    if pool is None and not benchmarks:
        raise CounterpoiseError(
            "POOL: missing; name a pool of pictures, or benchmarks by --suite or --suite-logs."
        )
    console, err = Console(), Console(stderr=True)
    if pool is not None:
        how = Asked(kind, split, axis, images, concept, target, smoothing, min_count, batch, seed)
        _evaluate_pool(model, pool, Path(out), how, console, err)
    shortfall = evaluate_suite(model, Path(out), asked, console, err) if benchmarks else ""
    if shortfall:
        typer.echo(shortfall, err=True)
        raise typer.Exit(3)


@dataclass(frozen=True, slots=True)
class Asked:
    """How a pool is asked about and measured; the flags of the command."""

    kind: str
    split: str | None
    axis: list[str] | None
    images: str | None
    concept: list[str] | None
    target: str
    smoothing: float
    min_count: int
    batch: int
    seed: int


def _evaluate_pool(model: str, pool: str, folder: Path, how: Asked, console: Console, err: Console) -> None:
    from .skew_view import say, show_table
    from .train_command import quiet

    with err.status("opening pool and model"):
        quiet()
        from debias.asking import Asker
        from debias.models.opening import open_model
        from debias.predicting import predict, write_predictions
        from debias.predictions_file import read_predictions
        from debias.skew import skew_table_from
        from debias.skew_json import to_json

        shown = _pool(pool, how.kind, how.split, how.axis, how.images)
        offer = _offer(shown, how.concept, how.seed)
        asker = Asker(open_model(model))
    table = predict(asker, shown, offer, how.batch)
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(table, folder / PREDICTIONS)
    body: dict[str, object] = {"model": model, "pool": pool, "pictures": len(table)}
    if "concept" in table.column_names:
        body["accuracy"] = pc.mean(pc.equal(table["predicted"], table["concept"])).as_py()
        say(console, f"accuracy    {body['accuracy']:.1%} of {len(table)}")
    _save(folder / ACCURACY, body)
    with err.status("measuring"):
        predictions = read_predictions(str(folder / PREDICTIONS), how.axis or list(shown.axes))
        measured = skew_table_from(
            predictions,
            how.axis,
            target=how.target,
            smoothing=how.smoothing,
            min_count=how.min_count,
            seed=how.seed,
        )
    (folder / TABLE).write_text(to_json(measured), "utf-8")
    show_table(measured, console, err)
    say(console, f"written     {folder / PREDICTIONS}, {TABLE}, {ACCURACY}")


def _pool(pool: str, kind: str, split: str | None, axis: list[str] | None, images: str | None) -> Pool:
    from debias.labelled import table_pool
    from debias.pools import dataset_pool
    from debias.published import fairface_csv, fairface_parquet, social_counterfactuals

    if kind not in KINDS:
        raise CounterpoiseError(f"--kind: given {kind!r}, wanted one of {', '.join(KINDS)}.")
    if split is not None and kind != "dataset":
        raise CounterpoiseError(f"--split: it is for --kind dataset, and --kind is {kind}; leave it out.")
    if kind == "dataset":
        return dataset_pool(pool, split)
    if kind == "table":
        if not axis:
            raise CounterpoiseError("--axis: wanted with --kind table, to name the columns that are axes.")
        parts = list(dict.fromkeys(part for name in axis for part in name.split("*")))
        return table_pool(pool, parts, root=images)
    if kind == "fairface":
        return fairface_csv(pool, images) if pool.endswith(".csv") else fairface_parquet(pool)
    return social_counterfactuals(pool)


def _offer(pool: Pool, concepts: list[str] | None, seed: int) -> Offer:
    from debias.questions import choices, same_for_all, with_distractors

    if concepts:
        return same_for_all(concepts)
    if pool.groups:
        return choices(pool.groups)
    known = sorted({item.concept for item in pool if item.concept is not None})
    if not known:
        raise CounterpoiseError(
            f"{pool.where}: its pictures have no concepts, so name those to offer: --concept doctor --concept nurse ..."
        )
    return with_distractors(known, min(9, len(known) - 1), seed)


def _save(path: Path, body: dict[str, object]) -> None:
    import json

    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", "utf-8")
