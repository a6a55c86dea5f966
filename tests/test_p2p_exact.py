"""Ours against explicit maps over whole samplings: every edit type and combination, final latents compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from explicit_p2p import explicit_latents
from tiny_sdxl import save_tiny

from generators.engine import SetRequest
from generators.plan import Member
from generators.sdxl import SdxlEngine
from generators.spec import Edit, LocalBlend, Sampler

TOLERANCE = 2e-4  # sums over other rows than before differ in the last bits, which ten steps multiply
PROMPTS = {
    "replace": ("A photo of a White man in a garden", "A photo of a Black man in a garden"),
    "uneven": ("A photo of a chef in a garden", "A photo of an anaesthesiologist in a garden"),
    "refine": ("A photo of a White man", "A photo of a Middle Eastern man with glasses"),
    "glasses": ("A photo of a White man in a garden", "A photo of a Black man with glasses in a garden"),
    "adjacent": ("A photo of a White man in a garden", "A photo of a Black woman in a garden"),
    "same": ("A photo of a smiling man", "A photo of a smiling man"),
}
SLOW = {"default": 0.8, "edited": 0.4}
CASES: dict[str, tuple[str, Edit]] = {
    "replace": ("replace", Edit(kind="replace", cross_replace=SLOW)),
    "replace of unequal tokens": ("uneven", Edit(kind="replace", cross_replace=SLOW)),
    "refine": ("refine", Edit(kind="refine", cross_replace=SLOW)),
    "reweight": ("same", Edit(reweight={"smiling": 3.0}, cross_replace={"default": 1.0, "edited": 1.0})),
    "replace and reweight": ("replace", Edit(reweight={"edited": 2.0, "garden": -1.0}, cross_replace=SLOW)),
    "refine and reweight": ("refine", Edit(reweight={"man": 2.5}, cross_replace=SLOW)),
    "reweight of a new word": ("refine", Edit(reweight={"edited": 3.0, "glasses": -2.0}, cross_replace=SLOW)),
    "adjacent words": ("adjacent", Edit(cross_replace=SLOW)),
    "per-word schedules": (
        "replace",
        Edit(cross_replace={"default": 0.7, "edited": 0.2, "garden": 0.5, "man": 0.0}),
    ),
    "self-attention limit": ("replace", Edit(self_replace=0.6, self_resolution=8)),
    "conditional half": ("refine", Edit(halves="conditional", cross_replace=SLOW, self_replace=0.5)),
    "reweight of a new word alone": (
        "refine",
        Edit(
            kind="refine",
            reweight={"edited": 3.0},
            cross_replace={"default": 0.2, "edited": 0.8},
            self_replace=0.0,
        ),
    ),
    "a default alone": ("replace", Edit(cross_replace={"default": 0.5})),
    "swapped beside new": ("glasses", Edit(cross_replace=SLOW)),
    "nothing": ("replace", Edit(cross_replace={"default": 0.0, "edited": 0.0}, self_replace=0.0)),
    "all": ("replace", Edit(cross_replace={"default": 1.0, "edited": 1.0}, self_replace=1.0)),
}
BLENDS = {
    "replace": ("replace", Edit(cross_replace=SLOW, local_blend=LocalBlend(("edited", "man"), 0.4, 0.2))),
    "refine": ("refine", Edit(cross_replace=SLOW, local_blend=LocalBlend(("man",), 0.6, 0.3))),
    "reweight": ("same", Edit(reweight={"smiling": 2.0}, local_blend=LocalBlend(("man",), 0.5, 0.0))),
    "coarse maps": (
        "replace",
        Edit(halves="conditional", local_blend=LocalBlend(("man",), 0.5, 0.1, resolution=8)),
    ),
}
FLAT = {"replace": 0.99, "refine": 0.99, "reweight": 0.99, "coarse maps": 0.99}


@pytest.fixture(scope="module", params=["random", "embedded"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SdxlEngine]:
    torch.set_num_threads(1)
    model = (
        "embedded" if request.param == "embedded" else str(save_tiny(tmp_path_factory.mktemp("m") / "tiny"))
    )
    yield SdxlEngine(model, device="cpu")


def a_request(words: str, edit: Edit, guidance: float = 3.0) -> SetRequest:
    base, edited = PROMPTS[words]
    values = ["White", "Black"] if words == "replace" else ["same", "same"]
    axis = "race" if words == "replace" else "other"
    members = (
        Member(0, {axis: values[0]}, base, "", 0, ""),
        Member(1, {axis: values[1]}, edited, "", 0, ""),
        Member(2, {axis: values[0]}, base.replace("photo", "picture"), "", 2, ""),
    )
    return SetRequest(members, 7, Sampler(steps=10, guidance=guidance, scheduler="ddim"), edit)


def far(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())


@pytest.mark.parametrize("case", CASES)
def test_ten_steps_end_where_explicit_maps_end(engine: SdxlEngine, case: str) -> None:
    request = a_request(*CASES[case])
    ours = engine.latents(request)
    assert far(ours, explicit_latents(engine, request)) < 1e-4
    plain = engine.latents(replace(request, edit=Edit(p2p=False)))
    assert far(ours[[0, 2]], plain[[0, 2]]) < 1e-4, "bases are sampled plainly"
    assert (far(ours[1], plain[1]) > 1e-3) == (case != "nothing"), "the edit must do something"


def test_without_guidance_too(engine: SdxlEngine) -> None:
    request = a_request(*CASES["refine and reweight"], guidance=1.0)
    assert far(engine.latents(request), explicit_latents(engine, request)) < 1e-4


@pytest.mark.parametrize("scheduler", ["euler", "euler_ancestral", "dpmpp", "lcm"])
def test_other_samplers_too(engine: SdxlEngine, scheduler: str) -> None:
    """Those that draw noise in every step give all members the same."""
    request = a_request(*CASES["refine"])
    request = replace(request, sampler=replace(request.sampler, scheduler=scheduler))
    assert far(engine.latents(request), explicit_latents(engine, request)) < 1e-4


@pytest.mark.parametrize("chunk", [None, 2])
def test_a_family_of_different_edits_whose_base_comes_last(engine: SdxlEngine, chunk: int | None) -> None:
    words = ("Black", "Middle Eastern", "Asian old", "White")
    members = tuple(
        Member(k, {"race": word}, f"A photo of a {word} man in a garden", "", 3, "")
        for k, word in enumerate(words)
    )
    sampler = Sampler(steps=10, guidance=3.0, scheduler="ddim", chunk=chunk)
    request = SetRequest(members, 7, sampler, Edit(cross_replace=SLOW))
    ours = engine.latents(request)
    assert far(ours, explicit_latents(engine, request)) < 1e-4
    assert min(far(ours[a], ours[b]) for a in range(4) for b in range(a)) > 1e-2, "no two rows are alike"


@pytest.mark.parametrize("case", BLENDS)
def test_local_blend_in_float64(engine: SdxlEngine, case: str) -> None:
    words, edit = BLENDS[case]
    if engine.model != "embedded" and edit.local_blend:  # random maps are nearly flat
        edit = replace(edit, local_blend=replace(edit.local_blend, threshold=FLAT[case]))
    request, pipe = a_request(words, edit), engine.pipe
    parts, own = (pipe.unet, pipe.text_encoder, pipe.text_encoder_2), engine.dtype
    for part in parts:
        part.to(torch.float64)
    engine.dtype = torch.float64
    try:
        ours, explicit = engine.latents(request), explicit_latents(engine, request)
        free = engine.latents(replace(request, edit=replace(request.edit, local_blend=None)))
    finally:
        engine.dtype = own
        for part in parts:
            part.to(torch.float32)
    assert ours.dtype == torch.float64 and far(ours, explicit) < 1e-4
    kept = (ours[1] == ours[0]).all(0)
    assert 0 < kept.float().mean() < 1, "some places are the base's, others are not"
    assert far(ours, free) > 1e-3


@pytest.mark.parametrize("case", ["refine", "conditional half"])
def test_a_member_is_the_same_whichever_way_the_set_is_chunked(engine: SdxlEngine, case: str) -> None:
    request = a_request(*CASES[case])
    first = request.members[1]
    members = (*request.members, *(replace(first, index=k) for k in (3, 4)))
    whole = engine.latents(replace(request, members=members))
    assert far(whole[1], whole[3]) < TOLERANCE and far(whole[1], whole[4]) < TOLERANCE
    swapped = replace(
        request, members=(*members[:3], replace(members[4], index=3), replace(members[3], index=4))
    )
    sizes = (2, 3) if case == "refine" else (2,)
    for chunk in sizes:
        chunked = replace(request, members=members, sampler=replace(request.sampler, chunk=chunk))
        found = engine.latents(chunked)
        assert far(found, whole) < TOLERANCE
        assert torch.equal(found, engine.latents(chunked)), "bit-identical for a fixed chunk size"
        again = engine.latents(replace(swapped, sampler=chunked.sampler))
        assert far(found[3:], again[[4, 3]]) < TOLERANCE, "whichever place of a chunk a member has"
        assert chunk > 2 or torch.equal(found[3:], again[[4, 3]]), (
            "to the bit where all chunks are of one size"
        )
