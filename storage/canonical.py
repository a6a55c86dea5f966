"""One way to write facts as bytes, so that equal facts have equal hashes, and a changed byte shows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from .errors import ABSENT, CounterpoiseError, ShardDamaged

SEAL = "self_sha256"
_compact = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def sha256(data: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def plain(value: object, field: str = "value") -> Any:
    """Copy of a value as JSON types only: tuples become lists, every key is a string, every number is finite.

    Raises:
        CounterpoiseError: names the dotted field that cannot be written as JSON.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, field)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        raise CounterpoiseError(
            f"{field} is {value}: a finite number is wanted, or null where there is none."
        )
    if isinstance(value, Mapping):
        return {_key(key, field): plain(item, f"{field}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{field}[{i}]") for i, item in enumerate(value)]
    raise CounterpoiseError(
        f"{field} is a {type(value).__name__}: give text, numbers, true/false, lists or mappings."
    )


def _key(key: object, field: str) -> str:
    if isinstance(key, str):
        return _text(key, field)
    raise CounterpoiseError(f"{field} has the key {key!r}: every key has to be text.")


def _text(value: str, field: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CounterpoiseError(f"{field} holds text that is not valid Unicode: {value!r}.") from error
    return str(value)


def canonical(value: object) -> bytes:
    """Compact JSON with sorted keys: the bytes that are hashed."""
    return canonical_text(plain(value)).encode("utf-8")


def canonical_text(facts: Any) -> str:
    """`canonical` of what is plain already."""
    return _compact(facts)


def recipe_hash(mapping: object) -> str:
    """Hex sha256 of the canonical JSON of a value; the order of keys does not count, that of lists does."""
    return sha256(canonical(mapping))


def seal(body: Mapping[str, Any]) -> bytes:
    """A JSON document for people to read, with a hash over itself as its last entry."""
    document = _document(body)
    last = f'"{SEAL}": "{sha256(document)}"\n}}\n'.encode("ascii")
    start = document[:-3] + b",\n " if body else b"{\n "
    return start + last


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """The body of a sealed document, if not a single byte of it was changed.

    Raises:
        ShardDamaged: it is torn, changed, or was never sealed.
    """
    try:
        document = json.loads(data)
        body = {key: value for key, value in document.items() if key != SEAL}
        sound = seal(body) == data
    except (ValueError, AttributeError, RecursionError) as error:
        raise ShardDamaged(
            f"{name} is damaged: not a whole JSON document ({type(error).__name__})."
        ) from error
    if not sound:
        raise ShardDamaged(f"{name} is damaged: its bytes do not match the hash that it carries.")
    return body


def _document(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def first_difference(stored: object, given: object, field: str = "") -> tuple[str, object, object] | None:
    """First place where two plain values differ, as (dotted field, stored value, given value)."""
    if isinstance(stored, dict) and isinstance(given, dict):
        keys = [*given, *(key for key in stored if key not in given)]
        pairs = [(f"{field}.{key}" if field else key, stored, given, key) for key in keys]
        found = (_at(path, old.get(key, ABSENT), new.get(key, ABSENT)) for path, old, new, key in pairs)
        return next((difference for difference in found if difference), None)
    if isinstance(stored, list) and isinstance(given, list) and _mappings(stored) and _mappings(given):
        found = (_at(f"{field}[{i}]", *both) for i, both in enumerate(zip(stored, given, strict=False)))
        lengths = (field, f"{len(stored)} entries", f"{len(given)} entries")
        return next(
            (difference for difference in found if difference), lengths if len(stored) != len(given) else None
        )
    return None if _same(stored, given) else (field, stored, given)


def _at(field: str, stored: object, given: object) -> tuple[str, object, object] | None:
    return first_difference(stored, given, field)


def _mappings(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _same(stored: object, given: object) -> bool:
    return canonical(stored) == canonical(given)
