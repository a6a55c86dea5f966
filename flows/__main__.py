"""The command line: `counterpoise`, or `python -m flows`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from storage.errors import CounterpoiseError

from .evaluate import evaluate
from .skew_command import skew
from .train_command import train

app = typer.Typer(
    name="counterpoise",
    help="Counterfactual image sets made with SDXL and prompt-to-prompt.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Spec = Annotated[
    str, typer.Argument(metavar="SPEC", help="A YAML file, or a shipped spec: cmsc, demo or tiny.")
]
Dataset = Annotated[
    str, typer.Argument(metavar="DATASET", help="The folder of a dataset, or s3://BUCKET/NAME.")
]
Out = Annotated[
    str,
    typer.Option("--out", metavar="DATASET", help="Where the dataset goes: a folder or s3://BUCKET/NAME."),
]
Runner = Annotated[
    str,
    typer.Option(metavar="threads|none", help="threads: a Prefect flow. none: shard by shard, no Prefect."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        show_default=False,
        help="Shards at a time, each with a model of its own. Default: one per core, of a large model one.",
    ),
]
Shards = Annotated[
    str | None, typer.Option(metavar="A:B", help="Only the shards A to B - 1, such as one range per job.")
]
Strict = Annotated[
    bool, typer.Option("--strict-environment", help="Refuse to continue what another environment began.")
]
Unsafe = Annotated[
    bool,
    typer.Option("--unsafe-no-filter", help="No NSFW scorer, no face counter; never for school concepts."),
]
Extend = Annotated[
    bool,
    typer.Option("--extend", help="SPEC asks for more sets or concepts: add them, leave the shards alone."),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show Prefect's log.")]


def _limit(text: str) -> Any:
    return typer.Option(metavar="N|off", show_default=False, help=text)


@app.command()
def demo(
    out: Out = "out/demo",
    runner: Runner = "threads",
    workers: Workers = None,
    verbose: Verbose = False,
) -> None:
    """Run the main job on the embedded model, spec to report."""
    from . import commands

    chosen = workers if workers is not None or runner == "none" else 2
    _end(commands.demo(out, runner, chosen, verbose, _out(), _err()))


@app.command()
def plan(
    spec: Spec,
    out: Out,
    calibrate: Annotated[bool, typer.Option(help="Generate one set in memory to measure the cost.")] = False,
    unsafe_no_filter: Unsafe = False,
    extend: Extend = False,
) -> None:
    """Write the plan and say what it costs; generate nothing."""
    from . import commands
    from .campaign import Options

    options = Options(unsafe_no_filter=unsafe_no_filter, extend=extend)
    commands.plan(spec, out, calibrate, options, _out(), _err())


@app.command()
def generate(
    spec: Spec,
    out: Out,
    runner: Runner = "threads",
    workers: Workers = None,
    shards: Shards = None,
    strict_environment: Strict = False,
    unsafe_no_filter: Unsafe = False,
    extend: Extend = False,
    verbose: Verbose = False,
) -> None:
    """Generate a dataset; run again, it continues.

    Exit status 3 means that fewer sets were kept than the spec asks for.
    """
    from . import commands
    from .campaign import Options

    options = Options(shards, workers, strict_environment, unsafe_no_filter, extend)
    _end(commands.generate(spec, out, options, runner, verbose, _out(), _err()))


@app.command()
def verify(
    dataset: Dataset,
    clean: Annotated[
        bool, typer.Option("--clean", help="First remove what killed runs left, saved candidates as well.")
    ] = False,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Move damaged files of shards to quarantine/ in the dataset.")
    ] = False,
) -> None:
    """Check every byte against the manifests.

    Exit status 0 means sound, 1 damaged, with a line per damaged file.
    """
    from storage import verify as checks

    if clean:
        young = "it, or what was saved with it, is younger than an hour"
        for name in checks.clean(dataset, lambda kept: typer.echo(f"kept {kept}: {young}")):
            typer.echo(f"removed {name}")
    with _err().status("checking every byte"):
        lines = checks.verify(dataset, quarantine=quarantine)
    for line in lines:
        typer.echo(line)
    if lines:
        raise typer.Exit(1)
    typer.echo(f"{dataset} is sound.")
    if missing := checks.unfinished(dataset):
        typer.echo(
            f"{missing} planned shards are not there yet; `counterpoise generate` with its spec makes them."
        )


@app.command()
def reconcile(
    dataset: Dataset,
    fix: Annotated[
        bool, typer.Option("--fix", help="Set the states in Prefect that storage contradicts.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Compare storage with Prefect's records; storage is the truth.

    Exit status 0 means that they agree, 1 that they do not. Storage is never touched.
    """
    from . import commands

    if not commands.reconcile(dataset, fix, verbose, _out(), _err()):
        raise typer.Exit(1)


@app.command()
def show(
    dataset: Dataset,
    set_id: Annotated[
        list[str] | None, typer.Option("--set", metavar="ID", help="A set; may be given again for more.")
    ] = None,
    out: Annotated[str, typer.Option(metavar="FILE.png", help="The picture.")] = "contact_sheet.png",
    size: Annotated[int, typer.Option(min=16, max=1024, help="Pixels per image.")] = 64,
) -> None:
    """Draw a contact sheet, of every concept's first sets if none are named."""
    from . import commands

    commands.show(dataset, set_id or [], out, size)
    typer.echo(out)


