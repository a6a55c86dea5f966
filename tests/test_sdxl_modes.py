"""The engine on pipelines that users have changed: weights offloaded, half precision with the autoencoder in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from tiny_sdxl import save_tiny

from generators.engine import SetRequest
from generators.plan import Member
from generators.sdxl import SdxlEngine
from generators.spec import Edit, LocalBlend, Sampler

CPU = torch.device("cpu")
WORDS = ("White", "Black", "Middle Eastern")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def request() -> SetRequest:
    members = tuple(
        Member(k, {}, f"A photo of a {word} man in a garden", "", 0, "") for k, word in enumerate(WORDS)
    )
    edit = Edit(local_blend=LocalBlend(("man",), 0.99))
    return SetRequest(members, 5, Sampler(steps=3, guidance=3.0, scheduler="ddim"), edit)


def pictures(engine: SdxlEngine) -> np.ndarray:
    return np.stack([np.asarray(image, np.int16) for image in engine.generate(request())])


def parts(engine: SdxlEngine) -> list[torch.nn.Module]:
    return [engine.pipe.unet, engine.pipe.vae, engine.pipe.text_encoder, engine.pipe.text_encoder_2]


def by_layer(engine: SdxlEngine) -> None:
    for part in parts(engine):
        cpu_offload(part, execution_device=CPU)
    assert {value.device.type for value in engine.pipe.unet.parameters()} == {"meta"}


def by_model(engine: SdxlEngine) -> None:
    for part in parts(engine):
        cpu_offload_with_hook(part, execution_device=CPU)


def by_group(engine: SdxlEngine) -> None:
    for part in (engine.pipe.unet, engine.pipe.vae):
        part.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")


@pytest.mark.parametrize("offload", [by_layer, by_model, by_group])
def test_offloaded_weights_draw_the_same_pictures(
    folder: Path, offload: Callable[[SdxlEngine], None]
) -> None:
    """The hooks are those of enable_sequential_cpu_offload, enable_model_cpu_offload and enable_group_offload."""
    engine = SdxlEngine(str(folder), device="cpu")
    wanted = pictures(engine)
    offload(engine)
    hooked = [
        m for m in engine.pipe.unet.modules() if hasattr(m, "_hf_hook") or hasattr(m, "_diffusers_hook")
    ]
    assert hooked, "something is offloaded"
    assert np.array_equal(pictures(engine), wanted)
    assert np.array_equal(pictures(engine), wanted), "and again, with weights that were put away in between"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_with_the_autoencoder_in_float32(folder: Path, dtype: torch.dtype) -> None:
    engine = SdxlEngine(str(folder), device="cpu")
    wanted = pictures(engine)
    for part in parts(engine):
        part.to(dtype)
    engine.dtype = dtype
    engine.pipe.vae.register_to_config(force_upcast=True)
    latents = engine.latents(request())
    assert latents.dtype == torch.float32 and torch.isfinite(latents).all()
    kinds: list[torch.dtype] = []
    engine.pipe.vae.decoder.register_forward_pre_hook(lambda _, given: kinds.append(given[0].dtype))
    found = pictures(engine)
    assert set(kinds) == {torch.float32}
    assert next(engine.pipe.vae.parameters()).dtype == dtype, "as it was before"
    assert next(engine.pipe.unet.parameters()).dtype == dtype
    assert np.abs(found - wanted).mean() < 2, "grey levels, of rounding alone"


def test_without_force_upcast_the_autoencoder_stays_as_it_is(folder: Path) -> None:
    engine = SdxlEngine(str(folder), device="cpu")
    engine.pipe.vae.register_to_config(force_upcast=False)
    engine.pipe.vae.to(torch.bfloat16)
    assert len(pictures(engine)) == len(WORDS)
    assert next(engine.pipe.vae.parameters()).dtype == torch.bfloat16


def test_slicing_and_tiling_draw_the_same_pictures(folder: Path) -> None:
    engine = SdxlEngine(str(folder), device="cpu")
    wanted = pictures(engine)
    engine.pipe.enable_attention_slicing(1)
    engine.pipe.vae.enable_slicing()
    engine.pipe.vae.enable_tiling()
    assert np.abs(pictures(engine) - wanted).max() <= 1
