"""Finding a model's folder, refusing what is not a safe SDXL, and saying exactly which weights these are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import CounterpoiseError

from .paperdolls import WEIGHTS
from .spec import EMBEDDED

if TYPE_CHECKING:
    import torch

PIPELINE = "StableDiffusionXLPipeline"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_OPENRAIL = "CreativeML Open RAIL++-M: the use restrictions of its Attachment A apply to the images and pass on to users"
_KNOWN_LICENCES = {"stabilityai/stable-diffusion-xl-base-1.0": "openrail++"}
_FILES: dict[str, str] = {}


class ModelError(CounterpoiseError):
    """A model that is missing, of the wrong kind, or unsafe to load."""


def model_folder(model: str) -> Path:
    """Return the local folder of "embedded", a folder, or a hub id (downloaded once by diffusers' own cache).

    Raises:
        ModelError: it is not there, not SDXL, or has pickles where safetensors are wanted.
    """
    folder = WEIGHTS / "sdxl" if model == EMBEDDED else Path(model)
    if not folder.is_dir():
        if model == EMBEDDED or model.startswith((".", "/", "~")) or model.count("/") != 1:
            raise ModelError(
                f"model {model!r}: no such folder; wanted a folder in diffusers' layout, a hub id such as "
                "stabilityai/stable-diffusion-xl-base-1.0, or embedded"
            )
        folder = _download(model)
    _check_folder(model, folder)
    return folder


def _download(model: str) -> Path:
    from diffusers import StableDiffusionXLPipeline

    try:
        return Path(StableDiffusionXLPipeline.download(model, use_safetensors=True))
    except Exception as error:
        first = _first(error)
        reason = str(first).splitlines()[0] if str(first) else type(first).__name__
        raise ModelError(
            f"model {model!r}: neither a folder here nor to be had from the hub ({reason}); check the id, the network "
            "and HF_HUB_OFFLINE, or give a local folder"
        ) from error


def _first(error: BaseException) -> BaseException:
    """What went wrong first; the libraries' own words for it are advice to programmers."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def _check_folder(model: str, folder: Path) -> None:
    index = folder / "model_index.json"
    try:
        kind = json.loads(index.read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"model {model!r}: {index.name} cannot be read; wanted a folder that save_pretrained of {PIPELINE} wrote"
        ) from error
    if kind != PIPELINE:
        raise ModelError(f"model {model!r}: it is a {kind}, wanted a {PIPELINE}: give an SDXL model")
    for part in _PARTS:
        _check_part(model, folder / part)


def _check_part(model: str, part: Path) -> None:
    if not part.is_dir():
        raise ModelError(f"model {model!r}: the folder {part.name} is missing; copy the model again, whole")
    if not any(part.glob("*.safetensors")):
        pickles = sorted(path.name for path in part.iterdir() if path.suffix in _PICKLES)
        found = f"only the pickle {pickles[0]}, which could run code when loaded" if pickles else "no weights"
        raise ModelError(
            f"model {model!r}: {part.name} has {found}; wanted .safetensors: save it again with safe_serialization=True"
        )


def weights_hash(folder: Path) -> str:
    """Return the sha256 over names and bytes of every weight and config file of a folder, in order of name."""
    total = hashlib.sha256()
    names = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".json", ".txt") and path.is_file()
    )
    for path in names:
        total.update(f"{path.relative_to(folder).as_posix()} {_file_hash(path)}\n".encode())
    return total.hexdigest()


def state_hash(model: torch.nn.Module) -> str:
    """Return the sha256 over names and values of a model's state, for weights that came without a folder."""
    import torch

    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def _file_hash(path: Path) -> str:
    """Hash a file once per process, size and change time."""
    facts = path.stat()
    key = f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}"
    if key not in _FILES:
        with path.open("rb") as file:
            _FILES[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _FILES[key]


def describe(model: str, folder: Path) -> Mapping[str, object]:
    """Return id, sha256, licence and use restrictions of a model's weights."""
    licence = "apache-2.0" if model == EMBEDDED else _KNOWN_LICENCES.get(model) or _licence_of(folder)
    return {
        "id": model,
        "sha256": weights_hash(folder),
        "licence": licence,
        "restrictions": _OPENRAIL if "openrail" in licence.lower() else None,
    }


def _licence_of(folder: Path) -> str:
    card = folder / "README.md"
    found = re.search(r"^license:\s*(\S+)", card.read_text(errors="replace"), re.M) if card.exists() else None
    return found[1] if found else "unknown"
