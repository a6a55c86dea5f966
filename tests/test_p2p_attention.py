"""The processors: installed and given back, refused layers, masks, dtypes, slicing, compilation, threads, adapters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, IPAdapterAttnProcessor2_0
from tiny_sdxl import tiny_pipeline
from torch import Tensor, nn

from generators.p2p import formulas
from generators.p2p.align import align
from generators.p2p.attention import Control, FollowBase
from generators.p2p.install import attention_edit, check_layers
from generators.p2p.plan import EditPlan, StepPlan, make_plan, with_empty_half
from generators.p2p.words import split_words
from storage.errors import CounterpoiseError

PROMPTS = [
    "a photo of a White man",
    "a photo of a Black man",
    "a photo of a Middle Eastern man",
    "a belligerent man",
]
BASES = [0, 0, 0, 3]


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionXLPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def plan(pipe: StableDiffusionXLPipeline) -> EditPlan:
    def words(prompt: str):
        return split_words(prompt, lambda text: pipe.tokenizer(text, add_special_tokens=False).input_ids)

    shares = {"default": 0.8, "edited": 0.4}
    pairs = [
        None if base == row else align(words(PROMPTS[base]), words(PROMPTS[row]), "auto", shares)
        for row, base in enumerate(BASES)
    ]
    return with_empty_half(make_plan(BASES, pairs, self_share=0.4, pooled_share=0.4, steps=10), "both", 0.8)


@torch.no_grad()
def inputs(pipe: StableDiffusionXLPipeline) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    asked, empty, pooled, pooled_empty = pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=True)
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(1)).repeat(8, 1, 1, 1)
    noise = noise + 0.05 * torch.randn(noise.shape, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([[64, 64, 0, 0, 64, 64]]).repeat(8, 1)
    condition = {"text_embeds": torch.cat([pooled_empty, pooled]), "time_ids": ids}
    return noise, torch.cat([empty, asked]), condition


def run(unet: nn.Module, given: tuple[Tensor, Tensor, dict[str, Tensor]]) -> Tensor:
    dtype = next(unet.parameters()).dtype
    noise, tokens, condition = given[0].to(dtype), given[1].to(dtype), given[2]
    with torch.no_grad():
        return unet(noise, 500, tokens, added_cond_kwargs=condition, return_dict=False)[0]


def edited(pipe: StableDiffusionXLPipeline, step: StepPlan | None) -> Tensor:
    with attention_edit(pipe.unet) as control:
        control.step = step
        return run(pipe.unet, inputs(pipe))


@pytest.mark.parametrize("step", [0, 4, 8])
def test_edits_follow_only_while_the_plan_holds(pipe, plan: EditPlan, step: int) -> None:
    ours, plain = edited(pipe, plan.at(step)), run(pipe.unet, inputs(pipe))
    alike = (ours - plain).abs().amax((1, 2, 3))
    assert alike[[0, 3, 4, 7]].max() < 1e-5, "bases are sampled plainly"
    if step == 8:
        assert alike.max() < 1e-5
    else:
        assert alike[[5, 6]].min() > 3e-4


def test_without_a_step_the_processors_are_plain_attention(pipe) -> None:
    assert torch.allclose(edited(pipe, None), run(pipe.unet, inputs(pipe)), atol=1e-5)


FORMS = (formulas.put_one_softmax, formulas.put_family)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("pixels", "keys", "count"), [(64, 50, 4), (4096 + 7, 50, 4), (50, 2100, 2), (1500, 90, 2)]
)
def test_a_bases_map_is_the_same_attention_for_every_value(
    form: Callable[..., None], pixels: int, keys: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(0)
    query, key = (torch.randn(3, n, 8, generator=draw) for n in (pixels, keys))
    values = [torch.randn(3, keys, 8 + k, generator=draw) for k in range(count)]
    mask = torch.zeros(1, 1, keys)
    mask[..., 30:] = -1e4
    monkeypatch.setattr(formulas, "BUDGET", 64 * 150)
    for limit in (None, mask):
        found = [torch.full((3, pixels, value.shape[-1]), torch.nan) for value in values]
        form(query, key, values, found, limit)
        for one, value in zip(found, values, strict=True):
            maps = (query @ key.transpose(1, 2) / 8**0.5 + (0 if limit is None else limit)).softmax(-1)
            assert torch.allclose(one, maps @ value, atol=1e-5)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("pixels", [5, 128, 300, 2000])
def test_fused_attention_is_written_and_added(
    pixels: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row by row and in slices as on a CPU, or all rows at once as on a GPU."""
    monkeypatch.setattr(formulas, "stays_on_chip", lambda _: at_once)
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 8, generator=draw) for n in (pixels, 50, 50))
    mask = torch.zeros(2, 1, 1, 50)
    mask[0, ..., 30:] = mask[1, ..., :9] = -1e4
    for limit in (None, mask):
        found = torch.ones(2, 3, pixels, 8)
        limits = None if limit is None else list(limit)
        formulas.put_plain(list(query), list(key), list(value), list(found), limits, add=True)
        maps = (query @ key.transpose(2, 3) / 8**0.5 + (0 if limit is None else limit)).softmax(-1)
        assert torch.allclose(found, 1 + maps @ value, atol=1e-5)
        formulas.put_plain(list(query), list(key), list(value), list(found), limits)
        assert torch.allclose(found, maps @ value, atol=1e-5), "written over"


