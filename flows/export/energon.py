"""`--to energon`: WebDataset shards split by split, with the `.nv-meta` that Megatron-Energon reads.

The layout is that of Megatron-Energon 7.4: https://nvidia.github.io/Megatron-Energon/basic/data_prep.html
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from storage import Sample
from storage.backend import fault_point
from storage.canonical import recipe_hash
from storage.card import Layout
from storage.images import image_suffix
from storage.records import sample_json
from storage.tarball import BLOCK, member_block, tar_end

from .index import IndexedSample, offsets, sqlite_index
from .source import Advance, Source, shard_images
from .target import inside, write_file

META = ".nv-meta"
ENERGON = "7.4.1"
_SUFFIXES = ("png", "jpg", "webp")
_PARTS = {"train": "train", "validation": "val", "test": "test"}
_READING = """\
```python
from megatron.energon import WorkerConfig, get_loader, get_train_dataset
settings = WorkerConfig.default_worker_config()
rows = get_loader(get_train_dataset(
    ".", batch_size=8, shuffle_buffer_size=100, max_samples_per_sequence=100, worker_config=settings
))
```

A sample is an image with its neutral prompt as `caption`. For another text, or the whole record, change `field_map`
in `.nv-meta/dataset.yaml`: `json[prompt]`, `json[concept]`. The tars are WebDataset for any other reader.
"""


@dataclass(slots=True)
class _Tars:
    """What was written: tar to its samples, split part to its tars, suffixes of the images."""

    samples: dict[str, list[IndexedSample]] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    suffixes: set[str] = field(default_factory=set)


def write_energon(source: Source, folder: Path, advance: Advance) -> Layout:
    """Write `<split>/<shard>.tar` with its offsets, and `.nv-meta`."""
    made = _Tars(parts={part: [] for part in _PARTS.values()})
    for shard in source.shards:
        with contextlib.ExitStack() as stack:
            tars: dict[str, _Tar] = {}
            for sample, image in shard_images(source, shard, advance):
                part = _PARTS.get(sample.split, sample.split)
                if part not in tars:
                    tars[part] = stack.enter_context(_Tar(folder, f"{part}/{shard.index:05d}.tar"))
                made.suffixes.add(image_suffix(image))
                tars[part].add(sample, image)
        for part, tar in sorted(tars.items()):
            write_file(folder, f"{tar.name}.idx", offsets(tar.samples))
            made.samples[tar.name] = tar.samples
            made.parts.setdefault(part, []).append(tar.name)
    _write_meta(source, folder, made)
    told = "This is an export: the kept images as shards for Megatron-Energon, split by split, as they were stored."
    return Layout(
        configs=[{"config_name": "default", "data_files": list(_data_files(made))}],
        reading=_READING,
        tags=("webdataset", "megatron-energon"),
        tasks=("image-to-text", "zero-shot-image-classification"),
        images=source.total,
        note=told,
    )


class _Tar:
    """A tar in the form of a shard's, written sample by sample."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.samples: list[IndexedSample] = []
        self._position = 0
        inside(folder, name).parent.mkdir(parents=True, exist_ok=True)
        self._file = (folder / name).open("wb")

    def __enter__(self) -> _Tar:
        """Write from here on."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the tar; after an error it is left as it is, to be removed."""
        with self._file:
            if kind is None:
                self._file.write(tar_end(self._position))
        fault_point("export.file")

    def add(self, sample: Sample, image: bytes) -> None:
        """Write an image and its record."""
        start, parts = self._position, []
        pair = {image_suffix(image): image, "json": sample_json(sample)}
        for suffix in sorted(pair):
            parts.append((suffix, self._position + BLOCK, len(pair[suffix])))
            self._position += self._file.write(member_block(f"{sample.key}.{suffix}", pair[suffix]))
        self.samples.append(IndexedSample(sample.key, start, self._position - start, tuple(parts)))


def _write_meta(source: Source, folder: Path, made: _Tars) -> None:
    counts = {name: len(samples) for name, samples in made.samples.items()}
    info = {"energon_version": ENERGON, "shard_counts": counts}
    write_file(folder, f"{META}/.info.json", (json.dumps(info, indent=2) + "\n").encode("utf-8"))
    write_file(folder, f"{META}/split.yaml", _yaml({"split_parts": made.parts, "exclude": []}))
    image = ",".join(suffix for suffix in _SUFFIXES if suffix in made.suffixes)
    kind = {"__module__": "megatron.energon", "__class__": "CaptioningSample"}
    fields = {"image": image, "caption": "json[neutral_prompt]"}
    write_file(folder, f"{META}/dataset.yaml", _yaml({"sample_type": kind, "field_map": fields}))
    write_file(folder, f"{META}/index.sqlite", sqlite_index(list(made.samples.values())))
    identity = uuid.uuid5(
        uuid.NAMESPACE_URL, f"counterpoise:{recipe_hash({**source.facts, 'shards': counts})}"
    )
    write_file(folder, f"{META}/index.uuid", str(identity).encode("ascii"))


def _yaml(facts: Mapping[str, Any]) -> bytes:
    text: str = yaml.safe_dump(facts, sort_keys=False)
    return text.encode("utf-8")


def _data_files(made: _Tars) -> Iterator[dict[str, str]]:
    """The hub's split names, which are not Energon's."""
    hub = {part: split for split, part in _PARTS.items()}
    for part, tars in made.parts.items():
        if tars:
            yield {"split": hub.get(part, part), "path": f"{part}/*.tar"}
