"""What a run that is at work has saved is not cleaned away from under it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from flows_world import bad_candidates, load, no_report, opened, small
from place_world import bucket, folder
from s3_server import S3
from storage_world import ENVIRONMENT, RECIPE, candidate, plan_rows, publish, start

from flows.campaign import Listener
from generators.candidates import CandidateReport
from storage import CounterpoiseError
from storage.backend import open_backend
from storage.progress import SavedCandidates, all_progress
from storage.verify import clean, verify


class Sweeper(Listener):
    """Cleans up after every candidate, as somebody else may."""

    def __init__(self, dataset: Path) -> None:
        self.dataset, self.refused, self.seen = dataset, 0, 0

    def candidate(self, report: CandidateReport) -> None:
        before = all_progress(open_backend(self.dataset))
        with pytest.raises(CounterpoiseError, match="somebody is writing to this dataset"):
            clean(self.dataset)
        assert all_progress(open_backend(self.dataset)) == before and verify(self.dataset) == []
        self.refused, self.seen = self.refused + 1, max(self.seen, len(before))


def test_a_campaign_holds_off_who_cleans(tmp_path: Path) -> None:
    sweeper = Sweeper(tmp_path)
    factory = load(bad_candidates(small(), {"chef_0000": 1}))
    campaign = opened(tmp_path, listeners=[sweeper], factory=factory, save_after=0.0)
    with no_report():
        campaign.run_here()
        assert sweeper.refused == 7 and sweeper.seen >= 2
        assert clean(tmp_path) == [], "it has ended"
        campaign.finish()
    assert verify(tmp_path) == []


def test_a_run_that_is_killed_or_fails_holds_off_nobody(tmp_path: Path) -> None:
    place = folder(tmp_path)
    start(place.uri)
    with pytest.raises(KeyboardInterrupt), place.backend.at_work():
        with place.backend.alone() as alone:
            assert not alone
        raise KeyboardInterrupt
    child = os.fork()
    if child == 0:
        with place.backend.at_work():
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with place.backend.alone() as alone:
        assert alone
    with place.backend.at_work(), place.backend.at_work(), place.backend.staging() as staging:
        staging.stage("a.json", [b"runs do not hold off each other"])


def test_in_a_bucket_saved_candidates_stay_as_long_as_the_newest_is_young(
    s3: S3, request: pytest.FixtureRequest
) -> None:
    place = bucket(request)
    start(place.uri)
    publish(place.uri, 0)
    for index in (0, 1, 2):
        recipe = {**RECIPE, "shard": index}
        saved = SavedCandidates(place.uri, index, recipe, ENVIRONMENT)
        saved.save(candidate(plan_rows()[2 * index], 0, True), 61.0)
    names = all_progress(place.backend)
    finished = [name for name in names if name.startswith("progress/00000-")]
    old = {"method": "HEAD", "later": 3700, "times": 999}
    s3.rules({**old, "path": "progress/00000-"}, {**old, "path": "progress/00001-"})
    kept: list[str] = []
    assert clean(place.uri, kept.append) == finished, "of a finished shard nothing is wanted any more"
    assert kept == [name for name in names if name not in finished]
    s3.rules({**old, "path": "progress/"})
    assert clean(place.uri) == kept and all_progress(place.backend) == []
