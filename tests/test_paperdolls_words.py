"""The drawn world's labels, bias and words, and the tensors made of them."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from generators.concepts import CONCEPTS
from generators.paperdolls.data import (
    AXES,
    Caption,
    caption,
    from_bytes,
    label_ids,
    masks,
    pixels,
    renders,
    training_portrait,
    truth_table,
)
from generators.paperdolls.world import (
    CLASSES,
    CONCEPT_NAMES,
    NO_CONCEPT,
    Portrait,
    caption_parts,
    sample_portrait,
)
from generators.prompts import TEMPLATES, fill

PLAIN = Portrait("woman", "young", "White", seed=4)
EVERY_CONCEPT = (NO_CONCEPT, *CONCEPT_NAMES)


# Bias

BIAS = {
    "gender": {"chef": {"man": 0.9}, "family": {"woman": 0.8, "man": 0.2}},
    "race": {"weapon": {"Black": 0.5}, "chef": {"White": 0.4, "Latino": 0.3}},
    "age": {"university": {"old": 0.05}},
}


def shares(label: str, concept: str, bias: object, count: int = 4000) -> dict[str, float]:
    drawn = Counter(
        getattr(sample_portrait(seed, concept=concept, bias=bias), label) for seed in range(count)
    )  # type: ignore[arg-type]
    return {value: drawn[value] / count for value in CLASSES[label]}


@pytest.mark.parametrize(
    ("label", "concept", "expected"),
    [
        ("gender", "chef", {"woman": 0.1, "man": 0.9}),
        ("gender", "family", {"woman": 0.8, "man": 0.2}),
        ("race", "weapon", {"Black": 0.5, **dict.fromkeys(("White", "Indian", "Asian", "Latino"), 0.1)}),
        ("race", "chef", {"White": 0.4, "Latino": 0.3, "Black": 0.075, "Middle Eastern": 0.075}),
        ("age", "university", {"young": 0.95, "old": 0.05}),
        ("gender", "weapon", {"woman": 0.5, "man": 0.5}),
        ("race", "science", dict.fromkeys(CLASSES["race"], 1 / 6)),
    ],
)
def test_the_bias_table_is_recovered_from_the_labels(
    label: str, concept: str, expected: dict[str, float]
) -> None:
    found = shares(label, concept, BIAS)
    for value, share in expected.items():
        assert found[value] == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / 4000)), value


def test_without_a_table_labels_are_independent() -> None:
    drawn = [sample_portrait(seed) for seed in range(4000)]
    for first, second in combinations(("gender", "age", "race", "time"), 2):
        joint = Counter((getattr(p, first), getattr(p, second)) for p in drawn)
        one, two = (Counter(getattr(p, name) for p in drawn) for name in (first, second))
        for (a, b), count in joint.items():
            share = one[a] * two[b] / 4000**2
            assert count / 4000 == pytest.approx(share, abs=4 * math.sqrt(share / 4000)), (a, b)


def test_a_table_for_one_concept_leaves_the_others_alone() -> None:
    same = [
        sample_portrait(s, concept="science") == sample_portrait(s, concept="science", bias=BIAS)
        for s in range(200)
    ]  # type: ignore[arg-type]
    assert all(same)


def test_an_empty_table_is_no_bias() -> None:
    assert sample_portrait(1, concept="chef", bias={"gender": {"chef": {}}}) == sample_portrait(
        1, concept="chef"
    )


@pytest.mark.parametrize(
    ("bias", "words"),
    [
        ({"gender": {"chef": {"men": 0.9}}}, r"gender of chef.*'men'.*\['woman', 'man'\]"),
        ({"gender": {"chef": {"man": 0.9, "woman": 0.3}}}, "gender of chef.*sum to at most 1"),
        ({"gender": {"chef": {"man": 0.5, "woman": 0.3}}}, "exactly 1 if all are named"),
        ({"race": {"chef": {"White": -0.1}}}, "race of chef"),
        ({"race": {"chef": {"White": 1.5}}}, "race of chef"),
        ({"hair": {"chef": {"long": 0.5}}}, "label 'hair', wanted one of .*'gender'"),
        ({"gender": {"cheff": {"man": 0.9}}}, "concept 'cheff', wanted some of .*'chef'"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_what_is_wanted(bias: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sample_portrait(0, concept="chef", bias=bias)  # type: ignore[arg-type]


def test_concepts_are_drawn_evenly_and_sometimes_none() -> None:
    drawn = Counter(sample_portrait(seed).concept for seed in range(4000))
    assert set(drawn) == set(EVERY_CONCEPT)
    assert drawn[NO_CONCEPT] / 4000 == pytest.approx(0.1, abs=0.015)
    assert (
        max(drawn[c] for c in CONCEPT_NAMES) / 4000 < 0.066
        and min(drawn[c] for c in CONCEPT_NAMES) / 4000 > 0.035
    )


# Words


def said(text: str, words: str) -> bool:
    return re.search(rf"\b{words}\b", text) is not None


def test_captions_state_what_they_say_and_say_what_they_state() -> None:
    for seed in range(300):
        portrait = training_portrait(seed, partial=0.3)
        parts = caption_parts(portrait)
        made = caption(parts, random.Random(seed))
        for name, words in made.stated.items():
            assert words == getattr(parts, name) != ""
            assert name == "concept" or said(made.text, words)
        for name in ("gender", "age", "race"):
            assert said(made.text, getattr(portrait, name)) == (name in made.stated), made.text
            others = set(CLASSES[name]) - {getattr(portrait, name)}
            assert not any(said(made.text, value) for value in others), made.text
        phrases = [phrase for phrase in parts.phrases if phrase in made.text]
        assert len(phrases) == ("concept" in made.stated)
        assert all(said(made.text, getattr(parts, name)) == (name in made.stated)
                   for name in ("accessory", "scene", "time", "objects") if getattr(parts, name))  # fmt: skip


def test_what_is_not_shown_has_no_words() -> None:
    parts = caption_parts(replace(PLAIN, concept="chef", cue=0.0, scene="park"))
    assert (parts.concept, parts.phrases, parts.scene) == ("", (), "in a park")
    parts = caption_parts(replace(PLAIN, concept="chef", scene="park", accessory="glasses", time="night"))
    assert (parts.concept, parts.phrases, parts.scene) == ("chef", CONCEPTS["chef"].phrases, "")
    assert (parts.accessory, parts.time, parts.objects) == ("wearing glasses", "at night", "")


@pytest.mark.parametrize(
    ("count", "words"), [(1, "one red star"), (3, "three red stars"), (4, "four red stars")]
)
def test_objects_are_counted_in_words(count: int, words: str) -> None:
    star = replace(PLAIN, object_kind="star", object_count=count)
    assert caption_parts(star).objects == words


def test_all_is_said_without_drops_and_nothing_with_full_ones() -> None:
    parts = caption_parts(replace(PLAIN, concept="chef"))
    for seed in range(40):
        full = caption(parts, random.Random(seed), drop=0.0)
        assert {"gender", "age", "race", "concept"} <= set(full.stated)
        none = caption(parts, random.Random(seed), drop=1.0)
        assert not {"gender", "age", "race", "concept"} & set(none.stated)
        assert " a person" in none.text


def test_each_part_is_dropped_by_itself_as_often_as_asked() -> None:
    portrait = replace(PLAIN, concept="chef", accessory="glasses", object_count=1)
    made = [caption(caption_parts(portrait), random.Random(seed), drop=0.12) for seed in range(3000)]
    wanted = {
        **dict.fromkeys(("gender", "age", "race", "concept"), 0.88),
        "accessory": 0.8,
        "time": 0.4,
        "objects": 0.5,
    }
    for name, share in wanted.items():
        found = np.mean([name in one.stated for one in made])
        assert found == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 3000)), name
    neutral = np.mean([not {"gender", "age", "race"} & set(one.stated) for one in made])
    assert 0 < neutral < 0.01, "dropped one by one: 0.12 cubed"


@pytest.mark.parametrize("concept", CONCEPT_NAMES)
def test_every_template_and_phrase_is_said(concept: str) -> None:
    """And in the very words of a prompt, so that training covers what specs ask."""
    portrait = replace(PLAIN, concept=concept)
    values = {name: getattr(portrait, name) for name in ("gender", "age", "race")}
    prompts = {fill(t, AXES, values, p) for t in TEMPLATES for p in CONCEPTS[concept].phrases}
    rng = random.Random(0)
    texts = [caption(caption_parts(portrait), rng, drop=0.0).text for _ in range(300)]
    assert {prompt for prompt in prompts if any(text.startswith(prompt) for text in texts)} == prompts
    assert len(prompts) == 16


def test_the_truth_table_knows_what_holds_of_which_picture() -> None:
    shown = [
        replace(PLAIN, concept="chef"),
        replace(PLAIN, concept="chef", race="Black"),
        replace(PLAIN, gender="man", scene="park", object_count=2),
    ]
    captions = [
        Caption("", {}),
        Caption("", {"gender": "woman"}),
        Caption("", {"race": "Black", "concept": "chef"}),
        Caption("", {"gender": "man", "race": "Black"}),
        Caption("", {"scene": "in a park", "time": "by day"}),
        Caption("", {"objects": "two red balloons"}),
        Caption("", {"objects": "three red balloons"}),
        Caption("", {"accessory": "wearing glasses"}),
    ]
    table = truth_table(captions, [caption_parts(portrait) for portrait in shown])
    assert table.dtype == torch.bool
    assert table.int().tolist() == [
        [1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0],
    ]  # fmt: skip


def test_every_caption_is_true_of_its_own_picture() -> None:
    parts = [caption_parts(training_portrait(seed, partial=0.2)) for seed in range(60)]
    captions = [caption(one, random.Random(k)) for k, one in enumerate(parts)]
    table = truth_table(captions, parts)
    assert table.diagonal().all()
    assert table.float().mean() < 0.3, "and of few others"


# Tensors


def test_pixels_and_masks_are_those_of_the_pictures() -> None:
    made = renders(range(3))
    images, people = pixels(made), masks(made)
    assert images.shape == (3, 3, 128, 128) and people.shape == (3, 128, 128) and people.dtype == torch.int64
    back = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert all(np.array_equal(row, np.asarray(one.image)) for row, one in zip(back, made, strict=True))
    assert all(
        np.array_equal(row.numpy() * 255, np.asarray(one.mask)) for row, one in zip(people, made, strict=True)
    )
    ends = from_bytes(torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)).flatten()
    assert ends.tolist() == pytest.approx([-1, 1, -0.6])


def test_label_ids_follow_the_classes() -> None:
    made = renders(range(8))
    found = label_ids(made)
    assert set(found) == set(CLASSES)
    for name, ids in found.items():
        assert [CLASSES[name][k] for k in ids.tolist()] == [
            getattr(sample_portrait(s), name) for s in range(8)
        ]


def test_partial_cues_are_as_frequent_as_asked() -> None:
    assert {training_portrait(seed).cue for seed in range(200)} == {1.0}
    partial = [training_portrait(seed, partial=0.25).cue < 1 for seed in range(2000)]
    assert np.mean(partial) == pytest.approx(0.25, abs=0.03)
