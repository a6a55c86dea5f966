"""Published pictures with labels: FairFace and SocialCounterfactuals, in the forms in which they are published.

Labels are mapped to the values of a counterpoise dataset by name, never by number: FairFace's publications number its races
and genders differently.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import CounterpoiseError

from .labelled import Labels, Rows, check_pool, filled, read_rows, table_pool, values_of
from .pictures import picture
from .pools import Pool, PoolItem

Path_ = str | os.PathLike[str]
_RACES = {name: name for name in ("White", "Black", "Indian", "Asian", "Middle Eastern", "Latino")}
_AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
_TRAITS = ("skinny", "young", "obese", "tattooed", "old")
_BATCH = 64

#: FairFace's labels as values. Its nine bands of age stay: what is young or old there is for the caller to say.
FAIRFACE: Labels = {
    "gender": {"Male": "man", "Female": "woman"},
    "race": {
        **{name: name for name in ("White", "Black", "Indian", "Middle Eastern")},
        "Latino_Hispanic": "Latino",
        "East Asian": "Asian",
        "Southeast Asian": "Asian",
    },
    "age": {band: band for band in _AGES},
}
#: SocialCounterfactuals' labels, in small letters, as values; Howard et al. 2024: six races, five physical traits.
SOCIAL_COUNTERFACTUALS: Labels = {
    "gender": {"male": "man", "female": "woman"},
    "race": {name.lower(): value for name, value in _RACES.items()},
    "physical": {trait: trait for trait in _TRAITS},
}


def fairface_csv(labels_file: Path_, images: Path_ | None = None, labels: Labels = FAIRFACE) -> Pool:
    """FairFace as its authors publish it: a CSV `file,age,gender,race,service_test` and a folder of pictures.

    Args:
        labels_file: such as fairface_label_val.csv.
        images: the folder that `file` starts from; None for the CSV's own.
        labels: by axis, label to value; axes that are not named here are left out.

    Raises:
        CounterpoiseError: see `labelled.table_pool`.
    """
    return table_pool(labels_file, list(labels), path="file", root=images, labels=labels)


def fairface_parquet(files: Path_ | Sequence[Path_], labels: Labels = FAIRFACE) -> Pool:
    """FairFace as on the hub (HuggingFaceM4/FairFace): Parquet with pictures inside and labels as numbers of classes.

    What a number means is taken from the file's own metadata, which `datasets` writes, and from nowhere else.

    Args:
        files: Parquet files, or a folder of them.
        labels: by axis, label to value; axes that are not named here are left out.

    Raises:
        CounterpoiseError: a file or column is missing, classes have no names, a label is missing or unknown, or there are
            no rows; later, a picture is damaged.
    """
    tables = _parquets(files)
    rows = {table: _named_classes(table, list(labels)) for table in tables}
    values = [
        one
        for table, own in rows.items()
        for one in values_of(own, {axis: axis for axis in labels}, labels, str(table))
    ]
    facts = [(None, None, its) for its in values]
    return _parquet_pool(str(files), tuple(labels), {table: len(own) for table, own in rows.items()}, facts)


def social_counterfactuals(
    files: Path_ | Sequence[Path_],
    axes: tuple[str, str] = ("race", "gender"),
    labels: Labels = SOCIAL_COUNTERFACTUALS,
) -> Pool:
    """SocialCounterfactuals as on the hub (Intel/SocialCounterfactuals): Parquet with pictures inside.

    Its card names no columns. Those read here are what public programs read of it: image, counterfactual_set, caption, and
    a1, a1_type, a2, a2_type for the two attributes a picture was made with. Three segments lie in the same files (race
    and gender, physical and gender, physical and race); one is taken. The concept is what stands behind both attributes
    in the caption, such as "plumber" in "A picture of a White male plumber". Not tried on the published files.

    Args:
        files: Parquet files, or a folder of them.
        axes: the segment, by the types of its attributes.
        labels: by axis, label in small letters to value.

    Raises:
        CounterpoiseError: a file or column is missing, the segment is empty, a label is missing or unknown, or a caption
            does not name its attributes; later, a picture is damaged.
    """
    columns = ["counterfactual_set", "caption", "a1", "a1_type", "a2", "a2_type"]
    facts: list[_Facts | None] = []
    types: set[str] = set()
    tables = _parquets(files)
    sizes = {}
    for table in tables:
        rows = read_rows(table, columns)
        sizes[table] = len(rows)
        for column in columns:
            filled(rows, column, str(table))
        types |= {f"{row['a1_type']} and {row['a2_type']}" for row in rows}
        facts += _segment(rows, axes, labels, str(table))
    if not any(facts):
        given = ", ".join(sorted(types)) or "none"
        raise CounterpoiseError(
            f"{files}: no picture has the attributes {' and '.join(axes)}; there are {given}."
        )
    return _parquet_pool(str(files), axes, sizes, facts)


_Facts = tuple[str | None, str | None, dict[str, str]]


def _segment(rows: Rows, axes: tuple[str, str], labels: Labels, where: str) -> list[_Facts | None]:
    """Set, concept and values of the rows whose attributes are of the axes' types; None for the others."""
    found: list[_Facts | None] = []
    for row in rows:
        by_type = {row[f"{name}_type"].lower(): row[name] for name in ("a1", "a2")}
        if set(by_type) != set(axes):
            found.append(None)
            continue
        lowered = {axis: by_type[axis].lower() for axis in axes}
        (values,) = values_of([lowered], {axis: axis for axis in axes}, labels, where)
        found.append((row["counterfactual_set"], _subject(row["caption"], by_type.values(), where), values))
    return found


