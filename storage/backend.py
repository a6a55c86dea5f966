"""Where bytes go: the one seam between a dataset and the place that holds it.

`Backend` says what a place has to offer; `LocalBackend` (`local.py`) is a folder, `ObjectBackend` (`objects.py`)
a bucket. The contract of every place: a file appears under its final name whole or not at all; `create`
succeeds for exactly one caller; nothing that was staged survives an error; only files under names of our own
making are removed.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from io import BufferedIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from .errors import CounterpoiseError, ShardDamaged

STAGED_MARK = ".tmp-"
QUARANTINE = "quarantine"
S = TypeVar("S")
Sound = Callable[[BufferedIOBase], bool]
_NO_DAMAGE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
_steps = itertools.count(1)


class Staged(Protocol):
    """A file written whole that has no final name yet."""

    @property
    def bytes(self) -> int:
        """Its length."""

    @property
    def sha256(self) -> str:
        """Hash of what was written."""

    def open(self) -> BufferedIOBase:
        """The file for reading, from its start; one reader at a time."""


class Staging(Protocol[S]):
    """One writer's attempt, as a with-block: stage, check, publish. What was only staged goes at its end."""

    def __enter__(self) -> Staging[S]:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Remove what was only staged; an error of the place leaves as a `CounterpoiseError`."""

    def stage(self, name: str, chunks: Iterable[bytes]) -> S:
        """Write bytes that are to become `name`."""

    def put(self, staged: S, name: str) -> None:
        """Give a staged file its final name; one of that name is replaced at once, never half."""

    def create(self, staged: S, name: str) -> bool:
        """Give a staged file its final name if nobody has it; False, and nothing done, if somebody has."""


class Backend(Protocol):
    """A dataset in its place; names are relative and use "/"."""

    def where(self, name: str) -> str:
        """A name inside the dataset as a path or URI for messages and for other readers."""

    def path(self, name: str) -> Path | None:
        """The file for readers on this machine; None where it lies elsewhere."""

    def exists(self, name: str) -> bool:
        """Is there a file of this name?"""

    def names(self, folder: str = "") -> list[str]:
        """Sorted names in a folder of the dataset; none if there is no such folder."""

    def folders(self) -> list[str]:
        """Sorted names of the folders in the dataset, without links to elsewhere."""

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileMissing: there is no such file.
        """

    def open(self, name: str) -> BufferedIOBase:
        """A file for reading; reads of it raise as opening does.

        Raises:
            FileMissing: there is no such file.
            ShardDamaged: the disk does not give its bytes.
            CounterpoiseError: it cannot be read for what is no fault of the file.
        """

    def read(self, name: str, limit: int) -> bytes:
        """A whole small file; one above the limit (bytes) is refused as damaged."""

    def staging(self) -> Staging[Any]:
        """A with-block in which files are staged and published."""

    def remove(self, name: str) -> None:
        """Remove a left-over file."""

    def quarantine(self, name: str, sound: Sound | None = None) -> str | None:
        """Move a file to `quarantine/` inside the dataset, beside what is there already; returns its new name.

        What is moved is the file that was looked at, never one that somebody else gave the same name meanwhile.

        Args:
            name: of the file.
            sound: looks at the open file; one that it finds sound stays.

        Returns:
            The new name; None if a sound or another file has this name by now.

        Raises:
            FileMissing: there is no such file.
        """

    def alone(self) -> AbstractContextManager[bool]:
        """Hold off writers inside the block; yields False if one is at work (a killed writer is not).

        A place without locks yields True: there, `recent` has to tell what a writer may be writing.
        """

    def at_work(self) -> AbstractContextManager[None]:
        """Tell `alone` inside the block that a run is at work, also while it writes nothing.

        A place without locks tells nothing: there, `recent` has to do.
        """

    def turn(self, folder: str) -> AbstractContextManager[None]:
        """Wait until nobody else is in such a block of this folder, so that what is read may be written changed.

        A place without locks does not wait: only what may get lost is to be written so.
        """

    def recent(self, name: str) -> bool:
        """May a left-over be a file that a writer at work is about to publish?"""

    def unfinished(self) -> list[str]:
        """Uploads that were begun and never ended, under names that `recent` and `remove` take."""


def fault_point(name: str) -> None:
    """For tests: kill this process here if COUNTERPOISE_FAULT is this name, or "#N" at the N-th point."""
    wanted = os.environ.get("COUNTERPOISE_FAULT")
    if wanted and wanted in (name, f"#{next(_steps)}"):
        os.kill(os.getpid(), signal.SIGKILL)


def write_hashed(file: Any, chunks: Iterable[bytes], kind: str) -> tuple[int, str]:
    """Write bytes of a `kind` (the file's suffix) to an open file and flush it; returns how many, and their sha256."""
    digest, size = hashlib.sha256(), 0
    fault_point(f"{kind}.opened")
    for chunk in chunks:
        file.write(chunk)
        digest.update(chunk)
        size += len(chunk)
        fault_point(f"{kind}.written")
    file.flush()
    return size, digest.hexdigest()


def open_backend(dataset: str | os.PathLike[str], anew: bool = False) -> Backend:
    """The place that a path or URI names.

    Args:
        dataset: a folder or URI.
        anew: read every byte from the place itself, none that this process remembers of it.

    Raises:
        CounterpoiseError: a URI of a kind that cannot hold a dataset yet.
    """
    from .local import LocalBackend

    text = os.fspath(dataset)
    if text.startswith("file://"):
        return LocalBackend(Path(unquote(urlsplit(text).path)))
    if text.startswith("s3://"):
        from .objects import object_backend

        return object_backend(text, anew)
    if "://" in text:
        kind = text.split("://", 1)[0]
        raise CounterpoiseError(
            f"{text}: datasets on {kind}:// are not supported; give a local folder or s3://BUCKET/NAME."
        )
    if not text:
        raise CounterpoiseError("The dataset's path is empty: give a folder.")
    return LocalBackend(Path(text))


def quarantine_names(name: str) -> Iterator[str]:
    """Names that a quarantined file may get, the first that is free counts."""
    plain = f"{QUARANTINE}/{name.rpartition('/')[2]}"
    return itertools.chain([plain], (f"{plain}.{number}" for number in itertools.count(1)))


def unreadable(error: OSError, where: str) -> CounterpoiseError:
    """An error at reading a file as one line: damage of the file, unless it tells of rights, place or process."""
    if error.errno in _NO_DAMAGE:
        return explain(error, where)
    return ShardDamaged(f"{where} is damaged: it cannot be read ({error.strerror or error}).")


def explain(error: OSError, where: str) -> CounterpoiseError:
    """An error of the file system as one line with its cause and its cure."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        cure = "the disk is full or the quota used up: make room and run the same again; finished shards stay"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        cure = "the folder does not allow it: change its permissions or choose another one"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        cure = "a folder is wanted where a file is: choose another path"
    elif error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV):
        cure = "this file system has no hard links, which publishing needs: choose a folder on another one"
    else:
        cure = "see to the disk and run the same command again; finished shards stay"
    return CounterpoiseError(f"{where}: {reason}. Cause and cure: {cure}.")