@app.command()
def refilter(
    dataset: Dataset,
    clip_text: Annotated[str | None, _limit("Least cosine of image and prompt.")] = None,
    clip_base: Annotated[str | None, _limit("Least cosine of an edit and its base.")] = None,
    clip_direction: Annotated[
        str | None, _limit("Least cosine of the change of images and of words.")
    ] = None,
    background_change: Annotated[
        str | None, _limit("Most change outside the person, in grey levels.")
    ] = None,
    attribute_share: Annotated[str | None, _limit("Least share of members read as prompted.")] = None,
    nsfw: Annotated[str | None, _limit("Most probability of an unsafe image.")] = None,
    faces: Annotated[str | None, _limit("Faces wanted, a whole number.")] = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="Write verdicts/refilter.parquet: a verdict per set, with the reason."),
    ] = False,
) -> None:
    """Try other thresholds on the stored scores.

    Needs no model and generates nothing.
    """
    from . import commands

    given = {
        "clip_text": clip_text,
        "clip_base": clip_base,
        "clip_direction": clip_direction,
        "background_change": background_change,
        "attribute_share": attribute_share,
        "nsfw": nsfw,
        "faces": faces,
    }
    commands.refilter(
        dataset, {name: text for name, text in given.items() if text is not None}, write, _out()
    )


@app.command()
def report(dataset: Dataset) -> None:
    """Write the dataset's report.html anew."""
    from .report import write_report

    with _err().status("writing the report"):
        path = write_report(dataset)
    typer.echo(path)


@app.command()
def export(
    dataset: Dataset,
    to: Annotated[str, typer.Option("--to", metavar="hf|chat|energon", help="The layout.")],
    out: Annotated[
        str, typer.Option("--out", metavar="URI", help="A folder, or a URI such as s3://bucket/name.")
    ],
    question: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="chat: a question with {options} in it; may be given again for more. Default: a few of our own.",
        ),
    ] = None,
    caption_share: Annotated[
        float, typer.Option(metavar="SHARE", help="chat: share of items that ask for a sentence.")
    ] = 0.25,
    resample: Annotated[
        str | None,
        typer.Option(
            metavar="SKEW",
            help="chat: resample by a skew sidecar of the dataset, skew/NAME.parquet: by its multiplicities, or by a "
            "draw from its skews where it has none or --epoch, --tau1 or --tau2 is given.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="chat: seed of every draw.")] = 0,
    epoch: Annotated[
        int | None,
        typer.Option(metavar="N", show_default=False, help="chat: draw anew for this epoch. Default: 0."),
    ] = None,
    tau1: Annotated[
        float | None,
        typer.Option(metavar="X", show_default=False, help="chat: draw anew; larger drops less. Default: 1."),
    ] = None,
    tau2: Annotated[
        float | None,
        typer.Option(
            metavar="X", show_default=False, help="chat: draw anew; larger repeats less. Default: 1."
        ),
    ] = None,
) -> None:
    """Write a dataset in another layout.

    hf: Parquet with images for the Hugging Face hub. chat: questions and answers for LLaMA-Factory and TRL.
    energon: shards for Megatron-Energon. Sets that verdicts reject are left out; no image is encoded again.
    """
    from . import commands
    from .export.options import Chat

    chat = Chat(seed, epoch, tuple(question or ()), caption_share, resample, tau1, tau2)
    commands.export(dataset, to, out, chat, _out(), _err())


app.command()(skew)
app.command()(train)
app.command()(evaluate)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        typer.echo(f"counterpoise {installed('counterpoise')}")
    except PackageNotFoundError:
        typer.echo("counterpoise, from a checkout that is not installed")


def _out() -> Console:
    return Console()


def _err() -> Console:
    return Console(stderr=True)


def _end(shortfall: str) -> None:
    """End with status 3 if something fell short."""
    if shortfall:
        typer.echo(shortfall, err=True)
        raise typer.Exit(3)


def run(arguments: Sequence[str]) -> int:
    """Run a command; its exit status. What the user can mend is one line on stderr and 2."""
    logging.getLogger().addHandler(logging.NullHandler())  # or a library gives it one, and all is told twice
    if not arguments:
        arguments = ["--help"]
    try:
        status = app(list(arguments), prog_name="counterpoise", standalone_mode=False)
    except CounterpoiseError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(_system_error(error))
    except typer.TyperException as error:
        return _fail(f"{error.format_message().rstrip('.')}. Try `counterpoise --help`.")
    except (typer.Abort, KeyboardInterrupt):
        status = 130
    if status == 130:
        again = " What is finished stays; the same command continues." if _continues(arguments) else ""
        typer.echo(f"Stopped.{again}", err=True)
    return status if isinstance(status, int) else 0


def _fail(message: str) -> int:
    typer.echo(f"Error: {' '.join(message.split())}", err=True)
    return 2


def _continues(arguments: Sequence[str]) -> bool:
    return bool(set(arguments[:1]) & {"demo", "generate", "train"})


def _system_error(error: OSError) -> str:
    from storage.backend import explain

    return str(explain(error, str(error.filename or "the system")))


def main() -> None:
    """Entry point of `counterpoise`."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
