"""The SDXL engine: loads a pipeline of the SDXL family and owns the denoising loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionXLPipeline,
)
from PIL import Image
from torch import Tensor

from .edits import SetEdits, chunks, word_level
from .engine import SetRequest
from .memory import members_that_fit
from .p2p.install import attention_edit, check_layers
from .p2p.sampling import Conditions, Sampling
from .plan import derive_seed
from .spec import Sampler
from .weights import ModelError, describe, model_folder

_SCHEDULERS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
}
#: Latents are unbounded, so DDIM must not clip them; DPM++ must not draw noise of its own.
_FIXED: dict[str, dict[str, Any]] = {
    "ddim": {"clip_sample": False},
    "lcm": {"clip_sample": False},
    "dpmpp": {"algorithm_type": "dpmsolver++"},
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class SdxlEngine:
    """Makes counterfactual sets with an SDXL pipeline and prompt-to-prompt; use one engine per thread or process."""

    def __init__(self, model: str, dtype: str = "float32", device: str | None = None) -> None:
        """Load the pipeline.

        Args:
            model: "embedded", a folder in diffusers' layout, or a hub id.
            dtype: float32, float16 or bfloat16; a CPU always computes in float32.
            device: torch device; the GPU if there is one.

        Raises:
            ModelError: the model is missing, not SDXL, or not safe to load.
        """
        folder = model_folder(model)
        self.model = model
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.float32 if self.device == "cpu" else DTYPES[dtype]
        self._facts = describe(model, folder)
        self.pipe = _load(model, str(folder), self.dtype).to(self.device)
        parts = (self.pipe.unet, self.pipe.vae, self.pipe.text_encoder, self.pipe.text_encoder_2)
        self.parameters = sum(value.numel() for part in parts for value in part.parameters())

    def describe(self) -> Mapping[str, object]:
        """Return what the weights are."""
        return self._facts

    def check(self, request: SetRequest) -> None:
        """Align every edit of a request without computing anything; see `Engine.check`."""
        self.edits(request)
        check_layers(self.pipe.unet)
        if self.pipe.unet.config.time_cond_proj_dim is not None:
            raise ModelError(
                f"model {self.model!r}: guidance is distilled into its time steps (time_cond_proj_dim), which is not "
                "supported; wanted its base model with the LoRA of the same distillation"
            )
        self._chunk(request.sampler)
        self.scheduler(request.sampler)
        if blend := request.edit.local_blend:
            word_level(self._levels(request.sampler), blend.resolution)
        own = type(self.pipe.scheduler)
        if request.sampler.scheduler == "model" and own not in _SCHEDULERS.values():
            raise ModelError(
                f"sampler.scheduler: model, and that of {self.model!r} is {own.__name__}, which may draw noise of its own "
                f"for every member; wanted one of {', '.join(_SCHEDULERS)}"
            )

    def generate(self, request: SetRequest) -> list[Image.Image]:
        """Denoise the members from one noise, the edits following their bases; one RGB picture per member."""
        with self._in_memory(request):
            return self._decode(self.latents(request))

    def latents(self, request: SetRequest) -> Tensor:
        """Return the members' final latents (R, C, h, w)."""
        edits = self.edits(request)
        bases = [member.base if request.edit.p2p else member.index for member in request.members]
        found: dict[int, Tensor] = {}
        with torch.inference_mode(), attention_edit(self.pipe.unet) as control:
            for rows in chunks(bases, self._chunk(request.sampler)):
                made = self._begin(request, rows, edits).run(control)
                found = dict(zip(rows, made, strict=True)) | found
        return torch.stack([found[row] for row in range(len(found))])

    @contextmanager
    def _in_memory(self, request: SetRequest) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"out of memory on {self.device} with {len(request.members)} members in chunks of "
                f"{self._chunk(request.sampler) or 'all'}: lower sampler.chunk or the picture size, or take dtype float16"
            ) from error

    def edits(self, request: SetRequest) -> SetEdits:
        """Align every edit of a request; see `Engine.check`."""
        return SetEdits.of(request, self.pipe.tokenizer)

    def _begin(self, request: SetRequest, rows: Sequence[int], edits: SetEdits) -> Sampling:
        """Prepare the loop for some members, whose bases come first."""
        sampler = request.sampler
        scheduler = self.scheduler(sampler)
        tokens, pooled, guided = self._embed([request.prompts[row] for row in rows], sampler)
        height, width = self._size(sampler)
        ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=tokens.dtype, device=self.device)
        noise = self._noise(request.seed, height, width, len(rows))
        steps = len(scheduler.timesteps)
        plan = edits.plan(rows, steps, guided) if request.edit.p2p else None
        blend = edits.blend(rows, steps, guided, self._levels(request.sampler), self.device) if plan else None
        conditions = Conditions(tokens, pooled, ids, sampler.guidance)
        own_noise = derive_seed(request.seed, "sampler")
        return Sampling(self.pipe.unet, scheduler, noise, conditions, plan, own_noise, blend)

    def _embed(self, prompts: list[str], sampler: Sampler) -> tuple[Tensor, Tensor, bool]:
        """Return token features (halves x rows, T, C), pooled features, and whether guidance is on, as it is above 1."""
        guided = sampler.guidance > 1.0
        asked, empty, pooled, pooled_empty = self.pipe.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=guided,
            negative_prompt=[sampler.negative_prompt] * len(prompts) if sampler.negative_prompt else None,
        )  # fmt: skip
        if not guided:
            return asked, pooled, False
        return torch.cat([empty, asked]), torch.cat([pooled_empty, pooled]), True

    def _size(self, sampler: Sampler) -> tuple[int, int]:
        own = self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor
        return sampler.height or own, sampler.width or own

    def scheduler(self, sampler: Sampler) -> Any:
        """Return a fresh scheduler of the kind that is asked for, its timesteps set."""
        scheduler = _scheduler(self.pipe.scheduler, sampler.scheduler)
        try:
            scheduler.set_timesteps(sampler.steps, device=self.device)
        except ValueError as error:
            raise ModelError(
                f"sampler.steps: given {sampler.steps}, which {sampler.scheduler} cannot do; lower it or take another "
                f"scheduler ({str(error).splitlines()[0]})"
            ) from error
        return scheduler

    def _chunk(self, sampler: Sampler) -> int | None:
        """Return the members of a UNet call, None for the whole set."""
        if sampler.chunk is not None or sampler.memory_gb is None:
            return sampler.chunk
        height, width = (side // self.pipe.vae_scale_factor for side in self._size(sampler))
        channels = self.pipe.unet.config.block_out_channels[0]
        guided = sampler.guidance > 1.0
        itemsize = DTYPES[sampler.dtype].itemsize
        return members_that_fit(
            sampler.memory_gb, self.parameters, height * width, channels, itemsize, guided
        )

    def _levels(self, sampler: Sampler) -> list[tuple[int, int]]:
        """Return height and width of every level of the UNet with cross-attention; the last level always has it."""
        height, width = (side // self.pipe.vae_scale_factor for side in self._size(sampler))
        kinds = self.pipe.unet.config.down_block_types
        return [
            (-(-height // 2**k), -(-width // 2**k))
            for k, kind in enumerate(kinds)
            if "CrossAttn" in kind or k == len(kinds) - 1
        ]

    def _noise(self, seed: int, height: int, width: int, rows: int) -> Tensor:
        """Return one noise (1, C, h, w), drawn on the CPU so that devices agree, for every row alike."""
        scale = self.pipe.vae_scale_factor
        shape = (1, self.pipe.unet.config.in_channels, height // scale, width // scale)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
        return (
            noise.to(self.device, torch.promote_types(self.dtype, torch.float32))
            .expand(rows, -1, -1, -1)
            .clone()
        )

    def _decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode latents one by one, so that a picture does not depend on its neighbours; RGB pictures."""
        vae, own = self.pipe.vae, self.pipe.vae.dtype
        if getattr(vae.config, "force_upcast", False):
            vae.to(torch.float32)
        try:
            with torch.inference_mode():
                pixels = [
                    vae.decode(_unscaled(vae, row[None]).to(vae.dtype), return_dict=False)[0].float()
                    for row in latents
                ]
        finally:
            vae.to(own)
        return self.pipe.image_processor.postprocess(torch.cat(pixels), output_type="pil")


def _load(model: str, folder: str, dtype: torch.dtype) -> Any:
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for each in (diffusers_logging, transformers_logging):
        each.disable_progress_bar()
    try:
        pipe = StableDiffusionXLPipeline.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, add_watermarker=False
        )
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"model {model!r}: cannot be loaded ({reason}); copy the folder again, whole"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _scheduler(own: Any, name: str) -> Any:
    """Return a fresh scheduler for one loop: the named kind with the model's own noise schedule."""
    if name == "model":
        name = next((kind for kind, known in _SCHEDULERS.items() if known is type(own)), name)
    return _SCHEDULERS.get(name, type(own)).from_config(own.config, **_FIXED.get(name, {}))


def _unscaled(vae: Any, latents: Tensor) -> Tensor:
    """Undo the scaling of the latents (and the shift, for autoencoders that have one)."""
    mean, std = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    if mean is not None and std is not None:
        shape = (1, -1, 1, 1)
        shift, spread = (torch.tensor(part, device=latents.device).view(shape) for part in (mean, std))
        return latents * spread / vae.config.scaling_factor + shift
    return latents / vae.config.scaling_factor
