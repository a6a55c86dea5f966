"""Damaged files of shards out of the way: moved to `quarantine/`, never deleted, so that a run makes them again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedIOBase
from typing import Protocol

from .backend import Backend, Sound, open_backend
from .canonical import unseal
from .errors import CounterpoiseError, FileMissing, ManifestMoved, ShardDamaged
from .shardfile import MAX_MANIFEST, FileRecord, ShardRecord, read_shard, shard_name

_AGAIN = "`counterpoise generate` with the dataset's spec makes it again."
_BY_HAND = f"`counterpoise verify --quarantine` moves it out of the way, then {_AGAIN}"


class DataFiles(Protocol):
    """A shard, as far as its data files go."""

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """The data files."""


@contextmanager
def quarantining(backend: Backend, record: DataFiles, move: bool = True) -> Iterator[None]:
    """Inside the block, a data file of the shard that turns out damaged is moved, and the error says where to.

    Nothing is moved on one look: each file is read again before, since a disk or a cable may be at fault, or another
    reader may have been faster. Where the folder cannot be written, or `move` is False, the error says what to run.

    Raises:
        ShardDamaged: that of the block, with what was done and what is to be done.
    """
    try:
        yield
    except ShardDamaged as error:
        damaged = damaged_files(backend, record)
        if damaged:
            raise ShardDamaged(" ".join([str(error), *dispose(backend, damaged, move)])) from error
        if isinstance(error, FileMissing):
            raise _with_cure(error) from error
        raise


def require_shard(
    backend: Backend, index: int, dataset_id: str | None = None, move: bool = True
) -> ShardRecord:
    """`read_shard`, where a manifest whose bytes were changed is moved as a data file would be.

    One that is whole, but another shard's or another dataset's, stays where it is.

    Raises:
        ManifestMoved: it was damaged, and is out of the way now.
        ShardDamaged: it is missing or not the shard's own, or cannot be moved; with what is to be done.
    """
    name = shard_name(index)
    try:
        return read_shard(backend, index, dataset_id)
    except FileMissing as error:
        raise _with_cure(error) from error
    except ShardDamaged as error:
        again = open_backend(str(backend), anew=True)
        if _reads_whole(again, name):
            return read_shard(again, index, dataset_id)
        text = f"{error} {_disposed(backend, name, _is_whole, move)}"
        raise (ShardDamaged if backend.exists(name) else ManifestMoved)(text) from error


def _with_cure(error: FileMissing) -> FileMissing:
    return FileMissing(f"{str(error).removesuffix('.')}: {_AGAIN}")


def _reads_whole(backend: Backend, name: str) -> bool:
    try:
        with backend.open(name) as opened:
            return _is_whole(opened)
    except FileMissing:
        return False


def _is_whole(opened: BufferedIOBase) -> bool:
    """Does an open manifest have the bytes that it was sealed with?"""
    try:
        content = opened.read(MAX_MANIFEST + 1)
        unseal(content, "")
    except ShardDamaged:
        return False
    return len(content) <= MAX_MANIFEST


def damaged_files(backend: Backend, record: DataFiles) -> list[FileRecord]:
    """Data files of a shard that are there, and are not what the manifest names."""
    again = open_backend(str(backend), anew=True)
    return [file for file in record.files if again.exists(file.path) and not _is_sound(again, file)]


def dispose(backend: Backend, damaged: list[FileRecord], move: bool = True) -> list[str]:
    """Move damaged files, if they can be moved and are damaged still; a sentence for each way it went."""
    lines = (_disposed(backend, file.path, partial(_fits, file), move) for file in damaged)
    return list(dict.fromkeys(lines))


def _disposed(backend: Backend, path: str, sound: Sound, move: bool) -> str:
    name = path.rpartition("/")[2]
    try:
        new = backend.quarantine(path, sound) if move else None
    except FileMissing:
        return f"{name} was moved out of the way by somebody else meanwhile: {_AGAIN}"
    except CounterpoiseError:
        return _BY_HAND
    if new is None:
        return f"{name} was made again by somebody else meanwhile: run the same again." if move else _BY_HAND
    return f"{name} was moved to {backend.where(new)}: {_AGAIN}"


def _is_sound(backend: Backend, file: FileRecord) -> bool:
    try:
        with backend.open(file.path) as opened:
            return _fits(file, opened)
    except ShardDamaged:
        return False


def _fits(file: FileRecord, opened: BufferedIOBase) -> bool:
    """Is an open file what the manifest names?"""
    try:
        check_bytes(opened, file.bytes, file.sha256, file.name)
    except ShardDamaged:
        return False
    return True


def check_length(found: int, size: int, where: str) -> None:
    """Length of a file against its manifest."""
    if found != size:
        raise ShardDamaged(f"{where} is damaged: {found} bytes, its manifest says {size}.")


def check_bytes(file: BufferedIOBase, size: int, digest: str, where: str) -> None:
    """Length and hash of an open file, which is then at its start again."""
    check_length(file.seek(0, os.SEEK_END), size, where)
    file.seek(0)
    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
        raise ShardDamaged(f"{where} is damaged: its sha256 is not the one in its manifest.")
    file.seek(0)
