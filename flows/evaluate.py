"""`counterpoise evaluate`: a model asked about a pool of pictures; predictions, skew table, accuracy."""

from __future__ import annotations

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
    pool: Annotated[
        str, typer.Argument(metavar="POOL", help="A dataset's folder or URI, or what --kind says.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where predictions and tables go.")],
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
) -> None:
    """Ask a model which concept each picture shows, and measure."""
    from .skew_view import say, show_table
    from .train_command import quiet

    console, err = Console(), Console(stderr=True)
    with err.status("opening pool and model"):
        quiet()
        from debias.asking import Asker
        from debias.models.opening import open_model
        from debias.predicting import predict, write_predictions
        from debias.predictions_file import read_predictions
        from debias.skew import skew_table_from
        from debias.skew_json import to_json

        shown = _pool(pool, kind, split, axis, images)
        offer = _offer(shown, concept, seed)
        asker = Asker(open_model(model))
    table = predict(asker, shown, offer, batch)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(table, folder / PREDICTIONS)
    body: dict[str, object] = {"model": model, "pool": pool, "pictures": len(table)}
    if "concept" in table.column_names:
        body["accuracy"] = pc.mean(pc.equal(table["predicted"], table["concept"])).as_py()
        say(console, f"accuracy    {body['accuracy']:.1%} of {len(table)}")
    _save(folder / ACCURACY, body)
    with err.status("measuring"):
        predictions = read_predictions(str(folder / PREDICTIONS), axis or list(shown.axes))
        measured = skew_table_from(
            predictions, axis, target=target, smoothing=smoothing, min_count=min_count, seed=seed
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
