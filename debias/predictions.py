"""A model's predictions: which concept it gave to every image, beside the image's values on the axes.

`read_predictions` takes them from Parquet or CSV, `predictions_from` from arrays; both check them once, here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.errors import CounterpoiseError

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Texts = Sequence[str] | npt.NDArray[np.str_] | npt.NDArray[np.object_]
JOINT = "*"
MAX_VALUES = 100
PREDICTED = "predicted"
KNOWN = (PREDICTED, "key", "set_id", "concept", "options")


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column of text.

    Attributes:
        values: its different texts.
        codes: (n,), place of every row's text among the values.
    """

    values: tuple[str, ...]
    codes: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """What was offered.

    Attributes:
        offered: (p, concepts), a row for each different offer.
        codes: (n,), the offer of every row.
    """

    offered: Flags
    codes: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Predictions that were checked.

    Attributes:
        source: where they are from, for messages.
        concepts: every concept that was predicted, true, offered or given as known.
        predicted: (n,), place among the concepts.
        axes: values of every axis.
        set_id: the set of every row; None where that is not known.
        concept: (n,), the true concept's place; None where that is not known.
        options: what was offered; None where that is not known.
    """

    source: str
    concepts: tuple[str, ...]
    predicted: Ints
    axes: Mapping[str, Column]
    set_id: Column | None = None
    concept: Ints | None = None
    options: Options | None = None

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.predicted)


def predictions_from(
    predicted: Texts,
    axes: Mapping[str, Texts],
    *,
    key: Texts | None = None,
    set_id: Texts | None = None,
    concept: Texts | None = None,
    options: Sequence[Sequence[str]] | None = None,
    values: Mapping[str, Sequence[str]] | None = None,
    concepts: Sequence[str] | None = None,
    source: str = "the predictions",
) -> Predictions:
    """Predictions from arrays.

    Args:
        predicted: (n,), the concept that the model gave to every image.
        axes: (n,) for every axis, the image's value.
        key: (n,), of the image, each once.
        set_id: (n,), the image's counterfactual set.
        concept: (n,), the true concept.
        options: (n,) sequences, the concepts that were offered.
        values: every value that an axis has, where that is known; all of them must be there.
        concepts: every concept, where that is known; no other may be there.
        source: where they are from, for messages.

    Raises:
        CounterpoiseError: names the row and the column of what is empty, unknown or twice there.
    """
    wanted = len(predicted)
    given = {
        PREDICTED: predicted,
        **axes,
        "key": key,
        "set_id": set_id,
        "concept": concept,
        "options": options,
    }
    for name, column in given.items():
        if column is not None and len(column) != wanted:
            raise CounterpoiseError(f"{source}: {name} has {len(column)} rows, {wanted} are wanted.")
    if not wanted:
        raise CounterpoiseError(f"{source} has no rows, one per answer of the model is wanted.")
    if not axes:
        raise CounterpoiseError(
            f"{source} has no axis: a column beside {', '.join(KNOWN)} is wanted, such as gender."
        )
    _once(key, source)
    said, true = _column(predicted, PREDICTED, source), concept
    truth = None if true is None else _column(true, "concept", source)
    offers = None if options is None else _offers(options, source)
    named = _concepts(said, truth, offers, concepts, source)
    return Predictions(
        source,
        named,
        _placed(said, named),
        {axis: _axis(axis, column, (values or {}).get(axis), source) for axis, column in axes.items()},
        None if set_id is None else _column(set_id, "set_id", source),
        None if truth is None else _placed(truth, named),
        None if offers is None else _offered(offers, named),
    )


def axis_column(predictions: Predictions, axis: str) -> Column:
    """The values of an axis, or of a joint one such as `gender*race`, whose values are such as `woman*Black`.

    Raises:
        CounterpoiseError: there is no such axis, or a combination of values that no row has.
    """
    parts = axis.split(JOINT)
    for part in parts:
        if part not in predictions.axes or parts.count(part) > 1:
            known = ", ".join(predictions.axes)
            raise CounterpoiseError(
                f"axis {axis!r}: {predictions.source} has the axes {known}; one of them, or different ones joined by "
                f"{JOINT!r}, is wanted."
            )
    columns = [predictions.axes[part] for part in parts]
    values, codes = columns[0].values, columns[0].codes
    for column in columns[1:]:
        values = tuple(f"{first}{JOINT}{second}" for first in values for second in column.values)
        codes = codes * len(column.values) + column.codes
    _all_there(axis, values, codes, predictions.source)
    return Column(values, codes)


def _column(given: Texts, name: str, source: str) -> Column:
    try:
        texts = np.asarray(given, dtype=np.object_)
        empty = [row for row, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    except ValueError as error:
        raise CounterpoiseError(f"{source}: column {name!r}: one text a row is wanted ({error}).") from error
    if empty:
        raise CounterpoiseError(
            f"{source}: row {empty[0] + 1}, column {name!r} is {texts[empty[0]]!r}, text is wanted; fill it or leave "
            "the row out."
        )
    values, codes = np.unique(texts.astype(str), return_inverse=True)
    return Column(tuple(values.tolist()), codes.astype(np.int64))


def _axis(axis: str, given: Texts, values: Sequence[str] | None, source: str) -> Column:
    column = _column(given, axis, source)
    if JOINT in axis + "".join(column.values):
        raise CounterpoiseError(
            f"{source}: axis {axis!r} has {JOINT!r} in its name or values, which joins axes."
        )
    if values is not None:
        column = Column(tuple(values), _placed_among(column, values, f"column {axis!r}", source))
        _all_there(axis, column.values, column.codes, source)
    if not 1 < len(column.values) <= MAX_VALUES:
        raise CounterpoiseError(
            f"{source}: column {axis!r} has {len(column.values)} different values, an axis has 2 to {MAX_VALUES}; name "
            "the columns that are axes (--axis)."
        )
    return column


def _all_there(axis: str, values: Sequence[str], codes: Ints, source: str) -> None:
    rows = np.bincount(codes, minlength=len(values))
    if not rows.all():
        raise CounterpoiseError(
            f"{source}: no row has the value {values[int(rows.argmin())]!r} of axis {axis!r}, rows of every value are "
            "wanted; ask the model about such images, or leave the axis out."
        )


def _placed_among(column: Column, known: Sequence[str], what: str, source: str) -> Ints:
    """Codes among known texts."""
    strange = [text for text in column.values if text not in known]
    if strange:
        row = int(np.flatnonzero(column.codes == column.values.index(strange[0]))[0]) + 1
        raise CounterpoiseError(
            f"{source}: row {row}, {what} is {strange[0]!r}, one of {', '.join(known)} is wanted."
        )
    return np.array([list(known).index(text) for text in column.values], np.int64)[column.codes]


def _placed(column: Column, known: Sequence[str]) -> Ints:
    return np.searchsorted(np.array(known), np.array(column.values)).astype(np.int64)[column.codes]


def _once(key: Texts | None, source: str) -> None:
    if key is None:
        return
    column = _column(key, "key", source)
    rows = np.bincount(column.codes)
    if rows.max() > 1:
        raise CounterpoiseError(
            f"{source}: key {column.values[int(rows.argmax())]!r} is there {rows.max()} times, once is wanted: one "
            "answer per image."
        )


def _concepts(
    said: Column,
    truth: Column | None,
    offers: tuple[list[tuple[str, ...]], Ints] | None,
    concepts: Sequence[str] | None,
    source: str,
) -> tuple[str, ...]:
    """Every concept, sorted."""
    if concepts is not None:
        _placed_among(said, concepts, f"column {PREDICTED!r}", source)
        if truth is not None:
            _placed_among(truth, concepts, "column 'concept'", source)
    found = {*said.values, *(truth.values if truth else ()), *(concepts or ())}
    return tuple(sorted(found.union(*(offers[0] if offers else ()))))


def _offers(options: Sequence[Sequence[str]], source: str) -> tuple[list[tuple[str, ...]], Ints]:
    """The different offers, sorted, and which of them each row had."""
    for row, offer in enumerate(options, start=1):
        texts = [] if offer is None or isinstance(offer, str) else list(offer)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise CounterpoiseError(
                f"{source}: row {row}, column 'options' is {offer!r}, a list of concepts is wanted."
            )
    each = [tuple(sorted(set(offer))) for offer in options]
    different = sorted(set(each))
    place = {offer: code for code, offer in enumerate(different)}
    return different, np.array([place[offer] for offer in each], np.int64)


def _offered(offers: tuple[list[tuple[str, ...]], Ints], concepts: Sequence[str]) -> Options:
    different, codes = offers
    return Options(np.array([[name in offer for name in concepts] for offer in different]), codes)
