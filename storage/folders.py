"""What a folder's file system is asked for: folders and names that last, locks, links."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from io import BufferedWriter
from itertools import takewhile
from pathlib import Path


def link_own(own: Path, target: Path) -> None:
    """Link a file that this process made beside `target`: what forbids it then is no want of rights.

    Linux answers EPERM where the file system has no hard links (FAT, exFAT).
    """
    try:
        os.link(own, target)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        none = errno.EOPNOTSUPP
        raise OSError(none, os.strerror(none), str(own), None, str(target)) from error


def lock(descriptor: int, how: int) -> bool:
    """True if held; file systems without locks count as not held."""
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        return False
    return True


def open_new(path: Path) -> BufferedWriter:
    """A new file in a folder that is made if it must, again if somebody who found it empty was faster."""
    for _ in range(100):
        make_folder(path.parent)
        with contextlib.suppress(FileNotFoundError):
            return path.open("xb")
    return path.open("xb")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and see to it that the names of all that were made are on the disk."""
    made = list(takewhile(lambda one: not one.is_dir(), (folder, *folder.parents)))
    if made:
        folder.mkdir(parents=True, exist_ok=True)
    for one in made:
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """See to it that the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
