"""Pools of pictures to ask a model about: what is known of each, its values by axis, and the picture when it is its turn.

Here the pool itself and that of a dataset; `debias.labelled` has tables of labelled pictures, `debias.published` FairFace
and SocialCounterfactuals. Labels mean prompted or annotated appearance, never identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from PIL import Image

from storage.images import decoded
from storage.manifest import Where, load_dataset, read_plan
from storage.stream import Stream, stream


@dataclass(frozen=True, slots=True)
class PoolItem:
    """A picture and what is known of it.

    Attributes:
        key: its name in the pool.
        set_id: its counterfactual set; None where it has none.
        concept: the true one; None where it has none.
        values: value of every axis of the pool.
        image: RGB.
    """

    key: str
    set_id: str | None
    concept: str | None
    values: Mapping[str, str]
    image: Image.Image


@dataclass(frozen=True, slots=True)
class Pool:
    """Pictures in a fixed order; each iteration reads them anew.

    Attributes:
        where: what the user knows it by.
        axes: that every picture has a value of.
        size: pictures.
        items: makes an iteration.
        groups: concept group to its concepts in order; empty where there are no concepts.
    """

    where: str
    axes: tuple[str, ...]
    size: int
    items: Callable[[], Iterator[PoolItem]]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Pictures."""
        return self.size

    def __iter__(self) -> Iterator[PoolItem]:
        """The pictures in their order."""
        return self.items()


def dataset_pool(dataset: Where, split: str | None = None, sets: Collection[str] | None = None) -> Pool:
    """The kept pictures of a dataset in the order of storage, without sets that a file in `verdicts/` rejects.

    Its groups have the concepts of the whole plan, in the plan's order, whatever the split.

    Args:
        dataset: a folder or URI.
        split: one of the dataset's splits; None for all.
        sets: ids of sets, all of them whole, that are shown; None for all.

    Raises:
        CounterpoiseError: there is no such dataset or split, or nothing is left; later, a file is damaged.
    """
    manifest = load_dataset(dataset)
    axes = tuple(manifest.axes)
    groups: dict[str, dict[str, None]] = {}
    for row in read_plan(dataset):
        groups.setdefault(row["concept_group"], {})[row["concept"]] = None

    def opened() -> Stream:
        fields = ["set_id", "concept", *axes]
        return stream(dataset, split, keep_sets=False, shuffle=False, batch_size=1, window=1, fields=fields)

    def items() -> Iterator[PoolItem]:
        for item in opened():
            if sets is not None and item["set_id"] not in sets:
                continue
            values = {axis: item[axis] for axis in axes}
            yield PoolItem(
                item["key"], item["set_id"], item["concept"], values, decoded(item["image"], item["key"])
            )

    concepts = {group: tuple(names) for group, names in groups.items()}
    whole = opened().unit_count
    members = math.prod(map(len, manifest.axes.values()))
    return Pool(str(dataset), axes, whole if sets is None else len(sets) * members, items, concepts)
