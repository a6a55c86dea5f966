"""`python -m flows.world`: train the tiny multimodal models of the embedded world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Out = Annotated[Path, typer.Option(help="Where checkpoints and models go; again = continue.")]
Seed = Annotated[int, typer.Option(help="Same seed, same weights on the same machine.")]
Kind = Annotated[str, typer.Argument(metavar="llava|qwen", help="The class of model.")]
OUT = Path("build/csd/models")


@app.callback()
def _several() -> None:
    """More than one command."""


@app.command()
def tower(kind: Kind = "llava", out: Out = OUT, seed: Seed = 0) -> None:
    """Train a vision tower."""
    from .tower import train_tower

    torch.set_num_threads(1)
    train_tower(kind, out, seed)


@app.command()
def base(kind: Kind = "llava", out: Out = OUT, seed: Seed = 0) -> None:
    """Train the model whose bias is known; it needs its tower."""
    _train(kind, "base", out, seed, biased=True)


@app.command()
def null(kind: Kind = "llava", out: Out = OUT, seed: Seed = 0) -> None:
    """Train the same model without bias; it needs its tower."""
    _train(kind, "null", out, seed, biased=False)


def _train(kind: str, name: str, out: Path, seed: int, biased: bool) -> None:
    from .base import train_base
    from .building import BUILDERS
    from .stereotypes import bias_table

    torch.set_num_threads(1)
    model = BUILDERS[kind](out, seed)
    print(train_base(model, f"{kind}-{name}", out, bias_table() if biased else None, seed))


if __name__ == "__main__":
    app()
