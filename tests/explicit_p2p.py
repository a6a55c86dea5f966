"""Prompt-to-prompt with every attention map built, written from the paper's equations: what ours must equal.

Nothing of the plan, the processors or the loop is shared with the package; only the alignment of words is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional

from generators.engine import SetRequest
from generators.p2p.attention import Control
from generators.p2p.plan import StepPlan
from generators.plan import derive_seed
from generators.sdxl import SdxlEngine

SCHEDULERS = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "lcm": (LCMScheduler, {"clip_sample": False}),
}


@dataclass
class State:
    """What the processors and the loop tell each other."""

    request: SetRequest
    engine: SdxlEngine
    guided: bool
    step: int = 0
    store: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.edits = self.engine.edits(self.request)
        self.rows = len(self.request.members)
        self.bases = [member.base for member in self.request.members]

    def now(self, share: float) -> bool:
        """t < share x steps, with shares rounded to what people write."""
        return (
            self.step < Fraction(round(float(share), 6)).limit_denominator(10**6) * self.request.sampler.steps
        )


class ExplicitMaps:
    """A_e = alpha c (A_b M) + (1 - alpha) A_e in cross-attention, A_e = A_b in self-attention."""

    def __init__(self, state: State, name: str) -> None:
        self.state, self.name = state, name

    def __call__(
        self, attn: Attention, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        context = hidden if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            part.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for part in (attn.to_q(hidden), attn.to_k(context), attn.to_v(context))
        )
        maps = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        if self.state.request.edit.p2p:
            maps = self._self(maps) if encoder_hidden_states is None else self._cross(maps)
        return attn.to_out[0]((maps @ value).transpose(1, 2).flatten(2))

    def _halves(self, maps: Tensor) -> list[Tensor]:
        return list(maps.split(self.state.rows))

    def _self(self, maps: Tensor) -> Tensor:
        edit, pixels = self.state.request.edit, maps.shape[-1]
        small = edit.self_resolution is None or pixels <= edit.self_resolution**2
        if not (small and self.state.now(edit.self_replace)):
            return maps
        halves = self._halves(maps)
        chosen = range(len(halves)) if edit.halves == "both" else [len(halves) - 1]
        for k in chosen:
            halves[k] = halves[k][self.state.bases]
        return torch.cat(halves)

    def _cross(self, maps: Tensor) -> Tensor:
        edit, halves = self.state.request.edit, self._halves(maps)
        if (
            len(halves) == 2
            and edit.halves == "both"
            and self.state.now(edit.cross_replace.get("default", 1.0))
        ):
            halves[0] = halves[0][self.state.bases]
        base, asked = halves[-1], halves[-1].clone()
        for row, alignment in enumerate(self.state.edits.alignments):
            if alignment is not None:
                alpha = torch.tensor([float(self.state.now(share)) for share in alignment.share]).to(base)
                mapper, scale = (
                    torch.from_numpy(part).to(base) for part in (alignment.mapper, alignment.scale)
                )
                known = (mapper.sum(0) > 0).to(base)
                refined = known * (base[self.state.bases[row]] @ mapper) + (1 - known) * base[row]
                asked[row] = alpha * scale * refined + (1 - alpha) * base[row]
        halves[-1] = asked
        self._keep(asked)
        return torch.cat(halves)

    def _keep(self, asked: Tensor) -> None:
        marks = torch.zeros(self.state.rows, asked.shape[-1]).to(asked)
        for row, tokens in enumerate(self.state.edits.marks):
            marks[row, list(tokens)] = 1
        words = (asked * marks[:, None, None]).sum(-1).mean(1)
        self.state.store[self.name] = self.state.store.get(self.name, 0) + words


class ExplicitStep:
    """The same for one layer alone, from what a step's plan says; for benchmarks."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def __call__(
        self, attn: Attention, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        context = hidden if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            part.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for part in (attn.to_q(hidden), attn.to_k(context), attn.to_v(context))
        )
        maps = explicit_maps(query, key, self.control.step, encoder_hidden_states is not None)
        if self.control.maps is not None and encoder_hidden_states is not None:
            self.control.maps.add((maps * self.control.maps.marks[:, None, None]).sum(-1))
        return attn.to_out[0]((maps @ value).transpose(1, 2).flatten(2))


