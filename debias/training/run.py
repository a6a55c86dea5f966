"""A training run from recipe to model: opened, measured, trained, evaluated; started again, it goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import PartialState
from transformers import PrinterCallback, TrainingArguments

from storage.backend import open_backend
from storage.manifest import load_dataset, root_hash, shards_of

from ..loading import Batches
from ..pools import dataset_pool
from ..questions import choices
from .card import write_card
from .checking import check_recipe
from .data import Epochs, Opened
from .diagnoses import capability_fell, plateau, unbalanced
from .epochs import Measuring
from .evaluating import Evaluator
from .examples import FIELDS, Collator, Examples
from .folder import CHECKPOINTS, MODEL, EpochRecord, RunFolder
from .measuring import Evaluation
from .planning import sizes_of, steps_of
from .preparing import merged, prepare, weights_sha256
from .recipe import Recipe, recipe_to_dict
from .schedule import Progress
from .subject import Share, Subject
from .trainer import InstanceTrainer, Objective
from .watching import Watch

#: Trainer is told this number of steps; the run itself ends it, since epochs differ in theirs.
_UNBOUNDED = 2**31
_ADAPTER = "adapter"
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        shortfall: why it fell short, in one line; empty where it did not.
        steps: of the optimiser.
        before, after: evaluations by pool; `after` is empty where training was stopped.
        model: folder of the trained model; None where training was stopped.
    """

    shortfall: str
    steps: int
    before: dict[str, Evaluation] = field(default_factory=dict)
    after: dict[str, Evaluation] = field(default_factory=dict)
    model: str | None = None


def train(recipe: Recipe, out: str, fresh: bool = False, told: Told = lambda done, known: None) -> Outcome:
    """Train, or go on with what is in `out`.

    Args:
        recipe: what is asked for.
        out: the run's folder.
        fresh: begin anew, whatever is there.
        told: called after each step with the steps done and those of the epochs known so far.

    Raises:
        CounterpoiseError: recipe, model, dataset and folder do not go together, or the loss is not finite.
    """
    check_recipe(recipe)
    return Run(recipe, RunFolder(out), fresh, told).finish()


def measure(recipe: Recipe, out: str, fresh: bool = False) -> Outcome:
    """Measure the base model as the first epoch and the evaluation before training want it, and train nothing.

    What is measured is kept in `out` and the dataset with a hash of the weights; `train` finds it and does not ask again.

    Args:
        recipe: what is asked for.
        out: the run's folder.
        fresh: begin anew, whatever is there.

    Raises:
        CounterpoiseError: recipe, model, dataset and folder do not go together.
    """
    check_recipe(recipe)
    return Run(recipe, RunFolder(out), fresh, lambda done, known: None).measure()


