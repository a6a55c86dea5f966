"""What an S3 store answers when it does not do what was asked."""

from __future__ import annotations

import errno

from .errors import CounterpoiseError

ABSENT = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
TAKEN = {"412", "PreconditionFailed"}
BUSY = {"409", "ConditionalRequestConflict", "OperationAborted"}
_DENIED = {
    "403",
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
}


class Absent(Exception):
    """There is no such object."""


class Taken(Exception):
    """There is such an object already."""


class Unsupported(CounterpoiseError):
    """The store does not know what was asked of it."""


class TooLarge(Exception):
    """An object is above the limit."""


class Broken(OSError):
    """An answer broke off, or a conflict: trying again may help."""


def code_of(error: BaseException) -> str:
    """The store's word for an error, "" where it did not answer."""
    answered = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
    return str(answered.get("Error", {}).get("Code", ""))


def system_error(error: BaseException, code: str) -> BaseException:
    """The error as one of the system's, where it has to do with it: it tells whether trying again later may help."""
    from botocore.exceptions import ConnectionError as NotConnected
    from botocore.exceptions import HTTPClientError

    if code in _DENIED:
        return PermissionError(errno.EACCES, str(error))
    return ConnectionError(str(error)) if isinstance(error, HTTPClientError | NotConnected) else error


def explained(
    error: BaseException, code: str, where: str, left: str = "finished shards stay"
) -> CounterpoiseError:
    """An error of the store as one line with its cause and its cure; `left` is what becomes of what was done."""
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    reason = " ".join((str(error) or type(error).__name__).split())
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        cure = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    elif isinstance(system_error(error, code), TimeoutError | ConnectionError):
        cure = "the store cannot be reached: see to AWS_ENDPOINT_URL and the network and run the same again"
    elif code in _DENIED:
        cure = "the store does not allow it: see to the credentials, and to the rights to list, get, put and delete"
    elif code == "NoSuchBucket":
        cure = "make the bucket, or give another one"
    elif code in (
        "301",
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    ):
        cure = "the bucket lies in another region: set AWS_DEFAULT_REGION to it"
    elif code in ("501", "NotImplemented"):
        return Unsupported(
            f"{where}: {reason}. The store does not know a request that is needed; use another."
        )
    elif isinstance(error, OSError) and not code:
        cure = f"see to the disk of the temporary files (TMPDIR) and run the same again; {left}"
    else:
        cure = f"run the same again when the store is well; {left}"
    return CounterpoiseError(f"{where}: {reason}. Cause and cure: {cure}.")
