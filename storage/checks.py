"""What a shard's samples have to be before a byte of them is written."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from .errors import CounterpoiseError
from .records import MAX_CELLS, NAME, SCORES, SET_ID, Sample, sample_key

Axes = Mapping[str, Sequence[str]]
_SAME_IN_A_SET = ("split", "concept", "concept_group")


def cell_values(axes: Axes) -> list[dict[str, str]]:
    """Every cell in the order of the axes; a member's index is its place in this list."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def check_axes(axes: Mapping[str, Any]) -> None:
    """Refuse axes whose cells cannot be numbered with two digits.

    Raises:
        CounterpoiseError: names the axis and what is wrong with its values.
    """
    for name, values in axes.items():
        texts = isinstance(values, list) and all(isinstance(value, str) and value for value in values)
        if not texts or not values or len(set(values)) < len(values):
            raise CounterpoiseError(f"axis {name!r} has the values {values!r}: different words are wanted.")
    cells = math.prod(len(values) for values in axes.values())
    if not axes or cells > MAX_CELLS:
        raise CounterpoiseError(
            f"the axes have {cells} cells: at least one axis and at most {MAX_CELLS} cells fit."
        )


def check_samples(samples: Iterable[Sample], axes: Axes, recipe: Mapping[str, Any]) -> list[Sample]:
    """The samples in the order of storage: by set, candidate, member.

    Raises:
        CounterpoiseError: names the sample and what is wrong with it or with its set.
    """
    cells = cell_values(axes)
    ordered = sorted(samples, key=lambda sample: (sample.set_id, sample.candidate, sample.member))
    if not ordered:
        raise CounterpoiseError(
            "A shard without samples was given: every planned set has at least one candidate."
        )
    limit = nsfw_limit(recipe)
    for sample in ordered:
        problem = _problem(sample, cells) or _unsafe(sample, limit)
        if problem:
            raise CounterpoiseError(f"sample {sample.key!r}, candidate {sample.candidate}: {problem}")
    for set_id, members in itertools.groupby(ordered, key=lambda sample: sample.set_id):
        problem = _set_problem(list(members), len(cells))
        if problem:
            raise CounterpoiseError(f"set {set_id!r}: {problem}")
    return ordered


def sets_problem(found: Set[str], planned: Set[str]) -> str | None:
    """In what a shard's sets differ from those that the plan gives it, naming one; None if they are the same."""
    if found - planned:
        return f"the plan has no set {min(found - planned)!r} in this shard"
    if planned - found:
        return f"the plan has set {min(planned - found)!r} in this shard, and there is no candidate of it"
    return None


def nsfw_limit(recipe: Mapping[str, Any]) -> float | None:
    """The recipe's `thresholds.nsfw`, above which an image is never stored."""
    thresholds = recipe.get("thresholds")
    limit = thresholds.get("nsfw") if isinstance(thresholds, Mapping) else None
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not math.isfinite(limit):
        raise CounterpoiseError(
            f"recipe.thresholds.nsfw is {limit!r}: a number is wanted, or null for no filter."
        )
    return float(limit)


def _unsafe(sample: Sample, limit: float | None) -> str | None:
    score = sample.scores.get("nsfw")
    if sample.kept and limit is not None and isinstance(score, (bool, int, float)) and score > limit:
        return f"kept, but its nsfw score {score} is over the limit {limit}: a flagged image is never stored."
    return None


def _problem(sample: Sample, cells: list[dict[str, str]]) -> str | None:
    """What is wrong with one sample, if anything."""
    if not SET_ID.fullmatch(sample.set_id):
        return f"set_id {sample.set_id!r} has to match {SET_ID.pattern}."
    if not (0 <= sample.member < len(cells) and 0 <= sample.base < len(cells)):
        return f"member {sample.member} or base {sample.base} is outside the {len(cells)} cells of the axes."
    if sample.key != sample_key(sample.set_id, sample.member):
        return f"the key has to be {sample_key(sample.set_id, sample.member)!r}."
    if dict(sample.attributes) != cells[sample.member]:
        return f"attributes are {dict(sample.attributes)}, member {sample.member} is {cells[sample.member]}."
    return _state_problem(sample) or _number_problem(sample) or _score_problem(sample.scores)


def _state_problem(sample: Sample) -> str | None:
    if sample.kept and (sample.image is None or sample.reason):
        return "a kept sample has an image and no reason."
    if not sample.kept and (sample.image is not None or not sample.reason):
        return "a rejected sample has a reason and no image."
    texts = (sample.split, sample.concept, sample.concept_group, sample.prompt, sample.scheduler)
    more = (sample.neutral_prompt, sample.edited_words, sample.reason or "")
    for text in (*texts, *more):
        if not isinstance(text, str) or "\0" in text or not _is_unicode(text):
            return f"{text!r} is not text that can be stored."
    for name, text in (("split", sample.split), ("concept", sample.concept)):
        if not NAME.fullmatch(text):
            return f"{name} {text!r} has to match {NAME.pattern}."
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _number_problem(sample: Sample) -> str | None:
    whole = {"candidate": sample.candidate, "seed": sample.seed, "steps": sample.steps}
    for name, value in {**whole, "width": sample.width, "height": sample.height}.items():
        top = 2**63 if name == "seed" else 2**31
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < top:
            return f"{name} is {value!r}: a whole number from 0 to {top - 1} is wanted."
    real = {
        "guidance": sample.guidance,
        "cross_replace": sample.cross_replace,
        "self_replace": sample.self_replace,
    }
    for name, number in real.items():
        if number is not None and not math.isfinite(number):
            return f"{name} is {number}: a finite number is wanted."
    return "guidance is missing." if sample.guidance is None else None


def _score_problem(scores: Mapping[str, Any]) -> str | None:
    for name, value in scores.items():
        if name not in SCORES:
            return f"unknown score {name!r}: known are {', '.join(SCORES)}."
        wanted: tuple[type, ...] = (str,) if name == "attribute_failed" else (bool, int, float)
        if value is None:
            continue
        if not isinstance(value, wanted) or (isinstance(value, float) and not math.isfinite(value)):
            return f"score {name} is {value!r}: a finite value is wanted, or None where it was not computed."
    return None


def _set_problem(members: list[Sample], cells: int) -> str | None:
    """A candidate is kept whole or rejected whole, and at most one of a set is kept."""
    for name in _SAME_IN_A_SET:
        if len({getattr(sample, name) for sample in members}) > 1:
            return f"its samples differ in {name}."
    kept: list[int] = []
    for candidate, group in itertools.groupby(members, key=lambda sample: sample.candidate):
        samples = list(group)
        indices = [sample.member for sample in samples]
        if len(set(indices)) < len(indices):
            return f"candidate {candidate} has a member twice."
        if len({sample.kept for sample in samples}) > 1:
            return f"candidate {candidate} is kept in part: a set is kept or rejected whole."
        if samples[0].kept:
            kept.append(candidate)
            if len(samples) != cells:
                return f"candidate {candidate} is kept with {len(samples)} of {cells} members."
            bases = {sample.base for sample in samples}
            if any(samples[base].base != base for base in bases):
                return f"candidate {candidate} names a base that is itself an edit."
    return f"candidates {kept} are both kept: one per set." if len(kept) > 1 else None
