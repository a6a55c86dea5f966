"""The rest of the demo: the comparison with and without prompt-to-prompt, report, contact sheet and table."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from generators.comparison import compare
from storage.backend import open_backend

from .campaign import Campaign
from .closing import SHEET, Outcome
from .cost import duration
from .preview import first_rows, sheet
from .proof import PROOF, save_comparison
from .report import write_report
from .sheets import png_bytes

COMPARED = 2


def add_comparison(campaign: Campaign, on_set: Callable[[], None] | None = None) -> bool:
    """Make some sets with and without prompt-to-prompt, unless that is on record; whether it was made."""
    if open_backend(campaign.dataset).exists(PROOF):
        return False
    planned = [one for sets in campaign.plan.values() for one in sets][:COMPARED]
    save_comparison(campaign.dataset, compare(campaign.factory, planned, on_set=on_set))
    write_report(campaign.dataset)
    return True


def write_sheet(dataset: str) -> str | None:
    """Put the first sets of every concept as a PNG beside the report; None if nothing was kept."""
    rows = first_rows(dataset)
    if not rows:
        return None
    content = png_bytes(sheet(dataset, rows))
    backend = open_backend(dataset)
    with backend.staging() as staging:
        staging.put(staging.stage(SHEET, [content]), SHEET)
    return backend.where(SHEET)


def yield_table(outcome: Outcome) -> Table:
    """Concepts with kept sets and tries, and what it took."""
    table = Table(title=outcome.dataset, show_footer=True)
    kept, planned, tries, images = (
        sum(int(row[name]) for row in outcome.yields) for name in ("sets", "planned", "candidates", "images")
    )
    table.add_column("group", "total")
    table.add_column("concept")
    table.add_column("kept / planned", f"{kept} / {planned}", justify="right")
    table.add_column("tries", str(tries), justify="right")
    table.add_column("images", str(images), justify="right")
    for row in outcome.yields:
        done = f"{row['sets']} / {row['planned']}"
        cells = (row["concept_group"], row["concept"], done, str(row["candidates"]), str(row["images"]))
        table.add_row(*cells, style="yellow" if row["sets"] < row["planned"] else "")
    if outcome.images:
        spent = duration(outcome.seconds)
        table.caption = f"{outcome.images} images generated in {spent} with {outcome.workers} at work"
    return table