def explicit_maps(query: Tensor, key: Tensor, step: StepPlan | None, is_cross: bool) -> Tensor:
    """Every row's map (U, H, P, T), replaced as the step's plan says."""
    maps = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
    if step is not None:
        for row, base in enumerate(step.base):
            if row != base and not is_cross and step.follow_self:
                maps[row] = maps[base]
            elif row != base and is_cross:
                maps[row] = maps[base] @ step.moved[row].to(maps) + maps[row] * step.kept[row].to(maps)
    return maps


def explicit_core(query: Tensor, key: Tensor, value: Tensor, step: StepPlan | None, is_cross: bool) -> Tensor:
    """Attention with every row's map built."""
    return explicit_maps(query, key, step, is_cross) @ value


def explicit_latents(engine: SdxlEngine, request: SetRequest) -> Tensor:
    """Sample a request, every map built; final latents (R, C, h, w)."""
    pipe, sampler, edit = engine.pipe, request.sampler, request.edit
    guided, rows = sampler.guidance > 1, len(request.members)
    state = State(request, engine, guided)
    asked, empty, pooled, pooled_empty = pipe.encode_prompt(
        request.prompts, do_classifier_free_guidance=guided
    )
    side = pipe.unet.config.sample_size
    noise = torch.randn(
        (1, pipe.unet.config.in_channels, side, side), generator=torch.Generator().manual_seed(request.seed)
    )
    kind, settings = SCHEDULERS[sampler.scheduler]
    scheduler = kind.from_config(pipe.scheduler.config, **settings)
    scheduler.set_timesteps(sampler.steps)
    latents = noise.to(pipe.unet.dtype).repeat(rows, 1, 1, 1) * scheduler.init_noise_sigma
    seed = derive_seed(request.seed, "sampler")
    own_noise = [torch.Generator().manual_seed(seed) for _ in range(rows)]  # the same for every row
    extra = {} if sampler.scheduler == "ddim" else {"generator": own_noise}
    size = side * pipe.vae_scale_factor
    own = dict(pipe.unet.attn_processors)
    pipe.unet.set_attn_processor({name: ExplicitMaps(state, name) for name in own})
    try:
        with torch.no_grad():
            for state.step, time in enumerate(scheduler.timesteps):
                follows = edit.p2p and state.now(
                    edit.cross_replace.get("edited", edit.cross_replace.get("default", 1.0))
                )
                now = pooled[state.bases] if follows else pooled
                tokens = torch.cat([empty, asked]) if guided else asked
                now = torch.cat([pooled_empty, now]) if guided else now
                ids = torch.tensor([[size, size, 0, 0, size, size]]).repeat(len(tokens), 1)
                given = scheduler.scale_model_input(torch.cat([latents] * (2 if guided else 1)), time)
                found = pipe.unet(
                    given, time, tokens, added_cond_kwargs={"text_embeds": now, "time_ids": ids}
                ).sample
                if guided:
                    found = found[:rows] + sampler.guidance * (found[rows:] - found[:rows])
                latents = scheduler.step(found, time, latents, **extra).prev_sample
                latents = _blended(state, latents)
    finally:
        pipe.unet.set_attn_processor(own)
    return latents


def _side(maps: Tensor) -> int:
    return int(maps.shape[-1] ** 0.5)


def _blended(state: State, latents: Tensor) -> Tensor:
    """x_b + (m_b or m_e) (x_e - x_b), m the words' mean post-edit map so far, spread by 3 x 3, relative to its peak."""
    chosen = state.request.edit.local_blend
    if (
        chosen is None
        or not state.request.edit.p2p
        or state.step < round(chosen.start * state.request.sampler.steps)
    ):
        return latents
    side = latents.shape[-1]
    finest = chosen.resolution or max(s for s in map(_side, state.store.values()) if s <= 32)
    layers = [maps for maps in state.store.values() if maps.shape[-1] == finest**2]
    mean = (sum(layers) / len(layers)).reshape(-1, 1, finest, finest)
    mean = functional.interpolate(functional.max_pool2d(mean, 3, 1, 1), size=(side, side), mode="bilinear")
    masks = mean / mean.amax((2, 3), keepdim=True) > chosen.threshold
    out = latents.clone()
    for row, base in enumerate(state.bases):
        keep = ~(masks[row] | masks[base])
        out[row] = torch.where(keep, latents[base], latents[row])
    return out
