"""The benchmark's own parts at small sizes: the three ways compute the same, so that their times can be compared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tiny_sdxl import tiny_pipeline

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import p2p
import p2p_cases
import timing
from p2p_cases import EARLY, LATE, Case


@pytest.mark.parametrize("edits", [1, 3])
@pytest.mark.parametrize("part", ["self, core", "cross, core, early", "cross, core, late"])
def test_the_cores_agree_where_edits_follow(part: str, edits: int) -> None:
    with torch.inference_mode():
        ours, explicit, plain = (
            Case(part, 32, 2, edits).make(method)() for method in ("ours", "explicit", "plain")
        )
    if isinstance(ours, list):
        ours = torch.stack(ours)
    assert torch.allclose(ours, explicit, atol=1e-5)
    assert torch.allclose(ours[0], plain[0], atol=1e-5), "the base is plain"
    assert not torch.allclose(ours[1], plain[1], atol=1e-5)


@pytest.mark.parametrize("is_cross", [False, True])
@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("now", [EARLY, LATE])
def test_the_layers_agree(now: int, maps: bool, is_cross: bool) -> None:
    with torch.inference_mode():
        ours, explicit, plain = (
            p2p_cases.layer(method, Case("", 16, 2, 3), now, is_cross, maps)()
            for method in ("ours", "explicit", "plain")
        )
    assert torch.allclose(ours, explicit, atol=1e-5)
    assert torch.allclose(ours[0], plain[0], atol=1e-5), "the base is plain"
    assert torch.allclose(ours, plain, atol=1e-5) == (now == LATE and not is_cross)


def test_the_unet_steps_agree_and_give_the_processors_back(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = tiny_pipeline().unet.to(torch.float32)
    monkeypatch.setattr(p2p_cases, "big_unet", lambda: unet)
    monkeypatch.setattr(p2p_cases, "drawn", lambda seed, *shape: _narrow(seed, *shape))
    monkeypatch.setattr(torch, "bfloat16", torch.float32)
    before = dict(unet.attn_processors)
    found = {name: p2p_cases.unet_step(name, Case("", 0, 0, 2), EARLY, 16)() for name in p2p.METHODS}
    assert torch.allclose(found["ours"], found["explicit"], atol=1e-5)
    assert not torch.allclose(found["ours"], found["plain"], atol=1e-5)
    assert unet.attn_processors == before


def _narrow(seed: int, *shape: int) -> torch.Tensor:
    """Inputs as wide as the tiny UNet takes them."""
    widths = {2048: 32, 1280: 16}
    return torch.randn([widths.get(one, one) for one in shape], generator=torch.Generator().manual_seed(seed))


def test_plain_sampling_is_diffusers_own_and_gives_the_scheduler_back() -> None:
    engine = p2p_cases.shipped()
    own = engine.pipe.scheduler
    latents = p2p_cases.sampling("plain", blend=False)().images
    assert latents.shape[0] == 24 and engine.pipe.scheduler is own


def test_ratios_are_paired() -> None:
    found = timing.ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found == (2.0, 2.0, 2.0)
    times = timing.paired({"a": lambda: None, "b": lambda: None}, 3)
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3}


def a_row(part: str, shape: str, ours: float, explicit: float, memory: int) -> p2p.Row:
    times = {"plain": [1.0] * 3, "explicit": [explicit] * 3, "ours": [ours] * 3}
    return p2p.Row(part, shape, 7, times, {"plain": 100, "explicit": 900, "ours": memory}, {})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (a_row("self, core", "1024 x 20", 0.86, 9.0, 100), "ours / plain 0.860, wanted 0.85"),
        (a_row("self, core", "4096 x 10", 1.06, 9.0, 100), "wanted 1.05"),
        (a_row("self, core", "1024 x 20", 0.8, 3.0, 100), "explicit / ours 3.750, wanted 4.0"),
        (a_row("cross, layer, late", "1024 x 20", 2.0, 9.0, 111), "peak memory, ours / plain 1.110"),
        (a_row("UNet step, over the schedule", "", 1.04, 9.0, 100), "upper end of ours / plain 1.040"),
    ],
)
def test_every_bar_is_held(row: p2p.Row, words: str) -> None:
    assert p2p.missed([a_row("self, core", "1024 x 20", 0.8, 9.0, 100)]) == []
    (failed,) = p2p.missed([row])
    assert words in failed


def test_a_bar_that_could_not_be_measured_is_not_met() -> None:
    row = a_row("self, core", "4096 x 10", 2.0, 9.0, 100)
    del row.times["explicit"]
    slow, unmeasured = p2p.missed([row])
    assert "ours / plain 2.000" in slow and "no room for explicit maps" in unmeasured


def test_explicit_maps_that_do_not_fit_leave_their_cells_empty() -> None:
    row = a_row("self, core", "4096 x 10", 1.0, 9.0, 100)
    del row.times["explicit"], row.memory["explicit"]
    assert row.cells()[4:7] == ["no room", "1.000 (1.000 to 1.000)", "no room"]
    assert Case("self, core", 4096, 10, 23).map_bytes == 2 * 24 * 10 * 4096**2 * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_attention_is_counted(dtype: torch.dtype) -> None:
    """Two products of 2 x 3 heads x 64 x 32 x 16 multiplications and additions, as with explicit maps."""
    query, key, value = (torch.randn(2, 3, n, 16, dtype=dtype) for n in (64, 32, 32))
    fused = p2p._tflop(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value))
    explicit = p2p._tflop(lambda: (query @ key.transpose(2, 3)).softmax(-1) @ value)
    assert fused == explicit == 2 * 2 * (2 * 3 * 64 * 32 * 16) / 1e12
