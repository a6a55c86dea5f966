"""Finished candidates of a shard that is not published yet, so that a kill does not cost them.

They lie in `progress/<shard>-<recipe>/`, are read by nothing but the run that goes on with the shard, and are checked
to the last byte before they are used: what is odd in any way is made again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import prod
from typing import Any

from .backend import Backend, open_backend
from .canonical import first_difference, plain, recipe_hash, seal, unseal
from .checks import check_samples
from .errors import CounterpoiseError, DatasetMismatch, ShardDamaged
from .manifest import Where, load_dataset
from .reading import check_bytes, decode, row_image
from .records import Sample, from_row, schema, to_row
from .shardfile import MAX_MANIFEST, shard_indices
from .shards import tar_content
from .tarball import tar_blocks, tar_members

PROGRESS = "progress"
_FORMAT = "counterpoise-candidate-1"
_FOLDER = re.compile(r"([0-9]{5})-[0-9a-f]{12}")
_FILE = re.compile(r"[a-z0-9_]{1,90}-[0-9]{1,9}\.(?:tar|json)")
_ODD = (CounterpoiseError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class SavedCandidates:
    """The saved candidates of one shard.

    Attributes:
        differences: in what other environments differ from this one, of candidates that `load` gave out.
    """

    def __init__(
        self,
        dataset: Where,
        index: int,
        recipe: Mapping[str, Any],
        environment: Mapping[str, Any],
        after: float = 0.0,
        strict: bool = False,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            dataset: a folder or URI.
            index: of the shard.
            recipe: of the shard.
            environment: this one.
            after: seconds that a candidate has to take to be saved.
            strict: do not use what another environment made.
        """
        self._backend, manifest = open_backend(dataset), load_dataset(dataset)
        self._axes, self._recipe, self._environment = manifest.axes, recipe, plain(environment, "environment")
        self._index, self._after, self._strict = index, after, strict
        digest = recipe_hash(recipe)
        self._folder = f"{PROGRESS}/{index:05d}-{digest[:12]}"
        self._identity = {
            "format": _FORMAT,
            "dataset_id": manifest.dataset_id,
            "index": index,
            "recipe_sha256": digest,
        }
        self._others: dict[str, Any] = {}
        self.differences: list[DatasetMismatch] = []

    @property
    def environment(self) -> dict[str, Any]:
        """Of the shard: this one, and as `earlier` those of candidates that `load` gave out and another one made."""
        others = [self._others[name] for name in sorted(self._others)]
        return {**self._environment, **({"earlier": others} if others else {})}

    def save(self, samples: Sequence[Sample], seconds: float) -> None:
        """Keep a finished candidate, if it took long enough; images of a kept one go to a tar beside.

        Raises:
            CounterpoiseError: it cannot be stored, or the disk refuses.
        """
        if seconds < self._after:
            return
        check_samples(samples, self._axes, self._recipe)  # a flagged image is never stored, here neither
        rows = [to_row(sample) for sample in samples]
        name = self._name(samples[0].set_id, samples[0].candidate)
        with self._backend.staging() as staging:
            images = None
            if samples[0].kept:
                images = staging.stage(f"{name}.tar", tar_blocks(tar_content(list(samples), rows)))
            facts = None if images is None else {"bytes": images.bytes, "sha256": images.sha256}
            body = plain({**self._facts(samples[0].set_id, samples[0].candidate), "rows": rows, "tar": facts})
            record = staging.stage(f"{name}.json", [seal({**body, "environment": self._environment})])
            if images is not None:
                staging.put(images, f"{name}.tar")
            staging.put(record, f"{name}.json")

    def load(self, set_id: str, candidate: int) -> list[Sample] | None:
        """A candidate that was saved, as it was made; None if there is none, or anything is odd about it."""
        name = self._name(set_id, candidate)
        if not self._backend.exists(f"{name}.json"):
            return None
        try:
            body = unseal(self._backend.read(f"{name}.json", MAX_MANIFEST), name)
            samples = self._checked(body, name, set_id, candidate)
            return samples if self._may_use(body["environment"], name) else None
        except _ODD:
            return None

    def drop(self) -> None:
        """Forget the shard's candidates, of whatever recipe; it is published."""
        for name in _files(self._backend, {self._index}):
            self._backend.remove(name)

    def _name(self, set_id: str, candidate: int) -> str:
        return f"{self._folder}/{set_id}-{candidate}"

    def _facts(self, set_id: str, candidate: int) -> dict[str, Any]:
        return {**self._identity, "set_id": set_id, "candidate": candidate}

    def _checked(self, body: dict[str, Any], name: str, set_id: str, candidate: int) -> list[Sample]:
        """The samples of a record, every one as `to_row` wrote it, together a whole candidate of this set."""
        facts = self._facts(set_id, candidate)
        if {key: body[key] for key in facts} != facts:
            raise ShardDamaged(f"{name} is another candidate's.")
        samples = self._samples(body, name)
        ours = all((one.set_id, one.candidate) == (set_id, candidate) for one in samples)
        if not ours or len(samples) != prod(map(len, self._axes.values())):
            raise ShardDamaged(f"{name} is not one whole candidate.")
        check_samples(samples, self._axes, self._recipe)
        for sample in samples:
            decode(sample)
        return samples

    def _samples(self, body: dict[str, Any], name: str) -> list[Sample]:
        axes, images = list(self._axes), self._images(body["tar"], name)
        for row in body["rows"]:
            if set(row) != set(schema(axes).names):
                raise ShardDamaged(f"{name}: a row has other columns.")
        members = iter(images)
        samples = [
            from_row(row, axes, row_image(row, members, name) if row["kept"] else None)
            for row in body["rows"]
        ]
        if next(members, None) is not None or [to_row(sample) for sample in samples] != body["rows"]:
            raise ShardDamaged(f"{name}: rows and images do not fit together.")
        return samples

    def _images(self, facts: Mapping[str, Any] | None, name: str) -> list[tuple[str, bytes]]:
        if facts is None:
            return []
        with self._backend.open(f"{name}.tar") as tar:
            check_bytes(tar, facts["bytes"], facts["sha256"], f"{name}.tar")
            return list(tar_members(tar, f"{name}.tar"))

    def _may_use(self, made_in: Mapping[str, Any], name: str) -> bool:
        """Whether the environment allows it; another one is noted, once."""
        found = first_difference(dict(made_in), self._environment, "environment")
        if found is None:
            return True
        if not self._strict and recipe_hash(made_in) not in self._others:
            self._others[recipe_hash(made_in)] = dict(made_in)
            cure = "They are used; --strict-environment makes them again."
            self.differences.append(DatasetMismatch(self._backend.where(self._folder), *found, cure))
        return not self._strict


def drop_published(dataset: Where) -> None:
    """Forget candidates of shards that are published, which a killed run may have left."""
    backend = open_backend(dataset)
    for name in published_progress(backend):
        with suppress(CounterpoiseError):
            backend.remove(name)


def published_progress(backend: Backend) -> list[str]:
    """Saved candidates that are of no more use."""
    return _files(backend, set(shard_indices(backend)))


def all_progress(backend: Backend) -> list[str]:
    """Every saved candidate."""
    return _files(backend, None)


def progress_folders(backend: Backend) -> list[str]:
    """Folders of saved candidates."""
    return [f"{PROGRESS}/{name}" for name in backend.names(PROGRESS) if _FOLDER.fullmatch(name)]


def _files(backend: Backend, shards: set[int] | None) -> list[str]:
    folders = [
        folder
        for folder in progress_folders(backend)
        if shards is None or int(folder.removeprefix(f"{PROGRESS}/")[:5]) in shards
    ]
    return [
        f"{folder}/{name}" for folder in folders for name in backend.names(folder) if _FILE.fullmatch(name)
    ]
