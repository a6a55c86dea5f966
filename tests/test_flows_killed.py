"""The whole path without Prefect, killed by SIGKILL anywhere: run again, it ends in the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from campaign_kills import HERE, Ends, kill, published

from flows import cost
from storage import list_shards, load_dataset, read_samples
from storage.manifest import read_plan
from storage.metadata import table, yield_by_cell
from storage.verify import clean, verify


def long(test: Callable[..., None]) -> Callable[..., None]:
    """A test of minutes."""
    return pytest.mark.slow(pytest.mark.timeout(1800)(test))


def check(folder: Path, ends: Ends) -> None:
    """Every dataset is sound, whole and byte by byte the undisturbed one once left-overs are cleaned away."""
    wanted = published(folder / "undisturbed")
    root = load_dataset(folder / "undisturbed").root_sha256
    for name in dict.fromkeys(name for name, *_ in ends):
        dataset = folder / name
        assert [line for line in verify(dataset, decode_images=False) if "left over" not in line] == [], name
        clean(dataset)
        assert verify(dataset) == [], name
        assert load_dataset(dataset).root_sha256 == root
        assert published(dataset) == wanted, name
    check_sets(folder / ends[-1][0])


def check_sets(dataset: Path) -> None:
    """No set is lost or doubled: of every planned one the candidates that were tried, and one kept where one is to be."""
    asked = "set_id, count(DISTINCT candidate), count(DISTINCT candidate) FILTER (kept), count(*) / count(DISTINCT key)"
    found = {row[0]: row[1:] for row in table(dataset).aggregate(asked, "set_id").fetchall()}
    tried = {row["set_id"]: 1 for row in read_plan(dataset)} | {"chef_0001": 2, "weapon_0000": 2}
    assert {name: row[0] for name, row in found.items()} == tried
    assert {name for name, row in found.items() if row[1] == 0} == {"weapon_0000"}
    assert {row[1] for name, row in found.items() if name != "weapon_0000"} == {1}
    samples = [
        sample.key
        for record in list_shards(dataset)
        for sample in read_samples(dataset, record.index)
        if sample.kept
    ]
    assert len(samples) == len(set(samples)) == load_dataset(dataset).counts["images"] == 20


def check_every_step(folder: Path, ends: Ends, step: int) -> None:
    assert (len(ends) - 1) * step > 150 and ends[-1][1] == 0, "the last one met no fault any more"
    assert {killed for _, killed, _ in ends[:-1]} == {signal.SIGKILL}
    assert {again for *_, again in ends} == {0}
    check(folder, ends)


def check_random_times(folder: Path, ends: Ends) -> None:
    assert {killed for _, killed, _ in ends} <= {0, signal.SIGKILL}
    assert sum(killed == signal.SIGKILL for _, killed, _ in ends) > len(ends) // 2
    assert {again for *_, again in ends} == {0}
    check(folder, ends)


def check_after_a_part(folder: Path, ends: Ends) -> None:
    """List, card and report were there already, and of fewer shards; past the last step nothing is left to kill."""
    killed = [status for _, status, _ in ends]
    assert set(killed) <= {0, signal.SIGKILL} and killed == sorted(killed, reverse=True)
    assert killed.count(signal.SIGKILL) >= min(len(ends), 35)
    assert {again for *_, again in ends} == {0}
    check(folder, ends)


def check_side_by_side(folder: Path, ends: Ends) -> None:
    assert {status for _, *each in ends for status in each} == {0}
    check(folder, ends)
    tried = sum(row["tried"] for row in yield_by_cell(folder / "undisturbed"))
    assert {cost.measured(str(folder / name)).images for name, *_ in ends} == {tried}, "no run's cost is lost"  # type: ignore[union-attr]


def test_a_few_kills_and_processes_side_by_side(tmp_path: Path) -> None:
    """What the slow tests do everywhere, here and there."""
    found = kill(
        tmp_path,
        at_every_step=(5, 61),
        at_random_times=(11, 3),
        after_a_part=[["relisted", "md.opened", "html.before_put"]],
        side_by_side=[2],
    )
    check_every_step(tmp_path, found["at_every_step"], 61)
    check_random_times(tmp_path, found["at_random_times"])
    check_after_a_part(tmp_path, found["after_a_part"])
    check_side_by_side(tmp_path, found["side_by_side"])


@long
def test_killed_at_every_step_and_run_again(tmp_path: Path) -> None:
    check_every_step(tmp_path, kill(tmp_path, at_every_step=(1, 1))["at_every_step"], 1)


@long
def test_killed_at_random_times_and_run_again(tmp_path: Path) -> None:
    check_random_times(tmp_path, kill(tmp_path, at_random_times=(12, 50))["at_random_times"])


@long
def test_killed_while_adding_to_a_closed_dataset(tmp_path: Path) -> None:
    faults = [f"#{number}" for number in range(1, 140, 3)]
    check_after_a_part(tmp_path, kill(tmp_path, after_a_part=[faults])["after_a_part"])


@long
def test_processes_side_by_side_end_in_the_same_files(tmp_path: Path) -> None:
    check_side_by_side(tmp_path, kill(tmp_path, side_by_side=[20])["side_by_side"])


@long
def test_killed_again_and_again_in_one_folder(tmp_path: Path) -> None:
    ends = kill(tmp_path, in_one_folder=[3])["in_one_folder"]
    assert len(ends) > 10 and {killed for _, killed in ends[:-1]} == {signal.SIGKILL}
    check(tmp_path, ends)


def command(dataset: Path, *arguments: str, fault: str = "") -> tuple[int, str]:
    """Run the real command line; its status and what it said."""
    environment = {**os.environ, "COUNTERPOISE_FAULT": fault, "PYTHONPATH": str(HERE.parent)}
    words = [sys.executable, "-m", "flows", *arguments]
    run = subprocess.run(
        words, env=environment, cwd=dataset.parent, capture_output=True, text=True, timeout=600
    )
    return run.returncode, run.stdout + run.stderr


def generate(dataset: Path, *more: str, fault: str = "") -> int:
    """Generate the tiny spec with the embedded model."""
    return command(
        dataset, "generate", "tiny", "--out", str(dataset), "--runner", "none", *more, fault=fault
    )[0]


@long
def test_the_command_with_the_embedded_model_is_killed_three_times(tmp_path: Path) -> None:
    peace, data = tmp_path / "peace", tmp_path / "data"
    status = generate(peace)
    assert status in (0, 3)
    for fault in ("created", "tar.before_put", "html.before_put"):
        assert generate(data, fault=fault) == -signal.SIGKILL
    assert generate(data) == status
    assert command(data, "verify", str(data), "--clean")[0] == 0
    assert published(data) == published(peace)
    assert load_dataset(data).root_sha256 == load_dataset(peace).root_sha256


@long
def test_commands_side_by_side_end_in_the_same_files(tmp_path: Path) -> None:
    peace, data = tmp_path / "peace", tmp_path / "data"
    status = generate(peace)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    words = [
        sys.executable,
        "-m",
        "flows",
        "generate",
        "tiny",
        "--out",
        str(data),
        "--runner",
        "none",
        "--shards",
    ]
    runs = [
        subprocess.Popen([*words, part], env=environment, stderr=subprocess.DEVNULL)
        for part in ("0:1", "1:2")
    ]
    assert {run.wait(600) for run in runs} <= {0, 3} and status in (0, 3)
    assert published(data) == published(peace) and verify(data) == []
