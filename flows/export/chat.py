"""`--to chat`: images in folders, and JSONL of questions and answers as LLaMA-Factory and TRL read it.

LLaMA-Factory takes `<split>.jsonl` through dataset_info.json: messages of text with `<image>` in the user's, and
image paths beside them. TRL takes what `datasets.load_dataset` makes of the folder: `images` (decoded) and messages
whose content is a list with an image's place in the user's turn; `<split>/metadata.jsonl` says so.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from debias.sampling import copies
from storage import CounterpoiseError, Sample
from storage.canonical import canonical_text
from storage.card import Layout, dataset_name
from storage.selection import Part, select

from .options import Chat
from .questions import Item, open_questions
from .source import TRAIN, Advance, Source, all_images, image_name, shard_images
from .target import inside, write_file

INFO = "dataset_info.json"
_READING = """\
Images, questions and answers, as TRL's `SFTTrainer` takes them (from inside this folder; elsewhere, give its path):

```python
import os
import datasets
rows = datasets.load_dataset(os.getcwd())
```

With LLaMA-Factory: `dataset_dir` is this folder, `dataset` is `{name}_train`.
"""


def write_chat(source: Source, folder: Path, chat: Chat, draws: bool, advance: Advance) -> Layout:
    """Write images and items of every split; `draws` if copies are drawn, else they are the sidecar's multiplicities.

    Raises:
        CounterpoiseError: the sidecar lacks images, or an answer would name an attribute.
    """
    questions = open_questions(source.dataset, source.manifest, chat)
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        files = {split: _Split(stack, folder, split) for split in source.images}
        for sample, image, times in _all_times(source, chat, draws, advance):
            if times:
                name = f"{sample.set_id}/{image_name(sample, image)}"
                write_file(folder, f"{sample.split}/{name}", image)
            for copy in range(times):
                files[sample.split].add(sample, name, questions.item(sample, copy))
            counts[sample.split] += times
    return _finish(source, folder, chat, draws, counts)


class _Split:
    """The two files of items of one split."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, split: str) -> None:
        self._split = split
        inside(folder, split).mkdir(parents=True, exist_ok=True)
        names = (f"{split}.jsonl", f"{split}/metadata.jsonl")
        self._text, self._parts = (_open(stack, folder / name) for name in names)

    def add(self, sample: Sample, name: str, item: Item) -> None:
        """Write one item to both; `name` is of the image in the split's folder."""
        key, image = {"key": sample.key}, f"{self._split}/{name}"
        spoken = _messages(f"<image>{item.question}", item.answer)
        self._text.write(_line({**key, "images": [image], "messages": spoken}))
        asked = [{"type": "image"}, {"type": "text", "text": item.question}]
        shown = _messages(asked, [{"type": "text", "text": item.answer}])
        self._parts.write(_line({**key, "images_file_names": [name], "messages": shown}))


def _messages(question: Any, answer: Any) -> list[dict[str, Any]]:
    return [{"content": question, "role": "user"}, {"content": answer, "role": "assistant"}]


def _open(stack: contextlib.ExitStack, path: Path) -> IO[bytes]:
    return stack.enter_context(path.open("wb"))


def _line(facts: Mapping[str, Any]) -> bytes:
    return canonical_text(facts).encode("utf-8") + b"\n"


def _all_times(
    source: Source, chat: Chat, draws: bool, advance: Advance
) -> Iterator[tuple[Sample, bytes, int]]:
    """Every image that is exported, and how often it is asked about; what models are measured on is not resampled.

    Raises:
        CounterpoiseError: the sidecar lacks some of the split for training; says how many.
    """
    if chat.resample is None:
        yield from ((sample, image, 1) for sample, image in all_images(source, advance))
        return
    selection = select(source.dataset, TRAIN, skew=chat.resample)
    if selection.images != source.images[TRAIN]:
        raise CounterpoiseError(f"{source.dataset}: its verdicts changed meanwhile; run the same again.")
    parts = {part.index: part for part in selection.parts}
    del selection
    for shard in source.shards:
        values = iter(_values(parts[shard.index], draws) if shard.index in parts else [])
        for sample, image in shard_images(source, shard, advance):
            value = next(values) if sample.split == TRAIN else None
            if value is None:
                yield sample, image, 1
            else:
                yield (
                    sample,
                    image,
                    copies(value, sample.key, chat.seed, **chat.drawn) if draws else int(value),
                )


def _values(part: Part, draws: bool) -> Sequence[float]:
    """Skew, or multiplicity, of a shard's images in the order of storage."""
    column = part.skew if draws else part.multiplicity
    return [] if column is None else column.tolist()


def _finish(source: Source, folder: Path, chat: Chat, draws: bool, counts: Counter[str]) -> Layout:
    """Describe the splits."""
    splits = list(source.images)
    if chat.resample is not None and not counts[TRAIN]:
        raise CounterpoiseError(
            f"--resample: {chat.resample} drops every image of {TRAIN}; give a larger --tau1"
        )
    name = re.sub(r"[^a-z0-9]+", "_", dataset_name(source.manifest).lower()).strip("_") or "dataset"
    entries = {f"{name}_{split}": _entry(split) for split in splits}
    write_file(folder, INFO, _document(entries))
    return Layout(
        configs=[{"config_name": "default", "data_files": [_files(split) for split in splits]}],
        reading=_READING.format(name=name),
        tags=("llama-factory", "trl", "conversational"),
        tasks=("visual-question-answering", "image-text-to-text"),
        images=counts.total(),
        note=_note(chat, draws, counts),
    )


def _entry(split: str) -> dict[str, Any]:
    """A split as LLaMA-Factory's dataset_info.json describes it."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    return {"file_name": f"{split}.jsonl", "formatting": "sharegpt", "columns": columns, "tags": tags}


def _files(split: str) -> dict[str, str]:
    return {"split": split, "path": f"{split}/**"}


def _document(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def _note(chat: Chat, draws: bool, counts: Counter[str]) -> str:
    told = (
        f"This is an export for chat fine-tuning: {counts.total()} questions with their answers, of which a share of "
        f"{chat.caption_share:g} asks for a sentence and the others for one of the concepts of the same group, in an "
        f"order drawn for each image (seed {chat.seed}). No answer names a value of an axis."
    )
    if chat.resample is None:
        return told
    how = f"the multiplicities in `{chat.resample}`"
    if draws:
        drawn = chat.drawn
        how = f"the instance skew in `{chat.resample}` for epoch {drawn['epoch']} "
        how += f"(tau1 {drawn['tau1']:g}, tau2 {drawn['tau2']:g})"
    return f"{told} Split {TRAIN} was resampled by {how}: some images are asked about several times, some not at all."
