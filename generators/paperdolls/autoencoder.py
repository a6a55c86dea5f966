"""Stage 1: the autoencoder, 128 x 128 pixels to 16 channels of 16 x 16 and back.

Flat art hardly needs a learned code: its 8 x 8 patches lie close to a linear subspace. So the encoder of the
`AutoencoderTiny` is set, not trained: without blocks it is a chain of convolutions that can carry principal components of
patches exactly. The decoder, which sees the neighbours and may be nonlinear, is trained to draw the picture from them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from torch.nn import functional

from .data import pixels, renders
from .training import Schedule, train

LATENT_CHANNELS = 16
PATCH = 8
SCHEDULE = Schedule(steps=2200, batch=16, rate=2e-3)
_WIDTH = 48
_LATENT_STD = 0.4  # small against 3, where the decoder of AutoencoderTiny squashes its input


def build() -> AutoencoderTiny:
    """Return an autoencoder whose encoder is set and whose decoder is untrained."""
    model = AutoencoderTiny(
        encoder_block_out_channels=(_WIDTH,) * 4,
        decoder_block_out_channels=(_WIDTH,) * 4,
        num_encoder_blocks=(0, 0, 0, 0),
        num_decoder_blocks=(4, 3, 2, 1),
        latent_channels=LATENT_CHANNELS,
        scaling_factor=1 / _LATENT_STD,
        force_upcast=False,
    )
    directions, mean = patch_directions()
    set_encoder(model, directions, mean)
    return model.to(memory_format=torch.channels_last)


def patch_directions(pictures: int = 2000) -> tuple[Tensor, Tensor]:
    """Return latent directions (16, 192) and the mean (192,) of patches of rendered pictures in [0, 1].

    The directions are principal components, each divided by the square root of its standard deviation, which evens
    out the channels without blowing up the faint ones, and scaled so that latents have the standard deviation 0.4.
    """
    images = pixels(renders(range(9 * 10**6, 9 * 10**6 + pictures))) * 0.5 + 0.5
    patches = functional.unfold(images, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    top = vectors[:, -LATENT_CHANNELS:].flip(1).T
    top = top * top.abs().max(1, keepdim=True).values.div(top.gather(1, top.abs().argmax(1, keepdim=True)))
    directions = top / values[-LATENT_CHANNELS:].flip(0).pow(0.25)[:, None]
    spread = ((patches - mean) @ directions.T).std()
    return (directions * (_LATENT_STD / spread)).float(), mean.float()


@torch.no_grad()
def set_encoder(model: AutoencoderTiny, directions: Tensor, mean: Tensor) -> None:
    """Write the patch code into the encoder's convolutions.

    Each stride-2 convolution gathers 2 x 2 neighbours into channels: 3 to 12 to 48; the last one gathers the four
    quarters of a patch and projects all 192 values on the directions.

    Args:
        model: its encoder has no blocks and at least 48 channels.
        directions: (16, 192), patch values ordered as `unfold` gives them: colour, row, column.
        mean: (192,), subtracted before projecting.
    """
    first, *strided, last = [layer for layer in model.encoder.layers if isinstance(layer, nn.Conv2d)]
    for layer in (first, *strided, last):
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    place = {(c, 0, 0): c for c in range(3)}
    for c in range(3):
        first.weight[c, c, 1, 1] = 1
    for layer in strided[:2]:
        place = _gather(layer, place)
    project = directions.view(LATENT_CHANNELS, 3, PATCH, PATCH)
    half = PATCH // 2
    for (colour, row, column), channel in place.items():
        for dy in range(2):
            for dx in range(2):
                weight = project[:, colour, row + half * dy, column + half * dx]
                strided[2].weight[:LATENT_CHANNELS, channel, 1 + dy, 1 + dx] = weight
    for k in range(LATENT_CHANNELS):
        last.weight[k, k, 1, 1] = 1
    last.bias.copy_(-directions @ mean)


def _gather(layer: nn.Conv2d, place: dict[tuple[int, int, int], int]) -> dict[tuple[int, int, int], int]:
    """Let a stride-2 convolution copy 2 x 2 neighbours into channels; returns where each value of a patch went."""
    size = round((len(place) / 3) ** 0.5)
    found = {}
    for (colour, row, column), channel in place.items():
        for dy in range(2):
            for dx in range(2):
                out = len(found)
                layer.weight[out, channel, 1 + dy, 1 + dx] = 1
                found[colour, row + size * dy, column + size * dx] = out
    return found


def reconstruction_loss(model: AutoencoderTiny, images: Tensor, noise: torch.Generator) -> Tensor:
    """L1 of pixels and of edges, with noise on the latents so that the decoder forgives small errors.

    Args:
        model: whose decoder learns.
        images: (B, 3, 128, 128) in [-1, 1].
        noise: draws the latent noise, a tenth of the latents' standard deviation.
    """
    with torch.no_grad():
        latents = model.encode(images).latents
    with torch.autocast("cpu", torch.bfloat16):
        jitter = 0.1 * _LATENT_STD * torch.randn(latents.shape, generator=noise)
        decoded = model.decode(latents + jitter).sample.float()
    error = decoded - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges


def train_autoencoder(folder: Path, weights: Path, seed: int) -> None:
    """Train the decoder and save all in the standard layout as `weights`/sdxl/vae."""
    model = build()
    count = SCHEDULE.batch

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        batch = renders(range(step * count, (step + 1) * count))
        return reconstruction_loss(model, pixels(batch), generator)

    train("autoencoder", nn.ModuleDict({"decoder": model.decoder}), loss_of, SCHEDULE, folder, seed)
    held_out = pixels(renders(range(2 * 10**6, 2 * 10**6 + 64)))
    with torch.no_grad():
        error = (model.decode(model.encode(held_out).latents).sample.clamp(-1, 1) - held_out).mul(0.5)
    model.half().save_pretrained(weights / "sdxl" / "vae", safe_serialization=True)
    print(f"autoencoder: {-10 * error.square().mean().log10().item():.1f} dB PSNR on held-out renders")
