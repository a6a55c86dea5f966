"""Where samples lie in tars, in the two forms that Megatron-Energon reads: offsets beside a tar, one index for all."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_SCHEMA = """
CREATE TABLE samples (
    tar_file_id INTEGER NOT NULL,
    sample_key TEXT NOT NULL UNIQUE,
    sample_index INTEGER NOT NULL,
    byte_offset INTEGER,
    byte_size INTEGER
);
CREATE TABLE sample_parts (
    tar_file_id INTEGER,
    sample_index INTEGER,
    part_name TEXT,
    content_byte_offset INTEGER,
    content_byte_size INTEGER
);
"""
_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full
    ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""


@dataclass(frozen=True, slots=True)
class IndexedSample:
    """A sample in a tar.

    Attributes:
        key: name of its files without their suffix.
        offset: of its first header, bytes from the tar's start.
        size: up to the next sample's first header, bytes.
        parts: (suffix, offset of the content, its length) of every file.
    """

    key: str
    offset: int
    size: int
    parts: tuple[tuple[str, int, int], ...]


def offsets(samples: Sequence[IndexedSample]) -> bytes:
    """`<tar>.idx`: where every sample begins and where the last one ends, unsigned 64-bit, little-endian."""
    ends = samples[-1].offset + samples[-1].size
    numbers = [*(sample.offset for sample in samples), ends]
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def sqlite_index(tars: Sequence[Sequence[IndexedSample]]) -> bytes:
    """`index.sqlite` over tars in their order; the same samples give the same bytes within one environment."""
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(_SCHEMA)
        for tar, samples in enumerate(tars):
            rows = [(tar, one.key, place, one.offset, one.size) for place, one in enumerate(samples)]
            database.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", rows)
            parts = [(tar, place, *part) for place, one in enumerate(samples) for part in one.parts]
            database.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", parts)
        database.executescript(_INDEXES)
        database.commit()
        return database.serialize()
    finally:
        database.close()
