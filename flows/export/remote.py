"""An export to anywhere that fsspec reaches: made in a local folder, then copied, its manifest last."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec

from storage import CounterpoiseError, ShardDamaged
from storage.backend import fault_point
from storage.canonical import plain, seal
from storage.s3_errors import code_of, explained

from .target import BEGUN, FORMAT, MANIFEST, is_local, local_target, read_manifest, same_export

_PIECE = 2**24
_CURE = "Give another --out, or remove what is there."


def open_target(out: str, request: Mapping[str, Any]) -> contextlib.AbstractContextManager[Path | None]:
    """A local folder to write an export into, which is at `out` when the block ends without an error.

    See `local_target`; a URI of another kind than file:// is copied to.

    Raises:
        CounterpoiseError: it cannot be written to, or holds something else.
    """
    return local_target(out, request) if is_local(out) else _remote_target(out, request)


@contextlib.contextmanager
def _remote_target(out: str, request: Mapping[str, Any]) -> Iterator[Path | None]:
    place, root = _reach(out)
    with _told(out, "read"):
        there = _is_there(place, root, out, request)
    if there:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="counterpoise-export-") as folder:
        made = Path(folder) / "export"
        with local_target(str(made), request) as passing:
            yield passing
        with _told(out, "written"):
            _copy(place, root, made, out, request)


@contextlib.contextmanager
def _told(out: str, done: str) -> Iterator[None]:
    """Whatever a store raises as one line: those of fsspec have no errors in common."""
    try:
        yield
    except CounterpoiseError:
        raise
    except Exception as error:
        where = f"--out: {out} cannot be {done}"
        if out.startswith(("s3://", "s3a://")):
            raise explained(error, code_of(error), where, left="what is there is continued") from error
        reason = " ".join((str(error) or type(error).__name__).split())
        raise CounterpoiseError(f"{where} ({reason}): see to it and run the same again.") from error


def _reach(out: str) -> tuple[Any, str]:
    try:
        place, root = fsspec.core.url_to_fs(out)
    except (ValueError, ImportError) as error:
        raise CounterpoiseError(f"--out: given {out!r}, which cannot be reached ({error}).") from error
    return place, str(root).rstrip("/")


def _is_there(place: Any, root: str, out: str, request: Mapping[str, Any]) -> bool:
    """True if this very export is there; False if nothing is, or what an interrupted one left."""
    names = {str(name).removeprefix(root).lstrip("/"): facts for name, facts in _found(place, root).items()}
    if MANIFEST in names:
        body = read_manifest(place.cat_file(f"{root}/{MANIFEST}"), f"{out}/{MANIFEST}")
        same_export(body, request, f"{out}/{MANIFEST}")
        for file in body["files"]:
            there = names.get(file["name"], {}).get("size") == file["bytes"]
            if not there or _digest(place, f"{root}/{file['name']}") != file["sha256"]:
                raise ShardDamaged(
                    f"{out}/{file['name']} is missing or damaged: remove {out} and export again."
                )
        return True
    if BEGUN in names:
        body = read_manifest(place.cat_file(f"{root}/{BEGUN}"), f"{out}/{BEGUN}")
        same_export(body, request, f"{out}/{BEGUN}")
    elif names:
        raise CounterpoiseError(
            f"--out: {out} is not empty, and no export of this program: nothing was touched. {_CURE}"
        )
    return False


def _found(place: Any, root: str) -> dict[str, Any]:
    found: dict[str, Any] = place.find(root, detail=True) if place.exists(root) else {}
    return found


def _copy(place: Any, root: str, made: Path, out: str, request: Mapping[str, Any]) -> None:
    """Lay claim to the place, copy every file, and the manifest last: without it there is no export."""
    place.makedirs(root, exist_ok=True)
    _claim(place, f"{root}/{BEGUN}", request)
    fault_point("export.begun")
    place.invalidate_cache()
    if place.exists(f"{root}/{MANIFEST}"):  # another one began and ended meanwhile
        place.rm_file(f"{root}/{BEGUN}")
        _is_there(place, root, out, request)
        return
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        name = path.relative_to(made).as_posix()
        if name != MANIFEST:
            target = f"{root}/{name}"
            place.makedirs(target.rpartition("/")[0], exist_ok=True)
            _put(place, path, target)
            fault_point("export.copied")
    _put(place, made / MANIFEST, f"{root}/{MANIFEST}")
    place.rm_file(f"{root}/{BEGUN}")


def _claim(place: Any, target: str, request: Mapping[str, Any]) -> None:
    """Say what is being exported, unless an interrupted export of the same said so; of several, one gets the place.

    Raises:
        DatasetMismatch: another export has begun here.
    """
    content = seal({"format": FORMAT, "request": plain(request), "files": []})
    try:
        place.pipe_file(target, content, mode="create")
    except Exception:  # stores have no error in common for what is there already
        place.invalidate_cache()
        if not place.exists(target):
            raise
    same_export(read_manifest(place.cat_file(target), target), request, target)


def _put(place: Any, path: Path, target: str) -> None:
    """Copy a file, unless the same is there from an interrupted export, and read it back."""
    with path.open("rb") as file:
        wanted = hashlib.file_digest(file, "sha256").hexdigest()
    if place.exists(target) and _digest(place, target) == wanted:
        return
    place.put_file(str(path), target)
    if _digest(place, target) != wanted:
        with contextlib.suppress(Exception):  # above all the manifest, which would speak for it
            place.rm_file(target)
        raise OSError(f"{target} is not what was sent")


def _digest(place: Any, target: str) -> str:
    """sha256 of a file there, read in pieces."""
    digest = hashlib.sha256()
    with place.open(target, "rb", cache_type="none") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
