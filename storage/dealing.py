"""How an epoch is dealt to ranks and batches, and the state that says where in it somebody stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .canonical import first_difference
from .errors import CounterpoiseError, DatasetMismatch
from .selection import Selection

STATE_FORMAT = "counterpoise-stream-1"


@dataclass(frozen=True, slots=True)
class Dealing:
    """How an epoch is ordered and dealt; the same on every rank.

    Attributes:
        seed: of the shuffle.
        batch_size: units in a batch: sets where they are kept together, else images. The last may be smaller.
        keep_sets: the images of a set stay next to each other, in the order of its members.
        shuffle: else in the order of storage.
        window: shards that are mixed with each other; memory grows with it.
        drop_uneven: units that do not divide among the ranks are dropped, fewer than there are ranks, and others in
            every epoch; else units from the epoch's beginning are handed out twice.
        world_size: ranks.
    """

    seed: int = 0
    batch_size: int = 8
    keep_sets: bool = True
    shuffle: bool = True
    window: int = 8
    drop_uneven: bool = True
    world_size: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no number of anything."""
        for name in ("batch_size", "window", "world_size"):
            check_count(name, getattr(self, name), 1)
        check_count("seed", self.seed, None)


def check_count(name: str, value: object, low: int | None, stop: int | None = None) -> None:
    """Refuse what is not a whole number in [low, stop).

    Raises:
        CounterpoiseError: names it, the value and what is wanted.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and (low is None or value >= low) and (stop is None or value < stop):  # type: ignore[operator]
        return
    span = "" if low is None else f" from {low}" if stop is None else f" from {low} to {stop - 1}"
    raise CounterpoiseError(f"{name} is {value!r}: a whole number{span} is wanted.")


def units_per_rank(units: int, dealing: Dealing) -> int:
    """How many units each rank gets: the rest is dropped, or filled up with units from the epoch's beginning."""
    ranks = dealing.world_size
    return units // ranks if dealing.drop_uneven else -(-units // ranks)


def make_state(selection: Selection, dealing: Dealing, epoch: int, batches: int) -> dict[str, Any]:
    """Where somebody stands who was handed so many batches of an epoch, as JSON types."""
    return {"format": STATE_FORMAT, "epoch": epoch, "batches": batches, **settings(selection, dealing)}


def settings(selection: Selection, dealing: Dealing) -> dict[str, Any]:
    """What the order of an epoch hangs on, as a state carries it."""
    names = ("root_sha256", "split", "rejected_sha256", "skew_sha256")
    return {**{name: getattr(selection, name) for name in names}, **asdict(dealing)}


def check_state(state: Mapping[str, Any], selection: Selection, dealing: Dealing) -> None:
    """Refuse a state that is of another dataset or of other settings, or no state at all.

    Raises:
        DatasetMismatch: names the first field that differs.
        CounterpoiseError: it is no state.
    """
    known = isinstance(state, Mapping) and state.get("format") == STATE_FORMAT
    if not known or not {"epoch", "batches"} <= state.keys():
        raise CounterpoiseError(
            f"The state given is none: what `Stream.state` gave is wanted, got {state!r:.100}."
        )
    for name in ("epoch", "batches"):
        check_count(f"{name} of the state", state[name], 0)
    stored = {name: value for name, value in state.items() if name not in ("format", "epoch", "batches")}
    difference = first_difference(stored, settings(selection, dealing))
    if difference:
        cure = (
            "Give the dataset and the settings of then (version=N where shards were added since), or begin the epoch "
            "anew without the state."
        )
        raise DatasetMismatch(f"The state for {selection.dataset}", *difference, cure)
