"""Every byte of a dataset against its manifests, and the removal of what killed runs left."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from .backend import STAGED_MARK, Backend, open_backend
from .checks import check_samples, sets_problem
from .errors import CounterpoiseError, ShardDamaged, SideFileBad
from .manifest import HEADER, DatasetManifest, Where, load_dataset, plan_of, require_listed, root_hash
from .progress import all_progress, progress_folders, published_progress
from .quarantine import quarantining, require_shard
from .reading import check_present, decode, record_samples
from .records import Sample, iter_rows
from .shardfile import (
    ANEW,
    DATA_FILE,
    SHARD_MANIFEST,
    SHARDS,
    ShardRecord,
    read_shard,
    shard_indices,
    shard_name,
)
from .sidecar import read_sidecar, sidecars
from .verdicts import verdict_tables
from .versions import ever_listed, version_lines

_STAGED = re.compile(rf"[^/]+{re.escape(STAGED_MARK)}[0-9a-f]{{16}}")
_CLEAN = "left over from a run that ended early: `counterpoise verify --clean` removes it"


def verify(dataset: Where, decode_images: bool = True, quarantine: bool = False) -> list[str]:
    """One line per damaged, missing, foreign or left-over file; an empty list if all is sound.

    Args:
        dataset: a folder or URI.
        decode_images: decode every image as well; without, bytes and records are checked all the same.
        quarantine: move damaged data files and manifests to `quarantine/`; without, nothing is moved.

    Raises:
        CounterpoiseError: there is no dataset to verify.
    """
    backend = open_backend(dataset, anew=True)
    try:
        manifest = load_dataset(dataset)
    except ShardDamaged as error:
        return [str(error), *version_lines(backend), *_strangers(backend, None)]
    lines = version_lines(backend)
    planned = _planned(backend, manifest, lines)
    if manifest.root_sha256 not in (None, root_hash(manifest.shards)):
        lines.append(f"{backend.where(HEADER)} is damaged: its root hash is not that of its shards.")
    for index in sorted({*shard_indices(backend), *(entry.index for entry in manifest.shards)}):
        try:
            record = require_shard(backend, index, manifest.dataset_id, move=quarantine)
            require_listed(backend, manifest, record)
            with quarantining(backend, record, move=quarantine):
                _check_shard(backend, manifest, record, planned, decode_images)
        except CounterpoiseError as error:
            lines.append(str(error))
    return [*lines, *_side_lines(dataset), *_strangers(backend, manifest)]


def unfinished(dataset: Where) -> int:
    """How many of the planned shards are not there yet."""
    present = set(shard_indices(open_backend(dataset)))
    return len(set(load_dataset(dataset).missing) - present)


def _side_lines(dataset: Where) -> list[str]:
    """A line for each file of `skew/` or `verdicts/` that no reader takes."""
    lines: list[str] = []
    for _ in verdict_tables(dataset, lines.append):
        pass
    for name in sidecars(dataset):
        try:
            read_sidecar(dataset, name)
        except SideFileBad as error:
            lines.append(str(error))
    return lines


def clean(dataset: Where, on_kept: Callable[[str], None] | None = None) -> list[str]:
    """Remove what killed runs left, and nothing that a manifest names or might have named; returns the names.

    Saved candidates of unfinished shards go too: only to be made again costs them.

    Args:
        dataset: a folder or URI.
        on_kept: hears the name of each left-over that stays, since a writer may be at work on it; only in places
            without locks, where it is told by its age, or, of saved candidates, by that of the newest.

    Raises:
        CounterpoiseError: a writer is at work.
    """
    backend = open_backend(dataset)
    manifest = load_dataset(dataset)
    with backend.alone() as alone:
        if not alone:
            raise CounterpoiseError(
                f"{backend}: somebody is writing to this dataset; clean it when they have ended."
            )
        removed, awaited = [], _awaited(backend)
        for name in [*_left_over(backend, manifest), *all_progress(backend)]:
            if name not in awaited and not backend.recent(name):
                backend.remove(name)
                removed.append(name)
            elif on_kept:
                on_kept(name)
    return removed


def _awaited(backend: Backend) -> set[str]:
    """Saved candidates that a run at work may go on with: those of unfinished shards, as long as one is recent."""
    names = set(all_progress(backend)) - set(published_progress(backend))
    return names if any(backend.recent(name) for name in sorted(names, reverse=True)) else set()


def _planned(backend: Backend, manifest: DatasetManifest, lines: list[str]) -> Mapping[int, set[str]] | None:
    """Sets of every shard by the plan; None, and a line, if the plan is damaged."""
    sets: defaultdict[int, set[str]] = defaultdict(set)
    try:
        for row in iter_rows(plan_of(backend, manifest)):
            sets[row["shard"]].add(row["set_id"])
    except CounterpoiseError as error:
        lines.append(str(error))
        return None
    return sets


def _check_shard(
    backend: Backend,
    manifest: DatasetManifest,
    record: ShardRecord,
    planned: Mapping[int, set[str]] | None,
    decode_images: bool,
) -> None:
    """Files, records, images, counts and sets of one shard.

    Raises:
        CounterpoiseError: says which file, and what is wrong with it.
    """
    where = backend.where(shard_name(record.index))
    check_present(backend, record)
    samples = _light(record_samples(backend, record, list(manifest.axes)), decode_images)
    ordered = check_samples(samples, manifest.axes, record.recipe)
    found = {"rows": len(ordered), "images": sum(sample.kept for sample in ordered)}
    if any(record.counts.get(name) != count for name, count in found.items()):
        raise ShardDamaged(f"{where} is damaged: it counts {dict(record.counts)}, its files hold {found}.")
    if planned is None:
        return
    if problem := sets_problem({sample.set_id for sample in ordered}, planned.get(record.index, set())):
        raise ShardDamaged(f"{where} is refused: {problem}; {ANEW}.")


def _light(samples: Iterable[Sample], decode_images: bool) -> Iterator[Sample]:
    """Samples after their images were looked at, without them."""
    for sample in samples:
        if decode_images:
            decode(sample)
        yield replace(sample, image=b"") if sample.kept else sample


def _strangers(backend: Backend, manifest: DatasetManifest | None) -> list[str]:
    """Lines on left-overs (unless a writer is at work, whose they may be) and on foreign files of shards."""
    with backend.alone() as alone:
        left = [*_left_over(backend, manifest), *published_progress(backend)] if alone else []
        lines = [f"{backend.where(name)} is {_CLEAN}." for name in left if not backend.recent(name)]
    known = (_STAGED, DATA_FILE, SHARD_MANIFEST)
    foreign = [name for name in backend.names(SHARDS) if not any(form.fullmatch(name) for form in known)]
    return [
        *lines,
        *(f"{backend.where(SHARDS)}/{name} is foreign: no manifest can name it." for name in foreign),
    ]


def _left_over(backend: Backend, manifest: DatasetManifest | None) -> list[str]:
    """What was begun and never published; files of shards only where the manifest tells whose they are."""
    orphans = _orphans(backend, manifest) if manifest else []
    return [*_staged(backend), *orphans, *backend.unfinished()]


def _staged(backend: Backend) -> list[str]:
    """Files that were written but never published."""
    folders = (*backend.folders(), *progress_folders(backend))
    inside = [f"{folder}/{name}" for folder in folders for name in backend.names(folder)]
    return [name for name in [*backend.names(), *inside] if _STAGED.fullmatch(name.rpartition("/")[2])]


def _orphans(backend: Backend, manifest: DatasetManifest) -> list[str]:
    """Data files that got their final name, but whose shard was never committed or was committed with others.

    Where a manifest is damaged or lost, its files are none: they are what the shard can be mended from.
    """
    orphans: list[str] = []
    matches = [match for match in map(DATA_FILE.fullmatch, backend.names(SHARDS)) if match]
    present, listed = set(shard_indices(backend)), {entry.index for entry in manifest.shards}
    if {int(match[1]) for match in matches} - present - listed:
        listed |= ever_listed(backend).keys()
    named: dict[int, set[str] | None] = {}
    for match in matches:
        index = int(match[1])
        if index not in named:
            named[index] = _named(backend, index) if index in present else None if index in listed else set()
        names = named[index]
        if names is not None and match[0] not in names:
            orphans.append(f"{SHARDS}/{match[0]}")
    return orphans


def _named(backend: Backend, index: int) -> set[str] | None:
    try:
        return {file.name for file in read_shard(backend, index).files}
    except ShardDamaged:
        return None
