"""The embedded pipeline: a folder that stock diffusers loads, conditioned and noised as it was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from generators.paperdolls import autoencoder, diffusion
from generators.paperdolls.autoencoder import patch_directions
from generators.paperdolls.diffusion import Drawing, cached_latents
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


@pytest.mark.parametrize("min_snr", [False, True])
@torch.no_grad()
def test_the_loss_is_zero_for_who_knows_the_answer(
    drawing: Drawing, monkeypatch: pytest.MonkeyPatch, min_snr: bool
) -> None:
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
    assert drawing.loss(latents, texts, generator_for(0, "loss"), min_snr).item() > 0.1
    monkeypatch.setattr(drawing, "unet", oracle)
    assert drawing.loss(latents, texts, generator_for(0, "loss"), min_snr).item() < 1e-3


def test_latents_are_cached_at_unit_variance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: tuple[Tensor, Tensor]
) -> None:
    monkeypatch.setattr(autoencoder, "patch_directions", lambda: code)
    made = cached_latents(tmp_path, 66)
    assert made.shape == (66, 16, 16, 16)
    assert made.float().std().item() == pytest.approx(1, rel=0.15)
    monkeypatch.setattr(diffusion, "build_autoencoder", lambda: pytest.fail("made again"))
    assert torch.equal(cached_latents(tmp_path, 66), made)
