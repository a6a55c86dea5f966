"""Files of a folder opened for reading, whose bytes that the disk does not give are told as damage."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from .backend import unreadable

T = TypeVar("T")


class RawFile(io.FileIO):
    """A file for reading; what the system refuses at a read leaves as `backend.unreadable` words it."""

    def readinto(self, buffer: Any, /) -> Any:
        """See `io.RawIOBase.readinto`."""
        return self._told(super().readinto, buffer)

    def read(self, size: int | None = -1, /) -> Any:
        """See `io.RawIOBase.read`."""
        return self._told(super().read, -1 if size is None else size)

    def readall(self) -> Any:
        """See `io.RawIOBase.readall`."""
        return self._told(super().readall)

    def _told(self, read: Callable[..., T], *given: Any) -> T:
        try:
            return read(*given)
        except OSError as error:
            raise unreadable(error, str(self.name)) from error


def open_file(path: Path) -> io.BufferedReader:
    """A file for reading, as `path.open("rb")` gives it.

    Raises:
        OSError: it cannot be opened.
    """
    return io.BufferedReader(RawFile(str(path)))
