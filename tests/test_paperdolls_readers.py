"""What reads the drawn world: the small CLIP, segmenter and classifier, and how they judge pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from generators.concepts import CONCEPTS
from generators.paperdolls import clip
from generators.paperdolls.clip import contrastive_loss, twin_captions, twin_loss, twins
from generators.paperdolls.data import AXES, pixels, renders
from generators.paperdolls.evaluation import BARS, Reading, balanced_prompts, rendered_twins
from generators.paperdolls.readers import LABELS, disturb, split_logits
from generators.paperdolls.training import generator_for
from generators.paperdolls.world import CLASSES
from generators.plan import cells
from generators.prompts import TEMPLATES
from generators.scorer_models import load_clip


def test_a_saved_clip_loads_through_the_code_of_the_real_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = clip.build().eval()
    clip.save(model, tmp_path / "clip")
    loaded, _ = load_clip(str(tmp_path / "clip"))
    made, texts = renders(range(2)), ["A photo of a woman", "A photo of a man"]
    with torch.no_grad():
        expected = model.encode_text(open_clip.tokenizer.SimpleTokenizer()(texts), normalize=True)
        seen = model.encode_image(pixels(made), normalize=True)
    assert np.allclose(loaded.texts(texts), expected, atol=5e-3)
    found = loaded.images([one.image for one in made])
    assert (found * seen.numpy()).sum(1) == pytest.approx([1, 1], abs=0.02)


def test_clip_twins_differ_from_the_first_in_one_label_each() -> None:
    changed: Counter[str] = Counter()
    for seed in range(60):
        first, *others = twins(seed)
        assert len(others) == clip.TWINS - 1
        for other in others:
            names = [name for name in other.labels() if getattr(other, name) != getattr(first, name)]
            assert len(names) == 1 and other.seed == first.seed
            changed.update(names)
    assert set(changed) == {"gender", "age", "race", "concept", "time", "accessory"}
    assert {name for name, _ in changed.most_common(3)} == {"gender", "age", "race"}


def test_a_wrong_caption_is_the_same_sentence_with_one_attribute_wrong() -> None:
    labels: Counter[str] = Counter()
    for seed, one in enumerate(renders(range(40))):
        right, wrong = twin_captions(one.parts, f"{seed}", drop=0.3)
        changed = [name for name in right.stated if right.stated[name] != wrong.stated[name]]
        assert right.stated.keys() == wrong.stated.keys()
        assert len(changed) == bool({"gender", "age", "race"} & right.stated.keys())
        assert (right.text == wrong.text) == (not changed)
        labels.update(changed)
    assert set(labels) == {"gender", "age", "race"}


def test_twin_loss_is_the_log_odds_of_the_wrong_caption() -> None:
    picture = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    right, wrong = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    expected = (np.log1p(np.exp(-3.0)) + np.log(2)) / 2
    assert twin_loss(picture, right, wrong, torch.tensor(3.0)).item() == pytest.approx(expected, abs=1e-6)


def test_contrastive_loss_rewards_every_true_pair() -> None:
    features = torch.eye(3)
    truth = torch.eye(3, dtype=torch.bool)
    scale = torch.tensor(20.0)
    right, wrong = (
        contrastive_loss(features, text, scale, truth).item() for text in (features, features.roll(1, 0))
    )
    assert right < 1e-6 and wrong == pytest.approx(20, abs=0.01)
    two = contrastive_loss(
        torch.eye(2)[[0, 0, 1]], torch.eye(2), scale, torch.tensor([[1, 1, 0], [0, 0, 1]]).bool()
    )
    assert two.item() == pytest.approx(np.log(2) / 4, abs=1e-4), "two pictures share one caption's mass"


def test_logits_are_cut_at_the_labels() -> None:
    row = torch.arange(len(LABELS), dtype=torch.float32)[None]
    blocks = split_logits(row)
    found = {axis: [LABELS[int(k)] for k in block[0]] for axis, block in blocks.items()}
    assert found == {axis: [f"{axis}/{value}" for value in values] for axis, values in CLASSES.items()}


def test_disturbance_is_seeded_and_small() -> None:
    images = pixels(renders(range(4)))
    first, again, other = (disturb(images, generator_for(s, "x")) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first - images).abs().mean() < 0.2


def test_prompts_are_balanced_over_cells_and_concepts() -> None:
    every = list(balanced_prompts(24 * 18, 0))
    pairs = Counter((tuple(asked[a.name] for a in AXES), asked["concept"]) for _, asked in every)
    assert set(pairs.values()) == {1} and len(pairs) == 24 * 18
    for prompt, asked in every[:50]:
        assert all(asked[axis.name] in prompt for axis in AXES)
        assert any(phrase in prompt for phrase in CONCEPTS[asked["concept"]].phrases)
    assert {t.split("{")[0] for t in TEMPLATES} == {
        p.split(" a ")[0].split(" an ")[0] + " " for p, _ in every
    }


def test_rendered_twins_are_a_whole_set_in_one_scene() -> None:
    members, images = rendered_twins("chef", 3)
    assert [member.values for member in members] == cells(AXES)
    assert len(images) == 24
    for member in members:
        base = members[member.base]
        assert base.values["race"] == "White"
        assert {**member.values, "race": ""} == {**base.values, "race": ""}
    corner = {tuple(np.asarray(image)[:8, :8].flatten()) for image in images}
    assert len(corner) == 1


def test_every_bar_must_be_met() -> None:
    good = dict.fromkeys(BARS, 1.0)
    assert BARS == {"gender": 0.95, "race": 0.92, "age": 0.92, "concept": 0.85}
    assert Reading(dict(BARS), dict.fromkeys(BARS, 0.98), 0.9, 500).passed()
    assert not Reading(good, good, 0.89, 500).passed()
    for axis in BARS:
        assert not Reading({**good, axis: BARS[axis] - 0.01}, good, 0.9, 500).passed()
        assert not Reading(good, {**good, axis: 0.979}, 0.9, 500).passed()
