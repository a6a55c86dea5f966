"""Predictions from a file: Parquet, or CSV with a header.

Columns: `predicted`, one per axis, and where known `key`, `set_id`, `concept` (the true one) and `options` (what was
offered: a list, or text separated by `|`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from storage.backend import explain
from storage.errors import CounterpoiseError

from .predictions import JOINT, KNOWN, PREDICTED, Predictions, predictions_from

_PARQUET = b"PAR1"
_INDEX = "__index_level_"  # pandas writes its index under such a name


def read_predictions(
    path: str | os.PathLike[str],
    axes: Sequence[str] | None = None,
    *,
    values: Mapping[str, Sequence[str]] | None = None,
    concepts: Sequence[str] | None = None,
) -> Predictions:
    """Predictions from a Parquet or CSV file.

    Args:
        path: of the file.
        axes: columns that are axes, joint ones (`gender*race`) for their parts; None for those of `values`, or else
            for every column that has no meaning of its own.
        values: every value that an axis has, where that is known.
        concepts: every concept, where that is known.

    Raises:
        CounterpoiseError: it is neither, a column is missing, or a cell is empty or unknown; names row and column.
    """
    source = os.fspath(path)
    table = _table(source)
    names = [name for name in table.column_names if not name.startswith(_INDEX)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise CounterpoiseError(f"{source}: column {twice[0]!r} is there twice, once is wanted.")
    wanted = _axes(names, axes, values)
    for name in (PREDICTED, *wanted):
        if name not in names:
            raise CounterpoiseError(
                f"{source}: no column {name!r}; its columns are {', '.join(names) or 'none'}. Wanted are {PREDICTED}, "
                "one per axis, and where known key, set_id, concept, options."
            )
    optional = {name: _texts(table, name, source) for name in ("key", "set_id", "concept") if name in names}
    return predictions_from(
        _texts(table, PREDICTED, source),
        {axis: _texts(table, axis, source) for axis in wanted},
        options=_options(table, source) if "options" in names else None,
        values=values,
        concepts=concepts,
        source=source,
        **optional,
    )


def _axes(
    names: Sequence[str], axes: Sequence[str] | None, values: Mapping[str, Sequence[str]] | None
) -> list[str]:
    if axes:
        return list(dict.fromkeys(part for axis in axes for part in axis.split(JOINT)))
    return list(values) if values is not None else [name for name in names if name not in KNOWN]


def _table(source: str) -> pa.Table:
    if not Path(source).is_file():
        raise CounterpoiseError(f"{source} is no file, a Parquet or CSV file of predictions is wanted.")
    try:
        with Path(source).open("rb") as file:
            parquet = file.read(len(_PARQUET)) == _PARQUET
    except OSError as error:
        raise explain(error, source) from error
    try:
        return pq.read_table(source, partitioning=None) if parquet else _csv(source)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _neither(source, error) from error


def _csv(source: str) -> pa.Table:
    """All columns as text; Arrow's spellings of null are null."""
    with pacsv.open_csv(source) as opened:
        names = opened.schema.names
    types = dict.fromkeys(names, pa.string())
    return pacsv.read_csv(
        source, convert_options=pacsv.ConvertOptions(column_types=types, strings_can_be_null=True)
    )


def _neither(source: str, error: Exception) -> CounterpoiseError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CounterpoiseError(f"{source} is neither Parquet nor CSV with a header ({text.rstrip('.')}).")


def _texts(table: pa.Table, name: str, source: str) -> Any:
    """A column as an array of texts; whole numbers and truth values become text."""
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    _no_nulls(column, name, source)
    plain = pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
    if not (plain or _is_text(column.type)):
        raise CounterpoiseError(f"{source}: column {name!r} is {column.type}, text is wanted.")
    return column.cast(pa.string()).to_numpy(zero_copy_only=False)


def _options(table: pa.Table, source: str) -> list[list[str]]:
    column = table["options"]
    _no_nulls(column, "options", source)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return list(column.to_pylist())
    return [[part.strip() for part in text.split("|")] for text in _texts(table, "options", source)]


def _no_nulls(column: pa.ChunkedArray, name: str, source: str) -> None:
    """Refuse empty cells and NaN."""
    empty = np.flatnonzero(pc.is_null(column, nan_is_null=True).to_numpy())
    if empty.size:
        raise CounterpoiseError(
            f"{source}: row {empty[0] + 1}, column {name!r} is empty ({empty.size} are), text is wanted; fill it or "
            "leave the row out."
        )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
