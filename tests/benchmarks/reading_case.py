"""One reader in a process of its own: `reading_case.py METHOD FOLDER PROCESSES PASSES` prints a line of JSON.

Every method hands out image and record as bytes or more, undecoded. With one process they are read here, with more in as
many workers of a DataLoader, 64 images at a time. Seconds of every pass, images, bytes, and the peak of resident
memory: of this process, or the largest of its workers. `write METHOD TARS FOLDER` brings tars into a rival's form.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

BATCH = 64
Passes = Callable[[], Iterable[Any]]


def as_list(batch: list[Any]) -> list[Any]:
    """A batch as it is."""
    return batch


def ours(folder: str, processes: int, fields: tuple[str, ...] | None = ("json",)) -> Passes:
    """Image and record, verified at first use, shuffled."""
    options: dict[str, Any] = {"keep_sets": False, "batch_size": BATCH, "fields": fields}
    if processes == 1:
        from storage.stream import stream

        return lambda: stream(folder, **options).batches()
    from debias.loading import Batches

    return loaded(lambda: Batches(folder, **options), processes)


def columns(folder: str, processes: int) -> Passes:
    """Image and every column as Python's objects, verified at first use, shuffled."""
    return ours(folder, processes, None)


def webdataset(folder: str, processes: int) -> Passes:
    """Image and record, not shuffled."""
    import webdataset as wds

    tars = sorted(str(path) for path in Path(folder, "shards").glob("*.tar"))
    made = wds.WebDataset(tars, shardshuffle=False).batched(BATCH, collation_fn=as_list)
    return (lambda: made) if processes == 1 else loaded(lambda: made, processes)


def mosaic(folder: str, processes: int) -> Passes:
    """Image and record from MDS, not shuffled."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    made = StreamingDataset(local=folder, shuffle=False, batch_size=BATCH)
    workers = 0 if processes == 1 else processes
    options: dict[str, Any] = {"batch_size": BATCH, "collate_fn": as_list, "persistent_workers": workers > 0}
    loader = DataLoader(made, num_workers=workers, **options)
    return lambda: loader


def litdata(folder: str, processes: int) -> Passes:
    """Image and record from LitData's chunks, not shuffled."""
    from litdata import StreamingDataLoader, StreamingDataset

    workers = 0 if processes == 1 else processes
    options: dict[str, Any] = {"batch_size": BATCH, "collate_fn": as_list, "persistent_workers": workers > 0}
    loader = StreamingDataLoader(StreamingDataset(folder, shuffle=False), num_workers=workers, **options)
    return lambda: loader


def loaded(make: Callable[[], Any], processes: int) -> Passes:
    """Workers that stay from pass to pass."""
    from torch.utils.data import DataLoader

    loaders: list[Any] = []

    def batches() -> Iterable[Any]:
        if not loaders:
            loaders.append(
                DataLoader(make(), batch_size=None, num_workers=processes, persistent_workers=True)
            )
        return loaders[0]

    return batches


def image_of(item: dict[str, Any]) -> bytes:
    """The image, under whatever name."""
    return item["image"] if "image" in item else item["png"]


def measure(batches: Passes, passes: int) -> dict[str, Any]:
    """Read everything so many times."""
    seconds, images, size = [], 0, 0
    for _ in range(passes):
        start, images, size = time.perf_counter(), 0, 0
        for batch in batches():
            images += len(batch)
            size += sum(len(image_of(item)) for item in batch)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "images": images, "bytes": size}


def peak() -> int:
    """Peak of resident memory in bytes, the larger of this process's and its largest child's."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(each).ru_maxrss for each in who) * 1024


def samples(tars: str) -> Iterator[dict[str, bytes]]:
    """Image and record of every image of some tars."""
    for path in sorted(Path(tars).glob("*.tar")):
        with tarfile.open(path) as tar:
            found: dict[str, bytes] = {}
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name.rpartition(".")[2]] = file.read()
                if len(found) == 2:
                    yield found
                    found = {}


def write_mosaic(tars: str, folder: str) -> None:
    """The same images as MDS."""
    from streaming import MDSWriter

    with MDSWriter(out=folder, columns={"png": "bytes", "json": "bytes"}, compression=None) as out:
        for sample in samples(tars):
            out.write(sample)


def write_litdata(tars: str, folder: str) -> None:
    """The same images as LitData's chunks."""
    from litdata.streaming import Cache

    cache = Cache(folder, chunk_bytes=1 << 26)
    for place, sample in enumerate(samples(tars)):
        cache[place] = sample
    cache.done()
    cache.merge()


READERS = {
    "ours": ours,
    "ours, columns": columns,
    "webdataset": webdataset,
    "mosaicml-streaming": mosaic,
    "litdata": litdata,
}
WRITERS = {"mosaicml-streaming": write_mosaic, "litdata": write_litdata}


def main() -> None:
    """See the module."""
    if sys.argv[1] == "write":
        WRITERS[sys.argv[2]](sys.argv[3], sys.argv[4])
        return
    method, folder, processes, passes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    found = measure(READERS[method](folder, processes), passes)
    print(json.dumps({**found, "peak": peak()}), flush=True)
    os._exit(0)  # workers that persist end with it; nothing is left to write


if __name__ == "__main__":
    main()
