"""What the commands do, in order; they print to the consoles they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from storage import CounterpoiseError
from storage.backend import explain

from .campaign import Campaign, Options
from .closing import Outcome
from .cost import calibrate, duration, measured
from .opening import open_campaign
from .progress import Terminal
from .settings import load_spec

if TYPE_CHECKING:
    from .export.options import Chat
    from .reconcile import Disagreement

RUNNERS = ("threads", "none")


def demo(out: str, runner: str, workers: int | None, verbose: bool, console: Console, err: Console) -> str:
    """Generate the demo, compare, report; what fell short, or nothing."""
    from .demo import add_comparison, write_sheet, yield_table

    campaign, outcome = _make("demo", out, Options(workers=workers), runner, verbose, err)
    with err.status("comparing with and without prompt-to-prompt"):
        add_comparison(campaign)
    picture = write_sheet(out)
    console.print(yield_table(outcome))
    _say(console, f"report         {outcome.report}")
    _say(console, f"contact sheet  {picture or 'nothing was kept'}")
    return outcome.shortfall


def plan(spec: str, out: str, calibrated: bool, options: Options, console: Console, err: Console) -> None:
    """Write header and plan, print how much work it is."""
    with err.status("loading the model and checking every prompt"):
        campaign = open_campaign(load_spec(spec), out, options)
    sets = [one for planned in campaign.plan.values() for one in planned]
    most = sum(campaign.spec.tries(one.concept) for one in sets) * campaign.cells
    least = len(sets) * campaign.cells
    _say(console, f"sets    {len(sets)} of {campaign.cells} members, {len(campaign.spec.concepts)} concepts")
    _say(console, f"images  {least} to keep, at most {most} to generate")
    _say(console, f"shards  {len(campaign.plan)}, {len(campaign.todo)} of them to make")
    _say(console, f"cost    {_cost(campaign, calibrated, least, most, err)}")


def _cost(campaign: Campaign, calibrated: bool, least: int, most: int, err: Console) -> str:
    known = measured(campaign.dataset)
    if calibrated:
        with err.status("generating one set to measure the cost"):
            seconds = calibrate(campaign)
        source = "measured on one set"
    elif known is not None:
        seconds, source = known.per_image, f"measured on {known.images} images of this dataset"
    else:
        return "unknown (--calibrate measures it)"
    low, high = duration(least * seconds), duration(most * seconds)
    return f"{seconds:.3g} s an image, {source}: {low} to {high} on one worker, by the number of tries"


def generate(
    spec: str, out: str, options: Options, runner: str, verbose: bool, console: Console, err: Console
) -> str:
    """Generate or continue a dataset; what fell short, or nothing."""
    _, outcome = _make(spec, out, options, runner, verbose, err)
    kept = sum(int(row["sets"]) for row in outcome.yields)
    planned = sum(int(row["planned"]) for row in outcome.yields)
    spent = f"{outcome.images} images in {duration(outcome.seconds)}" if outcome.images else "nothing to make"
    _say(console, f"made     {outcome.made} shards, {spent}")
    _say(console, f"dataset  {out}: {kept} of {planned} sets, shards {outcome.root_sha256[:12]}")
    _say(console, f"report   {outcome.report}")
    return outcome.shortfall


def _make(
    spec: str, out: str, options: Options, runner: str, verbose: bool, err: Console
) -> tuple[Campaign, Outcome]:
    _check_runner(runner, options)
    settings = load_spec(spec)
    terminal = Terminal(err)
    with err.status("loading the model"):
        campaign = open_campaign(settings, out, options, [terminal])
    if done := len(campaign.chosen) - len(campaign.todo):
        rest = f"{len(campaign.todo)} to make" if campaign.todo else "nothing to make"
        terminal.note(f"{done} of {len(campaign.chosen)} shards are there already and are skipped: {rest}.")
    with terminal:
        return campaign, _run(campaign, spec, runner, verbose)


def _check_runner(runner: str, options: Options) -> None:
    if runner == "ray":
        raise CounterpoiseError("--runner: given 'ray', wanted threads or none; ray is not available yet")
    if runner not in RUNNERS:
        raise CounterpoiseError(f"--runner: given {runner!r}, wanted {' or '.join(RUNNERS)}")
    if runner == "none" and (options.workers or 1) > 1:
        raise CounterpoiseError(
            f"--workers: given {options.workers}, wanted 1 with --runner none; start several commands with "
            "--shards A:B instead"
        )


def _run(campaign: Campaign, spec: str, runner: str, verbose: bool) -> Outcome:
    if not campaign.todo:
        return campaign.finish()
    if runner == "none":
        campaign.workers = 1
        campaign.run_here()
        return campaign.finish()
    from .home import prepare_prefect

    prepare_prefect(verbose)
    from . import generate as flow

    return flow.run(campaign, spec)


def reconcile(dataset: str, fix: bool, verbose: bool, console: Console, err: Console) -> bool:
    """Print where storage and Prefect's records disagree, and set Prefect's if asked; whether they agree now."""
    from .home import prepare_prefect
    from .reconcile import compare, facts, unrecorded

    stored = facts(dataset)
    prepare_prefect(verbose)
    with err.status("asking Prefect"):
        from .records import read_runs, set_states

        runs = read_runs(dataset)
    left = found = compare(stored, runs)
    changed: list[Disagreement] = []
    if fix and found:
        with err.status("setting states"):
            changed = set_states(found)
            left = compare(stored, read_runs(dataset))
    if found:
        console.print(_disagreements(found, changed))
    unknown = unrecorded(stored, runs)
    if not left:
        _say(
            console,
            f"{dataset} and Prefect's records agree on {len(stored.manifests) - len(unknown)} shards.",
        )
    elif fix:
        _say(console, f"{len(left)} of {len(found)} remain: their state could not be set.")
    if unknown:
        first = ", ".join(f"{index:05d}" for index in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        _say(
            console,
            f"Of {len(unknown)} more Prefect has no record ({first}): made without it, or on another server.",
        )
    return not left


def _disagreements(found: Sequence[Disagreement], changed: Sequence[Disagreement]) -> Table:
    table = Table("what", "storage", "Prefect", "set to" if changed else "--fix sets")
    for one in found:
        table.add_row(*map(escape, (one.subject, one.storage, one.prefect, one.wanted.capitalize())))
    return table


def show(dataset: str, names: Sequence[str], out: str, size: int) -> None:
    """Write a contact sheet as PNG."""
    from .preview import first_rows, set_rows, sheet
    from .sheets import png_bytes

    if Path(out).suffix.lower() != ".png":
        raise CounterpoiseError(f"--out: given {out!r}, wanted a file name that ends in .png")
    rows = set_rows(dataset, names, size) if names else first_rows(dataset, side=size)
    content = png_bytes(sheet(dataset, rows, size))
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_bytes(content)
    except OSError as error:
        raise explain(error, out) from error


def refilter(dataset: str, given: Mapping[str, str], write: bool, console: Console) -> None:
    """Print what other thresholds keep, per concept; write verdicts if asked."""
    from .refilter import parse_limit, write_verdicts
    from .refilter import refilter as judge_again

    found = judge_again(dataset, {name: parse_limit(name, text) for name, text in given.items()})
    for name, (then, now) in found.changed.items():
        _say(console, f"{name}: {_limit(then)} -> {_limit(now)}")
    table = Table("concept", "planned", "kept then", "kept now", "to generate again")
    for one in found.tallies.values():
        table.add_row(one.concept, *(str(value) for value in (one.planned, one.then, one.now, one.again)))
    console.print(table)
    if found.again:
        names = ", ".join(found.again[:5]) + (", ..." if len(found.again) > 5 else "")
        sets = "1 set has" if len(found.again) == 1 else f"{len(found.again)} sets have"
        _say(console, f"{sets} a rejected candidate that would be kept now: {names}.")
        _say(console, "Rejected candidates have no images, so that needs a new generation.")
    for name in found.unscored:
        _say(console, f"Warning: {name} limits nothing: no candidate has that score.")
    if write:
        from .closing import describe_dataset

        _say(console, "Judged are the sets that are there: write it again when more were made.")
        _say(console, write_verdicts(dataset, found))
        for line in describe_dataset(dataset):  # the card names the files in verdicts/
            _say(console, f"Warning: {line}")


def export(dataset: str, to: str, out: str, chat: Chat, console: Console, err: Console) -> None:
    """Write a dataset in another layout, and say what is in it."""
    from .export.options import request_facts
    from .export.run import export as write
    from .export.source import open_source
    from .progress import counting

    request_facts(to, chat)  # flags that cannot be used are told before anything is read
    with err.status("reading the records"):
        source = open_source(dataset)
    if source.manifest.missing:
        text = "the dataset was not finished; the shards that are there are exported."
        _say(err, f"Warning: {text}")
    with counting(err, "exporting", source.total) as advance:
        found = write(source, to, out, chat, advance)
    kept = ", ".join(f"{count} {split}" for split, count in source.images.items())
    _say(console, f"images    {kept}")
    if source.left_out:
        _say(console, f"left out  {source.left_out} kept sets that verdicts reject")
    _say(console, f"export    {out}{' is there already' if found.already else ''}")


def _limit(value: object) -> str:
    return "no limit" if value is None else str(value)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
