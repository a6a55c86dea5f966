"""A shard goes on from the candidates that were finished when its run was killed, and its bytes do not tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_world import Called, generate, one_line, use
from flows_world import CELLS, Interrupting, bad_candidates, load, no_report, opened, run_all, small
from storage_world import files

from flows import opening
from flows.campaign import Listener
from generators import candidates
from generators.candidates import CandidateReport
from generators.engine import PreparedEngine, SetRequest
from storage import DatasetMismatch, list_shards, load_dataset, publish_shard
from storage.verify import verify

HERE = Path(__file__).parent
BAD = {"chef_0000": 1, "weapon_0001": 2}
TRIES = 8


@pytest.fixture(scope="module", autouse=True)
def reports() -> Iterator[None]:
    """None are drawn."""
    with no_report():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that was made without disturbance, nothing of it saved."""
    dataset = tmp_path_factory.mktemp("whole") / "data"
    run_all(dataset, factory=load(bad_candidates(small(), BAD)))
    assert not (dataset / "progress").exists()
    return dataset


def shard_files(dataset: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(dataset).items() if name.startswith(("shards/", "progress/"))}


class Counting(Interrupting):
    """Counts the candidates that it makes, and is interrupted at one of them."""

    def __init__(self, at: int = 0) -> None:
        super().__init__(at)
        self.made = 0

    def generate(self, request: SetRequest) -> list[Any]:
        pictures = super().generate(request)
        self.made += 1
        return pictures


def interrupted(dataset: Path, at: int, **options: Any) -> Any:
    """A run that ends at the n-th candidate; its engine."""
    engine = Counting(at)
    campaign = opened(
        dataset, factory=load(bad_candidates(small(), BAD), engine), **{"save_after": 0.0, **options}
    )
    with pytest.raises(KeyboardInterrupt):
        campaign.run_here()
    return engine


class Diary(Listener):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.reports: list[CandidateReport] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def candidate(self, report: CandidateReport) -> None:
        self.reports.append(report)


@pytest.mark.parametrize("at", [2, 3, 5, TRIES])
def test_no_finished_candidate_is_made_again_and_the_bytes_are_the_same(
    whole: Path, tmp_path: Path, at: int
) -> None:
    first = interrupted(tmp_path, at)
    engine, diary = Counting(), Diary()
    campaign = opened(tmp_path, listeners=[diary], factory=load(bad_candidates(small(), BAD), engine))
    campaign.run_here()
    outcome = campaign.finish()
    assert first.made == at - 1 and first.made + engine.made == TRIES
    assert outcome.images == engine.made * CELLS, "what was taken over is no cost of this run"
    assert outcome.root_sha256 == load_dataset(whole).root_sha256
    assert shard_files(tmp_path) == shard_files(whole), "and nothing saved is left"
    taken = [report for report in diary.reports if report.restored]
    assert [len(report.images) for report in taken] == [CELLS if report.kept else 0 for report in taken]
    assert {report.kept for report in diary.reports} == {True, False} and diary.notes == []


def test_a_shard_interrupted_again_and_again_gets_on(whole: Path, tmp_path: Path) -> None:
    for _ in range(TRIES - 1):
        assert interrupted(tmp_path, 2).made == 1
    run_all(tmp_path, factory=load(bad_candidates(small(), BAD)))
    assert shard_files(tmp_path) == shard_files(whole)


def test_only_candidates_of_more_than_a_minute_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured each by itself: the third takes 61 seconds, the others 59."""
    now, spent = [0.0], iter([59.0, 59.0, 61.0, 59.0])

    class Slow(Counting):
        def generate(self, request: SetRequest) -> list[Any]:
            pictures = super().generate(request)
            now[0] += next(spent)
            return pictures

    monkeypatch.setattr(candidates.time, "monotonic", lambda: now[0])
    campaign = opened(tmp_path, small(sets_per_shard=6), factory=load(engine=Slow(5)))
    with pytest.raises(KeyboardInterrupt):
        campaign.run_here()
    saved = [Path(name).name for name in files(tmp_path) if name.startswith("progress/")]
    assert saved == ["weapon_0000-0.json", "weapon_0000-0.tar"]


def test_rejected_candidates_are_saved_without_images(tmp_path: Path) -> None:
    interrupted(tmp_path, 2)
    saved = [Path(name).name for name in files(tmp_path) if name.startswith("progress/")]
    assert saved == ["chef_0000-0.json"]


def test_another_spec_does_not_take_them_over(tmp_path: Path) -> None:
    interrupted(tmp_path, 2)
    for name in ("dataset.json", "versions/00000.json"):
        (tmp_path / name).unlink()
    engine = Counting()
    run_all(tmp_path, small(seed=6), load(engine=engine))
    assert engine.made == 6 and verify(tmp_path) == []


CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from flows_world import bad_candidates, load, opened, small
campaign = opened(Path({dataset!r}), factory=load(bad_candidates(small(), {bad!r})), save_after=0.0)
campaign.run_here()
campaign.finish()
"""