def _subject(caption: str, attributes: Any, where: str) -> str:
    """What stands in a caption behind its attributes, in small letters."""
    ends = []
    for attribute in attributes:
        hit = re.search(rf"(?<!\w){re.escape(attribute)}(?!\w)", caption, re.IGNORECASE)
        ends.append(hit.end() if hit else len(caption))
    subject = caption[max(ends) :].strip(" .").lower()
    if not subject:
        raise CounterpoiseError(
            f"{where}: caption {caption!r} does not name its attributes and something behind them; such as 'a White male "
            "plumber' is wanted."
        )
    return subject


def _parquet_pool(
    where: str, axes: tuple[str, ...], sizes: Mapping[Path, int], facts: Sequence[_Facts | None]
) -> Pool:
    """A pool of the pictures inside Parquet files; `facts` of all rows, file after file, None for what is left out."""
    keys = [f"{table.stem}-{row:06d}" for table, size in sizes.items() for row in range(size)]
    check_pool([key for key, its in zip(keys, facts, strict=True) if its], where)

    def items() -> Iterator[PoolItem]:
        every = iter(zip(keys, facts, strict=True))
        for table in sizes:
            for data in _images(table):
                key, its = next(every)
                if its is not None:
                    yield PoolItem(key, its[0], its[1], its[2], picture(data, f"{table}: {key}"))

    return Pool(where, axes, sum(its is not None for its in facts), items)


def _images(table: Path) -> Iterator[bytes]:
    """The encoded pictures of a Parquet file, as `datasets` stores them: a struct of bytes and path."""
    with pq.ParquetFile(table) as file:
        for batch in file.iter_batches(_BATCH, columns=["image"]):
            for one in batch.column("image").to_pylist():
                yield (one or {}).get("bytes") or b""


def _parquets(files: Path_ | Sequence[Path_]) -> list[Path]:
    given = [files] if isinstance(files, str | os.PathLike) else list(files)
    found = [
        path
        for one in map(Path, given)
        for path in (sorted(one.rglob("*.parquet")) if one.is_dir() else [one])
    ]
    if not found:
        raise CounterpoiseError(f"{files}: no Parquet file is there; give the files, or a folder of them.")
    if len({path.stem for path in found}) < len(found):
        raise CounterpoiseError(
            f"{files}: two files have the same name, which keys begin with; give them one by one."
        )
    for path in found:
        _check_image(path)
    return found


def _check_image(table: Path) -> None:
    try:
        kind = pq.read_schema(table).field("image").type
    except (OSError, pa.ArrowException) as error:
        raise CounterpoiseError(
            f"{table}: cannot be read ({error}); a whole Parquet file is wanted."
        ) from error
    except KeyError as error:
        raise CounterpoiseError(
            f"{table}: column 'image' is missing; Parquet as on the hub is wanted."
        ) from error
    if not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        raise CounterpoiseError(f"{table}: column 'image' is {kind}, a struct with bytes is wanted.")


def _named_classes(table: Path, columns: Sequence[str]) -> Rows:
    """Columns of labels, numbers of classes replaced by their names in the file's metadata."""
    rows, schema = read_rows(table, columns), pq.read_schema(table)
    for column in columns:
        if not pa.types.is_integer(schema.field(column).type):
            continue
        names = _class_names(schema, column)
        if not names:
            raise CounterpoiseError(
                f"{table}: column {column!r} has numbers, and the file's metadata do not say what they mean, which differs "
                "from one publication to the next; a file as `datasets` writes it is wanted."
            )
        for number, row in enumerate(rows, start=1):
            value = row[column]
            if value is not None and not 0 <= value < len(names):
                raise CounterpoiseError(
                    f"{table}: row {number} has {column} {value}, of {len(names)} classes; mend it."
                )
            row[column] = None if value is None else names[value]
    return rows


def _class_names(schema: pa.Schema, column: str) -> list[str]:
    """What `datasets` wrote about a column of classes into a file's metadata; nothing if it did not."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []
