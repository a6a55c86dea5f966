"""The tiny multimodal models of the embedded world: bias table, words, lessons, packed rows, pools, the shipped one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch.nn import functional

from debias.asking import Asker
from debias.models.base import MultimodalModel
from debias.models.opening import open_model
from debias.predicting import predict
from debias.predictions import predictions_from
from debias.questions import choices
from debias.skew import skew_table_from
from debias.training.capability import read_questions
from flows.world import LLAVA
from flows.world import tower as towers
from flows.world.base import answer_loss, pack, prefix_of, train_base
from flows.world.building import BUILDERS, tower_of
from flows.world.general import general_questions
from flows.world.lessons import lessons, tokens_of
from flows.world.pictures import LABELS, UNSEEN, drawn_portrait, rendered, visible
from flows.world.pools import (
    Portraits,
    drawn_from,
    one_of,
    portrait_pool,
    write_portraits,
    write_questions,
)
from flows.world.stereotypes import bias_table
from flows.world.tower import patches_of, train_tower
from flows.world.words import UNKNOWN, build_tokenizer
from generators.concepts import CONCEPTS
from generators.paperdolls.data import from_bytes
from generators.paperdolls.render import shown_cues
from generators.paperdolls.training import Schedule
from generators.paperdolls.world import ATTRIBUTES, CLASSES, NO_CONCEPT, sample_portrait
from storage import CounterpoiseError

unshipped = pytest.mark.skipif(not LLAVA.exists(), reason="the biased LLaVA is not among the weights yet")
FEW = Schedule(steps=2, batch=4, rate=1e-3)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both towers, trained for two steps."""
    folder = tmp_path_factory.mktemp("models")
    for kind in BUILDERS:
        train_tower(kind, folder, schedule=FEW, pictures=8, held_out=4)
    return folder


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def untaught(request: pytest.FixtureRequest, models: Path) -> MultimodalModel:
    return BUILDERS[request.param](models, 0)


def test_the_bias_table_is_drawn_by_a_seed_and_sums_to_one() -> None:
    table = bias_table()
    assert table == bias_table() != bias_table(6)
    for axis in ATTRIBUTES:
        assert set(table[axis]) == set(CONCEPTS)
        for shares in table[axis].values():
            assert set(shares) == set(CLASSES[axis]) and sum(shares.values()) == pytest.approx(1)
            assert min(shares.values()) > 0.02
    women = [shares["woman"] for shares in table["gender"].values()]
    assert len(set(women)) == len(women) and np.mean(women) == pytest.approx(0.5)


def test_portraits_follow_the_table_and_some_show_nothing() -> None:
    drawn = [drawn_portrait(seed, bias_table()) for seed in range(3000)]
    for concept in ("chef", "science"):
        found = np.mean([one.gender == "man" for one in drawn if one.concept == concept])
        assert found == pytest.approx(bias_table()["gender"][concept]["man"], abs=0.13)
    assert np.mean([not shown_cues(one) for one in drawn]) == pytest.approx(0.4, abs=0.03)
    assert all(one.concept != NO_CONCEPT for one in drawn)


def test_what_cannot_be_seen_is_not_learnt() -> None:
    for seed in range(200):
        portrait = drawn_portrait(seed)
        seen = visible(portrait)
        assert set(seen) == set(LABELS)
        assert (seen["colour"] == UNSEEN) == (portrait.object_count == 0) == (seen["kind"] == UNSEEN)
        cues = shown_cues(portrait)
        assert LABELS["concept"][seen["concept"]] == (portrait.concept if cues else NO_CONCEPT)
        assert (LABELS["scene"][seen["scene"]] == "hidden") == ("place" in cues)


