"""Every content that `dataset.json` ever had, as `versions/00000.json`, `versions/00001.json`, ...

A version is created by exactly one writer and never changed; the newest is what writers go by. `dataset.json` is
its copy, for readers to open without a listing, and can always be made from it again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .backend import Backend
from .canonical import seal
from .document import HEADER, read_document
from .errors import CounterpoiseError, ShardDamaged
from .shardfile import MAX_MANIFEST

VERSIONS = "versions"
_NAME = re.compile(r"([0-9]{5})\.json")
_MEND = "`counterpoise generate` with the dataset's spec mends it"


def version_name(number: int) -> str:
    """Name of a version inside the dataset."""
    return f"{VERSIONS}/{number:05d}.json"


def version_numbers(backend: Backend) -> list[int]:
    """Numbers of the versions that are there."""
    return [int(match[1]) for match in map(_NAME.fullmatch, backend.names(VERSIONS)) if match]


def require_version(backend: Backend, number: int) -> str:
    """The name of a version that is there.

    Raises:
        CounterpoiseError: there is none of this number.
    """
    numbers = version_numbers(backend)
    if number not in numbers:
        known = f"versions {numbers[0]} to {numbers[-1]}" if numbers else "no versions"
        raise CounterpoiseError(f"{backend}: given version {number}, but the dataset has {known}.")
    return version_name(number)


def newest(backend: Backend) -> dict[str, Any] | None:
    """The body that writers go by: the newest version's, or that of `dataset.json` where it is lost or damaged.

    Raises:
        ShardDamaged: both are damaged.
        CounterpoiseError: one of them was written by another version of the program.
    """
    copy, numbers = None, version_numbers(backend)
    if backend.exists(HEADER):
        try:
            copy = read_document(backend, HEADER)
        except ShardDamaged as error:
            if not numbers:
                raise damaged_document(backend, HEADER, error) from error
    try:
        return read_document(backend, version_name(numbers[-1])) if numbers else copy
    except ShardDamaged as error:
        if copy is None:
            raise damaged_document(backend, version_name(numbers[-1]), error) from error
        return copy


def save_version(backend: Backend, make: Callable[[dict[str, Any] | None], dict[str, Any]]) -> dict[str, Any]:
    """Make a version of what `make` makes of the newest body, unless that is the same; returns its body.

    Who loses a race asks `make` again, with what the other wrote. `dataset.json` stays as it was: see `mend_copy`.
    """
    while True:
        numbers, body = version_numbers(backend), make(newest(backend))
        content = seal(body)
        if numbers and _content(backend, version_name(numbers[-1])) == content:
            return body
        name = version_name(numbers[-1] + 1 if numbers else 0)
        with backend.staging() as staging:
            if staging.create(staging.stage(name, [content]), name):
                return body


def mend_copy(backend: Backend) -> None:
    """Make `dataset.json` the newest version; of several that do so at a time, the last one leaves it right."""
    while True:
        content = backend.read(version_name(version_numbers(backend)[-1]), MAX_MANIFEST)
        if _content(backend, HEADER) == content:
            return
        with backend.staging() as staging:
            staging.put(staging.stage(HEADER, [content]), HEADER)


def ever_listed(backend: Backend) -> dict[int, set[str]]:
    """Hashes of every shard's manifests that any version listed, by the shard's index; damaged versions tell nothing."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for number in version_numbers(backend):
        with suppress(CounterpoiseError):
            for entry in read_document(backend, version_name(number))["shards"]:
                found[entry["index"]].add(entry["sha256"])
    return found


def damaged_document(backend: Backend, name: str, error: ShardDamaged) -> ShardDamaged:
    """The error of a damaged `dataset.json` or version, with what is to be done."""
    if name == HEADER and version_numbers(backend):
        return ShardDamaged(f"{error} {_MEND}.")
    if name == HEADER:
        return ShardDamaged(f"{error} There is no version to mend it from: delete it, then {_MEND}.")
    return ShardDamaged(f"{error} Nothing but this version is lost: delete it; {_MEND}.")


def version_lines(backend: Backend) -> list[str]:
    """One line per version that is missing, damaged or foreign, and one if `dataset.json` is not the newest."""
    numbers = version_numbers(backend)
    lines = [
        f"{backend.where(version_name(number))} is missing: nothing else is lost by it."
        for number in sorted(set(range(numbers[-1] if numbers else 0)) - set(numbers))
    ]
    for number in numbers:
        try:
            read_document(backend, version_name(number))
        except ShardDamaged as error:
            lines.append(str(damaged_document(backend, version_name(number), error)))
        except CounterpoiseError as error:
            lines.append(str(error))
    foreign = [name for name in backend.names(VERSIONS) if not _NAME.fullmatch(name) and ".tmp-" not in name]
    lines += [f"{backend.where(VERSIONS)}/{name} is foreign: it is no version." for name in foreign]
    if not numbers:
        lines.append(f"{backend.where(version_name(0))} is missing, as is every version: {_MEND}.")
    elif _content(backend, HEADER) != _content(backend, version_name(numbers[-1])):
        newest_name = version_name(numbers[-1])
        lines.append(f"{backend.where(HEADER)} is not the newest version, {newest_name}: {_MEND}.")
    return lines


def _content(backend: Backend, name: str) -> bytes | None:
    """The bytes of a document; None if it is missing or larger than it may be."""
    try:
        return backend.read(name, MAX_MANIFEST)
    except ShardDamaged:
        return None
