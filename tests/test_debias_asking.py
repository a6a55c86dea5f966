"""Asking by log-likelihood: equal to running every option and order by itself, for every class of model."""

from __future__ import annotations

import pytest
import torch
from plain_asking import plain_likelihoods
from tiny_mllm import MAKERS, photograph

from debias.asking import Asker, over_orders
from debias.models.base import MultimodalModel
from debias.models.opening import adapter_of
from debias.packing import common, pack, plant, token_log_likelihoods
from debias.questions import SCORES, Question
from storage import CounterpoiseError

CONCEPTS = ("chef", "good student", "arts")
#: Natural logarithms, float32: the order of sums differs.
TOLERANCE = 5e-5


@pytest.fixture(scope="module", params=sorted(MAKERS))
def model(request: pytest.FixtureRequest) -> MultimodalModel:
    return opened(request.param)


def opened(maker: str) -> MultimodalModel:
    model, processor = MAKERS[maker]()
    return MultimodalModel(maker, model, processor, adapter_of(model.config, maker))


def expected(model: MultimodalModel, seed: int, question: Question, options: tuple[str, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return over_orders(plain_likelihoods(model, photograph(seed), question, options))


@pytest.mark.parametrize("cyclic", [True, False])
@pytest.mark.parametrize("score", SCORES)
def test_it_equals_every_option_and_order_run_whole(model: MultimodalModel, score: str, cyclic: bool) -> None:
    question = Question(score=score, cyclic=cyclic)
    (choice,) = Asker(model, question).ask([photograph(3)], [CONCEPTS])
    plain = expected(model, 3, question, CONCEPTS)
    found = torch.tensor(list(choice.log_probabilities.values()))
    assert torch.allclose(found, plain, atol=TOLERANCE), (found, plain)
    assert choice.name == CONCEPTS[int(plain.argmax())]
    assert float(found.exp().sum()) == pytest.approx(1)


def test_pictures_of_one_batch_do_not_see_each_other(model: MultimodalModel) -> None:
    """Pictures of three sizes, which Qwen makes rows of three lengths of, with other options each."""
    sizes, offered = (
        [(56, 56), (140, 84), (84, 112)],
        [CONCEPTS, ("tool", "weapon"), ("family", "science", "chef", "arts")],
    )
    images = [photograph(seed, size) for seed, size in enumerate(sizes)]
    together = Asker(model).ask(images, offered)
    for image, names, choice in zip(images, offered, together, strict=True):
        (alone,) = Asker(model).ask([image], [names])
        assert alone.log_probabilities == pytest.approx(choice.log_probabilities, abs=TOLERANCE)


def test_the_picture_is_seen(model: MultimodalModel) -> None:
    first, second = Asker(model).ask([photograph(0), photograph(1)], [CONCEPTS] * 2)
    gap = max(abs(first.log_probabilities[name] - second.log_probabilities[name]) for name in CONCEPTS)
    assert gap > 100 * TOLERANCE


def test_the_order_given_does_not_matter_but_without_cycles_it_does(model: MultimodalModel) -> None:
    """Two options: both orders are asked about either way."""
    there, back = ("chef", "arts"), ("arts", "chef")
    for cyclic in (True, False):
        one, other = Asker(model, Question(cyclic=cyclic)).ask([photograph(0)] * 2, [there, back])
        alike = one.log_probabilities == pytest.approx(dict(other.log_probabilities), abs=TOLERANCE)
        assert alike == cyclic


def test_what_a_place_adds_drops_out() -> None:
    own, place = torch.tensor([-2.0, -1.0, -4.0]), torch.tensor([0.0, 3.0, -5.0])
    orders = Question().orders(3)
    rows = [[own[option] + place[order.index(option)] for option in range(3)] for order in orders]
    assert torch.allclose(over_orders(torch.tensor(rows)), own.log_softmax(dim=0), atol=1e-6)


def test_gradients_are_those_of_the_plain_way(model: MultimodalModel) -> None:
    image = photograph(2)
    weight = model.model.get_input_embeddings().weight

    def gradient(log_probability: torch.Tensor) -> torch.Tensor:
        model.model.zero_grad()
        log_probability.backward()
        assert weight.grad is not None
        return weight.grad.clone()

    (found,) = Asker(model).log_probabilities([model.encode(image)], [CONCEPTS])
    plain = over_orders(plain_likelihoods(model, image, Question(), CONCEPTS))
    ours, theirs = gradient(found[1]), gradient(plain[1])
    assert float(theirs.abs().max()) > 1e-3
    assert torch.allclose(ours, theirs, atol=1e-3 * float(theirs.abs().max()))


def test_gradient_checkpointing_changes_nothing() -> None:
    model = opened("qwen2")
    encoded = model.encode(photograph(2))
    weight = model.model.get_input_embeddings().weight
    found = []
    for _ in range(2):
        (values,) = Asker(model).log_probabilities([encoded], [CONCEPTS])
        model.model.zero_grad()
        values[0].backward()
        assert weight.grad is not None
        found += [values.detach(), weight.grad.clone()]
        model.model.activation_checkpointing_enable()
        model.model.train()
    assert model.model.is_activation_checkpointing
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])


