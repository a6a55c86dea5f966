"""A random SDXL of the real classes, so small that a test can sample from it; and the explicit-map reference."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from generators.paperdolls.diffusion import build_tokenizer


def tiny_pipeline(seed: int = 0) -> StableDiffusionXLPipeline:
    """An SDXL pipeline with random weights: 64 px pictures, 16 x 16 latents."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32), layers_per_block=1, transformer_layers_per_block=1, attention_head_dim=(2, 4),
        cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8, use_linear_projection=True, norm_num_groups=8,
    )  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=16, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4, norm_num_groups=4, layers_per_block=1, sample_size=64,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
    )
    return StableDiffusionXLPipeline(
        vae, CLIPTextModel(text), CLIPTextModelWithProjection(text), build_tokenizer("<|endoftext|>"),
        build_tokenizer("!"), unet, scheduler, add_watermarker=False,
    )  # fmt: skip


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Save `tiny_pipeline` in the standard layout."""
    tiny_pipeline(seed).save_pretrained(folder, safe_serialization=True)
    return folder
