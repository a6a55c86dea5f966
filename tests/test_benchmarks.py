"""The benchmark's own parts at small sizes: the three ways compute the same, so that their times can be compared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import p2p
import timing


@pytest.mark.parametrize("edits", [1, 3])
def test_the_cores_agree_where_edits_follow(edits: int) -> None:
    with torch.inference_mode():
        ours, explicit = (p2p.core(method, 32, 2, edits)() for method in ("ours", "explicit"))
    assert torch.allclose(torch.stack(ours), explicit, atol=1e-5)


@pytest.mark.parametrize("is_cross", [False, True])
@pytest.mark.parametrize("now", [0, 9])
def test_the_layers_agree(now: int, is_cross: bool) -> None:
    with torch.inference_mode():
        ours, explicit = (p2p.layer(method, 16, 2, 3, now, is_cross)() for method in ("ours", "explicit"))
        plain = p2p.layer("plain", 16, 2, 3, now, is_cross)()
    assert torch.allclose(ours, explicit, atol=1e-5)
    assert torch.allclose(ours[0], plain[0], atol=1e-5), "the base is plain"
    assert torch.allclose(ours, plain, atol=1e-5) == (now == 9 and not is_cross)


def test_ratios_are_paired() -> None:
    found = timing.ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found == (2.0, 2.0, 2.0)
    times = timing.paired({"a": lambda: None, "b": lambda: None}, 3)
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3}
