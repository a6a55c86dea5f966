"""How a file gets into a bucket: staged on this machine, uploaded whole, created by one writer alone.

There is no rename in an object store. Data files are uploaded whole under names that carry their hash, and the
manifest is created by a conditional put (`If-None-Match: *`), which the store grants to exactly one writer.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any

from . import backend
from .backend import explain
from .errors import CounterpoiseError
from .s3 import Store, content
from .s3_errors import Taken, Unsupported

_ATTEMPT = "attempt"
_TRIES = 6
_conditional: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class ObjectStaged:
    """A file written whole into an unnamed temporary file."""

    file: Any
    bytes: int
    sha256: str

    def open(self) -> BufferedIOBase:
        """See `Staged.open`."""
        self.file.seek(0)
        opened: BufferedIOBase = os.fdopen(os.dup(self.file.fileno()), "rb")
        return opened


class ObjectStaging:
    """One writer's attempt: staged files are temporary ones on this machine, and go with the block."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Nothing is made yet.

        Args:
            store: the bucket.
            prefix: of every key.
        """
        self._store = store
        self._prefix = prefix
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> ObjectStaging:
        """Begin; the store hears nothing of it."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        """Remove what was only staged; an error of the disk leaves as a `CounterpoiseError`."""
        self._opened.close()
        if isinstance(error, OSError):
            raise explain(error, str(error.filename or tempfile.gettempdir())) from error

    def stage(self, name: str, chunks: Iterable[bytes]) -> ObjectStaged:
        """Write bytes that are to become `name` into a temporary file."""
        kind = name.rsplit(".", 1)[-1]
        file = self._opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        size, digest = backend.write_hashed(file, chunks, kind)
        backend.fault_point(f"{kind}.synced")
        return ObjectStaged(file, size, digest)

    def put(self, staged: ObjectStaged, name: str) -> None:
        """Upload a staged file under its final name; one of that name is replaced at once, never half."""
        kind = name.rsplit(".", 1)[-1]
        backend.fault_point(f"{kind}.before_put")
        self._store.upload(self._prefix + name, staged.file, staged.bytes)
        backend.fault_point(f"{kind}.put")

    def add(self, staged: ObjectStaged, name: str) -> bool:
        """Upload a staged file of any size if nobody has its name; False, and nothing done, if somebody has."""
        try:
            self._store.upload(self._prefix + name, staged.file, staged.bytes, only_new=True)
        except Taken:
            return False
        return True

    def create(self, staged: ObjectStaged, name: str) -> bool:
        """Put a small staged file if nobody has its name; False, and nothing done, if somebody has.

        Raises:
            CounterpoiseError: the store does not keep the condition, so two writers could both be first.
        """
        place = self._store.place
        if place not in _conditional and self._store.head(self._prefix + name):
            return False
        attempt, body = secrets.token_hex(16), content(staged.file)
        backend.fault_point("before_create")
        if not self._create(name, body, attempt):
            return False
        backend.fault_point("created")
        if place not in _conditional:
            self._require_condition(name, body, attempt)
            _conditional.add(place)
        return True

    def _create(self, name: str, body: bytes, attempt: str) -> bool:
        """True if this attempt made it. A first answer may have been lost: the object tells whose it is."""
        for turn in range(_TRIES):
            try:
                self._put_new(name, body, attempt)
                return True
            except Taken:
                found = self._store.head(self._prefix + name)
                if found is not None:
                    return bool(found["Metadata"].get(_ATTEMPT) == attempt)
            time.sleep(0.1 * 2**turn)  # it went away in between
        raise CounterpoiseError(
            f"{self._store.where(self._prefix + name)}: others make and remove it all the time; try later."
        )

    def _put_new(self, name: str, body: bytes, attempt: str) -> None:
        key = self._prefix + name
        try:
            self._store.call("put_object", Key=key, Body=body, IfNoneMatch="*", Metadata={_ATTEMPT: attempt})
        except Unsupported as error:
            raise self._refusal(name) from error

    def _require_condition(self, name: str, body: bytes, attempt: str) -> None:
        """Put the same again, which a store that keeps the condition refuses."""
        try:
            self._put_new(name, body, attempt)
        except Taken:
            return
        self._store.call("delete_object", Key=self._prefix + name)
        raise self._refusal(name)

    def _refusal(self, name: str) -> CounterpoiseError:
        return CounterpoiseError(
            f"{self._store.where(self._prefix + name)}: this store does not keep the condition If-None-Match of "
            "a put, without which two writers can both be first: use a store that does, or a local folder."
        )
