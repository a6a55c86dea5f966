"""Tar files as WebDataset wants them, with one possible form for every content.

Every byte of a header follows from the member's name and size, so reading compares instead of interpreting:
links, devices, foreign names, hidden padding and cut ends cannot get in. Nothing is ever extracted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from io import BufferedIOBase

from .errors import CounterpoiseError, ShardDamaged

BLOCK = 512
RECORD = 20 * BLOCK
_MEMBER = re.compile(rb"([a-z0-9_]{1,90}-[0-9]{2})\.(json|png|jpg|webp)")
_SIZE = re.compile(rb"[0-7]{11}")
_MODE = b"0000644\0" + b"0000000\0" * 2
_TIME = b"\0" + b"%011o\0" % 0
_REST = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
_SUM = sum(_MODE + _TIME + b" " * 8 + _REST)
SIZE_LIMITS = {"json": 2**20, "png": 2**26, "jpg": 2**26, "webp": 2**26}


def header(name: str, size: int) -> bytes:
    """The 512 bytes (POSIX ustar) before a member: a regular file of nobody, mode 644, made at no time.

    Written out here, since the standard library's differ in unused fields from one version to the next.
    """
    text, digits = name.encode("ascii"), b"%011o" % size
    checksum = b"%06o\0 " % (_SUM + sum(text) + sum(digits))
    return b"".join((text.ljust(100, b"\0"), _MODE, digits, _TIME, checksum, _REST))


def tar_blocks(members: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """A tar of (name, content) members, piece by piece.

    Raises:
        CounterpoiseError: a member is larger than readers allow.
    """
    total = 0
    for name, data in members:
        piece = member_block(name, data)
        total += len(piece)
        yield piece
    yield tar_end(total)


def member_block(name: str, data: bytes) -> bytes:
    """Header, content and padding of one member.

    Raises:
        CounterpoiseError: it is larger than readers allow.
    """
    limit = SIZE_LIMITS[name.rpartition(".")[2]]
    if len(data) > limit:
        raise CounterpoiseError(f"{name} has {len(data)} bytes: at most {limit} can be stored.")
    return b"".join((header(name, len(data)), data, bytes(-len(data) % BLOCK)))


def tar_end(total: int) -> bytes:
    """What closes a tar of so many bytes."""
    return bytes(_end(total))


def _end(total: int) -> int:
    """Zero bytes that close a tar: at least two blocks, up to a whole record."""
    return 2 * BLOCK + -(total + 2 * BLOCK) % RECORD


def tar_members(file: BufferedIOBase, where: str) -> Iterator[tuple[str, bytes]]:
    """Members of a tar in this module's form, as (name, content).

    Raises:
        ShardDamaged: the file is cut short or holds anything else.
    """
    total = 0
    while (head := file.read(BLOCK)) != bytes(BLOCK):
        name, size = _parse(head, where)
        padded = size + -size % BLOCK
        data = file.read(padded)
        if len(data) != padded or any(data[size:]):
            raise ShardDamaged(f"{where} is damaged: member {name} is cut short.")
        total += BLOCK + padded
        yield name, data[:size]
    rest = _end(total) - BLOCK
    if file.read(rest + 1) != bytes(rest):
        raise ShardDamaged(f"{where} is damaged: its end is cut short or followed by something else.")


def find_members(
    file: BufferedIOBase, count: int, length: int, where: str
) -> Iterator[tuple[int, int, bool]]:
    """Where the members of a tar begin, by sizes alone: (offset of the header, size of the content, is it a record).

    Unless the whole tar was checked, whoever reads there has still to compare what they find with `member_block`.

    Raises:
        ShardDamaged: the sizes do not add up to so many members and the tar's length (bytes).
    """
    place = 0
    for _ in range(count):
        file.seek(place)
        head = file.read(BLOCK)
        digits = head[124:135]
        size = int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else length
        if place + BLOCK + size > length:
            raise ShardDamaged(f"{where} is damaged: no member begins at byte {place}.")
        is_record = b".json\0" in head[:100]
        if size > (SIZE_LIMITS["json"] if is_record else max(SIZE_LIMITS.values())):
            raise ShardDamaged(f"{where} is refused: its member at byte {place} is not of an allowed size.")
        yield place, size, is_record
        place += BLOCK + size + -size % BLOCK
    file.seek(place)
    end = file.read(_end(place) + 1)
    if place + len(end) != length or end != bytes(_end(place)):
        raise ShardDamaged(f"{where} is damaged: it ends elsewhere than its {count} members.")


def _parse(head: bytes, where: str) -> tuple[str, int]:
    """Name and size from a header that is what `header` makes of them."""
    name, size = head[:100].rstrip(b"\0"), head[124:135]
    match = _MEMBER.fullmatch(name)
    if not match or not _SIZE.fullmatch(size):
        raise ShardDamaged(f"{where} is refused: {name!r} is not the plain name of an image or a record.")
    text, length = name.decode("ascii"), int(size, 8)
    if length > SIZE_LIMITS[match[2].decode("ascii")] or head != header(text, length):
        raise ShardDamaged(f"{where} is refused: {text} is damaged, or not a plain file of an allowed size.")
    return text, length
