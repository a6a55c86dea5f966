"""One bucket of an S3 store: requests that are tried again, uploads, downloads, errors as one line.

Credentials, region, endpoint and certificates are found as every AWS tool finds them (`AWS_ACCESS_KEY_ID`,
`AWS_PROFILE`, `AWS_ENDPOINT_URL` ...). What passes (500, 503, time-outs, lost connections) the client tries
again by itself; here, conflicts (409) and answers that broke off are.
"""

from __future__ import annotations

import io
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from .errors import CounterpoiseError
from .s3_errors import ABSENT, BUSY, TAKEN, Absent, Broken, Taken, TooLarge, code_of, explained, system_error

IN_MEMORY = 2**22
PART = 2**24
_PARTS_AT_A_TIME = 4
_ATTEMPTS = 6
_PAUSE = 0.2
T = TypeVar("T")


class Store:
    """One bucket."""

    def __init__(self, bucket: str) -> None:
        """No request is made yet.

        Raises:
            CounterpoiseError: s3fs is not installed.
        """
        self.bucket = bucket
        self._files = _filesystem()

    @property
    def place(self) -> tuple[str, str]:
        """Endpoint and bucket, which tell this store from others in one process."""
        return str(self._files.s3.meta.endpoint_url), self.bucket

    def where(self, key: str) -> str:
        """A key as a URI."""
        return f"s3://{self.bucket}/{key}"

    def head(self, key: str) -> dict[str, Any] | None:
        """What the store says about an object; None if there is none."""
        try:
            return self.call("head_object", Key=key)
        except Absent:
            return None

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """One request to the bucket, by its name in botocore, and its answer.

        Raises:
            Absent, Taken: the store says so.
            Unsupported: the store does not know this request.
            CounterpoiseError: it failed, and went on failing; says why, and what to do.
        """
        answer: dict[str, Any] = self._tried(
            lambda: self._files.call_s3(method, Bucket=self.bucket, **given), given.get("Key", "")
        )
        return answer

    def upload(self, key: str, file: Any, size: int, only_new: bool = False) -> None:
        """Put a file's content under a key, in parts where it is large; nobody sees it before it is whole.

        Args:
            key: inside the bucket.
            file: open, with a descriptor.
            size: bytes of it.
            only_new: refuse to replace what is there.

        Raises:
            Taken: `only_new`, and there is one.
        """
        options = {"chunksize": PART, "max_concurrency": _PARTS_AT_A_TIME}
        mode = "create" if only_new else "overwrite"
        data = content(file) if size < 2 * PART else mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        path = f"{self.bucket}/{key}"
        try:
            self._tried(lambda: self._piped(path, data, mode=mode, **options), key)
        finally:
            if isinstance(data, mmap.mmap):
                data.close()

    def _piped(self, path: str, data: Any, **options: Any) -> None:
        try:
            self._files.pipe_file(path, data, **options)
        except FileNotFoundError as error:
            if code_of(error) != "NoSuchUpload":
                raise
            # its parts were cleaned away, or the answer to its end was lost
            raise Broken(str(error)) from error

    def download(self, key: str, limit: int | None = None) -> tuple[io.BufferedIOBase, str]:
        """A whole object, in memory or in an unnamed temporary file, and its ETag.

        Raises:
            Absent: there is none.
            TooLarge: it has more bytes than the limit.
        """
        from fsspec.asyn import sync

        def fetch() -> tuple[io.BufferedIOBase, str]:
            found: tuple[io.BufferedIOBase, str] = sync(
                self._files.loop, _fetch, self._files, self.bucket, key, limit
            )
            return found

        return self._tried(fetch, key)

    def pages(self, method: str, marks: Mapping[str, str], **given: Any) -> Iterator[dict[str, Any]]:
        """The answers to a request that lists; `marks` says which of their fields the next request repeats."""
        more: dict[str, Any] = {}
        while True:
            page = self.call(method, **given, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more = {name: page[field] for name, field in marks.items()}

    def _tried(self, work: Callable[[], T], key: str) -> T:
        """What a request gives; conflicts and broken answers are tried again, each time after a longer pause."""
        from botocore.exceptions import BotoCoreError

        where = self.where(key)
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE * 2**attempt)
            try:
                return work()
            except (OSError, BotoCoreError) as error:
                code = code_of(error)
                if code in ABSENT:
                    raise Absent(where) from error
                if code in TAKEN:
                    raise Taken(where) from error
                if code not in BUSY and not isinstance(error, Broken):
                    raise explained(error, code, where) from system_error(error, code)
                failed = error
        text = f"{where}: the store went on refusing ({failed}). Run the same again; finished shards stay."
        raise CounterpoiseError(text) from failed


def spooled(data: bytes = b"") -> Any:
    """A file in memory that becomes an unnamed temporary one where it gets large or is asked for its descriptor."""
    file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
    file.write(data)
    file.seek(0)
    return file


def content(file: Any) -> bytes:
    """All of an open file."""
    file.seek(0)
    data: bytes = file.read()
    return data


def age(answer: Mapping[str, Any], since: datetime) -> timedelta:
    """How long ago something was, by the clock of the store that gave this answer."""
    now = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(now) - since if now else timedelta(0)


def _filesystem() -> Any:
    """The client, which s3fs keeps for the thread that asks."""
    try:
        from s3fs import S3FileSystem
    except ImportError as error:
        raise CounterpoiseError(
            "s3:// needs the package s3fs, which is not installed: pip install 'counterpoise[s3]'"
        ) from error
    settings: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 60}
    if not {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & set(os.environ):
        settings["retries"] = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
    files = S3FileSystem(config_kwargs=settings, use_listings_cache=False, cache_regions=False)
    files.retries = 1  # the client below tries again already, and so does `Store`
    return files


async def _fetch(files: Any, bucket: str, key: str, limit: int | None) -> tuple[io.BufferedIOBase, str]:
    """Read an object to its end; nothing stays of one that breaks off."""
    from s3fs.core import S3_RETRYABLE_ERRORS

    answer = await files._call_s3("get_object", Bucket=bucket, Key=key)
    size = answer["ContentLength"]
    async with answer["Body"] as body:
        if limit is not None and size > limit:
            raise TooLarge(key)
        file = spooled()
        try:
            while chunk := await body.read(2**20):
                file.write(chunk)
            if file.tell() != size:
                raise Broken(f"{file.tell()} of {size} bytes came")
        except BaseException as error:
            file.close()
            if isinstance(error, S3_RETRYABLE_ERRORS):
                raise Broken(str(error) or type(error).__name__) from error
            raise
    file.seek(0)
    return file, str(answer["ETag"])
