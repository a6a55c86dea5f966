"""Images of a shard one at a time, by their place in the tar, each believed only after a sha256.

Where most of a tar's images are wanted, the whole tar is compared with its manifest at its first use in this process, or
by one of the workers beside it (see `checked`).
Where few are, they need no pass over the tar, and what is skipped is not read: the Parquet's hash is in the manifest,
every image's hash in the Parquet, and at first use every byte of the image's stretch of the tar is compared with its row:
headers, record, padding, image. Headers alone are looked at to find the images.
"""

from __future__ import annotations

import os
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from io import BufferedIOBase
from types import TracebackType
from typing import Any

import pyarrow as pa

from .backend import Backend
from .canonical import sha256
from .checked import Checked
from .errors import CounterpoiseError, ShardDamaged
from .images import image_suffix
from .plan import read_table
from .quarantine import check_bytes, check_length
from .reading import MAX_PARQUET
from .records import row_json, schema
from .shardfile import AGAIN, FileRecord
from .tarball import BLOCK, find_members, header, member_block

Identity = tuple[object, ...]
#: Images whose places a process remembers, at 25 bytes each.
MAX_REMEMBERED = 2**20
_sound: set[Identity] = set()
_remembered: OrderedDict[Identity, Places] = OrderedDict()


def _identity(backend: Backend, opened: BufferedIOBase, file: FileRecord) -> Identity | None:
    """What changes when a file is replaced or written to; None where each opening fetches it anew."""
    path = backend.path(file.path)
    if path is None:
        return None
    stat = os.fstat(opened.fileno())
    place = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return os.path.abspath(path), file.sha256, *place


def shard_table(
    backend: Backend, file: FileRecord, axes: list[str], columns: list[str] | None = None
) -> pa.Table:
    """A shard's Parquet, or some columns: its length is checked always, its sha256 at first use in this process.

    Raises:
        ShardDamaged: it is not what the manifest names, or has other columns than the dataset.
    """
    where = backend.where(file.path)
    with backend.open(file.path) as opened:
        check_length(_length(opened), file.bytes, where)
        identity = _identity(backend, opened, file)
        content = opened.read(min(file.bytes, MAX_PARQUET))
    if identity is None or identity not in _sound:
        if len(content) != file.bytes or sha256(content) != file.sha256:
            raise ShardDamaged(f"{where} is damaged: its sha256 is not the one in its manifest; {AGAIN}.")
        if identity is not None:
            _sound.add(identity)
    return read_table(content, where, columns, schema(axes))


class Places:
    """Where the images of a tar are, and which of them this process has found sound.

    Attributes:
        begin: first byte of every image's pair of members, and the end of the last.
        first, second: bytes of the content of the pair's members.
        image: 1 or 2, the member that is the image.
        sound: 1 where the pair's bytes are those that the manifest names, 2 where they fit the row too.
    """

    def __init__(self, file: BufferedIOBase, pairs: int, where: str) -> None:
        """Find the images by the headers of the tar.

        Raises:
            ShardDamaged: the headers do not add up to so many pairs and the file's length.
        """
        self.begin, self.first, self.second = array("q"), array("q"), array("q")
        self.sound = bytearray(pairs)
        end = _length(file)
        members = find_members(file, 2 * pairs, end, where)
        self.image = bytearray()
        for (begin, first, record), (other, second, other_record) in zip(members, members, strict=True):
            if record == other_record:
                raise ShardDamaged(f"{where} is damaged: no pair of image and record begins at byte {begin}.")
            self.image.append(2 if record else 1)
            self.begin.append(begin)
            self.first.append(first)
            self.second.append(second)
            end = other + BLOCK + second + -second % BLOCK
        self.begin.append(end)


