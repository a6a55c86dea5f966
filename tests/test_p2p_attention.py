"""The processors against explicit attention maps, written from the paper's equations."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from tiny_sdxl import tiny_pipeline
from torch import Tensor, nn

from generators.p2p.align import align, split_words
from generators.p2p.attention import Control, attention_edit
from generators.p2p.plan import EditPlan, StepPlan, make_plan
from storage.errors import CounterpoiseError

PROMPTS = [
    "a photo of a White man",
    "a photo of a Black man",
    "a photo of a Middle Eastern man",
    "a belligerent man",
]
BASES = [0, 0, 0, 3]


class ExplicitMaps:
    """Prompt-to-prompt with every map built: A_e = alpha (A_b M) + (1 - alpha) A_e; self-attention takes A_b."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def __call__(
        self, attn: Attention, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        context = hidden if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(part)
            for part in (attn.to_q(hidden), attn.to_k(context), attn.to_v(context))
        )
        maps = (query @ key.transpose(1, 2) * attn.scale).softmax(-1)
        maps = maps.unflatten(0, (len(hidden), attn.heads))
        step = self.control.step
        if step is not None:
            maps = _edited(maps, step, encoder_hidden_states is None)
        mixed = attn.batch_to_head_dim(maps.flatten(0, 1) @ value)
        return attn.to_out[0](mixed)


def _edited(maps: Tensor, step: StepPlan, is_self: bool) -> Tensor:
    half, maps = len(step.base), maps.clone()
    for row, base in enumerate(step.base.tolist()):
        if is_self and step.follow_self:
            for start in range(0, len(maps), half):
                maps[start + row] = maps[start + base]
        elif not is_self:
            last, alpha = len(maps) - half, step.alpha[row]
            maps[last + row] = alpha * (maps[last + base] @ step.mapper[row]) + (1 - alpha) * maps[last + row]
    return maps


@pytest.fixture(scope="module")
def pipe() -> object:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def plan(pipe) -> EditPlan:
    def words(prompt: str):
        return split_words(prompt, lambda text: pipe.tokenizer(text, add_special_tokens=False).input_ids)

    shares = {"default": 0.8, "edited": 0.4}
    pairs = [
        None if base == row else align(words(PROMPTS[base]), words(PROMPTS[row]), "auto", shares)
        for row, base in enumerate(BASES)
    ]
    return make_plan(BASES, pairs, self_share=0.4, pooled_share=0.4, steps=10)


def inputs(pipe, guided: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    tokens, empty, pooled, pooled_empty = pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=True)
    halves = 2 if guided else 1
    tokens = torch.cat([empty, tokens]) if guided else tokens
    pooled = torch.cat([pooled_empty, pooled]) if guided else pooled
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(1)).repeat(
        4 * halves, 1, 1, 1
    )
    noise = noise + 0.05 * torch.randn(noise.shape, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([[64, 64, 0, 0, 64, 64]]).repeat(4 * halves, 1)
    return noise, tokens, {"text_embeds": pooled, "time_ids": ids}


def run(unet: nn.Module, given: tuple[Tensor, Tensor, dict[str, Tensor]]) -> Tensor:
    with torch.no_grad():
        return unet(given[0], 500, given[1], added_cond_kwargs=given[2]).sample


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("step", [0, 4, 8])
def test_the_values_trick_equals_explicit_maps(pipe, plan: EditPlan, step: int, guided: bool) -> None:
    given = inputs(pipe, guided)
    plain = run(pipe.unet, given)
    with attention_edit(pipe.unet) as control:
        control.step = plan.at(step)
        ours = run(pipe.unet, given)
        for layer in _layers(pipe.unet):
            layer.processor = ExplicitMaps(control)
        explicit = run(pipe.unet, given)
    assert (ours - explicit).abs().max() < 1e-5
    if step == 8:
        assert torch.allclose(ours, plain, atol=1e-5)
    else:
        assert (ours - plain)[-3:-1].abs().max() > 1e-3, (
            "edits must differ from plain sampling while the plan holds"
        )
    assert torch.allclose(ours[-1], plain[-1], atol=1e-5), "a base is sampled plainly"


def test_ten_steps_end_at_the_same_latents(pipe, plan: EditPlan) -> None:
    def sample(explicit: bool) -> Tensor:
        noise, tokens, condition = inputs(pipe, guided=False)
        pipe.scheduler.set_timesteps(10)
        with attention_edit(pipe.unet) as control, torch.no_grad():
            if explicit:
                for layer in _layers(pipe.unet):
                    layer.processor = ExplicitMaps(control)
            for index, time in enumerate(pipe.scheduler.timesteps):
                control.step = plan.at(index)
                found = pipe.unet(noise, time, tokens, added_cond_kwargs=condition).sample
                noise = pipe.scheduler.step(found, time, noise).prev_sample
        return noise

    assert (sample(True) - sample(False)).abs().max() < 1e-4


def test_without_a_step_the_processors_are_plain_attention(pipe) -> None:
    given = inputs(pipe, guided=True)
    plain = run(pipe.unet, given)
    with attention_edit(pipe.unet):
        assert torch.allclose(run(pipe.unet, given), plain, atol=1e-5)


def test_processors_are_given_back_also_after_an_error(pipe) -> None:
    before = [layer.processor for layer in _layers(pipe.unet)]
    with pytest.raises(RuntimeError, match="planned"), attention_edit(pipe.unet):
        assert all(a.processor is not b for a, b in zip(_layers(pipe.unet), before, strict=True))
        raise RuntimeError("planned")
    assert [layer.processor for layer in _layers(pipe.unet)] == before


def test_foreign_processors_are_refused_with_the_name_of_their_layer(pipe) -> None:
    class Foreign(AttnProcessor2_0.__base__):  # type: ignore[misc, name-defined]
        def __call__(self, *_: object) -> None: ...

    name, layer = next((n, m) for n, m in pipe.unet.named_modules() if isinstance(m, Attention))
    own, layer.processor = layer.processor, Foreign()
    try:
        with pytest.raises(CounterpoiseError, match=f"{name}.*Foreign"), attention_edit(pipe.unet):
            pass
    finally:
        layer.processor = own


def test_two_pipelines_in_two_threads_do_not_disturb_each_other(plan: EditPlan) -> None:
    pipes = [tiny_pipeline(0), tiny_pipeline(0)]
    results: list[list[Tensor]] = [[], []]
    barrier = threading.Barrier(2)

    def work(k: int, step: int) -> None:
        given = inputs(pipes[k], guided=True)
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
        with attention_edit(pipes[k].unet) as control:
            control.step = plan.at(step)
            alone = run(pipes[k].unet, inputs(pipes[k], guided=True))
        assert len(results[k]) == 3
        assert all(torch.equal(found, alone) for found in results[k])


def _layers(unet: nn.Module) -> Iterator[Attention]:
    return (module for module in unet.modules() if isinstance(module, Attention))
