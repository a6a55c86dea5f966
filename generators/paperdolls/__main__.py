"""`python -m generators.paperdolls`: train the embedded models, and measure them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from generators.spec import Preview
from storage.errors import CounterpoiseError

from . import WEIGHTS

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


class Stage(StrEnum):
    """Stages in the order in which they depend on each other."""

    autoencoder = "autoencoder"
    segmenter = "segmenter"
    classifier = "classifier"
    clip = "clip"
    diffusion = "diffusion"


def _stages() -> dict[Stage, Callable[[Path, Path, int], None]]:
    from .autoencoder import train_autoencoder
    from .clip import train_clip
    from .diffusion import train_diffusion
    from .readers import train_classifier, train_segmenter

    return {
        Stage.autoencoder: train_autoencoder,
        Stage.segmenter: train_segmenter,
        Stage.classifier: train_classifier,
        Stage.clip: train_clip,
        Stage.diffusion: train_diffusion,
    }


@app.command()
def train(
    stage: Annotated[
        Stage | None, typer.Argument(help="One stage; all of them, in order, if left out.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the weights go.")] = WEIGHTS,
    checkpoints: Annotated[Path, typer.Option(help="Where checkpoints go; again = continue.")] = Path(
        "build/paperdolls"
    ),
    seed: Annotated[int, typer.Option(help="Same seed, same weights on the same machine.")] = 0,
) -> None:
    """Train the embedded models on rendered pictures; stopped runs continue from their last checkpoint."""
    torch.set_num_threads(1)
    for name, run in _stages().items():
        if stage in (None, name):
            torch.manual_seed(seed)
            run(checkpoints, out, seed)


@app.command()
def evaluate(
    count: Annotated[int, typer.Option(help="Pictures, balanced over the cells.", min=24)] = 500,
    seed: Annotated[int, typer.Option(help="Of prompts and noise.")] = 0,
) -> None:
    """Read generated pictures with a classifier that saw rendered ones alone; exit 1 if a bar is missed."""
    from .evaluation import BARS, RENDERED_BAR, SEGMENTER_BAR
    from .evaluation import evaluate as measure

    torch.set_num_threads(1)
    steps = iter(track(range(count), description="generating", console=Console(stderr=True)))
    next(steps)
    reading = measure(count, seed, on_picture=lambda: next(steps, None))
    table = Table(
        "axis", "generated", "bar", "rendered, held out", "bar", title=f"{count} pictures read as prompted"
    )
    for axis, bar in BARS.items():
        table.add_row(
            axis,
            f"{reading.generated[axis]:.1%}",
            f"{bar:.0%}",
            f"{reading.rendered[axis]:.1%}",
            f"{RENDERED_BAR:.0%}",
        )
    table.add_row("person (IoU)", "", "", f"{reading.segmenter_iou:.3f}", f"{SEGMENTER_BAR}")
    Console().print(table)
    raise typer.Exit(0 if reading.passed() else 1)


@app.command()
def proof(
    bases: Annotated[int, typer.Option(help="Bases, each with its 5 edits.", min=4)] = 100,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    lpips: Annotated[
        str | None, typer.Option(help="Measure LPIPS too, with torchvision's alex, vgg or squeeze.")
    ] = None,
    structure: Annotated[
        str | None,
        typer.Option(
            help="Measure structure distance too: a ViT's folder or hub id, as in PIE-Bench DINO's."
        ),
    ] = None,
) -> None:
    """Compare edits with prompt-to-prompt and plain sampling from the same seeds; exit 1 if a bar is missed."""
    from .proof import run

    torch.set_num_threads(1)
    raise typer.Exit(0 if run(bases, seed, lpips=lpips, structure=structure) else 1)


@app.command()
def preview(
    sets: Annotated[
        int, typer.Option(help="Candidate sets; half set the limits, half measure them.", min=36)
    ] = 108,
    steps: Annotated[int, typer.Option(help="Of a preview; candidates take 15.", min=1, max=14)] = 4,
    guidance: Annotated[float, typer.Option(help="The lower, the more is rejected.")] = 1.5,
    write: Annotated[bool, typer.Option("--write", help="Write the limits beside the CLIP.")] = False,
) -> None:
    """Set limits of early rejection, and measure what they save and lose; exit 1 if a bar is missed."""
    from .early import LOST_BAR, SAVED_BAR, WHOLE
    from .early import run as measure

    torch.set_num_threads(1)
    done = iter(track(range(sets), description="generating", console=Console(stderr=True)))
    next(done)
    found = measure(sets, Preview(steps), guidance, write, on_set=lambda: next(done, None))
    title = f"early rejection by previews of {steps} steps for {WHOLE}, guidance {guidance:g}, {sets // 2} candidates"
    table = Table("figure", *found, "bar", title=title)
    every = list(found.values())
    table.add_row("rejected candidates", *(str(one.rejected) for one in every), "")
    table.add_row("of whose steps are saved", *(f"{one.saved:.1%}" for one in every), f"{SAVED_BAR:.0%}")
    table.add_row("good sets", *(str(one.kept) for one in every), "")
    table.add_row("of which are lost", *(f"{one.lost:.1%}" for one in every), f"{LOST_BAR:.0%}")
    table.add_row("steps of all, against no previews", *(f"{one.spent:.1%}" for one in every), "")
    Console().print(table)
    raise typer.Exit(0 if all(one.passed() for one in every) else 1)


@app.command()
def calibrate() -> None:
    """Set the embedded scorers' thresholds from rendered twins, and write them beside the CLIP."""
    from .evaluation import calibrate as measure

    torch.set_num_threads(1)
    Console().print(measure())


@app.command()
def sheet(
    out: Annotated[Path, typer.Option(help="PNG file.")] = Path("paperdolls.png"),
    columns: Annotated[int, typer.Option(min=1, max=24)] = 8,
    seed: int = 0,
) -> None:
    """Draw a sheet of rendered portraits, one row per concept."""
    from PIL import Image

    from .render import render
    from .world import CLASSES, sample_portrait

    rows = CLASSES["concept"]
    page = Image.new("RGB", (columns * 130, len(rows) * 130), "white")
    for r, concept in enumerate(rows):
        for c in range(columns):
            portrait = sample_portrait(seed + r * 1000 + c, concept=concept)
            page.paste(render(portrait).image, (c * 130, r * 130))
    page.save(out)


def main() -> int:
    """Run a command; what the user can mend is one line."""
    try:
        return app(prog_name="python -m generators.paperdolls", standalone_mode=False) or 0
    except (CounterpoiseError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped. The same command continues.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
