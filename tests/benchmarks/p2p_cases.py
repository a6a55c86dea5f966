"""What the benchmark of prompt-to-prompt runs: each case as a function of the method, "plain", "explicit" or "ours"."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from explicit_p2p import ExplicitStep, explicit_core, explicit_latents

from generators.engine import SetRequest
from generators.p2p.align import Alignment
from generators.p2p.attention import Control, FollowBase, attend
from generators.p2p.blend import Blend, WordMaps
from generators.p2p.formulas import injected_values, kept_values
from generators.p2p.install import attention_edit
from generators.p2p.plan import EditPlan, make_plan, with_empty_half
from generators.paperdolls.evaluation import BLEND
from generators.paperdolls.proof import spec as proof_spec
from generators.plan import make_plan as plan_sets
from generators.plan import members
from generators.sdxl import SdxlEngine
from generators.spec import Edit, Sampler

Run = Callable[[], object]
#: A step of the first 40 % of the CMSC schedule, where every word follows, and one of the rest, where two tokens do not.
EARLY, LATE = 0, 9
SDXL = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "attention_head_dim": (5, 10, 20),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816, "use_linear_projection": True,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Attributes:
        part: a key of `PARTS`.
        pixels: queries of the attention; 0 where the whole model runs.
        heads: how many, of 64 channels.
        edits: of one base.
    """

    part: str
    pixels: int
    heads: int
    edits: int

    @property
    def map_bytes(self) -> int:
        """What two copies of every map take in float32: scores and their softmax."""
        keys = self.pixels if self.part.startswith("self") else 77
        return 8 * (self.edits + 1) * self.heads * self.pixels * keys

    def make(self, method: str) -> Run:
        """Prepare the inputs; what is returned does the work once."""
        return PARTS[self.part](method, self)


def a_plan(edits: int, guided: bool) -> EditPlan:
    """One base and its edits under the CMSC spec's schedule: one word of two tokens changes; 10 steps."""
    eye = np.eye(77, dtype=np.float32)
    share = np.ones(77, np.float32)
    share[5:7] = 0.4
    one = Alignment(eye, share, np.ones(77, np.float32), (5, 6), (5, 6))
    plan = make_plan([0] * (edits + 1), [None, *[one] * edits], self_share=0.4, pooled_share=0.4, steps=10)
    return with_empty_half(plan, "both", 1.0) if guided else plan


def drawn(seed: int, *shape: int) -> Tensor:
    """Normal numbers; fewer rows of the same seed are the first of more."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def self_core(method: str, case: Case) -> Run:
    """Self-attention of one family without its projections, float32; ours has queries and keys of the base alone."""
    rows = case.edits + 1
    needed = 1 if method == "ours" else rows
    query, key, value = (
        drawn(k, n, case.heads, case.pixels, 64) for k, n in enumerate((needed, needed, rows))
    )
    step = a_plan(case.edits, guided=False).at(EARLY)
    every = list(range(rows))
    return {
        "plain": lambda: functional.scaled_dot_product_attention(query, key, value),
        "explicit": lambda: explicit_core(query, key, value, step, is_cross=False),
        "ours": lambda: attend(query, key, [0], value[:1], {0: every[1:]}, value, None),
    }[method]


def cross_core(method: str, case: Case, now: int) -> Run:
    """Cross-attention of one family without its projections, float32; moving the controller to the values is ours' part."""
    step = a_plan(case.edits, guided=False).at(now)
    rows, own = case.edits + 1, list(step.own)
    needed = len(own) if method == "ours" else rows
    query, key = drawn(0, needed, case.heads, case.pixels, 64), drawn(1, needed, case.heads, 77, 64)
    value = drawn(2, rows, 77, case.heads * 64)
    followed = {base: edits for base, edits in step.families.items() if edits}

    def heads(values: Tensor) -> Tensor:
        return values.unflatten(-1, (case.heads, 64)).transpose(1, 2)

    def ours() -> Tensor:
        kept = heads(kept_values(value[own], step.kept[own]))
        return attend(query, key, own, kept, followed, heads(injected_values(value, step.moved)), None)

    return {
        "plain": lambda: functional.scaled_dot_product_attention(query, key, heads(value)),
        "explicit": lambda: explicit_core(query, key, heads(value), step, is_cross=True),
        "ours": ours,
    }[method]


