"""The proof's arithmetic: which bars it holds the three ways to, and what it measures of a set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import ViTConfig, ViTModel

from generators.engine import PreparedEngine, SetRequest
from generators.paperdolls import proof
from generators.paperdolls.proof import ARMS, BLENDED, P2P, PLAIN, Arm, against, measure, missed
from generators.scorers import ModelScorers, PreparedScorers
from generators.spec import Sampler
from storage.errors import CounterpoiseError


class Shifted(PreparedEngine):
    """Grey pictures; edits differ from their base by 8 levels, by 4 with prompt-to-prompt, by 1 with local blend."""

    def generate(self, request: SetRequest) -> list[Image.Image]:
        by = 8 if not request.edit.p2p else 4 if request.edit.local_blend is None else 1
        return [Image.new("RGB", (16, 16), (100 + by * (m.base != m.index),) * 3) for m in request.members]


class Nobody:
    """Finds no person, so that everything is outside."""

    def masks(self, images: list[Image.Image]) -> list[np.ndarray]:
        return [np.zeros((16, 16), bool) for _ in images]


class Reading(ModelScorers):
    """Scores of the background alone; every attribute reads as prompted."""

    def score(self, request: SetRequest, images: list[Image.Image]) -> list[dict]:
        rows = self._background(request, images)
        return [{**row, "attribute_ok": True} for row in rows]


def scorers() -> Reading:
    return Reading(
        None, Nobody(), None, None, {}, PreparedScorers().thresholds(proof.spec(1, Sampler(), ARMS[P2P]))
    )


def test_each_way_is_measured_outside_the_person() -> None:
    found = measure(Shifted(), scorers(), 2, Sampler(steps=1), ARMS)
    assert list(found) == [PLAIN, P2P, BLENDED]
    for name, by in ((PLAIN, 8), (P2P, 4), (BLENDED, 1)):
        arm = found[name]
        assert len(arm.changes) == 2 and {len(one) for one in arm.changes} == {20}
        assert np.concatenate(arm.changes) == pytest.approx(np.full(40, by))
        assert arm.figures[proof.PSNR] == pytest.approx([20 * np.log10(255 / by)] * 40, abs=0.01)
        assert arm.accuracy == 1 and len(arm.figures["SSIM"]) == 40
    assert against(found[BLENDED], found[PLAIN], 0) == pytest.approx((1 / 8, 1 / 8, 1 / 8))
    assert missed(found) == []


def an_arm(change: float, psnr: float = 40.0, right: float = 1.0) -> Arm:
    draw = np.random.default_rng(0)
    changes = [change * draw.uniform(0.9, 1.1, 20) for _ in range(5)]
    return Arm(changes, [k < 100 * right for k in range(100)], {proof.PSNR: [psnr] * 100})


@pytest.mark.parametrize(
    ("name", "arm", "words"),
    [
        (P2P, an_arm(3.3), "ratio 0.8"),
        (P2P, an_arm(2.0, right=0.9), "90.0% read"),
        (BLENDED, an_arm(1.5), "wanted at most 0.333"),
        (BLENDED, an_arm(0.5, psnr=29.0), "29.0 dB"),
        (BLENDED, an_arm(0.5, right=0.95), "95.0% read"),
    ],
)
def test_every_bar_must_be_met(name: str, arm: Arm, words: str) -> None:
    good = {PLAIN: an_arm(4.0), P2P: an_arm(2.0), BLENDED: an_arm(0.5)}
    assert missed(good) == []
    found = missed({**good, name: arm})
    assert len(found) == 1 and words in found[0]


def test_the_ways_differ_in_the_edit_alone() -> None:
    assert replace(ARMS[PLAIN], p2p=True) == ARMS[P2P]
    assert replace(ARMS[BLENDED], local_blend=None) == ARMS[P2P]


def test_backbones_that_are_named_add_their_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    monkeypatch.setattr(proof, "Lpips", lambda backbone: type("Fixed", (), {"outside": lambda *_: 0.25}))
    found = measure(
        Shifted(), scorers(), 1, Sampler(steps=1), ARMS, proof.measures_with("alex", str(tmp_path))
    )
    for arm in found.values():
        assert list(arm.figures) == [proof.PSNR, "SSIM", "LPIPS (alex)", "structure distance"]
        assert arm.figures["LPIPS (alex)"] == [0.25] * 20
        assert all(value is not None and value >= 0 for value in arm.figures["structure distance"])
    with pytest.raises(CounterpoiseError, match="give a folder with a ViT"):
        proof.measures_with(None, str(tmp_path / "none"))
