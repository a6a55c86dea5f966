"""Instance skew: what a skew table makes of every image, and the sidecar that training reads it from.

Source: Cheng et al. 2025 (CMSC): Skew(P_i) is the Skew_a@C of largest magnitude over the image's own values, with its
sign; its loss is weighted by exp(-Skew(P_i)). That weights may be clamped, and that a dropped concept counts as 0, is not
printed in the paper but our reading.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.backend import open_backend
from storage.errors import CounterpoiseError
from storage.manifest import Where, load_dataset, read_plan
from storage.metadata import table as records
from storage.sidecar import sidecar_name, write_sidecar

from .predictions import JOINT, Ints
from .sampling import Floats, copies_of
from .skew_formula import shrunk
from .skew_json import to_json
from .skew_table import AxisSkew, SkewTable

CLAMP = 2.0
Texts: TypeAlias = Any  # a sequence of str, or an array of pyarrow


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """Instance skew of some images.

    Attributes:
        skew: (n,), natural logarithm, finite.
        dropped: how many have skew 0 because the table has not answers enough of their concept.
    """

    skew: Floats
    dropped: int


@dataclass(frozen=True, slots=True)
class Written:
    """A sidecar that was written.

    Attributes:
        name: of the sidecar inside the dataset.
        table: of the JSON beside it.
        images: rows of the sidecar.
        dropped: of these, those with skew 0 because their concept was dropped.
        clamped: of these, those whose weight was clamped.
        copies: sum of the multiplicities.
    """

    name: str
    table: str
    images: int
    dropped: int
    clamped: int
    copies: int


def weight(skew: Floats, clamp: float | None = CLAMP) -> Floats:
    """exp(-Skew), of the shape of `skew`; Skew is first cut off at +-clamp unless that is None, the faithful form.

    Raises:
        CounterpoiseError: clamp is not above 0.
    """
    if clamp is not None and not clamp > 0:
        raise CounterpoiseError(f"clamp (--skew-clamp): given {clamp}, wanted a number above 0.")
    return np.exp(-(skew if clamp is None else np.clip(skew, -clamp, clamp)))


def instance_skew(
    table: SkewTable, concept: Texts, values: Mapping[str, Texts], *, shrink: bool = False
) -> Instances:
    """Skew(P_i) of images: of the table's axes that of largest magnitude, with its sign; of two as large the first axis'.

    Args:
        table: of any axes.
        concept: (n,), the labelled concept.
        values: (n,) for each of the axes, joint ones by their parts.
        shrink: take what `skew_formula.shrunk` leaves of each Skew.

    Raises:
        CounterpoiseError: the table knows an axis, a value or a concept not, or a Skew that is looked up is infinite.
    """
    found, seen = np.zeros(len(concept)), np.zeros(len(concept), np.bool_)
    for one in table.axes.values():
        place = _places(concept, [*one.concepts, *one.dropped], "concept")
        looked, used = _looked_up(one, place, _value_places(one, values), shrink)
        found = np.where(np.abs(looked) > np.abs(found), looked, found)
        seen |= used
    return Instances(found, int(np.count_nonzero(~seen)))


def _looked_up(one: AxisSkew, place: Ints, value: Ints, shrink: bool) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Skew of each image on one axis, 0 where its concept was dropped, and whether it was not."""
    skews = shrunk(one.skew, one.low, one.high) if shrink else one.skew
    used = place < len(one.concepts)
    looked = np.where(used, skews[np.minimum(place, len(one.concepts) - 1), value], 0.0)
    infinite = np.flatnonzero(np.isinf(looked))
    if infinite.size:
        first = infinite[0]
        raise CounterpoiseError(
            f"Skew of {one.concepts[place[first]]!r} and {one.axis} {one.values[value[first]]!r} is infinite: the model "
            "never gave the one to the other. Make the table with a smoothing above 0 (--smoothing)."
        )
    return looked, used


def _value_places(one: AxisSkew, values: Mapping[str, Texts]) -> Ints:
    """Place of each image's value among the axis' values."""
    parts = one.axis.split(JOINT)
    for part in parts:
        if part not in values:
            raise CounterpoiseError(
                f"axis {part!r}: given are the images' {', '.join(values)}, {part} is wanted too."
            )
    if len(parts) == 1:
        return _places(values[one.axis], one.values, one.axis)
    joined = pc.binary_join_element_wise(*(_array(values[part]) for part in parts), JOINT)
    return _places(joined, one.values, one.axis)


