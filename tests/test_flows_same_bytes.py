"""Within one environment the files of a dataset depend on no number of workers, no runner and no order of shards.

Two files speak of measured seconds and differ from run to run: report/cost.json, and the report in its part on cost.
How many versions there are tells how often a dataset was closed.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from campaign_kills import MEASURED, published
from flows_world import bad_candidates, load, opened, small
from storage_world import files
from test_flows_killed import command, generate, long

from flows import charts
from storage.verify import verify


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts whose drawing costs no time."""
    monkeypatch.setattr(charts, "histogram", lambda *_: "data:image/png;base64,")


def make(dataset: Path, workers: int, seed: int) -> None:
    """Six shards by so many threads, in an order of chance, closed now and then on the way."""
    spec = small(sets_per_shard=1)
    factory = load(bad_candidates(spec, {"chef_0001": 1, "weapon_0000": 2}))
    rng = random.Random(seed)
    for part in (["0:6"], ["0:2", "4:6", "2:4"])[seed % 2]:
        campaign = opened(dataset, spec, factory=factory, workers=workers, shards=part)
        assert campaign.workers == min(workers, len(campaign.todo))
        campaign.start()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(campaign.make_shard, rng.sample(campaign.todo, len(campaign.todo))))
        campaign.finish()


def test_workers_and_order_touch_no_file(tmp_path: Path) -> None:
    for number, workers in enumerate((1, 2, 4, 4)):
        make(tmp_path / str(number), workers, seed=number)
    first = tmp_path / "0"
    for number in (1, 2, 3):
        assert published(tmp_path / str(number)) == published(first)
        pairs = files(tmp_path / str(number)).items() ^ files(first).items()
        different = {name for name, _ in pairs if not name.startswith("versions/")}
        assert different <= {MEASURED, "report/report.html"}
    assert verify(first) == []


@long
def test_processes_side_by_side_touch_no_file(tmp_path: Path) -> None:
    """Two share the shards out by --shards; of four, two race for each."""
    assert generate(tmp_path / "none") in (0, 3)
    for shares in (("0:1", "1:2"), ("0:2", "0:2", "1:2", "0:1")):
        data = tmp_path / str(len(shares))
        with ThreadPoolExecutor(len(shares)) as pool:
            ended = [run.result() for run in [pool.submit(generate, data, "--shards", one) for one in shares]]
        assert set(ended) <= {0, 3}
        assert generate(data) in (0, 3), "closes what the last of them may have left open"
        assert published(data) == published(tmp_path / "none")
        assert verify(data) == []


@long
@pytest.mark.prefect
def test_runners_of_the_real_command_touch_no_file(tmp_path: Path) -> None:
    assert generate(tmp_path / "none") in (0, 3)
    for workers in ("1", "2", "4"):
        data = tmp_path / workers
        words = ("generate", "tiny", "--out", str(data), "--runner", "threads", "--workers", workers)
        status, said = command(data, *words)
        assert status in (0, 3), said
        assert published(data) == published(tmp_path / "none")
