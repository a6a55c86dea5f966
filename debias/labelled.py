"""Labelled pictures of others: a table with a path and a column per axis; labels are mapped to values by name alone."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import CounterpoiseError

from .pictures import picture
from .pools import Pool, PoolItem

#: Axis to label to value.
Labels = Mapping[str, Mapping[str, str]]
Rows = list[dict[str, Any]]
_TABLES = ("metadata.csv", "metadata.parquet")


def table_pool(
    source: str | os.PathLike[str],
    axes: Sequence[str],
    *,
    path: str = "file_name",
    root: str | os.PathLike[str] | None = None,
    key: str | None = None,
    set_id: str | None = None,
    concept: str | None = None,
    labels: Labels | None = None,
) -> Pool:
    """The pictures that a CSV or Parquet file lists, in its order.

    Args:
        source: the file, or a folder with metadata.csv or metadata.parquet, as `datasets` reads image folders.
        axes: columns that hold the value of an axis of that name.
        path: column with the picture's path.
        root: folder that paths start from; None for the file's own.
        key: column with the picture's name; None for its path.
        set_id: column with its counterfactual set, if there is one.
        concept: column with its concept, if there is one.
        labels: by axis, what each label in the column means; labels of axes that are not named here are values.

    Raises:
        CounterpoiseError: the file or a column is missing, a label is missing or unknown, a key is there twice, or there
            are no rows; later, a picture is missing or damaged.
    """
    table = _table(Path(source))
    rows = read_rows(table, [path, *axes, *filter(None, (key, set_id, concept))])
    values = values_of(rows, {axis: axis for axis in axes}, labels or {}, str(table))
    paths = filled(rows, path, str(table))
    keys = filled(rows, key, str(table)) if key else paths
    check_pool(keys, str(table))
    folder = table.parent if root is None else Path(root)

    def items() -> Iterator[PoolItem]:
        for row, name, relative, its in zip(rows, keys, paths, values, strict=True):
            image = picture(folder / relative, str(folder / relative))
            yield PoolItem(name, _cell(row, set_id), _cell(row, concept), its, image)

    return Pool(str(source), tuple(axes), len(rows), items)


def read_rows(table: Path, columns: Sequence[str]) -> Rows:
    """Some columns of a CSV or Parquet file, row by row.

    Raises:
        CounterpoiseError: it cannot be read, or a column is missing.
    """
    try:
        if table.suffix == ".parquet":
            with pq.ParquetFile(table) as file:
                _check_columns(file.schema_arrow.names, columns, table)
                rows: Rows = file.read(columns=list(dict.fromkeys(columns))).to_pylist()
            return rows
        with table.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            _check_columns(reader.fieldnames or [], columns, table)
            return [{name: row[name] for name in columns} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise CounterpoiseError(
            f"{table}: cannot be read ({error}); a CSV or Parquet file is wanted."
        ) from error


def values_of(rows: Rows, columns: Mapping[str, str], labels: Labels, where: str) -> list[dict[str, str]]:
    """Values by axis of every row.

    Args:
        rows: of a table.
        columns: axis to the column with its labels.
        labels: by axis, label to value; labels of other axes are values.
        where: the table.

    Raises:
        CounterpoiseError: a label is missing or unknown; names it.
    """
    by_axis = {axis: filled(rows, column, where) for axis, column in columns.items()}
    for axis, found in by_axis.items():
        if axis in labels:
            known = labels[axis]
            if strange := sorted(set(found) - known.keys()):
                raise CounterpoiseError(
                    f"{where}: {axis} {', '.join(map(repr, strange[:5]))} is unknown; known are {', '.join(known)}: map "
                    "every label to a value by its name."
                )
            by_axis[axis] = [known[label] for label in found]
    return [dict(zip(by_axis, row, strict=True)) for row in zip(*by_axis.values(), strict=True)]


def filled(rows: Rows, column: str, where: str) -> list[str]:
    """A column as text, without gaps.

    Raises:
        CounterpoiseError: a cell is empty; says in which row, the first being 1.
    """
    cells = [_cell(row, column) for row in rows]
    for number, cell in enumerate(cells, start=1):
        if cell is None:
            raise CounterpoiseError(
                f"{where}: row {number} has no {column}; fill it in, or leave the row out."
            )
    return [str(cell) for cell in cells]


def check_pool(keys: Sequence[str], where: str) -> None:
    """Refuse a pool without pictures, or with a key twice.

    Raises:
        CounterpoiseError: names the first.
    """
    if not keys:
        raise CounterpoiseError(f"{where}: it lists no pictures; one or more are wanted.")
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise CounterpoiseError(f"{where}: {key!r} is listed twice; each picture is wanted once.")
        seen.add(key)


def _cell(row: Mapping[str, Any], column: str | None) -> str | None:
    value = None if column is None else row[column]
    return None if value is None or value == "" else str(value)


def _table(source: Path) -> Path:
    if not source.is_dir():
        return source
    for name in _TABLES:
        if (source / name).is_file():
            return source / name
    raise CounterpoiseError(
        f"{source}: a folder with {' or '.join(_TABLES)} is wanted, which lists its pictures."
    )


def _check_columns(found: Sequence[str], wanted: Sequence[str], where: Path) -> None:
    if missing := [name for name in wanted if name not in found]:
        given = ", ".join(found) or "none"
        raise CounterpoiseError(f"{where}: column {missing[0]!r} is missing; its columns are {given}.")
