"""Closing a dataset writes its card and its Croissant file, and only if something is new."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_world import Called, use
from flows_world import run_all, spec_file
from huggingface_hub import DatasetCard
from storage_world import files

from flows.closing import describe_dataset
from storage.croissant import CROISSANT
from storage.verify import verify


@pytest.fixture
def dataset(whole: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "data"))


def test_both_are_there_when_a_run_ends(dataset: Path) -> None:
    facts = json.loads((dataset / CROISSANT).read_text("utf-8"))
    assert facts["name"] == "small" and len(facts["distribution"]) == 2 + 3 * 2 + 2
    assert facts["license"].endswith("Apache-2.0.html")
    card = DatasetCard.load(dataset / "README.md")
    assert card.data.license == "apache-2.0" and "prepared" in card.text
    assert verify(dataset) == []


def test_nothing_is_rewritten_and_what_is_missing_comes_again(dataset: Path) -> None:
    before = files(dataset)
    stamps = {name: (dataset / name).stat().st_mtime_ns for name in ("README.md", CROISSANT)}
    run_all(dataset)
    assert {name: (dataset / name).stat().st_mtime_ns for name in stamps} == stamps
    (dataset / CROISSANT).unlink()
    run_all(dataset)
    assert (
        files(dataset)[CROISSANT] == before[CROISSANT] and files(dataset)["README.md"] == before["README.md"]
    )


def test_what_the_dataset_has_on_record_is_enough_to_describe_it(dataset: Path) -> None:
    before = files(dataset)
    describe_dataset(str(dataset))
    assert files(dataset) == before


def test_verdicts_written_later_are_told_by_the_card(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is empty" in (dataset / "README.md").read_text("utf-8")
    assert Called(capsys, "refilter", str(dataset), "--clip-text", "0.9", "--write").status == 0
    assert "| refilter | 0 | 6 |" in (dataset / "README.md").read_text("utf-8")
    assert verify(dataset) == []


def test_files_that_cannot_be_used_are_named_and_left_out(
    dataset: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch)
    for folder in ("skew", "verdicts"):
        (dataset / folder).mkdir()
        (dataset / folder / "mine.parquet").write_bytes(b"no Parquet")
    (dataset / "skew/toy-0123456789ab-0.parquet").write_bytes(b"PAR1")
    (dataset / "README.md").unlink()
    (dataset / "report/report.html").unlink()
    spec = spec_file(tmp_path)
    found = Called(capsys, "generate", spec, "--out", str(dataset), "--runner", "none")
    assert found.status == 0
    names = ("verdicts/mine.parquet", "skew/mine.parquet", "skew/toy-0123456789ab-0.parquet")
    warnings = [
        line for line in (found.out + found.err).splitlines() if "Warning: Left out of the card" in line
    ]
    for name in names:
        assert sum(name in line for line in warnings) == 1
    assert "toy" not in (dataset / "README.md").read_text("utf-8")
    assert "skew/toy-0123456789ab-0.parquet is damaged" in (dataset / "report/report.html").read_text("utf-8")
    lines = verify(dataset)
    assert len(lines) == 3 and all(any(name in line for line in lines) for name in names)
