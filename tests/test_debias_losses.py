"""Losses: the reference's values, plain reductions where nothing is weighted, and steps made of several batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from debias.losses import (
    fairness_weight,
    instance_loss,
    set_consistency,
    social_fairness_loss,
    weighted_mean,
)
from storage import CounterpoiseError


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(lengths: list[int], padding: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of answers of some lengths, after a prompt of three tokens, and so much padding."""
    places = 3 + max(lengths) + padding
    labels = torch.full((len(lengths), places), -100)
    for row, length in enumerate(lengths):
        labels[row, 3 : 3 + length] = torch.arange(length) + row
    return drawn(len(lengths), places, 20), labels


def test_the_loss_of_an_instance_is_the_mean_over_its_own_tokens() -> None:
    logits, labels = batch([1, 4, 2])
    for row, length in enumerate([1, 4, 2]):
        wanted = functional.cross_entropy(logits[row, 2 : 2 + length], labels[row, 3 : 3 + length])
        assert torch.allclose(instance_loss(logits, labels)[row], wanted, atol=1e-6)


def test_padding_and_neighbours_do_not_matter() -> None:
    logits, labels = batch([1, 4, 2])
    padded = functional.pad(logits, (0, 0, 0, 5)), functional.pad(labels, (0, 5), value=-100)
    assert torch.equal(instance_loss(*padded), instance_loss(logits, labels))
    assert torch.equal(instance_loss(logits[1:2], labels[1:2]), instance_loss(logits, labels)[1:2])


def test_half_precision_is_summed_in_float32() -> None:
    logits, labels = batch([4, 4])
    half = instance_loss(logits.bfloat16(), labels)
    assert half.dtype == torch.float32
    assert torch.equal(half, instance_loss(logits.bfloat16().float(), labels))


def test_an_instance_without_tokens_has_no_loss() -> None:
    logits, labels = batch([2, 2])
    labels[0] = -100
    logits.requires_grad_()
    losses = instance_loss(logits, labels)
    losses.sum().backward()
    assert losses[0] == 0 and losses[1] > 0
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize(
    ("share", "target", "weight"), [(0.1, 0.5, 5.0), (0.9, 0.5, 0.5556), (1 / 3, 1 / 3, 1.0)]
)
def test_the_papers_weights(share: float, target: float, weight: float) -> None:
    skew = torch.tensor([math.log(share / target)], dtype=torch.float64)
    assert fairness_weight(skew, None).item() == pytest.approx(weight, abs=5e-5)


def test_the_clamp_bounds_both_ends() -> None:
    skew = torch.tensor([-2.88, -1.0, 0.0, 3.0])
    assert fairness_weight(skew).tolist() == pytest.approx([math.exp(2), math.e, 1, math.exp(-2)])
    assert fairness_weight(skew, None)[0].item() == pytest.approx(17.814, abs=1e-3)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_skew_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(CounterpoiseError, match="smoothing above 0"):
        social_fairness_loss(torch.ones(2), torch.tensor([0.0, bad]))


@pytest.mark.parametrize("clamp", [0.0, -1.0, math.nan])
def test_a_clamp_that_is_none_is_refused(clamp: float) -> None:
    with pytest.raises(CounterpoiseError, match=f"skew clamp is {clamp}"):
        fairness_weight(torch.zeros(1), clamp)


@given(st.lists(st.floats(0, 50, width=32), min_size=1, max_size=40), st.booleans())
def test_without_skew_it_is_the_mean_bit_for_bit(values: list[float], normalise: bool) -> None:
    losses = torch.tensor(values)
    plain = losses.sum() / len(losses)
    assert torch.equal(social_fairness_loss(losses, torch.zeros(len(values)), normalise=normalise), plain)


def test_normalised_weights_have_mean_one() -> None:
    skew = drawn(16, seed=1)
    assert social_fairness_loss(torch.ones(16), skew, normalise=True).item() == pytest.approx(1.0)
    assert social_fairness_loss(torch.ones(16), skew).item() == pytest.approx(
        np.exp(-skew.numpy()).mean(), rel=1e-5
    )


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("cuts", [[8], [4, 4], [1, 5, 2], [1] * 8])
def test_batches_of_a_step_add_up_to_the_whole(cuts: list[int], normalise: bool) -> None:
    losses, skew = drawn(8).abs(), drawn(8, seed=1)
    weights = fairness_weight(skew)
    total = weights.sum() if normalise else 8
    parts = zip(losses.split(cuts), weights.split(cuts), strict=True)
    added = sum(weighted_mean(*part, total) for part in parts)
    assert torch.allclose(torch.as_tensor(added), social_fairness_loss(losses, skew, normalise=normalise))


def test_equal_answers_are_consistent_and_opposite_ones_are_not() -> None:
    alike = drawn(3, 1, 5).log_softmax(-1).expand(3, 4, 5)
    assert set_consistency(alike).abs().max() < 1e-6
    opposite = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).clamp(1e-12, 1).log()
    assert set_consistency(opposite).item() == pytest.approx(math.log(2), abs=1e-6)


@given(st.integers(1, 6), st.integers(2, 6), st.integers(0, 2**16))
def test_the_divergence_is_that_of_entropies(members: int, options: int, seed: int) -> None:
    logp = (3 * drawn(2, members, options, seed=seed).double()).log_softmax(-1)
    p = logp.exp().numpy()

    def entropy(values: np.ndarray) -> np.ndarray:
        return -(values * np.log(values)).sum(-1)

    wanted = entropy(p.mean(1)) - entropy(p).mean(1)
    found = set_consistency(logp).numpy()
    assert np.allclose(found, wanted, atol=1e-9)
    assert (found > -1e-9).all() and (found < math.log(members) + 1e-9).all()
    assert np.allclose(found, set_consistency(logp.flip(1)).numpy(), atol=1e-12)


def test_its_gradient_brings_members_together() -> None:
    logits = drawn(1, 3, 4).double().requires_grad_()
    before = set_consistency(logits.log_softmax(-1)).sum()
    before.backward()
    assert logits.grad is not None
    after = set_consistency((logits - 0.1 * logits.grad).log_softmax(-1)).sum()
    assert after < before
