"""The beginning of a run: everything that can be checked is checked, then header and plan are written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from generators.candidates import Factory, environment, limit_threads
from generators.plan import PlannedSet, make_plan, shards, to_rows
from generators.safety import check_safety
from generators.spec import Spec
from storage import CounterpoiseError, create_dataset
from storage.shards import EnvironmentDiffers, ShardIncomplete, resume_check

from .campaign import Campaign, Listener, Load, Options
from .extending import stored_size
from .settings import spec_to_dict


def load_factory(spec: Spec) -> Factory:
    """The spec's engine and scorers, loaded.

    Raises:
        CounterpoiseError: weights or packages are missing, or not what they should be.
    """
    from generators.scorers import load_scorers
    from generators.weights import model_folder

    model_folder(spec.model)  # what is missing is told before anything slow is imported
    from generators.sdxl import SdxlEngine

    return Factory(spec, SdxlEngine(spec.model, spec.sampler.dtype), load_scorers(spec))


def open_campaign(
    spec: Spec,
    dataset: str,
    options: Options | None = None,
    listeners: list[Listener] | None = None,
    factory: Load | None = None,
) -> Campaign:
    """Check everything that can be checked before work begins, write header and plan, find what is missing.

    Args:
        spec: what to make.
        dataset: the folder it goes to.
        options: how to run it.
        listeners: who hears of it.
        factory: loads engine and scorers; `load_factory` if None.

    Raises:
        CounterpoiseError: the spec asks for what cannot or must not be made, or the folder is another's.
    """
    given, load = options or Options(), factory or load_factory
    if given.workers is not None and given.workers < 1:
        raise CounterpoiseError(f"--workers: given {given.workers}, wanted 1 or more")
    check_safety(spec, given.unsafe_no_filter)
    known = stored_size(dataset, spec, given.extend)
    plan = shards(make_plan(spec, known.extended_from))
    chosen = parse_range(given.shards, len(plan))
    limit_threads()
    loaded = load(spec)
    sets = [one for planned in plan.values() for one in planned]
    if not known.same:
        loaded.check(sets)
    header = {**_header(spec, loaded), **known.header}
    create_dataset(dataset, header, to_rows(sets), given.extend)
    facts = environment()
    todo = _missing(dataset, plan, chosen, loaded, facts, given.strict_environment, listeners or [])
    workers = _workers(spec, given.workers, len(todo))
    heard = list(listeners or [])
    return Campaign(spec, dataset, plan, chosen, todo, workers, loaded, load, heard, facts, given)


def parse_range(text: str | None, count: int) -> range:
    """The shards that "A:B" names: A to B - 1; a missing A is the first, a missing B the end.

    Raises:
        CounterpoiseError: it is not of this form, or names no shard.
    """
    if text is None:
        return range(count)
    first, colon, last = text.partition(":")
    try:
        found = range(int(first or 0), int(last or count)) if colon else None
    except ValueError:
        found = None
    if found is None or not len(found) or found.start < 0 or found.stop > count:
        raise CounterpoiseError(
            f"--shards: given {text!r}, wanted A:B with 0 <= A < B <= {count}, which names A to B - 1"
        )
    return found


def _header(spec: Spec, factory: Factory) -> dict[str, Any]:
    recipe = {
        name: value
        for name, value in factory.recipe([]).items()
        if name not in ("plan", "candidates", "axes")
    }
    return {
        "axes": {axis.name: list(axis.values) for axis in spec.axes},
        "spec": spec_to_dict(spec),
        "recipe": recipe,
        "split": {**asdict(spec.split), "drawn_by": "set"},
        "model": dict(factory.engine.describe()),
    }


def _missing(
    dataset: str,
    plan: Mapping[int, list[PlannedSet]],
    chosen: range,
    factory: Factory,
    facts: Mapping[str, Any],
    strict: bool,
    listeners: list[Listener],
) -> tuple[int, ...]:
    """Chosen shards that are not finished; that some were made elsewhere, or lack files, is noted once each.

    A strict run looks at the environment of every finished shard, not only of the chosen ones.
    """
    looked_at = plan if strict else chosen
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = {
            index: resume_check(dataset, index, factory.recipe(plan[index]), facts, strict)
            for index in looked_at
        }
    for kind in (EnvironmentDiffers, ShardIncomplete):
        told = [one.message for one in caught if issubclass(one.category, kind)]
        more = f" (and {len(told) - 1} more shards)" if len(told) > 1 else ""
        for listener in listeners if told else []:
            listener.note(f"Warning: {told[0]}{more}")
    return tuple(index for index in chosen if found[index] is None)


def _workers(spec: Spec, given: int | None, shards_to_make: int) -> int:
    """How many shards at a time: every worker holds a model of its own."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(given or (cores if spec.embedded else 1), shards_to_make))
