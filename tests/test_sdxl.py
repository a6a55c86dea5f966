"""The engine on a random SDXL of the real classes: sets, chunks, sameness, and folders that it must refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sdxl import save_tiny

from flows.settings import load_spec
from generators.edits import chunks
from generators.engine import SetRequest
from generators.memory import PEAK_MAPS
from generators.p2p.words import AlignmentError
from generators.plan import Member, make_plan, members
from generators.sdxl import SdxlEngine
from generators.spec import Edit, LocalBlend, Preview, Sampler
from generators.weights import ModelError

SAMPLER = Sampler(steps=3, guidance=3.0, scheduler="ddim")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def engine(folder: Path) -> SdxlEngine:
    torch.set_num_threads(1)
    return SdxlEngine(str(folder), device="cpu")


def a_set(**changes: object) -> SetRequest:
    spec = load_spec("demo")
    return replace(SetRequest(tuple(members(spec, make_plan(spec)[0])), 5, SAMPLER, Edit()), **changes)  # type: ignore[arg-type]


def arrays(images: list) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


def test_a_set_has_24_pictures_of_the_models_own_size(engine: SdxlEngine) -> None:
    images = engine.generate(a_set())
    assert len(images) == 24
    assert {image.size for image in images} == {(64, 64)}
    assert {image.mode for image in images} == {"RGB"}


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(engine: SdxlEngine) -> None:
    first, again, other = (arrays(engine.generate(a_set(seed=seed))) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("scheduler", ["ddim", "euler_ancestral", "lcm"])
def test_members_share_one_noise_whatever_the_chunks(engine: SdxlEngine, scheduler: str) -> None:
    twin = Member(0, {}, "A photo of a man", "A photo of a person", 0, "")
    for chunk in (None, 2):
        sampler = replace(SAMPLER, scheduler=scheduler, chunk=chunk)
        twins = tuple(replace(twin, index=k, base=k) for k in range(3))
        made = arrays(engine.generate(a_set(members=twins, sampler=sampler)))
        assert np.abs(made - made[0]).max() <= 1


def test_a_request_in_fewer_steps_is_the_same_set(engine: SdxlEngine) -> None:
    """What a preview looks at: close to the picture in all its steps, and cheaper."""
    request = a_set(sampler=replace(SAMPLER, steps=8))
    few = request.as_preview(Preview(2))
    assert few == replace(request, sampler=replace(request.sampler, steps=2, scheduler="dpmpp"))
    whole, seen, other = (arrays(engine.generate(one)) for one in (request, few, replace(few, seed=6)))
    assert 0 < np.abs(seen - whole).mean() < np.abs(other - whole).mean() / 2


def test_edits_differ_from_their_base_and_from_plain_sampling(engine: SdxlEngine) -> None:
    request = a_set()
    edited, plain = (
        arrays(engine.generate(request)),
        arrays(engine.generate(replace(request, edit=Edit(p2p=False)))),
    )
    bases = [member.base == member.index for member in request.members]
    assert np.array_equal(edited[bases], plain[bases]), "bases are sampled plainly"
    for member in request.members:
        if member.base != member.index:
            assert not np.array_equal(edited[member.index], edited[member.base])
            assert not np.array_equal(edited[member.index], plain[member.index])


@pytest.mark.parametrize("chunk", [2, 6, 7])
def test_chunks_give_the_same_pictures(engine: SdxlEngine, chunk: int) -> None:
    whole = arrays(engine.generate(a_set()))
    parts = arrays(engine.generate(a_set(sampler=replace(SAMPLER, chunk=chunk))))
    assert np.abs(whole - parts).max() <= 1


def test_chunks_of_a_local_blend_differ_at_its_edge_alone(engine: SdxlEngine) -> None:
    blend = Edit(local_blend=LocalBlend(("gender",), 0.99, 0.0))  # random maps are flat
    whole, parts, plain = (
        arrays(engine.generate(a_set(edit=edit, sampler=replace(SAMPLER, chunk=chunk))))
        for edit, chunk in ((blend, None), (blend, 2), (Edit(), None))
    )
    apart = np.abs(whole - parts).max(-1) > 1
    assert apart.mean() < 0.02, "a map may lie at the threshold"
    assert (np.abs(whole - plain).max(-1) > 1).mean() > 5 * apart.mean()


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_guidance_up_to_one_is_none(engine: SdxlEngine, guidance: float) -> None:
    """As diffusers has it, and as few-step models are used: the prompt counts, the empty one does not."""

    def made(words: str, negative: str, strength: float) -> np.ndarray:
        members = (Member(0, {}, words, "A photo of a person", 0, ""),)
        sampler = replace(SAMPLER, guidance=strength, negative_prompt=negative)
        return arrays(engine.generate(a_set(members=members, sampler=sampler)))

    one = made("a man", "", guidance)
    assert np.array_equal(one, made("a man", "a dog", guidance)), "nothing is guided away from"
    assert np.array_equal(one, made("a man", "", 1.0))
    assert not np.array_equal(one, made("a cat in a red car", "", guidance))


def test_a_model_with_guidance_distilled_into_its_steps_is_refused(folder: Path) -> None:
    engine = SdxlEngine(str(folder), device="cpu")
    engine.pipe.unet.register_to_config(time_cond_proj_dim=256)
    with pytest.raises(ModelError, match="time_cond_proj_dim"):
        engine.check(a_set())


def test_a_memory_budget_decides_the_chunk(engine: SdxlEngine) -> None:
    """The tiny model: 16 x 16 latents, 16 channels, 4 bytes, both halves of the guidance: 1 MB a member."""
    weights = sum(
        value.numel() * 4  # float32
        for part in (engine.pipe.unet, engine.pipe.vae, engine.pipe.text_encoder, engine.pipe.text_encoder_2)
        for value in part.parameters()
    )
    member = 2 * PEAK_MAPS * 16 * 16 * 16 * 4
    for members_fit in (2, 5):
        sampler = replace(SAMPLER, memory_gb=(weights + (members_fit + 0.5) * member) / 1e9)
        assert engine._chunk(sampler) == members_fit
    whole = arrays(engine.generate(a_set()))
    assert np.abs(arrays(engine.generate(a_set(sampler=sampler))) - whole).max() <= 1
    with pytest.raises(ModelError, match=r"sampler\.memory_gb: given 0\.001, wanted at least"):
        engine.check(a_set(sampler=replace(SAMPLER, memory_gb=0.001)))


@pytest.mark.parametrize(("height", "width"), [(136, 88), (64, 96), (72, 40)])
def test_local_blend_at_sizes_that_do_not_halve_evenly(engine: SdxlEngine, height: int, width: int) -> None:
    sampler = replace(SAMPLER, height=height, width=width)
    blended = Edit(local_blend=LocalBlend(("edited",), 0.99, 0.0))
    images = engine.generate(a_set(sampler=sampler, edit=blended))
    assert {image.size for image in images} == {(width, height)}


def test_blend_words_and_resolutions_that_there_are_not_are_refused_before_any_work(
    engine: SdxlEngine,
) -> None:
    for blend, words in (
        (LocalBlend(("sword",)), r"'sword' is not in the prompt"),
        (LocalBlend(resolution=5), r"resolution: given 5, wanted one of \[8\]"),
    ):
        with pytest.raises(AlignmentError, match=words):
            engine.check(a_set(edit=Edit(local_blend=blend)))


def test_steps_that_a_scheduler_cannot_do_are_refused_before_any_work(engine: SdxlEngine) -> None:
    with pytest.raises(ModelError, match=r"sampler\.steps: given 60, which lcm cannot do"):
        engine.check(a_set(sampler=replace(SAMPLER, steps=60, scheduler="lcm")))


def test_chunks_hold_every_member_with_its_base_first() -> None:
    bases = [0, 0, 0, 0, 4, 4, 4, 4]
    for size in (None, 2, 3, 4, 5, 8):
        pieces = chunks(bases, size)
        assert {row for piece in pieces for row in piece} == set(range(8))
        for piece in pieces:
            assert len(piece) <= (size or 8)
            assert len(piece) == len(set(piece))
            for row in piece:
                assert piece.index(bases[row]) <= piece.index(row)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "euler_ancestral", "dpmpp", "lcm", "model"])
def test_every_scheduler_draws(engine: SdxlEngine, scheduler: str) -> None:
    images = arrays(engine.generate(a_set(sampler=replace(SAMPLER, scheduler=scheduler))))
    assert images.std() > 1


def test_guidance_of_one_costs_no_empty_half_and_still_edits(engine: SdxlEngine) -> None:
    images = arrays(engine.generate(a_set(sampler=replace(SAMPLER, guidance=1.0))))
    assert not np.array_equal(images[0], images[1])


def test_a_negative_prompt_changes_the_picture(engine: SdxlEngine) -> None:
    plain, steered = (
        arrays(engine.generate(a_set(sampler=replace(SAMPLER, negative_prompt=text))))
        for text in ("", "blurred")
    )
    assert not np.array_equal(plain, steered)


def test_the_unet_has_its_own_processors_back(engine: SdxlEngine) -> None:
    before = dict(engine.pipe.unet.attn_processors)
    engine.generate(a_set())
    assert engine.pipe.unet.attn_processors == before


def test_a_prompt_that_is_too_long_is_refused_before_any_work(engine: SdxlEngine) -> None:
    long = Member(0, {}, "A photo of a man " + "very " * 80 + "tired", "", 0, "")
    with pytest.raises(AlignmentError, match="the text encoder takes 75"):
        engine.check(a_set(members=(long,)))


def test_replace_of_two_words_is_refused_before_any_work(engine: SdxlEngine) -> None:
    with pytest.raises(AlignmentError, match="Middle Eastern"):
        engine.check(a_set(edit=Edit(kind="replace")))


def test_describe_says_which_weights_these_are(engine: SdxlEngine, folder: Path) -> None:
    facts = engine.describe()
    assert facts["id"] == str(folder)
    assert len(str(facts["sha256"])) == 64
    assert facts["licence"] == "unknown"


def test_damaged_weights_are_one_line_not_a_traceback(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights = next((copy / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        SdxlEngine(str(copy))
    assert "\n" not in str(caught.value)


def test_another_kind_of_pipeline_is_refused(folder: Path, tmp_path: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(
        ModelError, match="it is a StableDiffusionPipeline, wanted a StableDiffusionXLPipeline"
    ):
        SdxlEngine(str(tmp_path))
