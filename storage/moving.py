"""Moving a damaged file of a folder, and that file alone, whatever others do to its name meanwhile."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

from . import backend
from .backend import STAGED_MARK

Identity = tuple[int, int, int, int]


def move_away(file: BufferedReader, source: Path, targets: Iterable[Path]) -> Path | None:
    """Give an open file the first of the targets that is free, and take its name `source` from it.

    A move that was interrupted half-way is completed. There is no "rename unless" in POSIX: the file is linked, then
    what has its name is renamed, looked at, and linked back if it is another.

    Returns:
        The target; None, and nothing moved, if the name is another file's by now.

    Raises:
        OSError: it cannot be moved; FileNotFoundError if nothing has the name any more.
    """
    seen = _identity(os.fstat(file.fileno()))
    backend.fault_point("before_quarantine")
    for target in targets:
        linked = _linked(source, target)
        if linked is None:
            continue
        if _identity(target.stat()) == seen:
            backend.fault_point("quarantined")
            _drop_name(source, target, seen)
            return target
        if linked:
            target.unlink()
        return None
    return None


def _linked(source: Path, target: Path) -> bool | None:
    """True if the target was free, False if it is the same file already, None if it is another."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False if source.samefile(target) else None
    return True


def _drop_name(source: Path, target: Path, seen: Identity) -> None:
    """Take a name from a file that has another one, and from no other file."""
    aside = target.with_name(f"{target.name}{STAGED_MARK}{secrets.token_hex(8)}")
    try:
        source.rename(aside)
    except FileNotFoundError:  # somebody else was faster
        return
    if _identity(aside.stat()) != seen:
        with contextlib.suppress(FileExistsError):  # replaced once more: what was replaced is nobody's
            os.link(aside, source)
    aside.unlink()


def _identity(stat: os.stat_result) -> Identity:
    """What changes when a file is replaced or written to."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