class Run:
    """One start of a run."""

    def __init__(self, recipe: Recipe, folder: RunFolder, fresh: bool, told: Told) -> None:
        """Open model and dataset and find the place to go on from; nothing is trained yet."""
        self.recipe, self.folder = recipe, folder
        self.model = prepare(recipe)
        self.rate = recipe.rate(self.model.adapter.name)
        self.sizes = sizes_of(recipe, int(os.environ.get("WORLD_SIZE", "1")))
        args = self._arguments()  # begins torch.distributed where several processes train
        self.share = Share(args.process_index, args.world_size)
        if self._first:
            folder.begin(self._resolved(), recipe.identity(), fresh)
        PartialState().wait_for_everyone()
        self.resumed = max(folder.checkpoints(), default=0)
        PartialState().wait_for_everyone()
        self.progress = Progress(recipe.epochs, recipe.schedule, recipe.warmup)
        self.done = self._find_place()
        self.subject = Subject(recipe, folder, self.model, self.share)
        self.measuring, self.evaluator = Measuring(self.subject), Evaluator(self.subject)
        self.base: float | None = None
        self.batches = Batches(
            recipe.dataset, recipe.split, fields=FIELDS, seed=recipe.seed, batch_size=self.sizes.units,
            keep_sets=recipe.keeps_sets, rank=self.share.rank, world_size=self.share.processes,
        )  # fmt: skip
        self.watch = Watch(
            folder,
            self.progress,
            recipe.save_steps,
            self.batches.state_dict,
            self._epoch_ended,
            told,
            self._first,
        )
        left = range(len(self.progress.spans), recipe.epochs)
        epochs = Epochs(self.batches, self._collators(), self.sizes, left, self._begin, recipe.workers)
        objective = Objective(recipe.normalise_weights and not recipe.faithful, recipe.divergence)
        self.trainer = InstanceTrainer(
            self.model.model, args, epochs, self.progress, objective, callbacks=[self.watch]
        )
        self.trainer.remove_callback(PrinterCallback)

    @property
    def _first(self) -> bool:
        return self.share.rank == 0

    def finish(self) -> Outcome:
        """Evaluate, train, evaluate, save."""
        before = self.evaluator.pools(0, 0)
        self.base = self.evaluator.capability(0, 0)
        checkpoint = str(self.folder.checkpoint(self.resumed)) if self.resumed else None
        self.trainer.train(resume_from_checkpoint=checkpoint)
        steps = self.trainer.state.global_step
        if self.watch.stopped:
            return Outcome(self.watch.stopped, steps, before)
        after = self.evaluator.pools(self.recipe.epochs, steps)
        now = self.evaluator.capability(self.recipe.epochs, steps)
        shortfall = self._plateau(before, after)
        self._save()
        if self._first:
            facts = {"root_sha256": self._root(), "steps": steps, "capability": [self.base, now]}
            write_card(self.folder, self.recipe, facts, before, after, shortfall)
        PartialState().wait_for_everyone()
        return Outcome(shortfall, steps, before, after, str(self.folder.path / MODEL))

    def measure(self) -> Outcome:
        """Evaluate, and measure Skew for the first epoch if it did not begin yet."""
        before = self.evaluator.pools(0, 0)
        self.evaluator.capability(0, 0)
        if not self.resumed:
            self._begin(0)
        return Outcome("", self.resumed, before)

    def _arguments(self) -> TrainingArguments:
        recipe = self.recipe
        return TrainingArguments(
            output_dir=str(self.folder.path / CHECKPOINTS),
            per_device_train_batch_size=self.sizes.units,
            gradient_accumulation_steps=self.sizes.accumulation,
            learning_rate=self.rate,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.max_grad_norm,
            max_steps=_UNBOUNDED,
            seed=recipe.seed,
            bf16=recipe.bf16,
            activation_checkpointing=recipe.gradient_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False},
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            save_total_limit=2,
            report_to=list(recipe.report_to) or "none",
            disable_tqdm=True,
            ignore_data_skip=True,
            remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
        )

    def _resolved(self) -> dict[str, Any]:
        """The recipe and what followed from it."""
        followed = {
            "learning_rate": self.rate,
            "batch": self.sizes.batch,
            "micro_batch": self.sizes.units * self.sizes.members,
            "accumulation": self.sizes.accumulation,
            "consistency": self.recipe.divergence,
            "family": self.model.adapter.name,
            "root_sha256": self._root(),
            "base_weights_sha256": weights_sha256(self.model),
        }
        return {"recipe": recipe_to_dict(self.recipe), "resolved": followed}

    def _root(self) -> str:
        backend = open_backend(self.recipe.dataset)
        return root_hash(shards_of(backend, load_dataset(self.recipe.dataset)))

    def _find_place(self) -> int:
        """Note the epochs that are done; returns the steps that are done of the next one."""
        if self._first:
            self.folder.rewind(self.resumed)
        for epoch in range(self.recipe.epochs):
            record = self.folder.epoch(epoch)
            if record is None or self.progress.end + record.steps > self.resumed:
                break
            self.progress.begin(record.steps)
        return self.resumed - self.progress.end

    def _collators(self) -> Callable[[int], Collator]:
        recipe = self.recipe
        groups = dataset_pool(recipe.dataset, recipe.split).groups
        values = [value for axis in load_dataset(recipe.dataset).axes.values() for value in axis]
        examples = Examples(
            self.model, choices(groups), values, recipe.seed, recipe.caption_share, recipe.keeps_sets
        )
        weighted = recipe.measures and recipe.weights
        return lambda epoch: Collator(examples, epoch, weighted)

    def _begin(self, epoch: int) -> Opened:
        """Measure before an epoch, or read back what was measured, and give the data their sidecar."""
        done, self.done = self.done, 0
        record = self.folder.epoch(epoch)
        sha256 = self.subject.weights_sha256(self.progress.end + done)
        if record is None or (not done and record.weights_sha256 != sha256):
            record = self._measured(epoch, sha256)
        else:
            self.batches.set_epoch(epoch, record.sidecar)
        if done:
            self.batches.load_state_dict(self.folder.place(self.resumed))
        self.progress.begin(record.steps)
        return Opened(record.steps, done)

    def _measured(self, epoch: int, sha256: str) -> EpochRecord:
        recipe, step, sidecar, line = self.recipe, self.progress.end, None, None
        if recipe.measures:
            table = self.measuring.table()
            sidecar = self.measuring.sidecar(epoch, sha256)
            if self._first:
                self.measuring.write(table, epoch, sha256)
                line = self.measuring.told(table, epoch, step, sidecar)
            PartialState().wait_for_everyone()
        self.batches.set_epoch(epoch, sidecar)
        record = EpochRecord(
            epoch, steps_of(recipe, self.sizes, self.batches.units, self.share.processes), sidecar, sha256
        )
        if self._first:
            if line is not None:
                self.folder.log(line)
            self.folder.note_epoch(record)
        return record

    def _epoch_ended(self, epochs: int, step: int) -> str | None:
        now = self.evaluator.capability(epochs, step)
        if now is None or self.base is None:
            return None
        good = self.folder.checkpoints()
        kept = (
            f"The last good checkpoint is {self.folder.checkpoint(good[-1])}."
            if good
            else "No epoch was good."
        )
        return capability_fell(self.base, now, epochs, self.recipe, self.rate, kept)

    def _plateau(self, before: dict[str, Evaluation], after: dict[str, Evaluation]) -> str:
        for pool in self.recipe.evaluate_on[:1]:
            was, now = before[pool].table, after[pool].table
            told = None if was is None or now is None else plateau(was, now, self.recipe)
            if told:
                last = self.folder.epoch(self.recipe.epochs - 1)
                return f"{told} {unbalanced(self.recipe, last.sidecar if last else None)}"
        return ""

    def _save(self) -> None:
        """The model as a folder that `open_model` opens; with LoRA merged, and its matrices beside it."""
        folder = self.folder.path / MODEL
        if self.recipe.lora is None:
            self.trainer.save_model(str(folder))
        else:
            self.trainer.save_model(str(self.folder.path / _ADAPTER))
            if self._first:
                merged(self.model).model.save_pretrained(folder)
        if self._first:
            self.model.processor.save_pretrained(folder)
            for name in (folder, self.folder.path / _ADAPTER):
                (name / "training_args.bin").unlink(missing_ok=True)  # a pickle
