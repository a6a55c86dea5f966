"""Images of a shard one at a time, by their place in the tar, each believed only after its sha256.

The Parquet's hash is in the manifest, every image's hash in the Parquet. So an image needs no pass over its tar, and
what is skipped is not read: headers alone are looked at, to find the images. When an image is read for the first
time in this process, every byte of its stretch of the tar is compared: headers, record, padding, image.
"""

from __future__ import annotations

import os
from array import array
from collections import OrderedDict
from collections.abc import Mapping
from io import BufferedReader
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .backend import LocalBackend
from .canonical import sha256
from .errors import ShardDamaged
from .plan import read_table
from .reading import MAX_PARQUET, check_length
from .records import row_json, schema
from .shardfile import AGAIN, FileRecord
from .tarball import BLOCK, find_members, stretch_members

Identity = tuple[object, ...]
#: Images whose places a process remembers, at 25 bytes each.
MAX_REMEMBERED = 2**20
_sound: set[Identity] = set()
_remembered: OrderedDict[Identity, Places] = OrderedDict()


def _identity(opened: BufferedReader, file: FileRecord, where: str) -> Identity:
    """What changes when a file is replaced or written to."""
    stat = os.fstat(opened.fileno())
    place = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return os.path.abspath(where), file.sha256, *place


def shard_table(
    backend: LocalBackend, file: FileRecord, axes: list[str], columns: list[str] | None = None
) -> pa.Table:
    """A shard's Parquet, or some columns: its length is checked always, its sha256 at first use in this process.

    Raises:
        ShardDamaged: it is not what the manifest names, or has other columns than the dataset.
    """
    where = backend.where(file.path)
    with backend.open(file.path) as opened:
        check_length(opened, file.bytes, where)
        identity = _identity(opened, file, where)
        content = opened.read(min(file.bytes, MAX_PARQUET))
    if identity not in _sound:
        if len(content) != file.bytes or sha256(content) != file.sha256:
            raise ShardDamaged(f"{where} is damaged: its sha256 is not the one in its manifest; {AGAIN}.")
        if not pq.read_schema(pa.BufferReader(content)).equals(schema(axes)):
            raise ShardDamaged(f"{where}: the Parquet's columns are not those of the dataset.")
        _sound.add(identity)
    return read_table(content, where, columns)


class Places:
    """Where the images of a tar are, and which of them this process has found sound.

    Attributes:
        begin: first byte of every image's pair of members, and the end of the last.
        image, size: first byte of its content, and bytes of it.
        sound: 1 where the pair was compared with its row.
    """

    def __init__(self, file: BufferedReader, pairs: int, where: str) -> None:
        """Find the images by the headers of the tar.

        Raises:
            ShardDamaged: the headers do not add up to so many images, each with a record, and the file's length.
        """
        self.begin, self.image, self.size = array("q"), array("q"), array("q")
        self.sound = bytearray(pairs)
        members = find_members(file, 2 * pairs, os.fstat(file.fileno()).st_size, where)
        end = 0
        for first, second in zip(members, members, strict=True):
            if first[0] == second[0]:
                raise ShardDamaged(f"{where} is damaged: an image or its record is missing after byte {end}.")
            self.begin.append(first[1] - BLOCK)
            _, image, size = second if first[0] else first
            self.image.append(image)
            self.size.append(size)
            end = second[1] + second[2] + -second[2] % BLOCK
        self.begin.append(end)


class Pictures:
    """The images of one open tar; a with-block closes it."""

    def __init__(self, backend: LocalBackend, tar: FileRecord, pairs: int) -> None:
        """Open a tar that holds so many images; its length is checked, and where its images are.

        Raises:
            ShardDamaged: it is missing, or not of the length or the form that its manifest says.
        """
        self._where = backend.where(tar.path)
        self._file = backend.open(tar.path)
        try:
            check_length(self._file, tar.bytes, self._where)
            self._places = _places(self._file, tar, pairs, self._where)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Pictures:
        """Nothing more to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the tar."""
        self._file.close()

    def read(self, place: int, row: Mapping[str, Any]) -> bytes:
        """The encoded image at a place of the tar, which its row of the Parquet describes.

        Raises:
            ShardDamaged: one of the bytes is not what the row says.
        """
        places = self._places
        if places.sound[place]:
            return self._bytes(places.image[place], places.size[place])
        begin, end = places.begin[place], places.begin[place + 1]
        (first, record), (second, image) = self._pair(begin, end, row)
        if first.endswith(".json"):
            names = (first, second)
        else:
            names, record, image = (second, first), image, record
        key = row["key"]
        named = names[0] == f"{key}.json" and names[1].rpartition(".")[0] == key
        if not named or record != row_json(row) or sha256(image) != row["sha256"]:
            raise ShardDamaged(
                f"{self._where}: the tar's members of {key!r} do not fit the Parquet's row; {AGAIN}."
            )
        places.sound[place] = 1
        return image

    def _pair(self, begin: int, end: int, row: Mapping[str, Any]) -> list[tuple[str, bytes]]:
        members = stretch_members(self._bytes(begin, end - begin), self._where)
        if len(members) != 2:
            raise ShardDamaged(
                f"{self._where} is damaged: {row['key']!r} is not one image and one record; {AGAIN}."
            )
        return members

    def _bytes(self, begin: int, size: int) -> bytes:
        self._file.seek(begin)
        return self._file.read(size)


def _places(file: BufferedReader, tar: FileRecord, pairs: int, where: str) -> Places:
    """The places of a tar's images, from memory if it was open before and did not change."""
    identity = _identity(file, tar, where)
    found = _remembered.pop(identity, None) or Places(file, pairs, where)
    _remembered[identity] = found
    while len(_remembered) > 1 and sum(len(one.sound) for one in _remembered.values()) > MAX_REMEMBERED:
        _remembered.popitem(last=False)
    return found