@pytest.mark.parametrize(
    "fault",
    ["tar.before_put", *(pytest.param(f"#{number}", marks=pytest.mark.slow) for number in (30, 44, 75))],
)
def test_kill_9_while_saving_or_publishing(whole: Path, tmp_path: Path, fault: str) -> None:
    code = CHILD.format(here=str(HERE), dataset=str(tmp_path / "data"), bad=BAD)
    environment = {**os.environ, "COUNTERPOISE_FAULT": fault, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    engine = Counting()
    run_all(tmp_path / "data", factory=load(bad_candidates(small(), BAD), engine), save_after=0.0)
    assert engine.made < TRIES, "something was taken over"
    found = {name: data for name, data in shard_files(tmp_path / "data").items() if ".tmp-" not in name}
    assert found == shard_files(whole)


def in_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    here = opening.environment
    monkeypatch.setattr(opening, "environment", lambda: {**here(), "torch": "0.0"})


def test_progress_of_another_environment_is_used_with_a_warning_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path, 3)
    earlier = opening.environment()
    in_another_environment(monkeypatch)
    engine, diary = Counting(), Diary()
    campaign = opened(tmp_path, listeners=[diary], factory=load(bad_candidates(small(), BAD), engine))
    campaign.run_here()
    assert engine.made == TRIES - 2
    (note,) = diary.notes
    assert note.startswith("Warning: candidates of shard 0: ") and "environment.torch" in note
    environments = [dict(record.environment) for record in list_shards(tmp_path)]
    assert environments[0]["earlier"] == [earlier] and environments[0]["torch"] == "0.0"
    assert "earlier" not in environments[1]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands with prepared parts, in a folder of their own."""
    use(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.usefixtures("shell")
def test_the_command_line_with_progress_of_another_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(Path("data"), 3)
    interrupted(Path("strict"), 3)
    in_another_environment(monkeypatch)
    engine = Counting()
    use(monkeypatch, scorers=bad_candidates(small(), BAD), engine=engine)
    found = generate(capsys)
    assert found.status == 3 and engine.made == TRIES - 2
    assert "Warning: candidates of shard 0:" in found.err and "environment.torch" in found.err
    engine = Counting()
    use(monkeypatch, scorers=bad_candidates(small(), BAD), engine=engine)
    arguments = ("small.yaml", "--out", "strict", "--runner", "none", "--strict-environment")
    strict = Called(capsys, "generate", *arguments)
    assert strict.status == 3 and engine.made == TRIES, "nothing of it is used"
    assert "Warning" not in strict.err and "earlier" not in list_shards("strict")[0].environment
    one_line(generate(capsys, "--strict-environment"), "environment.earlier")


@pytest.mark.usefixtures("shell")
def test_the_command_line_with_shards_of_another_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generate(capsys, "--shards", "0:1", "--strict-environment").status == 0
    assert generate(capsys, "--shards", "0:1", "--strict-environment").status == 0, "the same one goes on"
    in_another_environment(monkeypatch)
    before = files(Path("data"))
    one_line(
        generate(capsys, "--strict-environment"), "shards/00000.json", 'environment.torch is "', '"0.0" now'
    )
    one_line(generate(capsys, "--strict-environment", "--shards", "1:2"), "environment.torch")
    assert files(Path("data")) == before, "not even a range without that shard begins"
    found = generate(capsys)
    assert found.status == 0 and "Warning: " in found.err and "environment.torch" in found.err
    environments = [record.environment["torch"] for record in list_shards("data")]
    assert environments[1:] == ["0.0", "0.0"] != environments[:2]


def test_strict_refuses_a_shard_that_another_environment_was_faster_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overtaken(PreparedEngine):
        def generate(self, request: SetRequest) -> list[Any]:
            if not list_shards(tmp_path):
                other = {**campaign.environment, "torch": "0.0"}
                planned = campaign.plan[0]
                factory = load()(small())
                axes, recipe = ["gender", "race"], factory.recipe(planned)
                publish_shard(tmp_path, 0, factory.make_shard(planned), axes, recipe, other)
            return super().generate(request)

    campaign = opened(tmp_path, factory=load(engine=Overtaken(24)), strict_environment=True)
    with pytest.raises(DatasetMismatch, match=r"environment\.torch"):
        campaign.run_here()
