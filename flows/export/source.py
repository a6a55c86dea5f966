"""What an export reads: kept images by the manifests alone, without the sets that verdicts reject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from storage import CounterpoiseError, DatasetManifest, Sample, ShardDamaged, ShardRecord
from storage.canonical import recipe_hash
from storage.images import image_suffix
from storage.manifest import root_hash
from storage.query import open_records
from storage.reading import read_samples
from storage.records import NAME
from storage.verdicts import rejected_sets

TRAIN = "train"
SPLITS = (TRAIN, "validation", "test")
_KEPT = "SELECT set_id, split, count(*) AS images FROM records WHERE kept GROUP BY ALL"
Advance = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset as it is exported.

    Attributes:
        dataset: the folder.
        manifest: of the dataset.
        shards: the finished ones.
        rejected: set to why a verdict rejects it.
        left_out: kept sets that are rejected.
        images: split to number of images, splits without images left out, in the order of `SPLITS`.
    """

    dataset: str
    manifest: DatasetManifest
    shards: tuple[ShardRecord, ...]
    rejected: Mapping[str, str]
    left_out: int
    images: Mapping[str, int]

    @property
    def total(self) -> int:
        """Images of all splits."""
        return sum(self.images.values())

    @property
    def facts(self) -> dict[str, str]:
        """What decides an export's bytes on the dataset's side."""
        return {
            "dataset_id": self.manifest.dataset_id,
            "root_sha256": root_hash(self.shards),
            "rejected_sha256": recipe_hash(list(self.rejected)),
        }


def open_source(dataset: str) -> Source:
    """Find what there is to export.

    Raises:
        CounterpoiseError: nothing is left.
        ShardDamaged: a manifest or a record is damaged.
    """
    rejected = rejected_sets(dataset)
    with open_records(dataset) as records:
        manifest, shards, kept = records.manifest, records.shards, records.ask(_KEPT)
    counts: Counter[str] = Counter()
    left_out = 0
    for row in kept:
        if row["set_id"] in rejected:
            left_out += 1
        else:
            counts[row["split"]] += row["images"]
    if not counts:
        told = f", and verdicts reject all {left_out} kept sets" if left_out else ""
        raise CounterpoiseError(
            f"{dataset}: no kept image to export in {len(shards)} finished shards{told}. Generate first."
        )
    odd = [split for split in counts if not NAME.fullmatch(split)]
    if odd:
        raise ShardDamaged(f"{dataset} is refused: split {odd[0]!r} has to match {NAME.pattern}.")
    order = [*SPLITS, *sorted(set(counts) - set(SPLITS))]
    images = {split: counts[split] for split in order if counts[split]}
    return Source(dataset, manifest, shards, rejected, left_out, images)


def shard_images(source: Source, shard: ShardRecord, advance: Advance) -> Iterator[tuple[Sample, bytes]]:
    """Accepted kept samples of a shard with their images, in the order of storage; every byte was checked."""
    for sample in read_samples(source.dataset, shard.index):
        if sample.image is not None and sample.set_id not in source.rejected:
            yield sample, sample.image
            advance()


def all_images(source: Source, advance: Advance) -> Iterator[tuple[Sample, bytes]]:
    """`shard_images` of every shard, in order."""
    for shard in source.shards:
        yield from shard_images(source, shard, advance)


def image_name(sample: Sample, image: bytes) -> str:
    """`<key>.png`, or .jpg or .webp."""
    return f"{sample.key}.{image_suffix(image)}"
