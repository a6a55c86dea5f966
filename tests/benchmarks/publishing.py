"""What a verified shard costs: `publish_shard` against webdataset's ShardWriter and a pass over its tars.

Ours checks, writes, syncs, opens again, hashes, compares every record and decodes every picture before it commits; theirs
writes the same pictures and records unsynced and unchecked, and is followed by the pass that the user would have to make:
read, hash and decode every picture. Paired repeats, images a second, and the peak of memory of one shard above its input.
`python tests/benchmarks/publishing.py [--images N] [--bytes N] [--repeats N]`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from large import AXES, CELLS
from timing import Times, median, paired, peak, peak_of, ratio, reset_peak, shown

from storage import Sample, create_dataset, publish_shard
from storage.images import encode_png
from storage.records import row_json, sample_key, to_row

SETS_PER_SHARD = 40
#: Bars: speed of ours against theirs, and the peak of memory above a shard's input in multiples of its bytes.
SPEED_BAR, MEMORY_BAR = 0.8, 4.0
RECIPE, ENVIRONMENT = {"thresholds": {"nsfw": 0.5}}, {"device": "cpu"}


def noise(count: int, size: int, seed: int) -> list[bytes]:
    """PNGs of noise, near that many bytes each."""
    side = max(1, round((size / 3) ** 0.5))
    pixels = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)
    return [encode_png(Image.fromarray(one)) for one in pixels]


def shard_samples(index: int, sets: int, size: int) -> list[Sample]:
    """Kept sets of one shard."""
    images = iter(noise(sets * len(CELLS), size, index))
    return [
        _sample(f"chef_{index:03d}{n:05d}", k, next(images)) for n in range(sets) for k in range(len(CELLS))
    ]


def _sample(set_id: str, member: int, image: bytes) -> Sample:
    with Image.open(io.BytesIO(image)) as opened:
        width, height = opened.size
    words = " ".join(CELLS[member].values())
    return Sample(
        key=sample_key(set_id, member), set_id=set_id, member=member, candidate=0, base=member // 6 * 6, kept=True,
        reason=None, split="train", concept="chef", concept_group="work", attributes=CELLS[member],
        prompt=f"A photo of a {words} chef", neutral_prompt="A photo of a person, chef", edited_words="", seed=member,
        steps=20, guidance=5.0, scheduler="ddim", cross_replace=0.8, self_replace=0.4,
        scores={"clip_text": 0.3, "nsfw": 0.01, "attribute_ok": True}, width=width, height=height, image=image,
    )  # fmt: skip


@dataclass(frozen=True)
class Work:
    """The samples of every shard, a folder for what is written, and seconds of processor time by method and run."""

    shards: Sequence[Sequence[Sample]]
    folder: Path
    cpu: Times = field(default_factory=lambda: {"ours": [], "theirs": []})

    def timed(self, name: str) -> None:
        """Run a method and note its processor time, which other programs on the machine touch less."""
        start = time.process_time()
        getattr(self, name)()
        self.cpu[name].append(time.process_time() - start)

    def ours(self) -> None:
        """Publish every shard."""
        dataset = self._fresh("ours")
        start(dataset, self.shards)
        for index, samples in enumerate(self.shards):
            publish(dataset, index, samples)

    def theirs(self) -> None:
        """Write every shard, then read, hash and decode every picture."""
        folder = self._fresh("theirs")
        folder.mkdir()
        for index, samples in enumerate(self.shards):
            with webdataset.ShardWriter(f"{folder}/{index:05d}-%02d.tar", verbose=0, mtime=0) as writer:
                for sample in samples:
                    record = json.loads(row_json(to_row(sample)))
                    writer.write({"__key__": sample.key, "png": sample.image, "json": record})
        seen = sum(1 for _ in decoded(folder))
        assert seen == sum(map(len, self.shards))

    def _fresh(self, name: str) -> Path:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name


def start(dataset: Path, shards: Sequence[Sequence[Sample]]) -> None:
    """A header, and the plan of these shards."""
    facts = {"concept": "chef", "concept_group": "work", "split": "train"}
    ids = [
        (index, name)
        for index, samples in enumerate(shards)
        for name in dict.fromkeys(s.set_id for s in samples)
    ]
    plan = [{"set_id": name, "shard": index, **facts} for index, name in ids]
    create_dataset(dataset, {"spec": {"name": "speed"}, "axes": AXES, "recipe": RECIPE}, plan)


def publish(dataset: Path, index: int, samples: Sequence[Sample]) -> None:
    """Publish one shard."""
    publish_shard(dataset, index, samples, list(AXES), RECIPE, ENVIRONMENT)


def decoded(folder: Path) -> Iterator[tuple[str, str]]:
    """Key and sha256 of every picture of plain tars, once it is decoded, its record read."""
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    for sample in webdataset.WebDataset(tars, shardshuffle=False, empty_check=False):
        json.loads(sample["json"])
        with Image.open(io.BytesIO(sample["png"])) as image:
            image.load()
        yield sample["__key__"], hashlib.sha256(sample["png"]).hexdigest()


def memory_of(size: int) -> int:
    """Return the peak of memory of publishing one shard of images of so many bytes, above its input, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        samples = [shard_samples(index, sets, size) for index, sets in ((0, 1), (1, SETS_PER_SHARD))]
        start(Path(folder), samples)
        publish(Path(folder), 0, samples[0])  # loads what a first shard loads
        before = reset_peak()
        publish(Path(folder), 1, samples[1])
        return peak() - before


def missed(times: Times, used: float) -> list[str]:
    """The bars that are missed, each with its figure."""
    speed, failed = ratio(times["theirs"], times["ours"]), []
    if speed[0] < SPEED_BAR:
        failed.append(f"speed, ours / theirs: {shown(speed)}, wanted {SPEED_BAR}")
    if used > MEMORY_BAR:
        failed.append(f"memory of a shard above its input: {used:.1f} times its bytes, wanted {MEMORY_BAR}")
    return failed


def show(times: Times, cpu: Times, images: int, size: int, used: float) -> None:
    """Print the table."""
    table = Table(
        "method", "s, median", "processor s", "images / s", title=f"{images} images of {size} bytes, verified"
    )
    for name, text in (("ours", "publish_shard"), ("theirs", "ShardWriter, then hash and decode")):
        seconds = median(times[name])
        table.add_row(text, f"{seconds:.2f}", f"{median(cpu[name]):.2f}", f"{images / seconds:.0f}")
    Console(width=110).print(table)
    print(f"speed, ours / theirs: {shown(ratio(times['theirs'], times['ours']))}")
    print(f"the same by processor time: {shown(ratio(cpu['theirs'], cpu['ours']))}")
    print(f"peak of memory of one shard above its input: {used:.1f} times its bytes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; exit 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args(arguments)
    count = max(1, round(given.images / (SETS_PER_SHARD * len(CELLS))))
    numbers: Any = track(range(count), "pictures", console=Console(stderr=True))
    shards = [shard_samples(index, SETS_PER_SHARD, given.bytes) for index in numbers]
    sizes = [len(sample.image or b"") for samples in shards for sample in samples]
    with tempfile.TemporaryDirectory() as folder:
        work = Work(shards, Path(folder))
        times = paired({name: partial(work.timed, name) for name in work.cpu}, given.repeats)
    used = peak_of(memory_of, given.bytes) / (sum(sizes) / len(shards))
    cpu = {name: each[1:] for name, each in work.cpu.items()}  # without the run to warm up
    show(times, cpu, len(sizes), round(sum(sizes) / len(sizes)), used)
    failed = missed(times, used)
    print("\n".join(failed) if failed else "all bars met")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