class Pictures:
    """The images of one open tar; a with-block closes it."""

    def __init__(self, backend: Backend, tar: FileRecord, pairs: int) -> None:
        """Open a tar that holds so many images; its length is checked, and where its images are.

        Raises:
            ShardDamaged: it is missing, or not of the length or the form that its manifest says.
        """
        self._where, self._tar, self._backend = backend.where(tar.path), tar, backend
        self._file = backend.open(tar.path)
        try:
            check_length(_length(self._file), tar.bytes, self._where)
            self._identity = _identity(backend, self._file, tar)
            self._places = _places(self._identity, self._file, pairs, self._where)
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

    def sound(self, places: Sequence[int], part: int = 0, checked: Checked | None = None) -> bool:
        """Were the images at all these places found sound, so that no row is needed any more to compare them with?

        Where at least half of a tar's images are wanted, by this worker or all together, its sha256 is compared with
        its manifest's at first use; that takes less time than to compare pair by pair, and nothing is left to compare.

        Args:
            places: of the images that are wanted.
            part: the tar's number among its workers.
            checked: what workers tell each other, each of which wants its share of the images.

        Raises:
            ShardDamaged: the sha256 is another.
        """
        sound = self._places.sound
        wanted = {place for place in places if not sound[place]}
        if not wanted:
            return True
        identity = _identity(self._backend, self._file, self._tar)
        if checked is not None and (identity is None or identity != self._identity):
            checked = None  # what others find cannot be told to be this file
        if checked is None or not checked.knows(part, identity):
            together = checked.wanted.get(part, 0) if checked else 0
            if 2 * max(len(wanted), together) < len(sound):
                return False
            check_bytes(self._file, self._tar.bytes, self._tar.sha256, self._where)
            if checked is not None:
                checked.note(part, identity)
        sound[:] = bytes([1]) * len(sound)
        return True

    def read(self, place: int, row: Mapping[str, Any]) -> bytes:
        """The encoded image at a place of the tar, which its row of the Parquet describes.

        Raises:
            ShardDamaged: one of the bytes is not what the row says.
        """
        if self._places.sound[place] < 2:
            return self.read_pair(place, row)[0]
        begin, size = self._contents(place)[self._places.image[place] - 1]
        return self._bytes(begin, size)

    def read_pair(self, place: int, row: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """The encoded image and its record, JSON in UTF-8; see `read`."""
        begin, stop = self._places.begin[place], self._places.begin[place + 1]
        pair = self._bytes(begin, stop - begin)
        record_first = self._places.image[place] == 2
        first, second = (pair[at - begin : at - begin + size] for at, size in self._contents(place))
        image, record = (second, first) if record_first else (first, second)
        if not self._places.sound[place]:
            around = len(pair) - (-len(image) % BLOCK) - len(image) if record_first else BLOCK
            outside = pair[:around] + pair[around + len(image) :]
            if sha256(image) != row["sha256"] or outside != _around(row, image):
                raise ShardDamaged(
                    f"{self._where}: the tar's members of {row['key']!r} do not fit the Parquet's row; {AGAIN}."
                )
        elif self._places.sound[place] == 1:
            heads = [pair[at - begin - BLOCK : at - begin] for at, _ in self._contents(place)]
            if heads != _heads(row["key"], image, record, self._where):
                raise ShardDamaged(
                    f"{self._where}: the tar's members of {row['key']!r} are not its image and record; {AGAIN}."
                )
        self._places.sound[place] = 2
        return image, record

    def _contents(self, place: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """First byte and size of the content of both members of a pair."""
        places = self._places
        begin, first, second = places.begin[place], places.first[place], places.second[place]
        return (begin + BLOCK, first), (begin + 2 * BLOCK + first + -first % BLOCK, second)

    def _bytes(self, begin: int, size: int) -> bytes:
        self._file.seek(begin)
        return self._file.read(size)


def _heads(key: str, image: bytes, record: bytes, where: str) -> list[bytes]:
    """The headers of an image and its record, in their order."""
    try:
        sizes = {image_suffix(image): len(image), "json": len(record)}
    except CounterpoiseError as error:
        raise ShardDamaged(f"{where}: {key!r}: {error}") from error
    return [header(f"{key}.{suffix}", sizes[suffix]) for suffix in sorted(sizes)]


def _around(row: Mapping[str, Any], image: bytes) -> bytes:
    """The stretch of a tar that holds an image and its record, without the image; it has one possible form."""
    suffix = image_suffix(image)
    record = member_block(f"{row['key']}.json", row_json(row))
    head, padding = header(f"{row['key']}.{suffix}", len(image)), bytes(-len(image) % BLOCK)
    return head + padding + record if suffix < "json" else record + head + padding


def _length(file: BufferedIOBase) -> int:
    """Bytes of an open file, which is then at its start."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _places(identity: Identity | None, file: BufferedIOBase, pairs: int, where: str) -> Places:
    """The places of a tar's images, from memory if it was open before and did not change."""
    if identity is None:
        return Places(file, pairs, where)
    found = _remembered.pop(identity, None) or Places(file, pairs, where)
    _remembered[identity] = found
    # as a list, since streams open their windows in threads of their own
    while len(_remembered) > 1 and sum(len(one.sound) for one in list(_remembered.values())) > MAX_REMEMBERED:
        _remembered.popitem(last=False)
    return found
