"""A dataset that a larger spec extends: what was finished stays to the byte, what is new is what it would have been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_world import Called, generate, one_line, use
from flows_world import (
    CELLS,
    SETS,
    SHARDS,
    Interrupting,
    bad_candidates,
    load,
    no_report,
    opened,
    run_all,
    small,
    spec_file,
)
from storage_world import files

from flows import opening
from flows.extending import stored_size
from generators.plan import Size, make_plan
from storage import DatasetMismatch, create_dataset, list_shards, load_dataset, read_samples
from storage.metadata import shortfalls, yield_by_concept
from storage.verify import clean, verify

HERE = Path(__file__).parent

MORE: dict[str, Any] = {
    "sets_per_concept": 3,
    "concepts": ["chef", "science", "weapon", "arts"],
    "candidates": {"default": 2, "arts": 1},
    "split": {"held_out_concepts": ["arts"]},
}
ADDED = 3 * 4 - SETS


@pytest.fixture(scope="module", autouse=True)
def reports() -> Iterator[None]:
    """None are drawn."""
    with no_report():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small dataset, whole."""
    dataset = tmp_path_factory.mktemp("base") / "data"
    run_all(dataset)
    return dataset


@pytest.fixture
def data(base: Path, tmp_path: Path) -> Path:
    """A copy of it to extend."""
    return Path(shutil.copytree(base, tmp_path / "data"))


def shard_files(dataset: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(dataset).items() if name.startswith("shards/")}


def pictures(dataset: Path) -> dict[str, tuple[bytes | None, str]]:
    """Every kept image, with its split, by its key."""
    samples = [one for shard in list_shards(dataset) for one in read_samples(dataset, shard.index)]
    return {one.key: (one.image, one.split) for one in samples if one.kept}


def test_sets_and_concepts_are_added_and_shards_stay(data: Path) -> None:
    before = shard_files(data)
    stamps = {name: (data / name).stat().st_mtime_ns for name in before}
    outcome = run_all(data, small(**MORE), extend=True)
    assert (outcome.made, outcome.images, outcome.short) == (3, ADDED * CELLS, ())
    after = shard_files(data)
    assert {name: after[name] for name in before} == before
    assert {name: (data / name).stat().st_mtime_ns for name in before} == stamps
    assert load_dataset(data).counts["sets"] == SETS + ADDED and load_dataset(data).missing == []
    assert verify(data) == []


def test_what_is_added_is_what_it_would_have_been_at_once(data: Path, tmp_path: Path) -> None:
    run_all(data, small(**MORE), extend=True)
    run_all(tmp_path / "at_once", small(**MORE))
    assert pictures(data) == pictures(tmp_path / "at_once")


def test_a_partly_filled_last_shard_stays_as_it_is(tmp_path: Path) -> None:
    spec = small(sets_per_shard=4)
    run_all(tmp_path, spec)
    before = shard_files(tmp_path)
    outcome = run_all(tmp_path, small(sets_per_shard=4, sets_per_concept=3), extend=True)
    assert outcome.made == 1 and [dict(r.counts)["sets"] for r in list_shards(tmp_path)] == [4, 2, 3]
    assert {name: shard_files(tmp_path)[name] for name in before} == before


def test_the_same_again_continues_without_the_flag(data: Path) -> None:
    campaign = opened(data, small(**MORE), extend=True, shards="3:4")
    campaign.run_here()
    campaign.finish()
    assert load_dataset(data).missing == [4, 5]
    for flag in (False, True):
        assert opened(data, small(**MORE), extend=flag).todo == (4, 5)
    outcome = run_all(data, small(**MORE))
    assert (outcome.made, load_dataset(data).missing) == (2, [])
    before = files(data)
    assert run_all(data, small(**MORE), extend=True).made == 0
    assert files(data) == before


def test_order_of_work_does_not_touch_the_bytes(data: Path, tmp_path: Path) -> None:
    """Extended before the first shard was made, or after the last."""
    first = tmp_path / "first"
    opened(first)
    opened(first, small(**MORE), extend=True)
    run_all(first, small(**MORE))
    outcome = run_all(data, small(**MORE), extend=True)
    assert outcome.root_sha256 == load_dataset(first).root_sha256
    assert shard_files(data) == shard_files(first)


