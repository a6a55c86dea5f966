"""How much of a picture an edit left alone: PSNR, SSIM and LPIPS outside the person, and the structure distance.

The figures come from torchmetrics. PSNR and SSIM look at the pixels outside alone; LPIPS blackens the person in both
pictures, as PIE-Bench does (Ju et al. 2023, section 5.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from storage.errors import CounterpoiseError

Mask = NDArray[np.bool_]


def _metrics() -> Any:
    try:
        import torchmetrics.functional.image as metrics
    except ImportError as error:
        raise CounterpoiseError(
            "fidelity needs the package torchmetrics: pip install -c constraints.txt torchmetrics"
        ) from error
    return metrics


def psnr_outside(first: Image.Image, second: Image.Image, person: Mask) -> float | None:
    """Peak signal-to-noise ratio in dB over the RGB values outside `person` (height, width); null where nothing is.

    Infinite where the pixels are equal.
    """
    outside = torch.from_numpy(~person)
    if not outside.any():
        return None
    pair = [_pixels(image)[0][:, outside] for image in (first, second)]
    return float(_metrics().peak_signal_noise_ratio(*pair, data_range=1.0))


def ssim_outside(first: Image.Image, second: Image.Image, person: Mask) -> float | None:
    """Structural similarity (Wang et al. 2004, equation 13), averaged over the pixels outside `person`."""
    outside = torch.from_numpy(~person)
    if not outside.any():
        return None
    _, full = _metrics().structural_similarity_index_measure(
        _pixels(first), _pixels(second), data_range=1.0, return_full_image=True
    )
    return float(full[0][:, outside].mean())


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018) outside the person; its backbone comes from torchvision's hub."""

    def __init__(self, backbone: str = "alex") -> None:
        """Load it.

        Raises:
            CounterpoiseError: the backbone's weights can neither be found in the cache nor be downloaded.
        """
        _metrics()
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        try:
            self.metric = LearnedPerceptualImagePatchSimilarity(net_type=backbone, normalize=True)  # type: ignore[arg-type]
        except Exception as error:
            raise CounterpoiseError(
                f"LPIPS: the weights of {backbone} cannot be had ({type(error).__name__}); put them into torch's hub cache"
            ) from error

    @torch.inference_mode()
    def outside(self, first: Image.Image, second: Image.Image, person: Mask) -> float:
        """Return the distance of two pictures with `person` (height, width) blackened in both."""
        keep = torch.from_numpy(~person).float()
        return float(self.metric(_pixels(first) * keep, _pixels(second) * keep))


class Structure:
    """Structure distance (Tumanyan et al. 2022, equation 3): do patches resemble each other alike in both pictures?"""

    def __init__(self, model: str = "facebook/dino-vitb8", layer: int = -1) -> None:
        """Load the vision transformer.

        Args:
            model: a hub id or folder of a transformers ViT; DINO's is what PIE-Bench uses.
            layer: whose keys are compared.

        Raises:
            CounterpoiseError: it cannot be had.
        """
        from transformers import ViTModel

        try:
            self.model = ViTModel.from_pretrained(model, add_pooling_layer=False).eval()
        except Exception as error:
            raise CounterpoiseError(
                f"structure distance: {model!r} cannot be loaded ({type(error).__name__}); give a folder with a ViT"
            ) from error
        self.keys: list[Tensor] = []
        last = [
            part
            for name, part in self.model.named_modules()
            if name.endswith(("attention.key", "attention.k_proj"))
        ]
        last[layer].register_forward_hook(lambda _, __, found: self.keys.append(found))

    @torch.inference_mode()
    def distance(self, first: Image.Image, second: Image.Image) -> float:
        """Return the mean squared difference of the key self-similarities (patches x patches) of two pictures."""
        one, two = (self._similarity(image) for image in (first, second))
        return float((one - two).square().mean())

    def _similarity(self, image: Image.Image) -> Tensor:
        side = self.model.config.image_size
        pixels = functional.interpolate(_pixels(image), size=(side, side), mode="bicubic", antialias=True)
        mean, std = (
            torch.tensor(part).view(1, 3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        self.keys.clear()
        self.model((pixels - mean) / std)
        keys = functional.normalize(self.keys.pop()[0], dim=-1)
        return keys @ keys.T


def _pixels(image: Image.Image) -> Tensor:
    """Return (1, 3, height, width) in [0, 1]."""
    values = np.asarray(image.convert("RGB"), np.float32) / 255
    return torch.from_numpy(values).permute(2, 0, 1)[None]


def mean_of(values: Sequence[float | None]) -> float:
    """Return the mean of the finite numbers; NaN where there are none."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
