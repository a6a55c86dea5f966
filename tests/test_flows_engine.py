"""The real engine under a campaign: its shards do not depend on how many threads make them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flows_world import SHARDS, opened, small
from tiny_sdxl import save_tiny

from flows.opening import load_factory
from generators.spec import Spec
from storage import read_samples
from storage.verify import verify

NO_SCORERS = {"clip": None, "segmenter": None, "nsfw": None, "faces": None}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    folder = save_tiny(tmp_path_factory.mktemp("model"))
    return small(model=str(folder), scorers=NO_SCORERS, sampler={"steps": 3, "guidance": 3.0})


def make(dataset: Path, spec: Spec, workers: int) -> str:
    campaign = opened(dataset, spec, factory=load_factory, workers=workers, unsafe_no_filter=True)
    campaign.start()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(campaign.make_shard, campaign.todo))
    assert verify(dataset) == []
    return str(campaign.finish().root_sha256)


def test_bytes_do_not_depend_on_the_workers(spec: Spec, tmp_path: Path) -> None:
    assert make(tmp_path / "one", spec, 1) == make(tmp_path / "two", spec, 2)
    samples = [sample for index in range(SHARDS) for sample in read_samples(tmp_path / "one", index)]
    assert len({sample.image for sample in samples}) == len(samples), "no two pictures are the same"
    assert {score for sample in samples for score in sample.scores.values()} == {None}, "nothing was scored"
