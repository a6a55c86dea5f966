"""A spec against the one that a dataset holds: the same, one that only asks for more, or another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from generators.plan import Size
from generators.spec import Spec
from storage import DatasetMismatch
from storage.backend import open_backend
from storage.canonical import first_difference, plain
from storage.manifest import HEADER, newest_dataset

from .settings import spec_to_dict

_STORED = "Give the stored value again to continue, or write to another folder."
_MORE = "--extend adds what is new and leaves the finished shards alone; or write to another folder."
_ONLY = (
    "--extend takes a larger sets_per_concept and concepts appended to the list, nothing else; or write to another "
    "folder."
)


@dataclass(frozen=True, slots=True)
class StoredSize:
    """What a dataset says of its size.

    Attributes:
        same: its spec is the one that was given.
        extended_from: sizes that it had before the given spec, the first first.
    """

    same: bool
    extended_from: tuple[Size, ...] = ()

    @property
    def header(self) -> dict[str, Any]:
        """The entry in the dataset's header; none where it was never extended."""
        return {"extended_from": [asdict(size) for size in self.extended_from]} if self.extended_from else {}


def stored_size(dataset: str, spec: Spec, extend: bool) -> StoredSize:
    """The dataset's size, if the spec continues it or (with `extend`) only asks for more.

    Raises:
        DatasetMismatch: it holds another spec's dataset, or one that only `extend` may take; names the field.
    """
    manifest = newest_dataset(dataset)
    if manifest is None:
        return StoredSize(same=False)
    stored, given = manifest.header.get("spec"), plain(spec_to_dict(spec))
    sizes = tuple(Size(**one) for one in manifest.header.get("extended_from", ()))
    different = first_difference(stored, given, "spec")
    if different is None:
        return StoredSize(same=True, extended_from=sizes)
    other, cure = different, _STORED
    size = _size(stored)
    if size is not None:
        beyond = first_difference(stored, plain(spec_to_dict(_no_larger(spec, size))), "spec")
        if beyond is None and extend:
            return StoredSize(same=False, extended_from=(*sizes, size))
        other, cure = (beyond, _ONLY if extend else _STORED) if beyond else (different, _MORE)
    raise DatasetMismatch(open_backend(dataset).where(HEADER), *other, cure)


def _size(stored: object) -> Size | None:
    """How much a stored spec asks for; None if it is none of ours."""
    if not isinstance(stored, Mapping):
        return None
    concepts, sets = stored.get("concepts"), stored.get("sets_per_concept")
    return Size(len(concepts), sets) if isinstance(concepts, list) and isinstance(sets, int) else None


def _no_larger(spec: Spec, size: Size) -> Spec:
    """The spec without what it asks for beyond a size; one that asks for less stays as it is.

    Tries and held-out names of concepts that are not in it go with them.
    """
    concepts = spec.concepts[: size.concepts]
    new = {concept.name for concept in spec.concepts} - {concept.name for concept in concepts}
    held_out = tuple(name for name in spec.split.held_out_concepts if name not in new)
    return replace(
        spec,
        concepts=concepts,
        sets_per_concept=min(spec.sets_per_concept, size.sets_per_concept),
        candidates={name: tries for name, tries in spec.candidates.items() if name not in new},
        split=replace(spec.split, held_out_concepts=held_out),
    )
