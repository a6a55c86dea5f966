"""The benchmark's own parts at small sizes: the ways compute the same, so that their times can be compared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny_mllm
import torch

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import asking
from asking import Case, Row

from debias.models.base import MultimodalModel
from debias.models.opening import adapter_of


@pytest.mark.parametrize("score", ["letter", "text_mean", "text_sum"])
def test_the_ways_agree(score: str) -> None:
    model, processor = tiny_mllm.llava()
    opened = MultimodalModel("tiny", model, processor, adapter_of(model.config, "tiny"))
    with torch.inference_mode():
        methods = asking.METHODS if score == "letter" else ("option by option", "ours")
        found = [Case(score, 2).make(method, opened)() for method in methods]
    assert found[0].shape == (2, len(asking.OPTIONS))
    assert not torch.allclose(found[0][0], found[0][1], atol=1e-3), "the pictures differ"
    for one in found[1:]:
        assert torch.allclose(one, found[0], atol=asking.APART_BAR)


def test_the_model_is_of_the_size_it_is_said_to_be() -> None:
    model = asking.big()
    assert model.encode(tiny_mllm.photograph(0)).tokens == 576
    text = model.network.config.text_config
    assert (text.hidden_size, text.num_hidden_layers) == (256, 4)


def a_row(plain: float, apart: float) -> Row:
    times = {"option by option": [plain] * 3, "order by order": [1.0] * 3, "ours": [1.0] * 3}
    return Row(Case("letter", 1), times, apart, {"option by option": 2_000_000, "ours": 3_000_000})


def test_every_bar_is_held() -> None:
    assert asking.missed([a_row(3.1, 1e-5)]) == []
    (slow,) = asking.missed([a_row(2.9, 1e-5)])
    assert "option by option / ours 2.900, wanted 3.0" in slow
    (apart,) = asking.missed([a_row(3.1, 2e-4)])
    assert "2.0e-04 apart, wanted 0.0001" in apart
    assert a_row(3.1, 1e-5).cells()[3:] == [
        "3.100 (3.100 to 3.100)",
        "1.000 (1.000 to 1.000)",
        "1.0e-05",
        "2",
        "3",
    ]