def test_extended_twice_and_lost_plan_and_header(data: Path) -> None:
    run_all(data, small(sets_per_concept=3), extend=True)
    run_all(data, small(**MORE), extend=True)
    assert load_dataset(data).header["extended_from"] == [
        {"concepts": 3, "sets_per_concept": 2},
        {"concepts": 3, "sets_per_concept": 3},
    ]
    assert load_dataset(data).dataset_id == load_dataset(data, 0).dataset_id
    before = files(data)
    for name in ("plan.parquet", "dataset.json"):
        (data / name).unlink()
    assert run_all(data, small(**MORE)).made == 0
    assert files(data) == before and verify(data) == []


def test_shortfalls_yields_and_card_speak_of_the_whole(data: Path) -> None:
    spec = small(**MORE)
    factory = load(bad_candidates(spec, {"arts_0001": 1, "chef_0002": 2}))
    outcome = run_all(data, spec, factory, extend=True)
    assert outcome.short
    assert outcome.shortfall.endswith("chef (2 of 3 sets), arts (2 of 3 sets).")
    assert {row["concept"]: row["missing"] for row in shortfalls(data)} == {"chef": 1, "arts": 1}
    assert {row["concept"]: (row["planned"], row["sets"]) for row in yield_by_concept(data)} == {
        "chef": (3, 2),
        "science": (3, 3),
        "weapon": (3, 3),
        "arts": (3, 2),
    }
    card = (data / "README.md").read_text()
    assert "| arts | 3 | 2 | 1 |" in card and "planned shards are not" not in card


def test_an_extension_that_is_not_finished_is_in_the_card(data: Path) -> None:
    run_all(data, small(**MORE), extend=True, shards="3:4")
    assert "2 planned shards are not in this dataset." in (data / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 6}, r"spec\.seed is 5 there and 6 now"),
        ({"concepts": ["arts", "chef", "science", "weapon"]}, r"spec\.concepts\[0\]\.name"),
        ({"sets_per_concept": 1}, r"spec\.sets_per_concept is 2 there and 1 now"),
        ({"concepts": ["chef", "science"]}, 'spec.concepts is "3 entries" there and "2 entries" now'),
        ({"sets_per_shard": 3}, r"spec\.sets_per_shard"),
        ({"candidates": {"default": 3}}, r"spec\.candidates\.default is 2 there and 3 now"),
        ({"candidates": {"default": 2, "chef": 3}}, r"spec\.candidates\.chef"),
        ({"split": {"held_out_concepts": ["chef"]}}, r"spec\.split\.held_out_concepts"),
        ({"sampler": {"steps": 6, "guidance": 4.0}}, r"spec\.sampler\.steps"),
        ({"templates": ["A drawing of {a} {race} {gender} {concept}"]}, r"spec\.templates"),
    ],
)
def test_anything_else_is_refused_with_its_field(data: Path, changes: dict[str, Any], field: str) -> None:
    before = files(data)
    given = (
        {**MORE, **changes}
        if "concepts" not in changes
        else {**MORE, "candidates": 2, "split": {}, **changes}
    )
    with pytest.raises(DatasetMismatch, match=field) as caught:
        opened(data, small(**given), extend=True, factory=load(engine=Interrupting(1, AssertionError)))
    assert "--extend takes a larger sets_per_concept and concepts appended" in str(caught.value)
    assert files(data) == before


def test_a_mere_enlargement_without_the_flag_is_told_of_it(data: Path) -> None:
    before = files(data)
    with pytest.raises(DatasetMismatch, match=r"sets_per_concept is 2 there and 3 now\. --extend adds"):
        opened(data, small(sets_per_concept=3))
    with pytest.raises(
        DatasetMismatch, match=r'concepts is "3 entries" there and "4 entries" now\. --extend'
    ):
        opened(data, small(concepts=MORE["concepts"]))
    with pytest.raises(DatasetMismatch, match=r"spec\.seed is 5 there and 6 now\. Give the stored value"):
        opened(data, small(seed=6, sets_per_concept=3))
    assert files(data) == before


