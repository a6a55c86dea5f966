"""A dataset in a local folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType

from . import backend
from .backend import QUARANTINE, STAGED_MARK, Sound, explain, quarantine_names, unreadable
from .errors import FileMissing, ShardDamaged
from .folders import link_own, lock, make_folder, open_new, sync_folder
from .moving import move_away
from .rawfile import open_file


@dataclass(frozen=True, slots=True)
class LocalStaged:
    """A file written whole and synced under a passing name."""

    path: Path
    bytes: int
    sha256: str

    def open(self) -> BufferedReader:
        """See `Staged.open`."""
        return self.path.open("rb")


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

    def path(self, name: str) -> Path:
        """The file for readers on this machine."""
        return self.root / name

    def exists(self, name: str) -> bool:
        """Is there a file or folder of this name?"""
        try:
            return (self.root / name).exists()
        except OSError as error:
            raise explain(error, self.where(name)) from error

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

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileMissing: there is no such file.
        """
        with self.open(name) as file:
            return os.fstat(file.fileno()).st_size

    def open(self, name: str) -> BufferedReader:
        """See `Backend.open`."""
        try:
            return open_file(self.root / name)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise FileMissing(f"{self.where(name)} is missing.") from error
        except OSError as error:
            raise unreadable(error, self.where(name)) from error

    def read(self, name: str, limit: int) -> bytes:
        """A whole small file; one above the limit (bytes) is refused as damaged."""
        with self.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ShardDamaged(
                f"{self.where(name)} is damaged: larger than the {limit} bytes that are allowed."
            )
        return data

    def staging(self) -> LocalStaging:
        """A with-block in which files are staged and published; what was only staged goes at its end."""
        return LocalStaging(self.root)

    def remove(self, name: str) -> None:
        """Remove a left-over file, and the folders below the dataset's own that are empty then."""
        path = self.root / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise explain(error, self.where(name)) from error
        with contextlib.suppress(OSError):  # not empty, or gone already
            for folder in path.parents[: len(Path(name).parts) - 1]:
                folder.rmdir()

    def quarantine(self, name: str, sound: Sound | None = None) -> str | None:
        """See `Backend.quarantine`.

        Raises:
            FileMissing: there is no such file.
            CounterpoiseError: the folder does not allow it.
        """
        with self.open(name) as file:
            if sound is not None and sound(file):
                return None
            with self.staging():  # holds off who cleans up
                target = self._moved_away(file, name)
        return None if target is None else f"{QUARANTINE}/{target.name}"

    def _moved_away(self, file: BufferedReader, name: str) -> Path | None:
        make_folder(self.root / QUARANTINE)
        try:
            targets = (self.root / new for new in quarantine_names(name))
            target = move_away(file, self.root / name, targets)
        except FileNotFoundError as error:
            raise FileMissing(f"{self.where(name)} is missing.") from error
        for folder in (self.root / QUARANTINE, (self.root / name).parent):
            sync_folder(folder)
        return target

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold off writers inside the block; yields False if one is at work (a killed writer is not)."""
        if not self.root.is_dir():
            yield True
            return
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            yield lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)

    def at_work(self) -> AbstractContextManager[None]:
        """Tell `alone` inside the block that a run is at work, also while it writes nothing."""
        return self._locked("", fcntl.LOCK_SH)

    def turn(self, folder: str) -> AbstractContextManager[None]:
        """Wait until nobody else is in such a block of this folder, so that what is read may be written changed."""
        return self._locked(folder, fcntl.LOCK_EX)

    @contextlib.contextmanager
    def _locked(self, folder: str, how: int) -> Iterator[None]:
        """Hold a lock on a folder, which is made if it must."""
        try:
            make_folder(self.root / folder)
            descriptor = os.open(self.root / folder, os.O_RDONLY)
        except OSError as error:
            raise explain(error, self.where(folder)) from error
        try:
            lock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def recent(self, name: str) -> bool:
        """Never: `alone` tells whether a writer is at work."""
        return False

    def unfinished(self) -> list[str]:
        """None: what was begun here has a passing name of its own."""
        return []


class LocalStaging:
    """One writer's attempt: stage, check, publish."""

    def __init__(self, root: Path) -> None:
        """See `LocalBackend.staging`."""
        self._root = root
        self._paths: list[Path] = []
        self._descriptor = -1

    def __enter__(self) -> LocalStaging:
        """Make the folder and tell `LocalBackend.alone` that a writer is at work."""
        try:
            make_folder(self._root)
            self._descriptor = os.open(self._root, os.O_RDONLY)
        except OSError as error:
            raise explain(error, str(self._root)) from error
        lock(self._descriptor, fcntl.LOCK_SH)
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

    def stage(self, name: str, chunks: Iterable[bytes]) -> LocalStaged:
        """Write and sync bytes under a passing name beside `name`."""
        path = self._root / f"{name}{STAGED_MARK}{secrets.token_hex(8)}"
        self._paths.append(path)
        kind = name.rsplit(".", 1)[-1]
        with open_new(path) as file:
            size, digest = backend.write_hashed(file, chunks, kind)
            os.fsync(file.fileno())
        backend.fault_point(f"{kind}.synced")
        return LocalStaged(path, size, digest)

    def put(self, staged: LocalStaged, name: str) -> None:
        """Give a staged file its final name; one of that name is replaced at once, never half."""
        kind = name.rsplit(".", 1)[-1]
        backend.fault_point(f"{kind}.before_put")
        os.replace(staged.path, self._root / name)
        backend.fault_point(f"{kind}.put")
        sync_folder((self._root / name).parent)
        backend.fault_point(f"{kind}.put_synced")

    def create(self, staged: LocalStaged, name: str) -> bool:
        """Give a staged file its final name if nobody has it; False, and nothing done, if somebody has."""
        backend.fault_point("before_create")
        try:
            link_own(staged.path, self._root / name)
        except FileExistsError:
            return False
        backend.fault_point("created")
        sync_folder((self._root / name).parent)
        backend.fault_point("created_synced")
        return True