@pytest.mark.parametrize("step", [0, 4])
def test_the_form_for_a_gpu_gives_the_same(
    pipe, plan: EditPlan, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = edited(pipe, plan.at(step))
    monkeypatch.setattr(formulas, "stays_on_chip", lambda _: True)
    assert torch.allclose(edited(pipe, plan.at(step)), wanted, atol=1e-5)


def test_masks_the_first_term_takes_the_bases_and_the_second_the_edits() -> None:
    torch.manual_seed(0)
    layer = Attention(query_dim=8, cross_attention_dim=8, heads=2, dim_head=4)
    hidden, context = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    mask = torch.zeros(2, 1, 3)
    mask[0, 0, 2], mask[1, 0, 0] = -1e4, -1e4
    alpha = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]])
    step = StepPlan((0, 0), (0, 0), False, None, torch.diag_embed(alpha), 1 - alpha, (0, 1), True)
    control = Control()
    control.step = step
    with torch.no_grad():
        ours = FollowBase(control, is_cross=True)(layer, hidden, context, mask)
        query, key, value = (
            part.unflatten(-1, (2, 4)).transpose(1, 2)
            for part in (layer.to_q(hidden), layer.to_k(context), layer.to_v(context))
        )
        maps = (query @ key.transpose(-1, -2) / 2 + mask[:, None]).softmax(-1)
        wanted = alpha[1] * maps[0] + (1 - alpha[1]) * maps[1]
        out = torch.stack([maps[0] @ value[0], wanted @ value[1]]).transpose(1, 2).flatten(2)
        assert torch.allclose(ours, layer.to_out[0](out), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_cross", [False, True])
def test_half_precision_edits_as_float32_does(dtype: torch.dtype, is_cross: bool) -> None:
    """One layer whose rows differ much, so that following is a large change beside the rounding."""
    torch.manual_seed(0)
    layer = Attention(query_dim=32, cross_attention_dim=32 if is_cross else None, heads=2, dim_head=16)
    hidden, context = torch.randn(3, 40, 32), torch.randn(3, 7, 32)
    alpha = torch.zeros(3, 7)
    alpha[1], alpha[2, :4] = 1, 1
    step = StepPlan((0, 0, 0), (0, 0, 0), True, None, torch.diag_embed(alpha), 1 - alpha, (0, 2), True)
    control = Control()
    control.step = step
    found = {}
    for kind in (torch.float32, dtype):
        layer.to(kind)
        given = (hidden.to(kind), context.to(kind) if is_cross else None)
        with torch.no_grad():
            plain, ours = AttnProcessor2_0()(layer, *given), FollowBase(control, is_cross)(layer, *given)
        assert ours.dtype == kind
        found[kind] = (ours - plain).float()
    exact = found[torch.float32][1:]
    assert (found[dtype][1:] - exact).norm() < 0.03 * exact.norm(), "the change is the same"


def test_no_graph_break_in_the_processors(pipe, plan: EditPlan) -> None:
    torch._dynamo.reset()
    wanted = [edited(pipe, plan.at(step)) for step in (0, 5, 9)]
    given = inputs(pipe)
    with attention_edit(pipe.unet) as control:
        compiled = torch.compile(pipe.unet, fullgraph=True, backend="eager")
        for step, expected in zip((0, 5, 9), wanted, strict=True):
            control.step = plan.at(step)
            assert torch.allclose(run_compiled(compiled, pipe, given), expected, atol=1e-5)
    torch._dynamo.reset()


def run_compiled(compiled, pipe, given: tuple[Tensor, Tensor, dict[str, Tensor]]) -> Tensor:
    with torch.no_grad():
        return compiled(given[0], 500, given[1], added_cond_kwargs=given[2], return_dict=False)[0]


def test_an_adapter_that_is_loaded_is_part_of_the_model(plan: EditPlan) -> None:
    peft = pytest.importorskip("peft")
    pipe = tiny_pipeline()
    before = edited(pipe, plan.at(0))
    torch.manual_seed(3)
    pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    with_adapter = edited(pipe, plan.at(0))
    assert (with_adapter - before).abs().max() > 1e-3
    assert (with_adapter[[5, 6]] - run(pipe.unet, inputs(pipe))[[5, 6]]).abs().max() > 1e-3
    pipe.unet.delete_adapters("default")
    assert torch.allclose(edited(pipe, plan.at(0)), before, atol=1e-5)


def test_slicing_gives_the_same_and_is_given_back(plan: EditPlan) -> None:
    pipe = tiny_pipeline()
    whole = edited(pipe, plan.at(0))
    pipe.enable_attention_slicing(1)
    pipe.vae.enable_slicing()
    pipe.vae.enable_tiling()
    own = dict(pipe.unet.attn_processors)
    assert torch.allclose(edited(pipe, plan.at(0)), whole, atol=1e-5)
    assert pipe.unet.attn_processors == own
    assert {type(one).__name__ for one in own.values()} == {"SlicedAttnProcessor"}


def test_processors_are_given_back_also_after_an_error(pipe) -> None:
    before = [layer.processor for layer in _layers(pipe.unet)]
    with pytest.raises(RuntimeError, match="planned"), attention_edit(pipe.unet):
        assert all(a.processor is not b for a, b in zip(_layers(pipe.unet), before, strict=True))
        raise RuntimeError("planned")
    assert [layer.processor for layer in _layers(pipe.unet)] == before


def test_foreign_processors_are_refused_with_the_name_of_their_layer(pipe) -> None:
    class Foreign(AttnProcessor2_0):
        """A processor of one's own that builds on diffusers'."""

    name, layer = next((n, m) for n, m in pipe.unet.named_modules() if isinstance(m, Attention))
    own, layer.processor = layer.processor, Foreign()
    try:
        with pytest.raises(CounterpoiseError, match=f"{name}.*Foreign"), attention_edit(pipe.unet):
            pass
    finally:
        layer.processor = own


def test_a_loaded_ip_adapter_is_refused_before_any_work() -> None:
    pipe = tiny_pipeline()
    name, layer = next((n, m) for n, m in pipe.unet.named_modules() if n.endswith("attn2"))
    layer.processor = IPAdapterAttnProcessor2_0(hidden_size=32, cross_attention_dim=32)
    with pytest.raises(CounterpoiseError, match=f"{name}.*IPAdapterAttnProcessor2_0.*unload adapters"):
        check_layers(pipe.unet)


@pytest.mark.parametrize("what", ["fused projections", "added_kv_proj_dim", "norm_q"])
def test_unusual_layers_are_refused_by_name(what: str) -> None:
    pipe = tiny_pipeline()
    name, layer = next((n, m) for n, m in pipe.unet.named_modules() if isinstance(m, Attention))
    if what == "fused projections":
        layer.fuse_projections()
    else:
        setattr(layer, what, nn.Identity())
    with pytest.raises(CounterpoiseError, match=f"{name}.*{what}"), attention_edit(pipe.unet):
        pass


def test_two_pipelines_in_two_threads_do_not_disturb_each_other(plan: EditPlan) -> None:
    pipes = [tiny_pipeline(0), tiny_pipeline(0)]
    results: list[list[Tensor]] = [[], []]
    barrier = threading.Barrier(2)

    def work(k: int, step: int) -> None:
        given = inputs(pipes[k])
        with attention_edit(pipes[k].unet) as control:
            barrier.wait()
            for _ in range(3):
                control.step = plan.at(step)
                results[k].append(run(pipes[k].unet, given))

    threads = [threading.Thread(target=work, args=(k, step)) for k, step in ((0, 0), (1, 9))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, step in ((0, 0), (1, 9)):
        alone = edited(pipes[k], plan.at(step))
        assert len(results[k]) == 3
        assert all(torch.equal(found, alone) for found in results[k])


def _layers(unet: nn.Module) -> Iterator[Attention]:
    return (module for module in unet.modules() if isinstance(module, Attention))
