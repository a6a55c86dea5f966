"""A dataset in a bucket of an object store.

There is no lock here, so left-overs tell by their age whether a writer may still be at work on them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from io import BufferedIOBase
from typing import Any

from cachetools import LRUCache

from .backend import Sound, quarantine_names
from .errors import CounterpoiseError, FileMissing, ShardDamaged
from .s3 import IN_MEMORY, Store, age, spooled
from .s3_errors import Absent, Taken, TooLarge, Unsupported
from .uploading import ObjectStaging

GRACE = timedelta(hours=1)
_UPLOAD = "?uploadId="
_MEMORY = 2**26
# Small files by place, key and ETag: what a fresh list shows to be unchanged need not be fetched again.
_remembered: LRUCache[tuple[str, ...], bytes] = LRUCache(_MEMORY, getsizeof=len)
_lock = threading.Lock()


def object_backend(uri: str, anew: bool = False) -> ObjectBackend:
    """The dataset at s3://BUCKET/NAME; see `open_backend`.

    Raises:
        CounterpoiseError: the URI is of another form, or s3fs is missing.
    """
    bucket, _, prefix = uri.removeprefix("s3://").rstrip("/").partition("/")
    if not bucket or (prefix and {"", ".", ".."} & set(prefix.split("/"))):
        raise CounterpoiseError(f"{uri}: given as a dataset, wanted s3://BUCKET/NAME")
    return ObjectBackend(Store(bucket), prefix, anew)


class ObjectBackend:
    """A dataset under a prefix of a bucket; names are relative and use "/"."""

    def __init__(self, store: Store, prefix: str, anew: bool = False) -> None:
        """No request is made yet.

        Args:
            store: the bucket.
            prefix: of every key, without a slash at its end; "" for the whole bucket.
            anew: do not use what this process remembers.
        """
        self.store = store
        self._prefix = f"{prefix}/" if prefix else ""
        self._anew = anew
        self._listed: dict[str, str] = {}

    def __str__(self) -> str:
        """The dataset as the user gave it."""
        return f"s3://{self.store.bucket}/{self._prefix}".rstrip("/")

    def key(self, name: str) -> str:
        """A name inside the dataset as a key of the bucket."""
        return self._prefix + name

    def where(self, name: str) -> str:
        """A name inside the dataset as a URI."""
        return self.store.where(self.key(name))

    def path(self, name: str) -> None:
        """None: the files are not on this machine."""

    def exists(self, name: str) -> bool:
        """Is there a file of this name?"""
        return self.head(name) is not None

    def head(self, name: str) -> dict[str, Any] | None:
        """What the store says about a file; None if there is none."""
        return self.store.head(self.key(name))

    def names(self, folder: str = "") -> list[str]:
        """Sorted names in a folder of the dataset; none if there is no such folder."""
        prefix = self.key(f"{folder}/" if folder else "")
        files, folders = self._list(prefix)
        return sorted(name for key in files | folders if (name := key.removeprefix(prefix)))

    def folders(self) -> list[str]:
        """Sorted names of the folders in the dataset."""
        _, folders = self._list(self._prefix)
        return sorted(name for key in folders if (name := key.removeprefix(self._prefix)))

    def _list(self, prefix: str) -> tuple[set[str], set[str]]:
        """Keys below a prefix: of the files, and of the folders without a slash at their end."""
        files: set[str] = set()
        folders: set[str] = set()
        marks = {"ContinuationToken": "NextContinuationToken"}
        for page in self.store.pages("list_objects_v2", marks, Prefix=prefix, Delimiter="/"):
            for one in page.get("Contents", ()):
                files.add(one["Key"])
                self._listed[one["Key"]] = one["ETag"]
            folders.update(one["Prefix"].rstrip("/") for one in page.get("CommonPrefixes", ()))
        return files, folders

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileMissing: there is no such file.
        """
        found = self.head(name)
        if found is None:
            raise FileMissing(f"{self.where(name)} is missing.")
        return int(found["ContentLength"])

    def open(self, name: str) -> BufferedIOBase:
        """A file for reading, fetched as a whole into memory or an unnamed temporary file.

        Raises:
            FileMissing: there is no such file.
            CounterpoiseError: it cannot be read.
        """
        return self._fetched(name)

    def read(self, name: str, limit: int) -> bytes:
        """A whole small file; one above the limit (bytes) is refused as damaged."""
        try:
            with self._fetched(name, limit) as file:
                return file.read()
        except TooLarge as error:
            raise ShardDamaged(
                f"{self.where(name)} is damaged: larger than the {limit} bytes that are allowed."
            ) from error

    def _fetched(self, name: str, limit: int | None = None) -> BufferedIOBase:
        """A file; one that is small, and was seen unchanged in a list of ours, is remembered."""
        mark = (*self.store.place, self.key(name), self._listed.get(self.key(name), ""))
        with _lock:
            content = None if self._anew else _remembered.get(mark)
        if content is not None and (limit is None or len(content) <= limit):
            return spooled(content)  # type: ignore[no-any-return]
        try:
            file, tag = self.store.download(self.key(name), limit)
        except Absent as error:
            raise FileMissing(f"{self.where(name)} is missing.") from error
        if file.seek(0, os.SEEK_END) <= IN_MEMORY:
            file.seek(0)
            with _lock:
                _remembered[(*mark[:-1], tag)] = file.read()
        file.seek(0)
        return file

    def staging(self) -> ObjectStaging:
        """A with-block in which files are staged and published."""
        self._listed.clear()  # it speaks of what was there before
        return ObjectStaging(self.store, self._prefix)

    def remove(self, name: str) -> None:
        """Remove a left-over file, or end an upload that `unfinished` named."""
        self._listed.pop(self.key(name), None)
        plain, _, upload = name.partition(_UPLOAD)
        with contextlib.suppress(Absent):
            if upload:
                self.store.call("abort_multipart_upload", Key=self.key(plain), UploadId=upload)
            else:
                self.store.call("delete_object", Key=self.key(name))

    def quarantine(self, name: str, sound: Sound | None = None) -> str | None:
        """See `Backend.quarantine`; what is looked at is fetched from the store, whatever is remembered.

        Raises:
            FileMissing: there is no such file.
        """
        try:
            file, tag = self.store.download(self.key(name))
        except Absent as error:
            raise FileMissing(f"{self.where(name)} is missing.") from error
        with file, self.staging() as staging:
            if sound is not None and sound(file):
                return None
            file.seek(0)
            staged = staging.stage(name, iter(lambda: file.read(2**20), b""))
            new = next(new for new in quarantine_names(name) if staging.add(staged, new))
        return new if self._remove_same(name, tag) else None

    def _remove_same(self, name: str, tag: str) -> bool:
        """Remove a file if it has this ETag still; False if it has another. One that is gone counts as removed."""
        found = self.head(name)
        if found is not None and found["ETag"] != tag:
            return False
        try:
            self.store.call("delete_object", Key=self.key(name), IfMatch=tag)
        except Absent:
            return True
        except Taken:
            return False
        except Unsupported:  # then the look just before has to do
            self.remove(name)
        return True

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """True: there are no locks here, see `recent`."""
        yield True

    def at_work(self) -> contextlib.nullcontext[None]:
        """Nothing: there are no locks here."""
        return contextlib.nullcontext()

    def turn(self, folder: str) -> contextlib.nullcontext[None]:
        """Nothing: there are no locks here."""
        return contextlib.nullcontext()

    def recent(self, name: str) -> bool:
        """Is a file, or an unfinished upload, younger than an hour by the store's clock?"""
        plain, _, upload = name.partition(_UPLOAD)
        if upload:
            return any(age < GRACE for one, age in self._uploads(plain) if one == name)
        found = self.head(name)
        return found is None or age(found, found["LastModified"]) < GRACE

    def unfinished(self) -> list[str]:
        """Uploads that were begun and never ended; none for whoever may not list them."""
        try:
            return sorted(name for name, _ in self._uploads(""))
        except CounterpoiseError:
            return []

    def _uploads(self, start: str) -> Iterator[tuple[str, timedelta]]:
        """Names and ages of the uploads whose name starts so."""
        marks = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        for page in self.store.pages("list_multipart_uploads", marks, Prefix=self.key(start)):
            for one in page.get("Uploads", ()):
                name = one["Key"].removeprefix(self._prefix)
                yield f"{name}{_UPLOAD}{one['UploadId']}", age(page, one["Initiated"])
