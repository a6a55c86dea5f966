"""Where bytes go: the one seam between a dataset and the place that holds it.

`LocalBackend` is a folder. Its contract, which another place (an object store) has to keep as well:
a file appears under its final name whole or not at all; `create` succeeds for exactly one caller;
nothing that was staged survives an error; only files under names of this module's making are removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import secrets
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

from .errors import CounterpoiseError, ShardDamaged

STAGED_MARK = ".tmp-"
_steps = itertools.count(1)


def fault_point(name: str) -> None:
    """For tests: kill this process here if COUNTERPOISE_FAULT is this name, or "#N" at the N-th point."""
    wanted = os.environ.get("COUNTERPOISE_FAULT")
    if wanted and wanted in (name, f"#{next(_steps)}"):
        os.kill(os.getpid(), signal.SIGKILL)


def open_backend(dataset: str | os.PathLike[str]) -> LocalBackend:
    """The place that a path or URI names.

    Raises:
        CounterpoiseError: a URI of a kind that cannot hold a dataset yet.
    """
    text = os.fspath(dataset)
    if text.startswith("file://"):
        return LocalBackend(Path(unquote(urlsplit(text).path)))
    if "://" in text:
        kind = text.split("://", 1)[0]
        raise CounterpoiseError(f"{text}: datasets on {kind}:// are not supported yet; give a local folder.")
    if not text:
        raise CounterpoiseError("The dataset's path is empty: give a folder.")
    return LocalBackend(Path(text))


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


@dataclass(frozen=True, slots=True)
class Staged:
    """A file written whole and synced under a passing name."""

    path: Path
    bytes: int
    sha256: str


class LocalBackend:
    """A dataset in a local folder; names are relative and use "/"."""

    def __init__(self, root: Path) -> None:
        """Nothing is created before something is staged."""
        self.root = root

    def __str__(self) -> str:
        """The folder as the user gave it."""
        return str(self.root)

    def where(self, name: str) -> str:
        """A name inside the dataset as a path for messages and for other readers."""
        return str(self.root / name)

    def exists(self, name: str) -> bool:
        """Is there a file or folder of this name?"""
        return (self.root / name).exists()

    def names(self, folder: str = "") -> list[str]:
        """Sorted names in a folder of the dataset; none if there is no such folder."""
        try:
            return sorted(os.listdir(self.root / folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise explain(error, self.where(folder)) from error

    def folders(self) -> list[str]:
        """Sorted names of the folders in the dataset, without links to elsewhere."""
        paths = ((name, self.root / name) for name in self.names())
        return [name for name, path in paths if path.is_dir() and not path.is_symlink()]

    def open(self, name: str) -> BufferedReader:
        """A file for reading.

        Raises:
            ShardDamaged: there is no such file.
            CounterpoiseError: it cannot be read.
        """
        try:
            return (self.root / name).open("rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ShardDamaged(f"{self.where(name)} is missing.") from error
        except OSError as error:
            raise explain(error, self.where(name)) from error

    def read(self, name: str, limit: int) -> bytes:
        """A whole small file; one above the limit (bytes) is refused as damaged."""
        with self.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ShardDamaged(
                f"{self.where(name)} is damaged: larger than the {limit} bytes that are allowed."
            )
        return data

    def staging(self) -> Staging:
        """A with-block in which files are staged and published; what was only staged goes at its end."""
        return Staging(self.root)

    def remove(self, name: str) -> None:
        """Remove a left-over file."""
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise explain(error, self.where(name)) from error

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold off writers inside the block; yields False if one is at work (a killed writer is not)."""
        if not self.root.is_dir():
            yield True
            return
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            yield _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def turn(self, folder: str) -> Iterator[None]:
        """Wait until nobody else is in such a block of this folder, so that what is read may be written changed."""
        try:
            _make_folder(self.root / folder)
            descriptor = os.open(self.root / folder, os.O_RDONLY)
        except OSError as error:
            raise explain(error, self.where(folder)) from error
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class Staging:
    """One writer's attempt: stage, check, publish."""

    def __init__(self, root: Path) -> None:
        """See `LocalBackend.staging`."""
        self._root = root
        self._paths: list[Path] = []
        self._descriptor = -1

    def __enter__(self) -> Staging:
        """Make the folder and tell `LocalBackend.alone` that a writer is at work."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._root, os.O_RDONLY)
        except OSError as error:
            raise explain(error, str(self._root)) from error
        _lock(self._descriptor, fcntl.LOCK_SH)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Remove what was only staged; an error of the file system leaves as a `CounterpoiseError`."""
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        os.close(self._descriptor)
        if isinstance(error, OSError):
            raise explain(error, str(error.filename or self._root)) from error

    def stage(self, name: str, chunks: Iterable[bytes]) -> Staged:
        """Write and sync bytes under a passing name beside `name`."""
        path = self._root / f"{name}{STAGED_MARK}{secrets.token_hex(8)}"
        _make_folder(path.parent)
        self._paths.append(path)
        kind = name.rsplit(".", 1)[-1]
        digest, size = hashlib.sha256(), 0
        with path.open("xb") as file:
            fault_point(f"{kind}.opened")
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                fault_point(f"{kind}.written")
            file.flush()
            os.fsync(file.fileno())
        fault_point(f"{kind}.synced")
        return Staged(path, size, digest.hexdigest())

    def put(self, staged: Staged, name: str) -> None:
        """Give a staged file its final name; one of that name is replaced at once, never half."""
        kind = name.rsplit(".", 1)[-1]
        fault_point(f"{kind}.before_put")
        os.replace(staged.path, self._root / name)
        fault_point(f"{kind}.put")
        _sync_folder((self._root / name).parent)
        fault_point(f"{kind}.put_synced")

    def create(self, staged: Staged, name: str) -> bool:
        """Give a staged file its final name if nobody has it; False, and nothing done, if somebody has."""
        fault_point("before_create")
        try:
            os.link(staged.path, self._root / name)
        except FileExistsError:
            return False
        fault_point("created")
        _sync_folder((self._root / name).parent)
        fault_point("created_synced")
        return True


def _lock(descriptor: int, how: int) -> bool:
    """True if held; file systems without locks count as not held."""
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        return False
    return True


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
