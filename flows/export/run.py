"""`counterpoise export`: source, target, layout, card."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from storage.card import Layout, dataset_card
from storage.metadata import shortfalls, verdict_counts, yield_by_concept
from storage.query import open_records
from storage.sidecar import read_sidecar

from ..closing import card_facts
from .chat import write_chat
from .energon import write_energon
from .hub import write_hub
from .options import Chat, request_facts
from .remote import open_target
from .source import Advance, Source
from .target import outside, write_file


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export came to; `already` if the same one was there."""

    source: Source
    already: bool


def export(source: Source, to: str, out: str, chat: Chat, advance: Advance) -> Exported:
    """Write a dataset in another layout, whole or not at all.

    Args:
        source: what is exported.
        to: "hf", "chat" or "energon".
        out: a folder or a URI that fsspec reaches; absent, empty, or with this very export.
        chat: flags of `--to chat`.
        advance: called after every image.

    Raises:
        CounterpoiseError: a flag, the target or the sidecar cannot be used; names it.
        ShardDamaged: a file of the dataset is damaged; nothing is left at the target.
    """
    request, draws = {**request_facts(to, chat), **source.facts}, False
    if chat.resample is not None:
        sidecar = read_sidecar(source.dataset, chat.resample)
        draws = chat.draws or not sidecar.resamples
        request |= {"skew_sha256": sidecar.sha256, **(chat.drawn if draws else {"copies": "multiplicity"})}
    outside(out, source.dataset)
    with open_target(out, request) as folder:
        if folder is None:
            return Exported(source, already=True)
        layout = _writer(to, chat, draws)(source, folder, advance=advance)
        write_file(folder, "README.md", _card(source, layout).encode("utf-8"))
    return Exported(source, already=False)


def _writer(to: str, chat: Chat, draws: bool) -> partial[Layout]:
    if to == "chat":
        return partial(write_chat, chat=chat, draws=draws)
    return partial(write_hub if to == "hf" else write_energon)


def _card(source: Source, layout: Layout) -> str:
    """The dataset's card with the front matter and the reading of the export."""
    dataset, manifest = source.dataset, source.manifest
    facts = card_facts(manifest.header.get("model") or {})
    with open_records(dataset, check=False) as records:
        rows = (yield_by_concept(records), shortfalls(records))
    return dataset_card(manifest, *rows, facts, verdict_counts(dataset), layout=layout)
