"""Shards: published whole or not at all, read only through their manifests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from .backend import Backend, Staged, Staging, open_backend
from .canonical import first_difference, plain
from .checks import check_samples, sets_problem
from .errors import CounterpoiseError, DatasetMismatch, ManifestMoved, ShardDamaged
from .images import image_suffix
from .manifest import DatasetManifest, Where, load_dataset, newest_dataset, planned_sets
from .quarantine import check_bytes, damaged_files, dispose, require_shard
from .reading import check_present, decode, pair_up, read_samples
from .rebuilding import rebuilt
from .records import Sample, from_row, row_json, rows_to_parquet, to_row
from .shardfile import SHARDS, ShardRecord, shard_counts, shard_manifest, shard_name
from .stored import put_back, put_checked
from .tarball import tar_blocks

__all__ = ["EnvironmentDiffers", "ShardIncomplete", "publish_shard", "read_samples", "resume_check"]

Row = dict[str, Any]
_ELSEWHERE = "Go on where it was made, or allow shards from several environments."


class EnvironmentDiffers(UserWarning):
    """A shard was made in another environment; its bytes may differ from what this one would make."""


class ShardIncomplete(UserWarning):
    """A finished shard lacks a file, or had a damaged one, and is made again, or its manifest alone is."""


def publish_shard(
    dataset: Where,
    index: int,
    samples: Sequence[Sample],
    axes: Sequence[str],
    recipe: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> ShardRecord:
    """Write a shard, read it back, and commit it by creating its manifest; the first to do so wins.

    The bytes depend on the samples, the recipe and the environment, not on the order of the samples. The
    manifest holds no time and no attempt. A second writer gets the first one's record, with `already` set; so does
    one that puts back data files which the first one's manifest names.

    Raises:
        DatasetMismatch: the shard is there and was made by another recipe.
        ShardDamaged: the shard is there without its data files, and this environment makes others.
        CounterpoiseError: a sample or set cannot be stored, the sets are not those that the plan gives this shard, or
            the place refuses. Nothing is published then; data files that had their names already stay until the same
            again takes them, or `verify.clean` removes them.
    """
    backend, manifest = open_backend(dataset), load_dataset(dataset)
    if index >= manifest.plan["shards"]:  # an extension that another writer's late copy hides for a moment
        manifest = newest_dataset(dataset) or manifest
    _check_place(manifest, index, axes)
    settings = plain(recipe, "recipe")
    ordered = _own_samples(backend, manifest, index, check_samples(samples, manifest.axes, settings))
    if backend.exists(shard_name(index)):
        with suppress(ManifestMoved):
            _require_same_recipe(backend, require_shard(backend, index, manifest.dataset_id), settings)
    with backend.staging() as staging:
        files = _stage_data(staging, index, ordered, list(manifest.axes))
        counts = shard_counts([(one.set_id, one.candidate, one.kept) for one in ordered])
        facts = {"index": index, "dataset_id": manifest.dataset_id, "counts": counts}
        names = {kind: _file_facts(index, kind, staged) for kind, staged in files.items()}
        facts |= {"recipe": settings, "environment": dict(environment)}
        body = shard_manifest({**facts, "tar": None, **names})
        commit = staging.stage(shard_name(index), [body])
        data = {f"{SHARDS}/{names[kind]['name']}": staged for kind, staged in files.items()}
        for name, staged in data.items():
            put_checked(backend, staging, index, staged, name)
        created = staging.create(commit, shard_name(index))
        record = require_shard(backend, index, manifest.dataset_id)
        if created:
            put_back(backend, staging, index, data)
    if not created:
        _yield_to(backend, record, settings, environment, [one["name"] for one in names.values()])
    return replace(record, already=not created)


def _check_place(manifest: DatasetManifest, index: int, axes: Sequence[str]) -> None:
    if not 0 <= index < manifest.plan["shards"]:
        raise CounterpoiseError(f"shard {index}: the plan has shards 0 to {manifest.plan['shards'] - 1}.")
    if list(axes) != list(manifest.axes):
        raise CounterpoiseError(f"axes {list(axes)}: the dataset has {list(manifest.axes)}, in this order.")


def _own_samples(
    backend: Backend, manifest: DatasetManifest, index: int, ordered: list[Sample]
) -> list[Sample]:
    """The samples, if they are of the sets that the plan gives this shard."""
    problem = sets_problem({one.set_id for one in ordered}, planned_sets(backend, manifest, index))
    if problem:
        raise CounterpoiseError(f"shard {index}: {problem}; give its planned sets, each kept or rejected.")
    return ordered


def _stage_data(
    staging: Staging[Any], index: int, samples: list[Sample], axes: list[str]
) -> dict[str, Staged]:
    """Parquet and (if anything was kept) tar, written and read back."""
    rows = [to_row(sample) for sample in samples]
    files = {"parquet": staging.stage(f"{SHARDS}/{index:05d}.parquet", [rows_to_parquet(rows, axes)])}
    if any(sample.kept for sample in samples):
        files["tar"] = staging.stage(f"{SHARDS}/{index:05d}.tar", tar_blocks(tar_content(samples, rows)))
    try:
        _read_back(files, samples, rows, axes)
    except ShardDamaged as error:
        text = (
            f"shard {index} reads back otherwise than it was written ({error}): see to the disk, run again."
        )
        raise CounterpoiseError(text) from error
    return files


def tar_content(samples: list[Sample], rows: list[Row]) -> Iterator[tuple[str, bytes]]:
    """Members of a tar, in order: of every kept sample its image and its record."""
    for sample, row in zip(samples, rows, strict=True):
        if sample.image is not None:
            image = (f"{sample.key}.{_suffix(sample)}", sample.image)
            yield from sorted([image, (f"{sample.key}.json", row_json(row))])


def _suffix(sample: Sample) -> str:
    try:
        return image_suffix(sample.image or b"")
    except CounterpoiseError as error:
        raise CounterpoiseError(f"sample {sample.key!r}: {error}") from error


def _read_back(files: Mapping[str, Staged], samples: list[Sample], rows: list[Row], axes: list[str]) -> None:
    """Open the staged files as a reader would, compare every value, decode every image."""
    parquet, tar = files["parquet"], files.get("tar")
    with ExitStack() as opened:
        table = opened.enter_context(parquet.open())
        images = opened.enter_context(tar.open()) if tar else None
        check_bytes(table, parquet.bytes, parquet.sha256, "the staged Parquet")
        if tar and images:
            check_bytes(images, tar.bytes, tar.sha256, "the staged tar")
        stored = pair_up(table.read(), images, axes, "the staged shard")
        for sample, row, found in zip(samples, rows, stored, strict=True):
            if found != from_row(row, axes, sample.image):
                raise ShardDamaged(f"sample {sample.key!r} reads back differently from what was written.")
            decode(found)


def _file_facts(index: int, kind: str, staged: Staged) -> dict[str, Any]:
    name = f"{index:05d}-{staged.sha256[:12]}.{kind}"
    return {"name": name, "bytes": staged.bytes, "sha256": staged.sha256}


def _yield_to(
    backend: Backend,
    first: ShardRecord,
    recipe: dict[str, Any],
    environment: Mapping[str, Any],
    mine: list[str],
) -> None:
    """Somebody published before us: compare, and take back what the other's manifest does not name."""
    others = set(mine) - {file.name for file in first.files}
    for name in others:
        backend.remove(f"{SHARDS}/{name}")
    _require_same_recipe(backend, first, recipe)
    where = backend.where(shard_name(first.index))
    try:
        check_present(backend, first)
    except ShardDamaged as error:
        found = environment_difference(backend, first, environment)
        text = (
            f"{error} This environment makes other bytes than the shard's manifest names"
            f"{f' ({found.field} differs)' if found else ''}: make it again where it was made, or delete {where} to "
            "accept new bytes."
        )
        raise ShardDamaged(text) from error
    if others:
        text = (
            f"{where}: the shard was there already, with other bytes than this environment makes; it stays."
        )
        warnings.warn(EnvironmentDiffers(text), stacklevel=3)


