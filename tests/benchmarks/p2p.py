"""What prompt-to-prompt costs: attention at SDXL's shapes, a step of SDXL's whole UNet, a sampling of the shipped model.

Each for plain diffusers sampling of as many pictures, for prompt-to-prompt with every map built, and for ours; medians of
paired repeats with intervals. `python tests/benchmarks/p2p.py [attention] [unet] [sampling]`; all three without a name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from explicit_p2p import ExplicitStep, explicit_core, explicit_latents  # noqa: E402
from timing import Times, paired, peak, peak_of, ratio, reset_peak, shown  # noqa: E402

from generators.engine import SetRequest  # noqa: E402
from generators.p2p.align import Alignment  # noqa: E402
from generators.p2p.attention import Control, FollowBase  # noqa: E402
from generators.p2p.formulas import one_softmax  # noqa: E402
from generators.p2p.install import attention_edit  # noqa: E402
from generators.p2p.plan import EditPlan, StepPlan, make_plan, with_empty_half  # noqa: E402
from generators.paperdolls.proof import spec as proof_spec  # noqa: E402
from generators.plan import make_plan as plan_sets  # noqa: E402
from generators.plan import members  # noqa: E402
from generators.sdxl import SdxlEngine  # noqa: E402
from generators.spec import Edit, Sampler  # noqa: E402

SHAPES = {"1024 x 20": (1024, 20), "4096 x 10": (4096, 10)}
EDITS = (1, 3, 7, 23)
SDXL = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "attention_head_dim": (5, 10, 20),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816, "use_linear_projection": True,
}  # fmt: skip


def a_plan(edits: int, guided: bool) -> EditPlan:
    """One base and its edits under the CMSC spec's schedule: one word of two tokens changes; 10 steps."""
    import numpy as np

    eye = np.eye(77, dtype=np.float32)
    share = np.ones(77, np.float32)
    share[5:7] = 0.4
    one = Alignment(eye, share, np.ones(77, np.float32), (5, 6), (5, 6))
    plan = make_plan([0] * (edits + 1), [None, *[one] * edits], self_share=0.4, pooled_share=0.4, steps=10)
    return with_empty_half(plan, "both", 1.0) if guided else plan


def core(method: str, pixels: int, heads: int, edits: int) -> Callable[[], object]:
    """Self-attention of one family without its projections, float32."""
    rows = edits + 1
    needed = 1 if method == "ours" else rows
    query, key, value = (
        torch.randn(count, heads, pixels, 64, generator=torch.Generator().manual_seed(k))
        for k, count in enumerate((needed, needed, rows))
    )
    step = a_plan(edits, guided=False).at(0)
    return {
        "plain": lambda: functional.scaled_dot_product_attention(query, key, value),
        "explicit": lambda: explicit_core(query, key, value, step, is_cross=False),
        "ours": lambda: one_softmax(query[0], key[0], list(value)),
    }[method]


def layer(
    method: str, pixels: int, heads: int, edits: int, now: int = 0, is_cross: bool = False
) -> Callable[[], object]:
    """A whole attention layer of one family, with its projections, float32."""
    torch.manual_seed(0)
    attn = Attention(heads * 64, cross_attention_dim=2048 if is_cross else None, heads=heads, dim_head=64)
    control = Control()
    control.step = a_plan(edits, guided=False).at(now)
    processors = {
        "plain": AttnProcessor2_0(),
        "explicit": ExplicitStep(control),
        "ours": FollowBase(control, is_cross),
    }
    attn.processor = processors[method]
    hidden = torch.randn(edits + 1, pixels, heads * 64)
    context = torch.randn(edits + 1, 77, 2048) if is_cross else None
    return lambda: attn(hidden, encoder_hidden_states=context)


