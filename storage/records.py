"""One image and everything known about it: the record that travels from the engine to the shard and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .canonical import canonical_text, sha256
from .errors import CounterpoiseError

SET_ID = re.compile(r"[a-z0-9_]{1,90}")
NAME = re.compile(r"[a-z0-9_]{1,90}")
AXIS = re.compile(r"[a-z][a-z0-9_]{0,62}")
MAX_CELLS = 100

_BEFORE_AXES: dict[str, pa.DataType] = {
    "key": pa.string(),
    "set_id": pa.string(),
    "member": pa.int32(),
    "candidate": pa.int32(),
    "base": pa.int32(),
    "kept": pa.bool_(),
    "reason": pa.string(),
    "split": pa.string(),
    "concept": pa.string(),
    "concept_group": pa.string(),
}
_AFTER_AXES: dict[str, pa.DataType] = {
    "prompt": pa.string(),
    "neutral_prompt": pa.string(),
    "edited_words": pa.string(),
    "seed": pa.int64(),
    "steps": pa.int32(),
    "guidance": pa.float64(),
    "scheduler": pa.string(),
    "cross_replace": pa.float64(),
    "self_replace": pa.float64(),
}
SCORES: dict[str, pa.DataType] = {
    "clip_text": pa.float64(),
    "clip_direction": pa.float64(),
    "clip_base": pa.float64(),
    "background_change": pa.float64(),
    "attribute_ok": pa.bool_(),
    "attribute_failed": pa.string(),
    "nsfw": pa.float64(),
    "face_count": pa.int32(),
}
_LAST: dict[str, pa.DataType] = {"width": pa.int32(), "height": pa.int32(), "sha256": pa.string()}
_NULLABLE = {"reason", "cross_replace", "self_replace", "sha256", *SCORES}
_NOT_IN_JSON = {"kept", *_NULLABLE} - {"sha256"}

Score = float | bool | int | str | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of one candidate set.

    Attributes:
        key: `<set_id>-<member>`, member in two digits.
        member: index of the cell, in the order of the dataset's axes.
        candidate: which try of the planned set.
        base: the member this one was edited from; a base names itself.
        reason: why it was rejected; None if kept.
        attributes: value of every axis, as prompted.
        edited_words: such as "White -> Middle Eastern"; "" for a base.
        scores: what was computed, by the names in `SCORES`; missing and None both mean "not computed".
        image: encoded PNG, JPEG or WebP of a kept sample; None for a rejected one.
    """

    key: str
    set_id: str
    member: int
    candidate: int
    base: int
    kept: bool
    reason: str | None
    split: str
    concept: str
    concept_group: str
    attributes: Mapping[str, str]
    prompt: str
    neutral_prompt: str
    edited_words: str
    seed: int
    steps: int
    guidance: float
    scheduler: str
    cross_replace: float | None
    self_replace: float | None
    scores: Mapping[str, Score]
    width: int
    height: int
    image: bytes | None


def sample_key(set_id: str, member: int) -> str:
    """The key of a member in tar and Parquet."""
    return f"{set_id}-{member:02d}"


def schema(axes: Sequence[str]) -> pa.Schema:
    """Columns of a shard's Parquet, one of them per axis.

    Raises:
        CounterpoiseError: an axis has the name of another column, or one that cannot be a column.
    """
    fixed = {**_BEFORE_AXES, **_AFTER_AXES, **SCORES, **_LAST}
    for axis in axes:
        if not AXIS.fullmatch(axis) or axis in fixed or list(axes).count(axis) > 1:
            raise CounterpoiseError(
                f"axis {axis!r}: a name of small letters, digits and _ is wanted, and not another column's."
            )
    columns = {**_BEFORE_AXES, **dict.fromkeys(axes, pa.string()), **_AFTER_AXES, **SCORES, **_LAST}
    return pa.schema([pa.field(name, kind, nullable=name in _NULLABLE) for name, kind in columns.items()])


def to_row(sample: Sample) -> dict[str, Any]:
    """A sample as one row: scores and attributes become columns, the image its hash."""
    fields = (*_BEFORE_AXES, *_AFTER_AXES, "width", "height")
    row = {name: getattr(sample, name) for name in fields}
    row.update(sample.attributes)
    row.update({name: _score(kind, sample.scores.get(name)) for name, kind in SCORES.items()})
    row.update({name: _float(row[name]) for name in ("guidance", "cross_replace", "self_replace")})
    row["sha256"] = None if sample.image is None else sha256(sample.image)
    return row


def _score(kind: pa.DataType, value: Score) -> Score:
    if value is None or kind == pa.string():
        return value
    return bool(value) if kind == pa.bool_() else int(value) if kind == pa.int32() else float(value)


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def from_row(row: Mapping[str, Any], axes: Sequence[str], image: bytes | None) -> Sample:
    """The sample of a row; every name in `SCORES` is there, None where it was not computed."""
    fields = (*_BEFORE_AXES, *_AFTER_AXES, "width", "height")
    return Sample(
        **{name: row[name] for name in fields},
        attributes={axis: row[axis] for axis in axes},
        scores={name: row[name] for name in SCORES},
        image=image,
    )


def sample_json(sample: Sample) -> bytes:
    """The record beside an image in the tar: one flat JSON object under the names of the columns.

    It holds what every sample has. Columns that may be null (the scores above all) are in the Parquet only: a
    reader that infers types from the first records, as `datasets` does, fails on a value after nulls.
    """
    return row_json(to_row(sample))


def row_json(row: Mapping[str, Any]) -> bytes:
    """`sample_json` from a row."""
    return canonical_text({name: row[name] for name in row.keys() - _NOT_IN_JSON}).encode("utf-8")


def compared_columns(axes: Sequence[str]) -> list[str]:
    """Columns of a row that `row_json` and the image's hash speak of."""
    return [name for name in schema(axes).names if name not in _NOT_IN_JSON]


def to_parquet(table: pa.Table) -> bytes:
    """A table as Parquet; the same rows give the same bytes within one environment."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=2**17,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=True,
        write_statistics=True,
        write_page_checksum=True,
        store_schema=True,
    )
    return bytes(sink.getvalue())


def rows_to_parquet(rows: Iterable[Mapping[str, Any]], axes: Sequence[str]) -> bytes:
    """Rows as a shard's Parquet."""
    return to_parquet(pa.Table.from_pylist([dict(row) for row in rows], schema=schema(axes)))


def iter_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows of a table, converted a batch at a time."""
    for batch in table.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()
