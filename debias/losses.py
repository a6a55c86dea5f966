"""Losses of debiasing: one function per formula.

Every loss counts instances, not tokens: L_i is the mean over the answer's tokens, and a batch is the mean over instances. A
stock trainer takes the mean over all tokens of a batch, so that an instance counts by the length of its answer, and the
same one more in a batch of short answers than in one of long; a weight per instance would then be a weight per token.
With answers of one length both are the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from storage import CounterpoiseError

IGNORED = -100


def instance_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """L_i = -1/T_i sum_t log P(y_t | y_<t, x), the mean over the answer's tokens, in float32; (B,).

    The loss of autoregressive models as CSD writes it (Cheng et al. 2025) is the sum; the mean keeps long answers from
    counting for more than short ones.

    Args:
        logits: (B, T, V), of the next token at every place.
        labels: (B, T), the tokens themselves, -100 where no loss is wanted; shifted here.

    Returns:
        (B,); 0 for an instance without a token to learn.
    """
    wanted = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    each = functional.cross_entropy(
        logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED, reduction="none"
    ).unflatten(0, wanted.shape)
    counts = (wanted != IGNORED).sum(-1)
    return each.sum(-1) / counts.clamp(min=1)


def fairness_weight(skew: Tensor, clamp: float | None = 2.0) -> Tensor:
    """w_i = exp(-Skew(P_i)) (Cheng et al. 2025, the weight of the Social Fairness Loss); of the shape of `skew`.

    Args:
        skew: instance skew, natural logarithm, finite.
        clamp: largest magnitude of a Skew, so that one cell cannot outweigh all others (at -2.88 a weight is 17.8); None
            is the paper's form.

    Raises:
        CounterpoiseError: a Skew is infinite or no number, or the clamp is not above 0.
    """
    if clamp is not None and not clamp > 0:
        raise CounterpoiseError(f"skew clamp is {clamp}: a number above 0, or none, is wanted.")
    if not bool(torch.isfinite(skew).all()):
        raise CounterpoiseError(
            "skew is not finite for some instances: a value that a model never gives has no Skew without smoothing; "
            "make the skew table with a smoothing above 0."
        )
    bounded = skew if clamp is None else skew.clamp(-clamp, clamp)
    return torch.exp(-bounded.float())


def weighted_mean(losses: Tensor, weights: Tensor, total: Tensor | float | None = None) -> Tensor:
    """sum_i w_i L_i / N: E_fair of CSD (Cheng et al. 2025, Social Fairness Loss) for weights exp(-Skew(P_i)).

    With every weight 1 it is, bit for bit, the mean of the losses.

    Args:
        losses: (B,), L_i.
        weights: (B,), w_i.
        total: N. None for the B instances given. Where a step of the optimiser is made of several batches (accumulation
            of gradients, several processes) the number of instances of all of them, so that their sum is the whole
            step's mean; the sum of all their weights where weights are to be normalised.
    """
    summed = (weights.to(losses.dtype) * losses).sum()
    return summed / (len(losses) if total is None else total)


def social_fairness_loss(
    losses: Tensor, skew: Tensor, clamp: float | None = 2.0, normalise: bool = False
) -> Tensor:
    """E_fair = 1/N sum_i exp(-Skew(P_i)) L_i (Cheng et al. 2025), of one batch.

    Args:
        losses: (B,), L_i, as `instance_loss` makes them.
        skew: (B,), Skew(P_i).
        clamp: see `fairness_weight`.
        normalise: divide by the weights' mean, so that the size of a step does not depend on the Skew; not in the paper.
    """
    weights = fairness_weight(skew, clamp)
    return weighted_mean(losses, weights, weights.to(losses.dtype).sum() if normalise else None)


def set_consistency(log_probabilities: Tensor) -> Tensor:
    """JSD(p_1, ..., p_M) = H(1/M sum_m p_m) - 1/M sum_m H(p_m) of each set (Lin 1991, equation 5.1, equal weights); (S,).

    How far a model's answers differ between the members of a counterfactual set, 0 where they are alike, at most ln M. Its
    nearest relative is counterfactual logit pairing (Garg et al. 2019), which takes the distance of two logits.

    Args:
        log_probabilities: (S, M, K), the logarithm of M members' distributions over K options, each summing to 1.
    """
    members = log_probabilities.shape[1]
    mean = torch.logsumexp(log_probabilities, 1, keepdim=True) - math.log(members)
    return (log_probabilities.exp() * (log_probabilities - mean)).sum(-1).mean(-1)