def test_every_lesson_is_made_of_known_words(untaught: MultimodalModel) -> None:
    tokenizer = untaught.processor.tokenizer
    unknown, end = tokenizer.convert_tokens_to_ids(UNKNOWN), tokenizer.eos_token_id
    for seed in range(60):
        taught = lessons(drawn_portrait(seed), random.Random(seed))
        for lesson, (prompt, answer) in zip(taught, tokens_of(untaught, taught), strict=True):
            assert unknown not in [*prompt, *answer] and answer[-1] == end
            assert prompt.count(untaught.image_token_id) == 1
            if len(lesson.answer) == 1:
                line = next(one for one in lesson.instruction.splitlines() if one[:2] == f"{lesson.answer}.")
                assert tokenizer.decode(answer[:1]) == lesson.answer and line[3:]


def test_a_letter_is_one_token_in_options_and_answers() -> None:
    tokenizer = build_tokenizer()
    listed = tokenizer.convert_ids_to_tokens(tokenizer("Which?\nA. chef\nB. good student")["input_ids"])
    assert listed[-5:] == ["A", "chef", "B", "good", "student"]
    assert tokenizer("a person.")["input_ids"][-1] == tokenizer.convert_tokens_to_ids(".")


def test_general_questions_say_what_was_drawn() -> None:
    for seed in range(100):
        portrait = drawn_portrait(seed)
        asked = general_questions(portrait, random.Random(seed))
        assert all(one.options.count(one.answer) == 1 for one in asked)
        assert all(len(set(one.options)) == len(one.options) for one in asked)
        told = {one.answer for one in asked}
        assert portrait.time in told
        assert (portrait.scene in told) == ("place" not in shown_cues(portrait))
        assert (portrait.object_colour in told) == (portrait.object_count > 0)


def test_a_packed_rows_loss_is_that_of_plain_runs(untaught: MultimodalModel) -> None:
    portraits = [drawn_portrait(seed) for seed in (3, 4)]
    pixels = rendered(portraits)
    seen = patches_of(tower_of(untaught), from_bytes(pixels))
    positions, image = prefix_of(untaught)
    taught = [tokens_of(untaught, lessons(one, random.Random(7))) for one in portraits]
    packed = answer_loss(untaught, seen, pack(untaught, taught, image), positions)
    plain = [
        _plain_loss(untaught, Image.fromarray(picture.numpy()), prompt, answer)
        for picture, each in zip(pixels, taught, strict=True)
        for prompt, answer in each
    ]
    assert float(packed.detach()) == pytest.approx(np.mean(plain), abs=1e-4)


@torch.no_grad()
def _plain_loss(model: MultimodalModel, image: Image.Image, prompt: list[int], answer: list[int]) -> float:
    encoded = model.encode(image)
    at = prompt.index(model.image_token_id)
    row = torch.tensor([*prompt[:at], *[model.image_token_id] * encoded.tokens, *prompt[at + 1 :], *answer])
    places = model.positions(row, encoded.inputs).unsqueeze(-2)
    network: Any = model.network
    logits = network(input_ids=row[None], position_ids=places, **encoded.inputs).logits[0]
    return float(functional.cross_entropy(logits[-len(answer) - 1 : -1], torch.tensor(answer)))


@pytest.mark.parametrize("kind", sorted(BUILDERS))
def test_teaching_moves_all_but_the_tower(kind: str, models: Path, tmp_path: Path) -> None:
    model = BUILDERS[kind](models, 0)
    before = {name: value.clone() for name, value in model.model.named_parameters()}
    folder = train_base(model, "base", tmp_path, bias_table(), schedule=FEW, pictures=8, words_alone=1)
    after = open_model(str(folder), torch.float32)
    moved: dict[str, set[bool]] = {}
    for name, value in after.model.named_parameters():
        same = torch.equal(value, before[name].half().float())
        moved.setdefault(after.part_of(name), set()).add(not same)
    assert moved["vision"] == {False} and True in moved["projector"] and True in moved["language"]


