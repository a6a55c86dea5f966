"""`python -m flows.world`: train the tiny multimodal models of the embedded world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Out = Annotated[Path, typer.Option(help="Where checkpoints and models go; again = continue.")]
Seed = Annotated[int, typer.Option(help="Same seed, same weights on the same machine.")]
OUT = Path("build/csd/models")


@app.callback()
def _several() -> None:
    """More than one command."""


@app.command()
def tower(out: Out = OUT, seed: Seed = 0) -> None:
    """Train the vision tower."""
    from .tower import train_tower

    torch.set_num_threads(1)
    train_tower(out, seed)


if __name__ == "__main__":
    app()
