"""transformers' Trainer with the losses of `debias.losses`: the mean over the instances of a whole step of the optimiser.

A step may be made of several forwards (accumulation of gradients) in several processes; each adds its part of the same
mean, so that the result does not depend on how a step is cut. Trainer's own loss is the mean over tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainingArguments

from storage.errors import CounterpoiseError

from ..losses import IGNORED, instance_loss, set_consistency, weighted_mean
from .data import Epochs
from .schedule import Progress

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised.

    Attributes:
        normalise: divide by the weights of a step instead of its instances.
        consistency: factor of the mean divergence of a set's answers; 0 for none.
    """

    normalise: bool = False
    consistency: float = 0.0


def answer_losses(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The loss of each instance, (B,), and the logits that it was read from, (B, t, V), of the last t places.

    Only the places from the batch's first answer on are given to the model's head: a prompt's logits are not needed.
    """
    keep = kept(batch["labels"])
    logits = model(**batch["inputs"], logits_to_keep=keep, use_cache=False).logits
    return instance_loss(logits, batch["labels"][:, -keep:]), logits


def kept(labels: Tensor) -> int:
    """Last places of a batch that hold all answers and the place before each."""
    first = int((labels != IGNORED).any(0).nonzero()[0])
    return labels.shape[1] - first + 1


def divergences(logits: Tensor, batch: dict[str, Any]) -> Tensor:
    """`set_consistency` of each set of two members or more, (S,), natural logarithm.

    Distributions are over the options, from the logits of their letters where the answer begins; all members of a set were
    asked the same options in the same order, so that what a place adds is added to all.

    Args:
        logits: (B, t, V), of the last t places.
        batch: as `Collator` makes it.
    """
    rows = torch.arange(len(logits), device=logits.device)
    place = batch["first"] - 1 - (batch["labels"].shape[1] - logits.shape[1])
    letters, numbers = batch["letters"], batch["sets"]
    scores = logits[rows[:, None], place[:, None], letters.clamp(min=0)].float()
    found = [set_consistency(_members(scores, letters, numbers == number)) for number in several(numbers)]
    return torch.cat(found) if found else logits.new_zeros(0, dtype=torch.float32)


def _members(scores: Tensor, letters: Tensor, mine: Tensor) -> Tensor:
    """(1, M, K) log-probabilities of one set's members."""
    offered = letters[mine][0] >= 0
    return scores[mine][:, offered].log_softmax(-1)[None]


def several(numbers: Tensor) -> list[int]:
    """The sets of which two members or more are there."""
    found, counts = numbers[numbers >= 0].unique(return_counts=True)
    return found[counts > 1].tolist()


class InstanceTrainer(Trainer):
    """Trainer over `Epochs`, for any `Objective`."""

    objective: Objective
    loss_is_scaled_for_ga = True  # a forward's loss is its part of the whole step's mean

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        epochs: Epochs,
        progress: Progress,
        objective: Objective,
        **more: Any,
    ) -> None:
        super().__init__(model=model, args=args, **more)
        self.epochs, self.progress, self.objective = epochs, progress, objective
        self.consistency: list[float] = []

    def get_train_dataloader(self) -> Any:
        """Batches that are dealt to the ranks already."""
        return self.epochs

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Trainer's own silently leaves out weights that are named otherwise in files than in memory, as LLaVA's are."""
        if model is None and isinstance(self.model, PreTrainedModel):
            stored = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
            self.model.load_state_dict(stored.state_dict())
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Of a batch, as transformers estimates them."""
        return super().floating_point_ops(inputs["inputs"])

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """A rate that follows the progress through the epochs, however many steps each of them has."""
        if self.lr_scheduler is None:
            optimizer = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.progress.factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The batches of a step, and what the step's losses are divided by: instances or weights, and sets."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        counts = torch.zeros(2, device=device)
        for batch in batches:
            weights = batch["weights"]
            counts[0] += weights.sum() if self.objective.normalise else len(weights)
            if self.objective.consistency:
                counts[1] += len(several(batch["sets"]))
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.gather(counts).view(-1, 2).sum(0)
        return batches, counts

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the mean divergence of the step, over all processes."""
        if self.consistency and "loss" in logs:
            found = torch.tensor(sum(self.consistency), device=self.args.device)
            logs["consistency"] = float(self.accelerator.reduce(found, "sum"))
            self.consistency.clear()
        super().log(logs, start_time)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This forward's part of the step's loss, times the processes, whose gradients are averaged.

        Raises:
            CounterpoiseError: it is not finite.
        """
        total, sets = num_items_in_batch
        losses, logits = answer_losses(model, inputs)
        loss = weighted_mean(losses, inputs["weights"], total)
        if self.objective.consistency:
            part = divergences(logits, inputs).sum() / sets.clamp(min=1)
            self.consistency.append(float(part.detach()))
            loss = loss + self.objective.consistency * part
        if not torch.isfinite(loss):
            raise CounterpoiseError(not_finite(losses, inputs, self.state.global_step + 1))
        return loss * self.accelerator.num_processes


def not_finite(losses: Tensor, batch: dict[str, Any], step: int) -> str:
    """What is said of a loss that is infinite or no number, with the largest weights of its batch."""
    weights, losses = batch["weights"].float(), losses.detach()
    top = weights.topk(min(_SHOWN, len(weights))).indices.tolist()
    named = ", ".join(
        f"{float(weights[i]):.3g} of {batch['keys'][i]} (loss {float(losses[i]):.3g})" for i in top
    )
    if bool(torch.isfinite(losses).all()):
        cause = "weights too large"
        cure = "give faithful: false with a skew_clamp of 2 or less, normalise_weights: true, or shrink: true"
    else:
        cause = "the model itself gives no number, as after a step with weights or a learning rate too large"
        cure = "clamp the weights (faithful: false, skew_clamp 2 or less), lower learning_rate, or give bf16: false"
    return (
        f"step {step}: the loss is not finite; {cause}. Largest weights: {named}. The last good checkpoint is kept; "
        f"{cure}, and start with --fresh."
    )