def test_the_old_spec_does_not_continue_an_extended_dataset(data: Path) -> None:
    opened(data, small(**MORE), extend=True)
    for flag in (False, True):
        with pytest.raises(DatasetMismatch, match=r"3 entries|4 entries"):
            opened(data, small(), extend=flag)


def test_two_extensions_at_a_time_do_not_mix(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one extends after this one has looked: it is refused, not merged."""
    real = create_dataset

    def late(*given: Any) -> Any:
        monkeypatch.setattr(opening, "create_dataset", real)
        opened(data, small(sets_per_concept=3), extend=True)
        return real(*given)

    monkeypatch.setattr(opening, "create_dataset", late)
    with pytest.raises(DatasetMismatch):
        opened(data, small(sets_per_concept=4), extend=True)
    assert verify(data) == [] and len(make_plan(small(sets_per_concept=3), [Size(3, 2)])) == 9
    assert load_dataset(data).plan["rows"] == 9


def test_a_spec_of_another_kind_is_another(tmp_path: Path) -> None:
    row = {"set_id": "a_0", "shard": 0, "concept": "a", "concept_group": "g"}
    for spec in ("text", {"concepts": 3}, None):
        create_dataset(tmp_path / str(spec)[:4], {"axes": {"gender": ["x", "y"]}, "spec": spec}, [row])
        with pytest.raises(DatasetMismatch, match="spec"):
            stored_size(str(tmp_path / str(spec)[:4]), small(), extend=True)
    assert not stored_size(str(tmp_path / "nowhere"), small(), extend=True).same


def test_extend_may_begin_a_dataset(tmp_path: Path) -> None:
    assert run_all(tmp_path / "data", extend=True).made == SHARDS
    assert "extended_from" not in load_dataset(tmp_path / "data").header


def test_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert generate(capsys).status == 0
    more = spec_file(Path(), **MORE)
    one_line(generate(capsys, spec=more), "data/dataset.json", "spec.concepts", "--extend adds what is new")
    one_line(Called(capsys, "plan", more, "--out", "data"), "--extend adds what is new")
    planned = Called(capsys, "plan", more, "--out", "data", "--extend")
    assert planned.status == 0
    assert "shards  6, 3 of them to make" in planned.out and "sets    12 of 4 members" in planned.out
    found = generate(capsys, "--extend", spec=more)
    assert found.status == 0 and "3 of 6 shards are there already" in found.err
    assert "made     3 shards" in found.out and "12 of 12 sets" in found.out
    assert Called(capsys, "verify", "data").status == 0
    other = spec_file(Path(), **{**MORE, "seed": 9})
    one_line(generate(capsys, "--extend", spec=other), "spec.seed is 5 there and 9 now", "nothing else")


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from flows_world import opened, small
campaign = opened(Path({dataset!r}), small(**{more!r}), extend=True)
campaign.run_here()
campaign.finish()
"""


@pytest.fixture(scope="module")
def larger(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small dataset, extended in peace."""
    dataset = Path(shutil.copytree(base, tmp_path_factory.mktemp("larger") / "data"))
    run_all(dataset, small(**MORE), extend=True)
    return dataset


@pytest.mark.parametrize(
    ("fault", "flag"),
    [
        pytest.param("before_create", True, marks=pytest.mark.slow),
        ("#12", False),
        *(
            pytest.param(f"#{number}", number % 4 == 0, marks=pytest.mark.slow)
            for number in (6, 8, 15, 18, 30, 60, 100, 110)
        ),
    ],
)
def test_kill_9_while_extending(data: Path, larger: Path, fault: str, flag: bool) -> None:
    """Once the extension is a version, the larger spec continues it without the flag as well."""
    before = shard_files(data)
    code = CHILD.format(here=str(HERE), dataset=str(data), more=MORE)
    environment = {**os.environ, "COUNTERPOISE_FAULT": fault, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert {name: shard_files(data)[name] for name in before} == before
    assert set(pictures(data)) >= {f"{one.set_id}-00" for one in make_plan(small())}
    run_all(data, small(**MORE), extend=flag)
    clean(data)
    assert load_dataset(data).root_sha256 == load_dataset(larger).root_sha256
    assert shard_files(data) == shard_files(larger) and verify(data) == []