def _require_same_recipe(backend: Backend, record: ShardRecord, recipe: dict[str, Any]) -> None:
    difference = first_difference(dict(record.recipe), recipe, "recipe")
    if difference:
        cure = "Give the stored value again to continue, or write to another folder."
        raise DatasetMismatch(backend.where(shard_name(record.index)), *difference, cure)


def environment_difference(
    backend: Backend, record: ShardRecord, environment: Mapping[str, Any]
) -> DatasetMismatch | None:
    """In what a shard's environment differs from this one, for a warning or a refusal."""
    found = first_difference(dict(record.environment), plain(environment, "environment"), "environment")
    return DatasetMismatch(backend.where(shard_name(record.index)), *found, _ELSEWHERE) if found else None


def _present(
    backend: Backend,
    manifest: DatasetManifest,
    index: int,
    recipe: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> ShardRecord | None:
    """The manifest of a finished shard, if need be made again; None where there is none and none can be made."""
    damage = None
    if backend.exists(shard_name(index)):
        try:
            return require_shard(backend, index, manifest.dataset_id)
        except ManifestMoved as error:
            damage = error
    record = rebuilt(backend, manifest, index, recipe, environment)
    where = backend.where(shard_name(index))
    text = f"{where} was lost and is made again from the shard's data files, to the byte."
    if damage:
        told = (
            f"Shard {index} is made again." if record is None else "Its data files gave it back, to the byte."
        )
        text = f"{damage} {told}"
    if damage or record:
        warnings.warn(ShardIncomplete(text), stacklevel=3)
    return record


def resume_check(
    dataset: Where,
    index: int,
    recipe: Mapping[str, Any],
    environment: Mapping[str, Any],
    strict: bool = False,
) -> ShardRecord | None:
    """The finished shard, or None if it has still to be made.

    Another environment is a warning (`EnvironmentDiffers`). The data files are looked for, not read: where one is
    missing, or of another length and thus quarantined, the shard has to be made again (`ShardIncomplete`). Where the
    manifest is lost, or damaged and thus quarantined, it is made again from the data files if they are sound.

    Raises:
        DatasetMismatch: it was made by another recipe or, if `strict`, in another environment.
        ShardDamaged: its manifest is another shard's or dataset's, or is damaged and cannot be moved.
    """
    backend, manifest = open_backend(dataset), load_dataset(dataset)
    record = _present(backend, manifest, index, recipe, environment)
    if record is None:
        return None
    _require_same_recipe(backend, record, plain(recipe, "recipe"))
    mismatch = environment_difference(backend, record, environment)
    if mismatch and strict:
        raise mismatch
    if mismatch:
        warnings.warn(EnvironmentDiffers(str(mismatch)), stacklevel=2)
    try:
        check_present(backend, record)
    except ShardDamaged as error:
        done = dispose(backend, damaged_files(backend, record))
        text = " ".join([str(error), *done, f"Shard {index} is made again."])
        warnings.warn(ShardIncomplete(text), stacklevel=2)
        return None
    return record