def test_twins_differ_in_attributes_alone(tmp_path: Path) -> None:
    pool = Portraits(50, 2, ("gender", "race"))
    members = list(pool.members(0))
    assert len(members) == 12 and len({(one.gender, one.race) for one in members}) == 12
    assert len({(one.seed, one.age, one.scene, one.time, one.object_count) for one in members}) == 1
    assert all(not shown_cues(one) for one in members)
    write_portraits(pool, tmp_path)
    first = (tmp_path / "metadata.csv").stat().st_mtime_ns
    write_portraits(pool, tmp_path)
    assert (tmp_path / "metadata.csv").stat().st_mtime_ns == first
    shown = list(portrait_pool(tmp_path, pool.axes))
    assert len(shown) == 24 and {one.set_id for one in shown} == {"0000", "0001"}


def test_offers_are_the_same_for_twins() -> None:
    offer = one_of([("chef", "arts"), ("tool", "weapon", "family")])
    assert offer("0000", None) == ("chef", "arts") and offer("0003", None) == ("tool", "weapon", "family")
    few = drawn_from(tuple(CONCEPTS), 3)
    assert few("0001", None) == few("0001", None) and len(set(few("0002", None))) == 3
    assert len({few(f"{number:04}", None) for number in range(20)}) > 15
    with pytest.raises(CounterpoiseError):
        one_of([("chef",)])


def test_general_questions_are_read_as_training_reads_them(tmp_path: Path) -> None:
    write_questions(60, 12, tmp_path)
    read = read_questions(str(tmp_path / "questions.csv"))
    assert len(read) == 12 and all(one.image.exists() and len(one.options) >= 3 for one in read)
    answers = {number: one.options[one.answer] for number, one in enumerate(read)}
    for number, answer in answers.items():
        portrait = drawn_portrait(60 + number)
        told = {one.answer for one in general_questions(portrait, random.Random(f"question {60 + number}"))}
        assert answer in told


@pytest.fixture(scope="module")
def shipped() -> MultimodalModel:
    return open_model(str(LLAVA), torch.float32)


@unshipped
def test_the_shipped_models_bias_ranks_as_the_table_that_was_put_in(
    shipped: MultimodalModel, tmp_path: Path
) -> None:
    pool = Portraits(46 * 10**6, 18, ATTRIBUTES)
    write_portraits(pool, tmp_path)
    table = predict(Asker(shipped), portrait_pool(tmp_path, ATTRIBUTES), drawn_from(tuple(CONCEPTS), 2), 24)
    column = {name: table[name].to_pylist() for name in table.column_names}
    found = predictions_from(
        column["predicted"], {axis: column[axis] for axis in ATTRIBUTES}, set_id=column["set_id"],
        values={axis: CLASSES[axis] for axis in ATTRIBUTES},
    )  # fmt: skip
    measured = skew_table_from(found, min_count=10, draws=10, permutations=1)
    pairs = [
        (cell.skew, np.log(bias_table()[axis][cell.concept][cell.value] * len(one.values)))
        for axis, one in measured.axes.items()
        for cell in one.cells()
    ]
    assert len(pairs) > 120 and spearmanr(*zip(*pairs, strict=True)).statistic >= 0.9


@unshipped
def test_the_shipped_model_sees_concepts_where_they_are_shown(shipped: MultimodalModel) -> None:
    groups: dict[str, list[str]] = {}
    for name, concept in CONCEPTS.items():
        groups.setdefault(concept.group, []).append(name)
    offer = choices(groups)
    portraits = [sample_portrait(47 * 10**6 + seed, concept=name) for seed, name in enumerate(CONCEPTS)]
    images = [Image.fromarray(one.numpy()) for one in rendered(portraits)]
    chosen = Asker(shipped).ask(images, [offer("", one.concept) for one in portraits])
    assert np.mean([one.name == true.concept for one, true in zip(chosen, portraits, strict=True)]) >= 0.8


def test_towers_are_known() -> None:
    assert set(towers.TOWERS) == set(BUILDERS)
