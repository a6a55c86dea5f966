"""How a shard's data files get their names: put, read back from where readers will, and never over a sound one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .backend import Backend, Staged, Staging
from .errors import CounterpoiseError, FileMissing, ShardDamaged
from .quarantine import check_bytes, dispose, require_shard
from .shardfile import shard_name


def put_checked(backend: Backend, staging: Staging[Any], index: int, staged: Staged, name: str) -> None:
    """Give a shard's staged file its name, and read it back; one that is there to the byte is left alone.

    Raises:
        CounterpoiseError: other bytes were stored. Where a manifest names them, they are quarantined.
    """
    if not _is_there(backend, index, staged, name):
        staging.put(staged, name)
        _check_stored(backend, index, staged, name)


def put_back(backend: Backend, staging: Staging[Any], index: int, data: Mapping[str, Staged]) -> None:
    """Put back what somebody who cleaned up took for a left-over before the manifest was there."""
    for name, staged in data.items():
        if not backend.exists(name):
            staging.put(staged, name)
            _check_stored(backend, index, staged, name)


def _is_there(backend: Backend, index: int, staged: Staged, name: str) -> bool:
    """Is the file there already, to the byte, and not for whoever cleans up to take?"""
    if not backend.exists(name) or not (backend.exists(shard_name(index)) or backend.recent(name)):
        return False
    try:
        _compare(backend, staged, name)
    except ShardDamaged:
        return False
    return True


def _compare(backend: Backend, staged: Staged, name: str) -> None:
    with backend.open(name) as file:
        check_bytes(file, staged.bytes, staged.sha256, backend.where(name))


def _check_stored(backend: Backend, index: int, staged: Staged, name: str) -> None:
    """Read a file back after its put, unless somebody committed the shard meanwhile and it is not his or gone."""
    try:
        _compare(backend, staged, name)
    except ShardDamaged as error:
        text = f"{backend.where(name)} reads back otherwise than it was written: see to the store, run again."
        if not backend.exists(shard_name(index)):
            raise CounterpoiseError(text) from error
        named = [file for file in require_shard(backend, index).files if file.path == name]
        if named and not isinstance(error, FileMissing):
            raise CounterpoiseError(" ".join([text, *dispose(backend, named)])) from error