def test_asking_gives_the_training_mode_back() -> None:
    model = opened("llava")
    model.model.train()
    Asker(model).ask([photograph(0)], [CONCEPTS])
    assert model.model.training


def test_what_is_shared_is_run_once() -> None:
    """One row an image: the image's tokens once, letters none, of the orders what differs."""
    model = opened("llava")
    tree = plant(model, Question(), CONCEPTS)
    packed = pack(model, [model.encode(photograph(0))], [tree])
    rest = sum(len(branch.rest) for branch in tree.branches)
    assert packed.inputs["input_ids"].shape == (1, len(tree.prefix) - 1 + 16 + rest)
    assert int((packed.inputs["input_ids"] == model.image_token_id).sum()) == 16
    assert all(len(answer) == 1 for branch in tree.branches for answer in branch.answers)
    assert len(token_log_likelihoods(model, packed)[0]) == 9


def test_letters_of_several_tokens_are_scored_whole() -> None:
    """A tokenizer without a token for " A": the space and the letter are two."""
    model = opened("bunny")
    question = Question(text="Who?", closing="Say:\n")
    options = ("chef", "arts")
    tree = plant(model, Question(text="Who?", score="text_sum"), options)
    assert {len(answer) for answer in tree.branches[0].answers} == {5}
    model.processor.chat_template = "USER: <image>\n{{ messages[0].content[1].text }}"
    plain = expected(model, 1, question, options)
    (choice,) = Asker(model, question).ask([photograph(1)], [options])
    assert list(choice.log_probabilities.values()) == pytest.approx(plain.tolist(), abs=TOLERANCE)


def test_phrases_are_what_is_asked() -> None:
    model = opened("llava")
    phrases = {"chef": "cooking a meal", "good_student": "raising a hand"}
    (choice,) = Asker(model, phrases=phrases).ask([photograph(1)], [("chef", "good_student")])
    plain = expected(model, 1, Question(), tuple(phrases.values()))
    assert list(choice.log_probabilities) == ["chef", "good_student"]
    assert list(choice.log_probabilities.values()) == pytest.approx(plain.tolist(), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "options none: two or more are wanted"),
        (("chef",), "options 'chef': two or more"),
        (("chef", "Chef "), "'chef' is offered twice"),
        (("chef", " "), "option ' ': one line of text"),
        (("chef", "arts\nscience"), "one line of text"),
        (tuple(f"o{number}" for number in range(27)), "27 options: 26 at most"),
        (("chef", "<image>"), "holds <image> 2 times"),
    ],
)
def test_what_is_no_choice_is_refused(options: tuple[str, ...], words: str) -> None:
    with pytest.raises(CounterpoiseError, match=words):
        Asker(opened("llava")).ask([photograph(0)], [options])


def test_a_prompt_that_shows_the_image_last_is_refused() -> None:
    model = opened("llava")
    model.processor.chat_template = "{{ messages[0].content[1].text }} <image>"
    with pytest.raises(CounterpoiseError, match="options before the image"):
        Asker(model).ask([photograph(0)], [CONCEPTS])


def test_a_row_beyond_the_sliding_window_is_refused() -> None:
    model = opened("llava")
    model.model.config.text_config.sliding_window = 64
    with pytest.raises(CounterpoiseError, match="more than its sliding window of 64"):
        Asker(model).ask([photograph(0)], [CONCEPTS])


def test_common_beginnings() -> None:
    assert common([(1, 2, 3), (1, 2), (1, 2, 4)]) == (1, 2)
    assert common([(1, 2), (1, 2)]) == (1, 2)
    assert common([(2, 1), (3, 1)]) == ()
