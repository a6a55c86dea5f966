"""The embedded pipeline: a folder that stock diffusers loads, conditioned and noised as it was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from generators.paperdolls import autoencoder, diffusion
from generators.paperdolls.autoencoder import patch_directions
from generators.paperdolls.diffusion import Drawing, cached_pictures
from generators.paperdolls.training import generator_for


@pytest.fixture(scope="module")
def code() -> tuple[Tensor, Tensor]:
    return patch_directions(pictures=150)


@pytest.fixture(scope="module")
def drawing() -> Drawing:
    torch.manual_seed(0)
    made = Drawing()
    made.modules.eval()
    return made


@pytest.fixture(scope="module")
def saved(drawing: Drawing, code: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "patch_directions", lambda: code)
        autoencoder.build().half().save_pretrained(folder / "sdxl" / "vae", safe_serialization=True)
    diffusion.save(drawing, folder)
    drawing.modules.float()
    return folder / "sdxl"


@torch.no_grad()
def test_stock_diffusers_loads_and_draws_the_folder(saved: Path) -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(saved, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    image = pipe(
        "A photo of a woman", num_inference_steps=2, generator=torch.Generator().manual_seed(0)
    ).images[0]
    assert image.size == (128, 128)
    assert len(np.unique(np.asarray(image))) > 1
    assert not list(saved.rglob("*.bin"))


@torch.no_grad()
def test_the_pipeline_conditions_on_what_the_unet_was_trained_with(drawing: Drawing, saved: Path) -> None:
    """Token and pooled features of a caption, and zeros for the empty one."""
    pipe = StableDiffusionXLPipeline.from_pretrained(saved, use_safetensors=True)
    texts = ["A photo of a woman", "A portrait of an old man working as a chef in a kitchen"]
    tokens, empty, pooled, pooled_empty = pipe.encode_prompt(texts, do_classifier_free_guidance=True)
    own, own_pooled = drawing.encode([*texts, ""])
    assert torch.allclose(own[:2], tokens, atol=0.02) and torch.allclose(own_pooled[:2], pooled, atol=0.02)
    assert not empty.any() and not pooled_empty.any() and not own[2].any() and not own_pooled[2].any()
    ids = pipe._get_add_time_ids(
        (128, 128), (0, 0), (128, 128), torch.float32, pipe.text_encoder_2.config.projection_dim
    )
    assert tuple(ids[0].int().tolist()) == diffusion._TIME_IDS


def test_the_noise_is_what_the_scheduler_of_the_folder_undoes(drawing: Drawing, saved: Path) -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(saved, use_safetensors=True)
    assert torch.allclose(pipe.scheduler.alphas_cumprod, drawing.alphas)
    assert pipe.scheduler.config.prediction_type == "v_prediction"


@torch.no_grad()
def test_the_loss_is_zero_for_who_knows_the_answer(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> None:
    """v is sqrt(a) noise - sqrt(1 - a) latents; whoever sees the noise too can tell it exactly."""
    latents = torch.randn(4, 16, 16, 16, generator=generator_for(0, "latents"))
    stream = generator_for(0, "loss")
    torch.randint(0, 1000, (4,), generator=stream)
    noise = torch.randn(latents.shape, generator=stream)

    def oracle(noisy: Tensor, times: Tensor, *_: object, **__: object) -> object:
        alpha = drawing.alphas[times].view(-1, 1, 1, 1)
        clean = (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        return type("Found", (), {"sample": alpha.sqrt() * noise - (1 - alpha).sqrt() * clean})

    texts = ["A photo of a man"] * 4
    weight = torch.ones(4, 1, 16, 16)
    assert drawing.loss(latents, weight, texts, generator_for(0, "loss")).item() > 0.1
    monkeypatch.setattr(drawing, "unet", oracle)
    assert drawing.loss(latents, weight, texts, generator_for(0, "loss")).item() < 1e-3


@torch.no_grad()
def test_the_loss_counts_where_the_weight_lies(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, texts = torch.zeros(4, 16, 16, 16), [""] * 4
    monkeypatch.setattr(drawing, "unet", _half_right(drawing))
    lower, upper = torch.zeros(2, 4, 1, 16, 16)
    lower[:, :, 8:], upper[:, :, :8] = 1, 1
    found = [
        drawing.loss(latents, weight, texts, generator_for(0, "loss")).item() for weight in (lower, upper)
    ]
    assert found[0] < 1e-3 and found[1] == pytest.approx(1, abs=1e-3)


def _half_right(drawing: Drawing) -> Callable[..., object]:
    """Return what predicts v of blank latents, and one too much in the upper half."""

    def predict(noisy: Tensor, times: Tensor, *_: object, **__: object) -> object:
        alpha = drawing.alphas[times].view(-1, 1, 1, 1)
        v = alpha.sqrt() * noisy / (1 - alpha).sqrt()
        v[:, :, :8] += 1
        return type("Found", (), {"sample": v})

    return predict


def test_latents_are_cached_at_unit_variance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: tuple[Tensor, Tensor]
) -> None:
    monkeypatch.setattr(autoencoder, "patch_directions", lambda: code)
    made, places = cached_pictures(tmp_path, 66)
    assert made.shape == (66, 16, 16, 16) and places.shape == (66, 1, 16, 16)
    assert made.float().std().item() == pytest.approx(1, rel=0.15)
    share = places.float().mean(0)[0]
    assert share[4:8, 6:10].mean() > 0.6, "faces show the attributes"
    assert share[:, :2].mean() < 0.1, "the edge of the picture does not"
    monkeypatch.setattr(diffusion, "render", lambda _: pytest.fail("made again"))
    again = cached_pictures(tmp_path, 66)
    assert torch.equal(again[0], made) and torch.equal(again[1], places)


def test_another_drawing_is_not_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: tuple[Tensor, Tensor]
) -> None:
    monkeypatch.setattr(autoencoder, "patch_directions", lambda: code)
    made, _ = cached_pictures(tmp_path, 2)
    monkeypatch.setattr(autoencoder, "patch_directions", lambda: (2 * code[0], code[1]))
    assert not torch.equal(cached_pictures(tmp_path, 2)[0], made)
