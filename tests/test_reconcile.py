"""Where storage and Prefect's records disagree: every kind, and that setting states mends what can be mended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage_world import fill, start

from flows.reconcile import Disagreement, Facts, Run, address, compare, dataset_tag, facts, unrecorded
from storage import CounterpoiseError, ShardDamaged, finish_dataset, list_shards

A, B = "a" * 64, "b" * 64


def task(shard: int, state: str, manifest: str | None = None, order: int = 0, flow: str = "f") -> Run:
    return Run(f"t{order}-{shard}", f"shard-{shard:05d}", flow, state, f"{order:03d}", shard, manifest)


def flow(state: str, order: int = 0, name: str = "f") -> Run:
    return Run(name, name, name, state, f"{order:03d}")


def lines(stored: dict[int, str], *runs: Run, planned: int = 2) -> list[tuple[str, str, str, str | None]]:
    found = compare(Facts(stored, planned), runs)
    return [(one.subject, one.storage, one.prefect, one.wanted) for one in found]


def test_agreement() -> None:
    assert lines({0: A, 1: B}, task(0, "COMPLETED", A), task(1, "COMPLETED", B), flow("COMPLETED")) == []
    assert lines({}, task(0, "FAILED"), task(1, "CRASHED"), flow("FAILED")) == []
    assert lines({}, flow("RUNNING")) == lines({}, task(0, "RUNNING"), flow("RUNNING")) == lines({}) == []


def test_completed_without_a_manifest() -> None:
    found = lines({1: B}, task(0, "COMPLETED", A), task(1, "COMPLETED", B), flow("COMPLETED"))
    assert found == [
        ("shard 00000", "no manifest", f"Completed, manifest {A[:12]}", "CRASHED"),
        ("flow run f", "a shard of it has no manifest", "Completed", "CRASHED"),
    ]


@pytest.mark.parametrize(
    "state", ["RUNNING", "FAILED", "CRASHED", "CANCELLED", "PENDING", "SCHEDULED", "PAUSED"]
)
def test_a_manifest_that_prefect_does_not_know_of(state: str) -> None:
    assert lines({0: A}, task(0, state)) == [
        ("shard 00000", f"manifest {A[:12]}", state.capitalize(), "COMPLETED")
    ]


def test_a_manifest_of_which_prefect_says_nothing() -> None:
    assert lines({0: A}) == [], "it was made without Prefect, which contradicts nothing"
    assert unrecorded(Facts({0: A, 1: B}, 3), [task(1, "FAILED"), flow("COMPLETED")]) == [0]


def test_another_hash_or_none() -> None:
    other, none = (lines({0: A}, task(0, "COMPLETED", hash_)) for hash_ in (B, None))
    assert other == [("shard 00000", f"manifest {A[:12]}", f"Completed, manifest {B[:12]}", "COMPLETED")]
    assert none == [("shard 00000", f"manifest {A[:12]}", "Completed, no result on record", "COMPLETED")]


def test_the_last_run_counts_but_none_may_still_be_at_work() -> None:
    made = task(0, "COMPLETED", A, order=2)
    assert lines({0: A}, made, task(0, "FAILED", order=1), task(0, "COMPLETED", B, order=0)) == []
    assert lines({}, task(0, "FAILED", order=3), made) == []
    assert lines({0: A}, made, task(0, "RUNNING", order=1)) == [
        ("shard 00000", f"manifest {A[:12]}", "Running, though a later run ended", "CRASHED")
    ]


def test_a_flow_that_runs_for_ever() -> None:
    done = (task(0, "COMPLETED", A), task(1, "COMPLETED", B))
    assert lines({0: A, 1: B}, *done, flow("RUNNING")) == [
        ("flow run f", "all 2 shards are there", "Running", "COMPLETED")
    ]
    assert lines({0: A, 1: B}, *done, flow("FAILED")) == [], "its report may have failed"
    assert lines({0: A}, task(0, "COMPLETED", A), flow("RUNNING")) == [], "it may be at work"


def applied(runs: Sequence[Run], found: Sequence[Disagreement]) -> list[Run]:
    """The runs after their states were set."""
    wanted = {one.run.id: one for one in found}
    return [
        replace(run, state=one.wanted, manifest_sha256=one.manifest_sha256 or run.manifest_sha256)
        if (one := wanted.get(run.id))
        else run
        for run in runs
    ]


states = st.sampled_from(["COMPLETED", "RUNNING", "FAILED", "CRASHED", "PENDING"])
task_runs = st.builds(
    task, st.integers(0, 3), states, st.sampled_from([A, B, None]), st.integers(0, 99), st.sampled_from("fg")
)
manifests = st.dictionaries(st.integers(0, 3), st.sampled_from([A, B]))


@given(manifests, st.lists(task_runs, unique_by=lambda run: run.id), states, states)
def test_setting_states_leaves_nothing(stored: dict[int, str], tasks: list[Run], one: str, two: str) -> None:
    runs = [*tasks, flow(one), flow(two, 1, "g")]
    before = Facts(stored, 4)
    found = compare(before, runs)
    assert compare(before, list(reversed(runs))) == found, "the order of the answer does not count"
    assert compare(before, applied(runs, found)) == []
    assert set(unrecorded(before, runs)) == set(stored) - {run.shard for run in tasks}


def test_what_storage_says(tmp_path: Path) -> None:
    with pytest.raises(CounterpoiseError, match="holds no"):
        facts(str(tmp_path))
    start(tmp_path)
    assert facts(str(tmp_path)) == Facts({}, 3)
    fill(tmp_path)
    finish_dataset(tmp_path)
    found = {record.index: record.sha256 for record in list_shards(tmp_path)}
    assert facts(str(tmp_path)) == Facts(found, 3)
    (tmp_path / "shards/00001.json").unlink()
    del found[1]
    assert facts(str(tmp_path)) == Facts(found, 3), "a lost manifest is what it is here to tell"
    (tmp_path / "shards/00002.json").write_bytes(b"{}")
    with pytest.raises(ShardDamaged):
        facts(str(tmp_path))


def test_a_dataset_has_one_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("data", "./data", "data/", str(tmp_path / "data"), f"file://{tmp_path}/data")
    assert {address(name) for name in names} == {str((tmp_path / "data").resolve())}
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert dataset_tag("link") == f"dataset:{(tmp_path / 'data').resolve()}"