def layer(method: str, case: Case, now: int = EARLY, is_cross: bool = False, maps: bool = False) -> Run:
    """A whole attention layer of one family, with its projections, float32; `maps` sums word maps for a local blend."""
    torch.manual_seed(0)
    width, rows = case.heads * 64, case.edits + 1
    attn = Attention(width, cross_attention_dim=2048 if is_cross else None, heads=case.heads, dim_head=64)
    control = Control()
    control.step = a_plan(case.edits, guided=False).at(now)
    if maps:
        marks, side = torch.zeros(rows, 77), round(case.pixels**0.5)
        marks[:, 5:7] = 1
        control.maps = WordMaps(Blend(marks, (side, side), 0.3, 0, rows))
    processors = {
        "plain": AttnProcessor2_0(),
        "explicit": ExplicitStep(control),
        "ours": FollowBase(control, is_cross),
    }
    attn.processor = processors[method]
    hidden = drawn(3, rows, case.pixels, width)
    context = drawn(4, rows, 77, 2048) if is_cross else None
    return lambda: attn(hidden, encoder_hidden_states=context)


@cache
def big_unet() -> UNet2DConditionModel:
    """SDXL's UNet with 2.6 B random parameters, bfloat16, without the cost of initialising them."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL).to(torch.bfloat16)
    unet.to_empty(device="cpu")
    noise = drawn(0, 1 << 22).mul_(0.02).to(torch.bfloat16)
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if value.dim() == 1:
                value.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                flat = value.view(-1)
                for start in range(0, len(flat), len(noise)):
                    flat[start : start + len(noise)] = noise[: len(flat) - start]
    return unet.eval()


def unet_step(method: str, case: Case, now: int, side: int = 64) -> Run:
    """One step with guidance of SDXL's whole UNet, bfloat16; a set of one base and its edits at 8 `side` px."""
    unet, rows = big_unet(), 2 * (case.edits + 1)
    given = drawn(0, 1, 4, side, side).expand(rows, -1, -1, -1).to(torch.bfloat16)
    tokens = drawn(1, rows, 77, 2048).to(torch.bfloat16)
    added = {
        "text_embeds": drawn(2, rows, 1280).to(torch.bfloat16),
        "time_ids": torch.full((rows, 6), 8.0 * side),
    }
    step = a_plan(case.edits, guided=True).at(now)

    def run() -> Tensor:
        with torch.inference_mode(), attention_edit(unet) as control:
            control.step = step
            if method != "ours":
                kind = AttnProcessor2_0() if method == "plain" else ExplicitStep(control)
                unet.set_attn_processor(dict.fromkeys(unet.attn_processors, kind))
            return unet(given, 500, tokens, added_cond_kwargs=added, return_dict=False)[0]

    return run


@cache
def shipped() -> SdxlEngine:
    """The model that ships."""
    return SdxlEngine("embedded", device="cpu")


def sampling(method: str, blend: bool) -> Run:
    """A whole set of 24 on the shipped model, ten DDIM steps, float32; plain is diffusers' own pipeline."""
    edit = Edit(local_blend=BLEND if blend else None)
    chosen = proof_spec(1, Sampler(steps=10, guidance=3.0, scheduler="ddim"), edit)
    planned = plan_sets(chosen)[0]
    request = SetRequest(tuple(members(chosen, planned)), planned.seed, chosen.sampler, chosen.edit)
    engine = shipped()

    def plain() -> object:
        pipe = engine.pipe
        own, pipe.scheduler = pipe.scheduler, engine.scheduler(request.sampler)
        try:
            return pipe(
                list(request.prompts), num_inference_steps=10, guidance_scale=3.0, output_type="latent"
            )
        finally:
            pipe.scheduler = own

    return {
        "plain": plain,
        "explicit": lambda: explicit_latents(engine, request),
        "ours": lambda: engine.latents(request),
    }[method]


PARTS: dict[str, Callable[[str, Case], Run]] = {
    "self, core": self_core,
    "self, layer": layer,
    "cross, core, early": lambda method, case: cross_core(method, case, EARLY),
    "cross, core, late": lambda method, case: cross_core(method, case, LATE),
    "cross, layer, early": lambda method, case: layer(method, case, EARLY, True),
    "cross, layer, late": lambda method, case: layer(method, case, LATE, True),
    "cross, layer, late, word maps": lambda method, case: layer(method, case, LATE, True, True),
    "UNet step, early": lambda method, case: unet_step(method, case, EARLY),
    "UNet step, late": lambda method, case: unet_step(method, case, LATE),
    "sampling": lambda method, _: sampling(method, blend=False),
    "sampling, local blend": lambda method, _: sampling(method, blend=True),
}
