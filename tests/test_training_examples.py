"""Items as inputs: options, answers, labels, padding, for every family of models."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from storage_world import AXES
from tiny_mllm import MAKERS
from training_world import dataset, opened

from debias.losses import IGNORED
from debias.models.base import MultimodalModel
from debias.questions import choices
from debias.training.examples import Collator, Examples
from debias.training.trainer import answer_losses, divergences
from debias.wording import CAPTIONS
from storage import CounterpoiseError
from storage.stream import stream

VALUES = [value for values in AXES.values() for value in values]
GROUPS = {"work": ("chef", "science")}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return list(stream(dataset(tmp_path_factory.mktemp("data") / "d", 1, 4), "train"))


@pytest.fixture(scope="module", params=sorted(MAKERS))
def model(request: pytest.FixtureRequest) -> MultimodalModel:
    return opened(request.param)


def examples(model: MultimodalModel, **changes: Any) -> Examples:
    return Examples(model, choices(GROUPS), VALUES, **{"seed": 1, "caption_share": 0.0, **changes})


def text(model: MultimodalModel, tokens: tuple[int, ...]) -> str:
    found: str = model.processor.tokenizer.decode(tokens)
    return found


def test_the_answer_is_the_letter_of_the_true_concept(model: MultimodalModel, items: list[Any]) -> None:
    places: Counter[str] = Counter()
    for item in items:
        one = examples(model).example(item, 0)
        prompt = text(model, one.prompt)
        line = next(line for line in prompt.splitlines() if line[1:] == f". {item['concept']}")
        assert text(model, one.answer).strip() == f"{line[0]}</s>"
        places[line[0]] += 1
    assert set(places) == {"A", "B"}


def test_orders_are_drawn_by_seed_epoch_and_key_alone(model: MultimodalModel, items: list[Any]) -> None:
    made = [examples(model).example(item, 0) for item in items]
    assert made == [examples(model).example(item, 0) for item in items]
    for other in (
        (examples(model, seed=2).example(item, 0) for item in items),
        (examples(model).example(item, 1) for item in items),
    ):
        assert made != list(other)


def test_members_of_a_set_are_asked_the_same_where_sets_are_kept(
    model: MultimodalModel, items: list[Any]
) -> None:
    by_set: dict[str, set[tuple[int, ...]]] = {}
    for item in items:
        by_set.setdefault(item["set_id"], set()).add(examples(model, by_set=True).example(item, 0).prompt)
    assert {len(prompts) for prompts in by_set.values()} == {1}
    assert len(set.union(*by_set.values())) == 2


def test_sentences_are_drawn_and_name_no_value(model: MultimodalModel, items: list[Any]) -> None:
    kinds = [examples(model, caption_share=0.25).example(item, epoch) for epoch in range(8) for item in items]
    told = [one for one in kinds if not one.letters]
    assert 0.12 < len(told) / len(kinds) < 0.38
    for one in told:
        assert text(model, one.answer).strip().startswith("A photo of a person, ")
        assert text(model, one.answer).endswith(".</s>")
        assert any(question in text(model, one.prompt) for question in CAPTIONS)
    strange = {**items[0], "neutral_prompt": "A Black cat"}
    (said,) = {text(model, examples(model, caption_share=1.0).example(strange, 0).answer).strip()}
    assert said == f"A picture of: {strange['concept']}.</s>"
    with pytest.raises(CounterpoiseError, match="'white' names the value"):
        examples(model, caption_share=1.0).example({**strange, "concept": "white"}, 0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_labels_are_the_answers_alone(model: MultimodalModel, items: list[Any], side: str) -> None:
    source = examples(model, caption_share=0.5)
    batch = Collator(source, 0, padding_side=side)(items[:6])
    ids, labels = batch["inputs"]["input_ids"], batch["labels"]
    answers = labels != IGNORED
    assert torch.equal(labels[answers], ids[answers])
    for row, item in enumerate(items[:6]):
        assert tuple(labels[row][answers[row]].tolist()) == source.example(item, 0).answer
        assert int(answers[row].nonzero()[0]) == int(batch["first"][row])
    assert len({len(source.example(item, 0).answer) for item in items[:6]}) > 1
    assert batch["keys"] == [item["key"] for item in items[:6]]


def test_the_side_of_padding_changes_nothing(model: MultimodalModel, items: list[Any]) -> None:
    found = []
    for side in ("left", "right"):
        batch = Collator(examples(model, caption_share=0.4), 0, padding_side=side)(items[:7])
        assert not bool(batch["inputs"]["attention_mask"].all())
        with torch.no_grad():
            found.append(answer_losses(model.model, batch)[0])
    assert torch.allclose(found[0], found[1], atol=2e-5)
    for row, item in enumerate(items[:7]):  # and neither does the batch
        with torch.no_grad():
            alone, _ = answer_losses(model.model, Collator(examples(model, caption_share=0.4), 0)([item]))
        assert float(alone) == pytest.approx(float(found[0][row]), abs=2e-5)


def test_losses_are_those_of_the_model_itself(model: MultimodalModel, items: list[Any]) -> None:
    """Letters alone: answers of one length, so that the mean over tokens is the mean over instances."""
    batch = Collator(examples(model), 0)(items[:5])
    with torch.no_grad():
        losses, _ = answer_losses(model.model, batch)
        plain = model.model(**batch["inputs"], labels=batch["labels"]).loss
    assert float(losses.mean()) == pytest.approx(float(plain), abs=2e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_divergence_is_over_letters_by_concept(model: MultimodalModel, items: list[Any], side: str) -> None:
    batch = Collator(examples(model, by_set=True), 0, padding_side=side)(items[:12])
    with torch.no_grad():
        _, logits = answer_losses(model.model, batch)
        found = divergences(logits, batch)
        whole = model.model(**batch["inputs"]).logits
    assert found.shape == (2,)
    for number, value in enumerate(found.tolist()):
        rows = (batch["sets"] == number).nonzero().flatten().tolist()
        scores = torch.stack([whole[row, batch["first"][row] - 1, batch["letters"][row]] for row in rows])
        p = scores.softmax(-1)
        mean = p.mean(0)
        wanted = (p * (p.log() - mean.log())).sum(-1).mean()
        assert value == pytest.approx(float(wanted), abs=1e-6) and value > 1e-6


def test_a_group_with_one_concept_is_offered_all() -> None:
    offer = choices({"a": ("chef",), "b": ("arts", "science"), "c": ("tool",)})
    assert set(offer("", "chef")) == {"chef", "arts", "science", "tool"}
    assert offer("", "arts") == ("arts", "science")
    with pytest.raises(CounterpoiseError, match="the one concept 'chef'"):
        choices({"a": ("chef",)})


def test_letters_of_several_tokens_cannot_be_compared(
    items: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a new line the tiny tokenizer has no token for a letter and the end of one."""
    model = opened("llava")
    whole = MultimodalModel.tokens
    twice = lambda self, text: [*whole(self, text), *([7] if text[-2:] in (" A", " B") else [])]  # noqa: E731
    monkeypatch.setattr(MultimodalModel, "tokens", twice)
    assert len(examples(model).example(items[0], 0).answer) == 3
    with pytest.raises(CounterpoiseError, match="letters are several tokens"):
        examples(model, by_set=True).example(items[0], 0)


def test_pictures_are_those_of_the_items(tmp_path: Path, items: list[Any]) -> None:
    model = opened("llava")
    batch = Collator(examples(model), 0)(items[:3])
    apart = [
        float((batch["inputs"]["pixel_values"][0] - batch["inputs"]["pixel_values"][n]).abs().max())
        for n in (1, 2)
    ]
    assert min(apart) > 0.1
