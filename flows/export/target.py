"""Where an export goes: a folder that appears whole or not at all, with a manifest of what is in it.

Everything is written into a passing folder beside the target, read back for its hashes, and given the target's name
at once. What a killed export left there is cleared by the next one to the same place. To a place that has no
folders to rename (an object store), files are copied one by one, and export.json last of all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from storage import CounterpoiseError, DatasetMismatch, ShardDamaged
from storage.backend import explain, fault_point
from storage.canonical import first_difference, plain, seal, unseal

MANIFEST = "export.json"
BEGUN = "export.begun.json"
FORMAT = "counterpoise-export-1"
_CURE = "Give another --out, or remove what is there."


@contextlib.contextmanager
def local_target(out: str, request: Mapping[str, Any]) -> Iterator[Path | None]:
    """A passing folder to write an export into, which is given its name at the block's end.

    Args:
        out: a folder's path or file:// URI; absent or empty, or one with the same export.
        request: what decides the bytes, as plain facts.

    Yields:
        The passing folder; None if the same export is there already.

    Raises:
        CounterpoiseError: the folder holds something else, or another export to it is running.
    """
    target = _path(out)
    if _is_there(target, request):
        yield None
        return
    passing = target.parent / f".{target.name}.tmp-export"
    try:
        with _alone(passing, out):
            _clear(passing)
            try:
                yield passing
                _seal(passing, request)
                fault_point("export.before_rename")
                _rename(passing, target)
                fault_point("export.renamed")
            except BaseException:
                shutil.rmtree(passing, ignore_errors=True)
                raise
    except OSError as error:
        raise explain(error, str(error.filename or target)) from error


def inside(folder: Path, name: str) -> Path:
    """The path of one file or folder of an export.

    Raises:
        CounterpoiseError: it is outside the export's folder.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CounterpoiseError(f"{name!r} is refused: an export writes nothing outside its folder. {_CURE}")
    return path


def write_file(folder: Path, name: str, content: bytes) -> None:
    """Write one file of an export, with the folders on its way."""
    path = inside(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    fault_point("export.file")


def read_manifest(content: bytes, where: str) -> dict[str, Any]:
    """An export's manifest: `request` and `files` (name, bytes, sha256).

    Raises:
        ShardDamaged: it was changed or cut short.
    """
    body = unseal(content, where)
    if body.get("format") != FORMAT:
        raise CounterpoiseError(f"{where}: format {body.get('format')!r}, {FORMAT!r} is wanted. {_CURE}")
    return body


def same_export(body: Mapping[str, Any], request: Mapping[str, Any], where: str) -> None:
    """Refuse the manifest of another export.

    Raises:
        DatasetMismatch: names the first field that differs.
    """
    found = first_difference(body["request"], plain(request), "export")
    if found:
        raise DatasetMismatch(where, *found, _CURE)


def outside(out: str, dataset: str) -> None:
    """Refuse a target inside the dataset, whose folder is its own.

    Raises:
        CounterpoiseError: it is inside.
    """
    if is_local(out) and is_local(dataset):
        within = _path(out).is_relative_to(_path(dataset))
    else:
        within = f"{out.rstrip('/')}/".startswith(f"{dataset.rstrip('/')}/")
    if within:
        raise CounterpoiseError(f"--out: {out} is inside the dataset {dataset}; give a folder beside it")


def is_local(place: str) -> bool:
    """Is it a folder's path or file:// URI?"""
    return "://" not in place or place.startswith("file://")


def _path(out: str) -> Path:
    text = unquote(urlsplit(out).path) if out.startswith("file://") else out
    if not text:
        raise CounterpoiseError("--out: given nothing, wanted a folder")
    return Path(text).resolve()


def _is_there(target: Path, request: Mapping[str, Any]) -> bool:
    """True if this very export is there, to the byte; False if nothing is."""
    manifest = target / MANIFEST
    if manifest.is_file():
        body = read_manifest(manifest.read_bytes(), str(manifest))
        same_export(body, request, str(manifest))
        for file in body["files"]:
            path = inside(target, file["name"])
            if not path.is_file() or _facts(path, file["name"]) != file:
                raise ShardDamaged(f"{path} is missing or damaged: remove {target} and export again.")
        return True
    if target.is_dir() and not any(target.iterdir()):
        return False
    if target.exists():
        what = "is not empty, and no export of this program" if target.is_dir() else "is a file"
        raise CounterpoiseError(f"--out: {target} {what}: nothing was touched. {_CURE}")
    return False


@contextlib.contextmanager
def _alone(passing: Path, out: str) -> Iterator[None]:
    """Hold the passing folder; a killed export holds it no more."""
    while True:
        passing.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(passing, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise CounterpoiseError(
                f"--out: another export to {out} is running; wait for its end, or give another --out"
            ) from error
        if passing.is_dir() and os.fstat(descriptor).st_ino == passing.stat().st_ino:
            break
        os.close(descriptor)  # it was renamed or removed meanwhile
    try:
        yield
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _seal(folder: Path, request: Mapping[str, Any]) -> None:
    """Read everything back, write the manifest, and see to it that it is on the disk."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [_facts(path, path.relative_to(folder).as_posix()) for path in paths]
    body = {"format": FORMAT, "request": plain(request), "files": files}
    write_file(folder, MANIFEST, seal(body))
    os.sync()


def _facts(path: Path, name: str) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": name, "bytes": file.tell(), "sha256": digest}


def _rename(passing: Path, target: Path) -> None:
    try:
        os.rename(passing, target)
    except OSError as error:
        if target.exists():
            raise CounterpoiseError(
                f"--out: {target} was filled meanwhile: nothing was touched. {_CURE}"
            ) from error
        raise
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
