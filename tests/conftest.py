"""What all tests share: steady examples of hypothesis, and places and datasets for those that ask for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from place_world import Place, bucket, folder
from s3_server import S3, environment, running

# Processes side by side share the cores: one thread each, also in the processes that they start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a clock or a dice: the same examples on every machine, however loaded it is.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def s3_store() -> Iterator[S3]:
    """A store on the loopback, in a process of its own; clients from before, which do not know it, are forgotten."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    with running() as store:
        yield store


@pytest.fixture
def s3(s3_store: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The store, found by the usual variables, which does as it should until told otherwise."""
    for name, value in environment(s3_store.port).items():
        monkeypatch.setenv(name, value)
    s3_store.rules()
    yield s3_store
    s3_store.rules()


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each place that a dataset can lie in."""
    return folder(tmp_path) if request.param == "folder" else bucket(request)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that an undisturbed run of the small spec makes in a folder; only to be read, or copied."""
    from flows_world import run_all

    dataset = tmp_path_factory.mktemp("whole") / "data"
    run_all(dataset)
    return dataset
