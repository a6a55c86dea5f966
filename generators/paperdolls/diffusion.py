"""Stage 5: the small SDXL. A UNet and its two text encoders learn to draw the world's latents from captions.

Saved in the standard folder layout with real diffusers and transformers classes, so that
`StableDiffusionXLPipeline.from_pretrained` loads it and nothing downstream knows that it is small.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import open_clip.tokenizer
import torch
from diffusers import AutoencoderTiny, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .autoencoder import LATENT_CHANNELS
from .autoencoder import build as build_autoencoder
from .canvas import SIDE
from .data import caption, pixels, renders, training_portrait
from .training import Schedule, train
from .world import caption_parts

PICTURES = 24_000
SCHEDULE = Schedule(steps=3500, batch=32, rate=1.2e-3, warmup=0.03, ema=0.997)
EMPTY_SHARE = 0.1
MIN_SNR_STEPS = 1500  # after that all noise levels count alike, which is what makes pictures follow the words
LATENT_SIDE = 16
_TIME_IDS = (SIDE, SIDE, 0, 0, SIDE, SIDE)
_WIDTHS = (48, 64)
_NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


def build_tokenizer(pad: str) -> CLIPTokenizer:
    """Return open_clip's packaged BPE as a `CLIPTokenizer`, start and end tokens renamed."""
    source = open_clip.tokenizer.SimpleTokenizer()
    rename = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {rename.get(token, token): index for token, index in source.encoder.items()}
    merges = [tuple(pair) for pair in sorted(source.bpe_ranks, key=source.bpe_ranks.__getitem__)]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)


def _text_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=64, hidden_act="gelu", bos_token_id=49406, eos_token_id=49407,
        pad_token_id=49407,
    )  # fmt: skip


def build_unet() -> UNet2DConditionModel:
    """Return an untrained UNet: 16 x 16 latents, two levels, SDXL's time and text conditioning."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(80, 160),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=(2, 4),
        cross_attention_dim=sum(_WIDTHS),
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=64 + 6 * 32,
        use_linear_projection=True,
        norm_num_groups=16,
    ).to(memory_format=torch.channels_last)


class Drawing:
    """The parts that are trained together, and the noise they learn to remove."""

    def __init__(self) -> None:
        self.tokenizers = (build_tokenizer("<|endoftext|>"), build_tokenizer("!"))
        self.first = CLIPTextModel(_text_config(_WIDTHS[0]))
        self.second = CLIPTextModelWithProjection(_text_config(_WIDTHS[1]))
        self.unet = build_unet()
        self.modules = nn.ModuleDict({"first": self.first, "second": self.second, "unet": self.unet})
        self.scheduler = EulerDiscreteScheduler(
            **_NOISE, prediction_type="v_prediction", timestep_spacing="trailing"
        )
        self.alphas = self.scheduler.alphas_cumprod.clone()

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return token features (B, 77, 112) and pooled features (B, 64); zeros for empty texts, as SDXL has it."""
        ids = [
            tokenizer(
                texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
            ).input_ids
            for tokenizer in self.tokenizers
        ]
        first = self.first(ids[0], output_hidden_states=True)
        second = self.second(ids[1], output_hidden_states=True)
        keep = torch.tensor([float(bool(text)) for text in texts])
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return tokens * keep.view(-1, 1, 1), second.text_embeds * keep.view(-1, 1)

    def loss(self, latents: Tensor, texts: list[str], generator: torch.Generator, min_snr: bool) -> Tensor:
        """v-prediction (Salimans and Ho 2022), with equal weights or with those of min-SNR.

        Args:
            latents: (B, 16, 16, 16), unit variance.
            texts: B captions, empty where the condition is dropped.
            generator: draws noise and times.
            min_snr: weights min(SNR, 5)/(SNR + 1) (Hang et al. 2023, for v), which favour detail over layout.
        """
        times = torch.randint(0, len(self.alphas), (len(latents),), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        with torch.autocast("cpu", torch.bfloat16):
            tokens, pooled = self.encode(texts)
            ids = torch.tensor([_TIME_IDS] * len(latents))
            condition = {"text_embeds": pooled, "time_ids": ids}
            noisy = noisy.contiguous(memory_format=torch.channels_last)
            found = self.unet(noisy, times, tokens, added_cond_kwargs=condition).sample.float()
        error = (found - target).square().mean(dim=(1, 2, 3))
        ratio = (alpha / (1 - alpha)).flatten()
        weight = ratio.clamp(max=5) / (ratio + 1) if min_snr else torch.ones_like(ratio)
        return (error * weight).mean() / weight.mean()

    def pipeline(self, vae: AutoencoderTiny) -> StableDiffusionXLPipeline:
        """Return the parts as a standard pipeline."""
        return StableDiffusionXLPipeline(
            vae, self.first, self.second, *self.tokenizers, self.unet, self.scheduler, add_watermarker=False
        )


@torch.no_grad()
def cached_latents(folder: Path, count: int) -> Tensor:
    """Return latents (count, 16, 16, 16) of the training portraits at unit variance, from `folder` where they are."""
    path = folder / "latents.npy"
    if path.exists() and len(found := np.load(path)) == count:
        return torch.from_numpy(found)
    vae, parts = build_autoencoder(), []
    for start in range(0, count, 64):
        batch = pixels(renders(range(start, min(start + 64, count))))
        parts.append((vae.encode(batch).latents * vae.config.scaling_factor).half())
        if start % 6400 == 0:
            print(f"latents {start}/{count}", flush=True)
    latents = torch.cat(parts)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(path, latents.numpy())
    return latents


def train_diffusion(folder: Path, weights: Path, seed: int) -> None:
    """Train UNet and text encoders, save the whole pipeline as `weights`/sdxl."""
    drawing = Drawing()
    latents = cached_latents(folder, PICTURES)
    parts = [caption_parts(training_portrait(picture)) for picture in range(PICTURES)]

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, PICTURES, (SCHEDULE.batch,), generator=generator).tolist()
        rng = random.Random(f"{seed} captions {step}")
        texts = ["" if rng.random() < EMPTY_SHARE else caption(parts[row], rng).text for row in rows]
        return drawing.loss(latents[rows].float(), texts, generator, min_snr=step < MIN_SNR_STEPS)

    train("diffusion", drawing.modules, loss_of, SCHEDULE, folder, seed)
    save(drawing, weights)


def save(drawing: Drawing, weights: Path) -> None:
    """Write the pipeline, float16."""
    vae = AutoencoderTiny.from_pretrained(weights / "sdxl" / "vae", dtype=torch.float16)
    pipeline = drawing.pipeline(vae)
    pipeline.to(torch.float16)
    pipeline.save_pretrained(weights / "sdxl", safe_serialization=True)
    for part in (
        "text_encoder",
        "text_encoder_2",
    ):  # else transformers loads them as float16, beside a float32 UNet
        path = weights / "sdxl" / part / "config.json"
        config = json.loads(path.read_text()) | {"dtype": "float32"}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