def attention(repeats: int) -> list[bool]:
    """Print table (a); returns whether its bars are met."""
    table = Table(
        "part", "tokens x heads", "edits", "plain s", "explicit / plain", "ours / plain", "explicit / ours",
        "peak plain MB", "ours / plain", title="(a) self-attention of one family, float32, medians (95 % interval)",
    )  # fmt: skip
    bars = []
    for part, make in (("core", core), ("layer", layer)):
        for name, (pixels, heads) in SHAPES.items():
            for edits in EDITS:
                if name == "4096 x 10" and edits == 23:
                    continue  # explicit maps alone would take 32 GB
                times = paired({method: make(method, pixels, heads, edits) for method in ("plain", "explicit", "ours")},
                               repeats if pixels < 4096 else max(3, repeats // 3))  # fmt: skip
                ours, faster = ratio(times["ours"], times["plain"]), ratio(times["explicit"], times["ours"])
                memory = [
                    peak_of(__file__, part, method, str(pixels), str(heads), str(edits))
                    for method in ("plain", "ours")
                ]
                table.add_row(
                    part, name, str(edits), f"{_median(times, 'plain'):.3f}",
                    shown(ratio(times["explicit"], times["plain"])), shown(ours), shown(faster),
                    f"{memory[0] / 1e6:.0f}", f"{memory[1] / memory[0]:.2f}",
                )  # fmt: skip
                if part == "core" and edits == 7:
                    bars += [ours[0] <= (0.85 if pixels == 1024 else 1.05), faster[0] >= 4]
                bars.append(memory[1] <= 1.1 * memory[0])
    Console(width=160).print(table)
    return bars


def _median(times: Times, name: str) -> float:
    return sorted(times[name])[len(times[name]) // 2]


def big_unet() -> UNet2DConditionModel:
    """SDXL's UNet with 2.6 B random parameters, bfloat16, without the cost of initialising them."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL).to(torch.bfloat16)
    unet.to_empty(device="cpu")
    noise = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(torch.bfloat16)
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if value.dim() == 1:
                value.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                flat = value.view(-1)
                for start in range(0, len(flat), len(noise)):
                    flat[start : start + len(noise)] = noise[: len(flat) - start]
    return unet.eval()


def unet_step(repeats: int) -> list[bool]:
    """Print table (b); returns whether its bar is met."""
    unet = big_unet()
    rows = 8
    given = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)).expand(rows, -1, -1, -1)
    tokens = torch.randn(rows, 77, 2048, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    added = {
        "text_embeds": torch.randn(rows, 1280).to(torch.bfloat16),
        "time_ids": torch.full((rows, 6), 512.0),
    }
    plan = a_plan(3, guided=True)

    def call(now: StepPlan | None, explicit: bool = False) -> Tensor:
        with torch.inference_mode(), attention_edit(unet) as control:
            own = unet.attn_processors
            control.step = now
            if now is None:
                unet.set_attn_processor({name: AttnProcessor2_0() for name in own})
            elif explicit:
                unet.set_attn_processor({name: ExplicitStep(control) for name in own})
            return unet(given.to(torch.bfloat16), 500, tokens, added_cond_kwargs=added, return_dict=False)[0]

    methods = {
        "plain": lambda: call(None),
        "ours, first 40 %": lambda: call(plan.at(0)),
        "ours, last 60 %": lambda: call(plan.at(9)),
    }
    times = paired(methods, repeats)
    explicit = paired({"explicit": lambda: call(plan.at(0), explicit=True)}, 1)["explicit"]
    early, late = times["ours, first 40 %"], times["ours, last 60 %"]
    times["ours, over the schedule"] = [0.4 * a + 0.6 * b for a, b in zip(early, late, strict=True)]
    table = Table(
        "method", "s a step", "against plain", "TFLOP",
        title=f"(b) one step with guidance, SDXL's UNet ({sum(p.numel() for p in unet.parameters()) / 1e9:.1f} B), "
        "512 px, set of 4, bfloat16",
    )  # fmt: skip
    flops = {name: _tflop(method) for name, method in methods.items()}
    flops["ours, over the schedule"] = 0.4 * flops["ours, first 40 %"] + 0.6 * flops["ours, last 60 %"]
    for name in times:
        against = "" if name == "plain" else shown(ratio(times[name], times["plain"]))
        table.add_row(name, f"{_median(times, name):.2f}", against, f"{flops[name]:.2f}")
    table.add_row(
        "explicit maps, first 40 %", f"{explicit[0]:.2f}", f"{explicit[0] / _median(times, 'plain'):.3f}", ""
    )
    Console(width=160).print(table)
    return [ratio(times["ours, over the schedule"], times["plain"])[2] <= 1.03]


def _tflop(method: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        method()
    return counter.get_total_flops() / 1e12


def sampling(repeats: int) -> list[bool]:
    """Print table (c): a whole set of 24 on the shipped model, ten steps."""
    chosen = proof_spec(1, Sampler(steps=10, guidance=3.0, scheduler="ddim"), Edit())
    planned = plan_sets(chosen)[0]
    request = SetRequest(tuple(members(chosen, planned)), planned.seed, chosen.sampler, chosen.edit)
    engine, free = SdxlEngine("embedded", device="cpu"), replace(request, edit=Edit(p2p=False))
    times = paired(
        {
            "plain": lambda: engine.latents(free),
            "explicit": lambda: explicit_latents(engine, request),
            "ours": lambda: engine.latents(request),
        },
        repeats,
    )
    table = Table(
        "method", "s a set", "against plain", title="(c) a set of 24, ten steps, the shipped model, float32"
    )
    for name, found in times.items():
        against = "" if name == "plain" else shown(ratio(found, times["plain"]))
        table.add_row(name, f"{_median(times, name):.2f}", against)
    Console(width=160).print(table)
    return []


def memory(part: str, method: str, pixels: str, heads: str, edits: str) -> None:
    """Print the bytes at the peak of one run, its inputs among them."""
    make = {"core": core, "layer": layer}[part]
    with torch.inference_mode():
        make(method, 64, int(heads), 1)()
        before = reset_peak()
        result = make(method, int(pixels), int(heads), int(edits))()
        print(peak() - before)
        del result


def main() -> int:
    """Run the parts that were named; exit 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["attention", "unet", "sampling", []], default=[])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", nargs=5, metavar="CASE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.memory:
        memory(*given.memory)
        return 0
    bars: list[bool] = []
    with torch.inference_mode():
        for name, run in (("attention", attention), ("sampling", sampling), ("unet", unet_step)):
            if not given.parts or name in given.parts:
                bars += run(given.repeats)
    print("all bars met" if all(bars) else f"{bars.count(False)} of {len(bars)} bars missed")
    return 0 if all(bars) else 1


if __name__ == "__main__":
    sys.exit(main())
