"""A campaign without Prefect: what it makes, skips and refuses, and that nothing stops it for good."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flows_world import (
    CELLS,
    SETS,
    SHARDS,
    Interrupting,
    bad_candidates,
    load,
    opened,
    run_all,
    small,
)
from storage_world import files

from flows.campaign import Listener, Options
from flows.opening import load_factory, open_campaign, parse_range
from flows.settings import spec_to_dict
from generators.candidates import CandidateReport, Factory
from generators.engine import PreparedEngine, SetRequest
from generators.scorers import PreparedScorers
from generators.spec import Spec, SpecError
from storage import CounterpoiseError, DatasetMismatch, ShardRecord, list_shards, load_dataset, read_samples
from storage.metadata import yield_by_cell
from storage.verify import verify

HERE = Path(__file__).parent


def shard_files(dataset: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(dataset).items() if name.startswith("shards/")}


def test_a_run_makes_every_planned_set(whole: Path) -> None:
    assert verify(whole) == []
    manifest = load_dataset(whole)
    assert manifest.counts["images"] == SETS * CELLS
    assert manifest.missing == []
    assert {sample.set_id for index in range(SHARDS) for sample in read_samples(whole, index)} == {
        f"{concept}_{number:04d}" for concept in ("chef", "science", "weapon") for number in (0, 1)
    }


def test_the_header_says_what_the_dataset_is_made_from(whole: Path) -> None:
    header = load_dataset(whole).header
    assert header["spec"] == json.loads(json.dumps(spec_to_dict(small())))
    assert header["model"]["id"] == "prepared"
    assert header["recipe"]["thresholds"]["clip_text"] == 0.2
    assert header["recipe"]["scorers"]["clip"] == "prepared"
    assert "plan" not in header["recipe"]


def test_card_and_report_are_there(whole: Path) -> None:
    card = (whole / "README.md").read_text()
    assert "Nothing: every planned set is here." in card
    assert "prepared" in card
    assert (whole / "report" / "report.html").stat().st_size > 10_000


def test_no_time_is_in_shards_or_manifests(whole: Path) -> None:
    text = b"".join(
        data for name, data in files(whole).items() if name.endswith(".json") and "report" not in name
    )
    assert b"seconds" not in text
    assert not re.search(rb"20\d\d-\d\d-\d\d", text)


def test_the_same_again_does_nothing(whole: Path) -> None:
    before = files(whole)
    stamps = {name: (whole / name).stat().st_mtime_ns for name in before}
    campaign = opened(whole, factory=load(engine=Interrupting(1, AssertionError)))
    assert campaign.todo == ()
    outcome = campaign.finish()
    assert (outcome.made, outcome.images, outcome.short) == (0, 0, ())
    assert files(whole) == before
    assert {name: (whole / name).stat().st_mtime_ns for name in before} == stamps


def test_workers_and_order_do_not_touch_the_bytes(whole: Path, tmp_path: Path) -> None:
    campaign = opened(tmp_path / "data", workers=3)
    campaign.start()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(campaign.make_shard, reversed(campaign.todo)))
    outcome = campaign.finish()
    assert outcome.root_sha256 == load_dataset(whole).root_sha256
    assert shard_files(tmp_path / "data") == shard_files(whole)


class Alone(PreparedEngine):
    """Fails if two threads are inside, or if it serves a second thread at the same time."""

    def __init__(self) -> None:
        super().__init__(24)
        self.inside = threading.Lock()

    def generate(self, request: SetRequest) -> list[Any]:
        assert self.inside.acquire(blocking=False), "two threads share an engine"
        try:
            threading.Event().wait(0.02)
            return super().generate(request)
        finally:
            self.inside.release()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_worker_has_an_engine_of_its_own(tmp_path: Path, workers: int) -> None:
    made: list[Alone] = []

    def loader(spec: Spec) -> Factory:
        made.append(Alone())
        return Factory(spec, made[-1], PreparedScorers())

    campaign = opened(tmp_path / "data", factory=loader, workers=workers)
    campaign.start()
    with ThreadPoolExecutor(SHARDS) as pool:
        list(pool.map(campaign.make_shard, campaign.todo))
    assert len(made) == workers


def test_workers_are_no_more_than_shards(tmp_path: Path) -> None:
    assert opened(tmp_path / "a", workers=9).workers == SHARDS
    with pytest.raises(CounterpoiseError, match="--workers: given 0, wanted 1 or more"):
        opened(tmp_path / "b", workers=0)


def test_what_a_task_returns_is_json_without_images(tmp_path: Path) -> None:
    campaign = opened(tmp_path / "data")
    campaign.start()
    facts = campaign.make_shard(1)
    assert json.loads(json.dumps(facts)) == facts
    record = list_shards(tmp_path / "data")[0]
    assert (facts["shard"], facts["manifest_sha256"]) == (1, record.sha256)
    assert [file["sha256"] for file in facts["files"]] == [file.sha256 for file in record.files]
    assert Path(facts["manifest"]).is_file()
    assert len(json.dumps(facts)) < 2000


class Diary(Listener):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.reports: list[CandidateReport] = []
        self.shards: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def candidate(self, report: CandidateReport) -> None:
        self.reports.append(report)

    def shard(self, record: ShardRecord) -> None:
        self.shards.append(record.index)


def test_listeners_hear_every_candidate_and_shard(tmp_path: Path) -> None:
    diary, spec = Diary(), small()
    campaign = opened(tmp_path / "data", spec, [diary], load(bad_candidates(spec, {"chef_0000": 1})))
    campaign.run_here()
    assert [report.kept for report in diary.reports] == [False, True, True, True, True, True, True]
    assert diary.shards == [0, 1, 2]


def test_what_falls_short_is_named_with_status_3(tmp_path: Path) -> None:
    spec = small()
    outcome = run_all(tmp_path / "data", spec, load(bad_candidates(spec, {"chef_0000": 1, "weapon_0001": 2})))
    assert outcome.short
    assert outcome.shortfall == "Short of the spec, in every cell alike: weapon (1 of 2 sets)."
    assert outcome.images == (SETS + 2) * CELLS
    kept = {row["kept"] for row in yield_by_cell(tmp_path / "data")}
    assert kept == {SETS - 1}, "every cell is as short as the others"
    assert "| weapon | 2 | 1 | 1 |" in (tmp_path / "data" / "README.md").read_text()


def test_a_range_makes_its_shards_and_is_short_of_nothing(tmp_path: Path, whole: Path) -> None:
    outcome = run_all(tmp_path / "data", shards="1:2")
    assert (outcome.made, outcome.short) == (1, ())
    assert load_dataset(tmp_path / "data").missing == [0, 2]
    rest = run_all(tmp_path / "data")
    assert (rest.made, rest.root_sha256) == (2, load_dataset(whole).root_sha256)


@pytest.mark.parametrize(
    ("text", "found"), [(None, [0, 1, 2]), ("0:3", [0, 1, 2]), ("1:2", [1]), (":2", [0, 1]), ("2:", [2])]
)
def test_ranges_are_pythons(text: str | None, found: list[int]) -> None:
    assert list(parse_range(text, 3)) == found


@pytest.mark.parametrize("text", ["", "1", "2:2", "2:1", "0:4", "-1:2", "a:b", "0:1:2", "1.5:2"])
def test_other_ranges_are_refused(text: str) -> None:
    with pytest.raises(CounterpoiseError, match=r"--shards: given '.*', wanted A:B with 0 <= A < B <= 3"):
        parse_range(text, 3)


def test_another_specs_dataset_is_refused_before_the_model_is_loaded(whole: Path) -> None:
    before = files(whole)

    def loader(spec: Spec) -> Factory:
        raise AssertionError("loaded")

    other = small(sampler={"steps": 6, "guidance": 4.0})
    with pytest.raises(DatasetMismatch, match=r"spec\.sampler\.steps is 5 there and 6 now") as caught:
        opened(whole, other, factory=loader)
    assert caught.value.field == "spec.sampler.steps"
    assert files(whole) == before


def test_other_weights_are_refused(whole: Path) -> None:
    class Other(PreparedEngine):
        def describe(self) -> dict[str, object]:
            return {**super().describe(), "sha256": "0" * 64}

    with pytest.raises(DatasetMismatch) as caught:
        opened(whole, factory=load(engine=Other(24)))
    assert caught.value.field in ("recipe.weights", "model.sha256")


def test_other_weights_without_filters_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    spec = small(model="someone/sdxl")
    with pytest.raises(SpecError, match=r"scorers\.nsfw: null with the model 'someone/sdxl'"):
        opened(tmp_path / "data", spec, factory=load(engine=Interrupting(1, AssertionError)))
    assert not (tmp_path / "data").exists()
    assert opened(tmp_path / "data", spec, unsafe_no_filter=True).todo == (0, 1, 2)


def test_school_concepts_are_never_made_without_filters(tmp_path: Path) -> None:
    spec = small(model="someone/sdxl", concepts=["high_school", "chef"])
    with pytest.raises(SpecError, match="never taken for the school concepts high_school"):
        opened(tmp_path / "data", spec, unsafe_no_filter=True)


@pytest.mark.parametrize("model", ["./no/such/folder", "nowhere"])
def test_a_missing_model_leaves_no_dataset(tmp_path: Path, model: str) -> None:
    spec = small(model=model, scorers={})
    with pytest.raises(CounterpoiseError, match="no such folder") as caught:
        open_campaign(spec, str(tmp_path / "data"), Options(), factory=load_factory)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_prompt_that_cannot_be_made_leaves_no_dataset(tmp_path: Path) -> None:
    class Strict(PreparedEngine):
        def check(self, request: SetRequest) -> None:
            raise CounterpoiseError("prompt 'x': 90 tokens, wanted at most 77")

    with pytest.raises(CounterpoiseError, match="90 tokens"):
        opened(tmp_path / "data", factory=load(engine=Strict(24)))
    assert not (tmp_path / "data").exists()


def in_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import opening

    here: Callable[[], dict[str, Any]] = opening.environment
    monkeypatch.setattr(opening, "environment", lambda: {**here(), "torch": "0.0"})


def test_shards_of_another_environment_are_noted_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_another_environment(monkeypatch)
    diary = Diary()
    assert opened(whole, listeners=[diary]).todo == ()
    assert len(diary.notes) == 1
    assert "environment.torch" in diary.notes[0]
    assert "(and 2 more shards)" in diary.notes[0]


def test_a_strict_environment_refuses_them(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_another_environment(monkeypatch)
    with pytest.raises(DatasetMismatch, match=r"environment\.torch"):
        opened(whole, strict_environment=True)