def _places(texts: Texts, known: Sequence[str], what: str) -> Ints:
    column = _array(texts)
    found = pc.index_in(column, value_set=pa.array(known, pa.string()))
    if found.null_count:
        strange = column.filter(pc.is_null(found))[0].as_py()
        raise CounterpoiseError(
            f"{what} {strange!r} is not in the skew table, which has {', '.join(known)}: one made from predictions on "
            "the same axes, values and concepts is wanted."
        )
    places: Ints = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return places


def _array(texts: Texts) -> pa.Array:
    if isinstance(texts, pa.ChunkedArray):
        return texts.combine_chunks()
    return texts if isinstance(texts, pa.Array) else pa.array(list(texts), pa.string())


def require_same(
    table: SkewTable, axes: Mapping[str, Sequence[str]], concepts: Sequence[str], source: str
) -> None:
    """Refuse a table of other axes, values or concepts than a dataset's; it may have fewer axes.

    Raises:
        CounterpoiseError: names what differs.
    """
    for one in table.axes.values():
        parts = one.axis.split(JOINT)
        strange = [part for part in parts if part not in axes]
        if strange:
            raise CounterpoiseError(
                f"the skew table's axis {strange[0]!r} is none of {source}, which has {', '.join(axes)}; name the axes of "
                "the dataset (--axis)."
            )
        _require(
            [JOINT.join(value) for value in itertools.product(*(axes[part] for part in parts))],
            one.values, f"values of {one.axis}", source,
        )  # fmt: skip
        _require(concepts, [*one.concepts, *one.dropped], "concepts", source)


def _require(wanted: Sequence[str], given: Sequence[str], what: str, source: str) -> None:
    for name, there, lacks in (("the skew table", given, wanted), (source, wanted, given)):
        extra = sorted(set(there) - set(lacks))
        if extra:
            raise CounterpoiseError(
                f"{what}: only {name} has {extra[0]!r}; a table from predictions on {source} is wanted, made with all of "
                "its values and concepts (--dataset)."
            )


def dataset_concepts(dataset: Where) -> list[str]:
    """The concepts of a dataset's plan, sorted."""
    return sorted({row["concept"] for row in read_plan(dataset)})


def write_skew(
    dataset: Where,
    table: SkewTable,
    slug: str,
    weights_sha256: str,
    epoch: int,
    *,
    seed: int = 0,
    clamp: float | None = CLAMP,
    shrink: bool = False,
    tau1: float = 1.0,
    tau2: float = 1.0,
    resample: bool = True,
) -> Written:
    """Write `skew/<slug>-<weights sha12>-<epoch>.parquet` for all kept images of a dataset, and the table beside it.

    Args:
        dataset: a folder or URI.
        table: made from predictions on it.
        slug: the model's name, of small letters, digits, '.', '-' and '_'.
        weights_sha256: of its weights.
        epoch: that the sidecar is for, from 0.
        seed: of the draw of copies.
        clamp: of the Skew in weights; None for the faithful form. Copies are drawn by the Skew itself.
        shrink: take what `skew_formula.shrunk` leaves of each Skew.
        tau1: see `sampling.multiplicity`.
        tau2: see `sampling.multiplicity`.
        resample: draw copies; without, every image is handed out once.

    Raises:
        CounterpoiseError: the table is not of this dataset, a Skew is infinite, or a name cannot be a file's.
    """
    name, axes = sidecar_name(slug, weights_sha256, epoch), load_dataset(dataset).axes
    require_same(table, axes, dataset_concepts(dataset), str(dataset))
    images = records(dataset).filter("kept").order("key").to_arrow_table()
    if not images.num_rows:
        raise CounterpoiseError(f"{dataset}: no image was kept yet; run `counterpoise generate` first.")
    found = instance_skew(table, images["concept"], {axis: images[axis] for axis in axes}, shrink=shrink)
    weights = weight(found.skew, clamp)
    keys = images["key"].to_pylist()
    times = copies_of(found.skew, keys, seed, epoch, tau1, tau2) if resample else None
    beside = f"{name.removesuffix('.parquet')}.json"
    taus = {"tau1": tau1, "tau2": tau2} if resample else {}
    drawn = {"seed": seed, "clamp": clamp, "shrink": shrink, "resample": resample, **taus}
    model = {"slug": slug, "weights_sha256": weights_sha256, "epoch": epoch}
    backend = open_backend(dataset)
    with backend.staging() as staging:
        text = to_json(table, shrink, model=model, sidecar={**drawn, "dropped": found.dropped})
        staging.put(staging.stage(beside, [text.encode()]), beside)
    write_sidecar(dataset, name, keys, found.skew, weights, times)
    clamped = 0 if clamp is None else int(np.count_nonzero(np.abs(found.skew) > clamp))
    return Written(
        name, beside, len(keys), found.dropped, clamped, len(keys) if times is None else int(times.sum())
    )
