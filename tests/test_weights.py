"""Model folders: found, refused where they are not a safe SDXL, and named by their bytes and licence."""

from __future__ import annotations

import json
import os
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from generators import weights
from generators.weights import ModelError, describe, model_folder, weights_hash

SECONDS = count(1)
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that has all that an SDXL has, a few bytes each."""
    root = tmp_path / "model"
    root.mkdir()
    (root / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    for part in PARTS:
        (root / part).mkdir()
        (root / part / "config.json").write_text('{"a": 1}')
        (root / part / "model.safetensors").write_bytes(part.encode() * 9)
    (root / "tokenizer").mkdir()
    (root / "tokenizer" / "merges.txt").write_text("a b\n")
    return root


def change(path: Path, content: bytes) -> None:
    """Write a file with a time of its own: a file system's clock may be coarser than a test."""
    path.write_bytes(content)
    later = path.stat().st_mtime_ns + next(SECONDS) * 10**9
    os.utime(path, ns=(later, later))


def refused(model: str) -> str:
    with pytest.raises(ModelError) as caught:
        model_folder(model)
    assert "\n" not in str(caught.value)
    assert repr(model) in str(caught.value)
    return str(caught.value)


def test_a_sound_folder_is_taken_as_it_is(folder: Path) -> None:
    assert model_folder(str(folder)) == folder


def test_embedded_is_the_folder_that_ships(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "WEIGHTS", folder.parent)
    folder.rename(folder.parent / "sdxl")
    assert model_folder("embedded") == folder.parent / "sdxl"


def test_embedded_weights_that_are_not_there_are_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    assert "no such folder" in refused("embedded")


@pytest.mark.parametrize("model", ["./nowhere", "/no/where", "nonsense", "a/b/c", "~/model", "../x"])
def test_a_missing_folder_is_refused_without_asking_the_hub(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(model: str) -> Path:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(weights, "_download", download)
    assert "no such folder" in refused(model)


def test_a_hub_id_is_downloaded_and_checked_alike(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import StableDiffusionXLPipeline

    asked: list[tuple[str, dict[str, Any]]] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(folder)

    monkeypatch.setattr(StableDiffusionXLPipeline, "download", download)
    assert model_folder("somebody/model") == folder
    assert asked == [("somebody/model", {"use_safetensors": True})]
    (folder / "vae" / "model.safetensors").unlink()
    assert "vae has no weights" in refused("somebody/model")


def test_a_hub_that_does_not_answer_is_one_line_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import StableDiffusionXLPipeline

    def download(name: str, **options: Any) -> str:
        raise OSError("no route\nto the hub")

    monkeypatch.setattr(StableDiffusionXLPipeline, "download", download)
    text = refused("somebody/model")
    assert "no route" in text and "give a local folder" in text


@pytest.mark.parametrize("content", [None, "", "not json", "[]", "null", '"text"'])
def test_a_folder_without_a_readable_index_is_refused(folder: Path, content: str | None) -> None:
    index = folder / "model_index.json"
    index.unlink() if content is None else index.write_text(content)
    assert "model_index.json cannot be read" in refused(str(folder))


@pytest.mark.parametrize("kind", ["StableDiffusionPipeline", "FluxPipeline", None])
def test_what_is_not_sdxl_is_refused_by_its_name(folder: Path, kind: str | None) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    assert f"it is a {kind}, wanted a StableDiffusionXLPipeline" in refused(str(folder))


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    for file in (folder / part).iterdir():
        file.unlink()
    assert f"{part} has no weights" in refused(str(folder))
    (folder / part).rmdir()
    assert f"the folder {part} is missing" in refused(str(folder))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.ckpt", "model.pt", "model.pth", "model.pkl"])
def test_a_pickle_is_refused_by_name_and_never_opened(
    folder: Path, part: str, pickle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    (folder / part / "model.safetensors").rename(folder / part / pickle)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened the pickle"))
    text = refused(str(folder))
    assert f"{part} has only the pickle {pickle}" in text
    assert "safe_serialization=True" in text


@pytest.mark.parametrize(
    "file", ["unet/model.safetensors", "vae/config.json", "tokenizer/merges.txt", "model_index.json"]
)
def test_any_byte_of_any_file_changes_the_hash(folder: Path, file: str) -> None:
    path = folder / file
    content = path.read_bytes()
    seen = {weights_hash(folder)}
    for place in (0, len(content) // 2, len(content) - 1):
        other = bytearray(content)
        other[place] ^= 1
        change(path, bytes(other))
        seen.add(weights_hash(folder))
    assert len(seen) == 4
    change(path, content + b"\0")
    assert weights_hash(folder) not in seen
    change(path, content)
    assert weights_hash(folder) in seen


def test_names_count_and_places_do_not(folder: Path, tmp_path: Path) -> None:
    before = weights_hash(folder)
    assert len(before) == 64
    moved = folder.rename(tmp_path / "elsewhere")
    assert weights_hash(moved) == before
    (moved / "unet" / "config.json").rename(moved / "unet" / "configs.json")
    assert weights_hash(moved) != before


def test_swapped_files_are_another_model(folder: Path) -> None:
    before = weights_hash(folder)
    first, second = (folder / part / "model.safetensors" for part in ("unet", "vae"))
    contents = first.read_bytes(), second.read_bytes()
    change(first, contents[1])
    change(second, contents[0])
    assert weights_hash(folder) != before


def test_a_card_is_no_weight(folder: Path) -> None:
    before = weights_hash(folder)
    (folder / "README.md").write_text("license: mit")
    assert weights_hash(folder) == before


@pytest.mark.parametrize(
    ("card", "licence", "restricted"),
    [
        (None, "unknown", False),
        ("no front matter", "unknown", False),
        ("---\nlicense: mit\n---\n", "mit", False),
        ("---\ntags: [a]\nlicense: openrail++\n---\n", "openrail++", True),
        ("---\nlicense: creativeml-openrail-m\n---\n", "creativeml-openrail-m", True),
        ("---\nlicense: OpenRAIL++\n---\n", "OpenRAIL++", True),
    ],
)
def test_the_licence_of_a_folder_is_that_of_its_card(
    folder: Path, card: str | None, licence: str, restricted: bool
) -> None:
    if card is not None:
        (folder / "README.md").write_text(card)
    facts = describe(str(folder), folder)
    assert facts["licence"] == licence
    assert (facts["restrictions"] is not None) == restricted


def test_sdxl_base_passes_its_use_restrictions_on(folder: Path) -> None:
    facts = describe("stabilityai/stable-diffusion-xl-base-1.0", folder)
    assert facts["licence"] == "openrail++"
    assert "Open RAIL++-M" in str(facts["restrictions"]) and "Attachment A" in str(facts["restrictions"])
    assert "pass on" in str(facts["restrictions"])


def test_embedded_weights_are_apache_and_free_of_restrictions(folder: Path) -> None:
    (folder / "README.md").write_text("license: openrail++")
    facts = describe("embedded", folder)
    assert (facts["id"], facts["licence"], facts["restrictions"]) == ("embedded", "apache-2.0", None)
    assert facts["sha256"] == weights_hash(folder)
