"""`--to hf`: Parquet with the images in it, split by split, as the Hugging Face hub favours it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.backend import fault_point
from storage.card import Layout
from storage.records import schema, to_row

from .source import Advance, Source, all_images, image_name
from .target import inside

#: A file is closed when its images reach this many bytes; the hub asks for files of some 500 MB.
FILE_BYTES = 450 * 2**20
#: A group of rows is read at once.
GROUP_BYTES = 32 * 2**20
GROUP_ROWS = 100
_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_READING = """\
From inside this folder; from elsewhere, give its path, or the name of the repository on the hub:

```python
import os
import datasets
rows = datasets.load_dataset(os.getcwd())
```

A row is a kept image with all that the dataset records of it; `sha256` is of the image's file.
"""


def write_hub(source: Source, folder: Path, advance: Advance) -> Layout:
    """Write `data/<split>-<n>-of-<m>.parquet`."""
    columns = hub_schema(list(source.manifest.axes))
    (folder / "data").mkdir()
    files = {split: _Files(folder / "data", split, columns) for split in source.images}
    try:
        for sample, image in all_images(source, advance):
            row = {"image": {"bytes": image, "path": image_name(sample, image)}, **to_row(sample)}
            files[sample.split].add(row, len(image))
        for one in files.values():
            one.finish()
    finally:
        for one in files.values():
            one.close()
    parts = [{"split": split, "path": f"data/{split}-*"} for split in source.images]
    return Layout(
        configs=[{"config_name": "default", "data_files": parts}],
        reading=_READING,
        tags=("parquet",),
        images=source.total,
        note="This is an export: the kept images in Parquet, as they were stored.",
    )


def hub_schema(axes: list[str]) -> pa.Schema:
    """`image` and the columns of a shard's Parquet, with the features that `datasets` looks for.

    All may be null: `datasets` leaves features alone whose columns may not.
    """
    columns = [field.with_nullable(True) for field in schema(axes)]
    features: dict[str, Mapping[str, str]] = {"image": {"_type": "Image"}}
    for field in columns:
        features[field.name] = {"dtype": _dtype(field.type), "_type": "Value"}
    told = json.dumps({"info": {"features": features}}, sort_keys=True).encode("ascii")
    return pa.schema([pa.field("image", _IMAGE), *columns], metadata={b"huggingface": told})


def _dtype(kind: pa.DataType) -> str:
    """The name that `datasets` has for a type."""
    return {"double": "float64"}.get(str(kind), str(kind))


class _Files:
    """The Parquet files of one split, closed when full; how many there are is known at the end alone."""

    def __init__(self, folder: Path, split: str, columns: pa.Schema) -> None:
        self._folder, self._split, self._columns = folder, split, columns
        self._rows: list[Mapping[str, Any]] = []
        self._group = self._file = self._count = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: Mapping[str, Any], size: int) -> None:
        """Take one row, whose image has so many bytes."""
        self._rows.append(row)
        self._group += size
        if self._group >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write what is left and give the files their names."""
        self._flush()
        self.close()
        for index in range(self._count):
            name = f"{self._split}-{index:05d}-of-{self._count:05d}.parquet"
            self._part(index).rename(self._folder / name)

    def close(self) -> None:
        """Close the file that is being written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            fault_point("export.file")

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._writer = _writer(self._part(self._count), self._columns)
            self._count, self._file = self._count + 1, 0
        self._writer.write_table(
            pa.Table.from_pylist([dict(row) for row in self._rows], schema=self._columns)
        )
        self._file += self._group
        self._rows, self._group = [], 0
        if self._file >= FILE_BYTES:
            self.close()

    def _part(self, index: int) -> Path:
        return inside(self._folder, f"{self._split}-{index:05d}.part")


def _writer(path: Path, columns: pa.Schema) -> pq.ParquetWriter:
    """Images are compressed already; content-defined pages let the hub store what is new alone."""
    codecs = {name: "zstd" for name in columns.names if name != "image"}
    return pq.ParquetWriter(
        path,
        columns,
        version="2.6",
        compression={**codecs, "image.bytes": "none", "image.path": "zstd"},
        write_page_index=True,
        write_page_checksum=True,
        use_content_defined_chunking=True,
    )
