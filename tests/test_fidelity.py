"""Fidelity outside the person against values worked out by hand, and backbones that cannot be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import ViTConfig, ViTModel

from generators.fidelity import Lpips, Structure, mean_of, psnr_outside, ssim_outside
from storage.errors import CounterpoiseError

SIDE = 32


def a_picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8))


def person() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[8:24, 8:24] = True
    return mask


def changed(image: Image.Image, where: np.ndarray, by: int) -> Image.Image:
    values = np.asarray(image).astype(int)
    values[where] = np.where(values[where] > 127, values[where] - by, values[where] + by)
    return Image.fromarray(values.astype(np.uint8))


def test_psnr_is_that_of_the_pixels_outside_alone() -> None:
    image = a_picture()
    assert psnr_outside(image, changed(image, person(), 100), person()) == float("inf")
    found = psnr_outside(image, changed(image, ~person(), 51), person())
    assert found == pytest.approx(20 * np.log10(255 / 51), abs=1e-3)
    assert psnr_outside(image, image, np.ones((SIDE, SIDE), bool)) is None


def test_ssim_is_one_for_equal_surroundings_and_falls_with_noise() -> None:
    image, noise = a_picture(), a_picture(1)
    mixed = Image.blend(image, noise, 0.3)
    assert ssim_outside(image, image, person()) == pytest.approx(1)
    scores = [ssim_outside(image, other, person()) for other in (mixed, noise)]
    assert 1 > scores[0] > scores[1] and scores[1] == pytest.approx(0, abs=0.1)
    assert ssim_outside(image, image, np.ones((SIDE, SIDE), bool)) is None


def test_structure_distance_is_zero_for_equal_pictures(tmp_path: Path) -> None:
    config = ViTConfig(
        image_size=SIDE,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    measure = Structure(str(tmp_path))
    image, flat = a_picture(), Image.new("RGB", (SIDE, SIDE), "grey")
    assert measure.distance(image, image) == 0
    assert measure.distance(image, flat) > 1e-5


def test_backbones_that_cannot_be_had_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CounterpoiseError, match=r"structure distance.*give a folder"):
        Structure(str(tmp_path / "none"))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchmetrics.functional.image.lpips._LPIPS.__init__", offline)
    with pytest.raises(CounterpoiseError, match=r"LPIPS.*alex.*OSError"):
        Lpips()
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.functional.image", None)
    with pytest.raises(CounterpoiseError, match="pip install"):
        psnr_outside(a_picture(), a_picture(), person())


def test_lpips_blackens_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = object.__new__(Lpips)
    measure.metric = lambda first, second: (first - second).abs().max()
    image = a_picture()
    assert measure.outside(image, changed(image, person(), 100), person()) == 0
    assert measure.outside(image, changed(image, ~person(), 51), person()) == pytest.approx(0.2)


def test_the_mean_takes_what_is_finite() -> None:
    assert mean_of([1.0, None, float("inf"), 3.0]) == 2
    assert np.isnan(mean_of([None]))
