"""Stage 5: the small SDXL. A UNet and its two text encoders learn to draw the world's latents from captions.

Saved in the standard folder layout with real diffusers and transformers classes, so that
`StableDiffusionXLPipeline.from_pretrained` loads it and nothing downstream knows that it is small.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip.tokenizer
import torch
from diffusers import AutoencoderTiny, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .autoencoder import LATENT_CHANNELS, PATCH
from .autoencoder import build as build_autoencoder
from .canvas import SIDE
from .data import caption, pixels, training_portrait
from .render import render
from .training import Schedule, train
from .world import ATTRIBUTES, CLASSES, Portrait, caption_parts

PICTURES = 24_000
SCHEDULE = Schedule(steps=4500, batch=32, rate=1.2e-3, warmup=0.03, ema=0.997)
EMPTY_SHARE = 0.1
#: How much more the error counts where the attributes show: a face is a tenth of the picture, and is what people look at.
ATTRIBUTE_WEIGHT = 3.0
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

    def loss(self, latents: Tensor, weight: Tensor, texts: list[str], generator: torch.Generator) -> Tensor:
        """v-prediction (Salimans and Ho 2022, appendix D), all noise levels alike.

        Args:
            latents: (B, 16, 16, 16), unit variance.
            weight: (B, 1, 16, 16), how much the error of a place counts.
            texts: B captions, empty where the condition is dropped.
            generator: draws noise and times.
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
        return ((found - target).square() * weight).mean() / weight.mean()

    def pipeline(self, vae: AutoencoderTiny) -> StableDiffusionXLPipeline:
        """Return the parts as a standard pipeline."""
        return StableDiffusionXLPipeline(
            vae, self.first, self.second, *self.tokenizers, self.unet, self.scheduler, add_watermarker=False
        )


def opposite(portrait: Portrait) -> Portrait:
    """Return the portrait of the same scene with another gender, age and race."""
    changed = {name: CLASSES[name][CLASSES[name].index(getattr(portrait, name)) - 1] for name in ATTRIBUTES}
    return replace(portrait, **changed)


def attribute_places(portraits: Sequence[Portrait], images: Tensor) -> Tensor:
    """Return (B, 1, 16, 16) shares of each 8 x 8 patch that would look otherwise with other attributes.

    Args:
        portraits: B of them.
        images: (B, 3, 128, 128), their pictures.
    """
    others = pixels([render(opposite(portrait)) for portrait in portraits])
    return functional.avg_pool2d(((images - others).abs().amax(1, keepdim=True) > 0.05).float(), PATCH)


@torch.no_grad()
def cached_pictures(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Return what the training portraits look like, from `folder` where the same drawing left it.

    Returns:
        latents (count, 16, 16, 16) at unit variance, and attribute places (count, 1, 16, 16); float16.
    """
    vae = build_autoencoder()
    drawn = hashlib.sha256(b"".join(value.numpy().tobytes() for value in vae.encoder.state_dict().values()))
    path = folder / f"latents-{count}-{drawn.hexdigest()[:12]}.npz"
    if path.exists():
        with np.load(path) as found:
            return torch.from_numpy(found["latents"]), torch.from_numpy(found["places"])
    latents, places = [], []
    for start in range(0, count, 64):
        portraits = [training_portrait(seed) for seed in range(start, min(start + 64, count))]
        batch = pixels([render(portrait) for portrait in portraits])
        latents.append((vae.encode(batch).latents * vae.config.scaling_factor).half())
        places.append(attribute_places(portraits, batch).half())
        if start % 6400 == 0:
            print(f"latents {start}/{count}", flush=True)
    found = {"latents": torch.cat(latents), "places": torch.cat(places)}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: value.numpy() for name, value in found.items()})
    return found["latents"], found["places"]


def train_diffusion(folder: Path, weights: Path, seed: int) -> None:
    """Train UNet and text encoders, save the whole pipeline as `weights`/sdxl."""
    drawing = Drawing()
    latents, places = cached_pictures(folder, PICTURES)
    parts = [caption_parts(training_portrait(picture)) for picture in range(PICTURES)]

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, PICTURES, (SCHEDULE.batch,), generator=generator).tolist()
        rng = random.Random(f"{seed} captions {step}")
        texts = ["" if rng.random() < EMPTY_SHARE else caption(parts[row], rng).text for row in rows]
        weight = 1 + ATTRIBUTE_WEIGHT * places[rows].float()
        return drawing.loss(latents[rows].float(), weight, texts, generator)

    train("diffusion", drawing.modules, loss_of, SCHEDULE, folder, seed)
    save(drawing, weights)


def save(drawing: Drawing, weights: Path) -> None:
    """Write the pipeline, float16."""
    vae = AutoencoderTiny.from_pretrained(weights / "sdxl" / "vae", dtype=torch.float16)
    pipeline = drawing.pipeline(vae)
    pipeline.to(torch.float16)
    pipeline.save_pretrained(weights / "sdxl", safe_serialization=True)
    # Else transformers loads the text encoders as float16, beside a float32 UNet.
    _amend(weights / "sdxl" / "text_encoder" / "config.json", dtype="float32")
    _amend(weights / "sdxl" / "text_encoder_2" / "config.json", dtype="float32")
    _amend(weights / "sdxl" / "vae" / "config.json", _name_or_path=None)  # where it lay when it was trained


def _amend(path: Path, **changes: str | None) -> None:
    """Change keys of a JSON file; None removes one."""
    config = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in config.items() if key not in changes or value is not None}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
