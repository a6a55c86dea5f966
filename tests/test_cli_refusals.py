"""Bad input on the command line: one clear line, its status, nothing lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from cli_world import Called, generate, one_line, use
from flows_world import Interrupting, load, spec_file

from flows import opening
from storage import list_shards, load_dataset

ROOT = Path(__file__).resolve().parents[1]
REAL_LOADER = opening.load_factory


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prepared parts instead of models, a folder of its own, a terminal of known width."""
    monkeypatch.setattr(opening, "load_factory", load())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def test_an_unknown_key_names_file_field_and_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    found = generate(capsys, spec=spec_file(Path(), sampelr={"steps": 5}))
    one_line(found, "small.yaml", "sampelr", "unknown key", "did you mean 'sampler'?")
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes": {"gender": ["woman"], "race": ["White", "Black"]}}, ["axes.gender", "at least two"]),
        ({"axes": {"gender": ["woman", "woman"], "race": ["White", "Black"]}}, ["axes.gender"]),
        ({"edit": {"kind": "replace"}}, ["edit.kind", "Middle Eastern", "number of words"]),
        ({"sets_per_concept": 0}, ["sets_per_concept", "given 0", "1 or more"]),
    ],
)
def test_bad_values_name_their_field(
    capsys: pytest.CaptureFixture[str], changes: Any, words: list[str]
) -> None:
    one_line(generate(capsys, spec=spec_file(Path(), **changes)), "small.yaml", *words)


def test_a_missing_spec(capsys: pytest.CaptureFixture[str]) -> None:
    one_line(generate(capsys, spec="tinny"), "tinny: no such file", "did you mean 'tiny'?")


def test_another_specs_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    generate(capsys)
    before = load_dataset("data")
    found = generate(capsys, spec=spec_file(Path(), seed=6))
    one_line(found, "data/dataset.json", "spec.seed is 5 there and 6 now", "another folder")
    assert load_dataset("data") == before


def test_a_missing_model(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_factory", REAL_LOADER)
    spec = spec_file(Path(), model="./no/such/model", scorers={})
    one_line(generate(capsys, spec=spec), "model './no/such/model'", "no such folder")
    assert not Path("data").exists()


def test_unsafe_weights(capsys: pytest.CaptureFixture[str]) -> None:
    spec = spec_file(Path(), model="./some/model")
    one_line(generate(capsys, spec=spec), "scorers.nsfw", "wanted a scorer")
    spec = spec_file(Path(), model="./some/model", concepts=["high_school"])
    one_line(
        generate(capsys, "--unsafe-no-filter", spec=spec), "never taken for the school concepts high_school"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runner", "ray"], ["--runner: given 'ray'", "not available yet"]),
        (["--runner", "slurm"], ["--runner: given 'slurm', wanted threads or none"]),
        (["--workers", "2"], ["--workers: given 2, wanted 1 with --runner none", "--shards"]),
        (["--workers", "0"], ["--workers: given 0"]),
        (["--workers", "two"], ["--workers", "integer"]),
        (["--shards", "3:9"], ["--shards: given '3:9'"]),
        (["--nonsense"], ["--nonsense"]),
    ],
)
def test_bad_options(capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    one_line(generate(capsys, *arguments), *words)
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], ["bogus", "--help"]),
        (["generate"], ["SPEC"]),
        (["plan", "tiny"], ["--out"]),
        (["verify", "nowhere"], ["nowhere", "dataset.json"]),
        (["reconcile", "nowhere"], ["nowhere", "dataset.json"]),
        (["report", "nowhere"], ["nowhere", "dataset.json"]),
        (["show", "nowhere"], ["nowhere", "dataset.json"]),
        (["refilter", "nowhere"], ["nowhere", "dataset.json"]),
        (["show", "nowhere", "--out", "a.jpg"], ["--out: given 'a.jpg'", ".png"]),
        (["show", "nowhere", "--size", "3"], ["--size"]),
        (["verify", "gs://bucket/data"], ["gs://bucket/data"]),
    ],
)
def test_bad_commands(capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    one_line(Called(capsys, *arguments), *words)


def test_a_file_where_the_dataset_should_be(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").write_text("mine")
    one_line(generate(capsys), "data")
    assert Path("data").read_text() == "mine"


def test_a_full_disk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    generate(capsys, "--shards", "0:1")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        one_line(generate(capsys), "the disk is full", "run the same again")
    assert [record.index for record in list_shards("data")] == [0]
    assert generate(capsys).status == 0


def test_an_error_of_the_system(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, engine=Interrupting(1, OSError))
    one_line(generate(capsys))


def test_ctrl_c_then_the_same_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, engine=Interrupting(4))
    found = generate(capsys)
    assert found.status == 130
    assert found.err.splitlines()[-1] == "Stopped. What is finished stays; the same command continues."
    use(monkeypatch)
    assert generate(capsys).status == 0
    undisturbed = Called(capsys, "generate", "small.yaml", "--out", "other", "--runner", "none")
    assert undisturbed.status == 0
    assert load_dataset("data").root_sha256 == load_dataset("other").root_sha256 is not None
