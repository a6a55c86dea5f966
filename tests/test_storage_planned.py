"""A shard holds the sets that the plan gives it: no other, and none less."""

from __future__ import annotations

from pathlib import Path

import pytest
from place_world import Place
from storage_world import changed, publish, shard_samples, start

from storage import CounterpoiseError, Sample, finish_dataset, list_shards, read_samples
from storage import shards as publishing
from storage.verify import verify


def rejected(samples: list[Sample]) -> list[Sample]:
    """The samples as candidates that the filters did not keep."""
    return [changed([one], 0, kept=False, reason="clip_text", image=None)[0] for one in samples]


def test_a_shard_with_one_of_two_planned_sets_is_refused(place: Place) -> None:
    start(place.uri)
    before = place.files()
    with pytest.raises(
        CounterpoiseError, match=r"shard 0: the plan has set 'science_0000' in this shard, and"
    ):
        publish(place.uri, 0, shard_samples(0)[:6])
    assert place.files() == before


def test_a_shard_of_another_shards_sets_is_refused(place: Place) -> None:
    start(place.uri)
    before = place.files()
    for samples in (shard_samples(2), [*shard_samples(1), *shard_samples(2)[:6]]):
        with pytest.raises(
            CounterpoiseError, match=r"shard 1: the plan has no set 'chef_0002' in this shard"
        ):
            publish(place.uri, 1, samples)
    assert place.files() == before
    publish(place.uri, 2, shard_samples(2))
    assert verify(place.uri) == []


def test_a_set_that_is_rejected_whole_is_there(tmp_path: Path) -> None:
    start(tmp_path)
    samples = shard_samples(0)
    record = publish(tmp_path, 0, [*samples[:6], *rejected(samples[12:])])
    assert record.counts["sets"] == 1 and verify(tmp_path) == []
    assert {one.set_id for one in read_samples(tmp_path, 0)} == {"chef_0000", "science_0000"}


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (
            shard_samples(1)[:6],
            "the plan has set 'science_0001' in this shard, and there is no candidate of it",
        ),
        (shard_samples(2), "the plan has no set 'chef_0002' in this shard"),
    ],
)
def test_verify_finds_what_an_earlier_version_let_through(
    tmp_path: Path, samples: list[Sample], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "sets_problem", lambda *_: None)
        publish(tmp_path, 1, samples)
    finish_dataset(tmp_path)
    (line,) = verify(tmp_path)
    assert f"00001.json is refused: {problem}; delete it with its data files and run" in line
    for path in tmp_path.glob("shards/00001*"):
        path.unlink()
    publish(tmp_path, 1)
    finish_dataset(tmp_path)
    assert verify(tmp_path) == [] and len(list_shards(tmp_path)) == 1
