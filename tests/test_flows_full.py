"""The command line on a disk that is full or read-only: status 2, one line, and the same again when it is mended."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign_kills import published
from cli_world import Called, generate, one_line, use
from flows_world import run_all, spec_file
from small_disk import Disk, refuse_at, small_disk

from flows import charts
from storage import CounterpoiseError, load_dataset
from storage.verify import verify

ROOM = 8192


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prepared pictures, and charts whose drawing costs no time."""
    use(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(charts, "histogram", lambda *_: "data:image/png;base64," + "A" * 5000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", ROOM) as found:
        yield found


def test_a_disk_that_fills_up(
    disk: Disk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Room is added by and by, so that it is full in every part of the work, the report's among them."""
    run_all(tmp_path / "data")
    spec, places = spec_file(tmp_path), set()
    monkeypatch.chdir(disk.path)
    (disk.path / "filler").write_bytes(bytes(8192))
    for size in range(8, ROOM, 16):
        disk.resize(size)
        found = generate(capsys, spec=spec)
        if found.status == 0:
            break
        one_line(found, "No space left on device", "make room and run the same again")
        places |= {name for name in ("shards", "report", "README.md") if (disk.path / "data" / name).exists()}
        if (disk.path / "data/plan.parquet").exists():
            assert verify("data") == []
    assert found.status == 0 and places >= {"shards", "README.md"}
    assert load_dataset("data").root_sha256 == load_dataset(tmp_path / "data").root_sha256
    assert published(disk.path / "data") == published(tmp_path / "data")


def test_read_only_output(disk: Disk, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    spec, out = spec_file(tmp_path), str(disk.path / "data")
    with disk.read_only():
        one_line(
            Called(capsys, "generate", spec, "--out", out, "--runner", "none"), "Read-only", "permissions"
        )
        one_line(Called(capsys, "plan", spec, "--out", out), "Read-only", "permissions")
    assert list(disk.path.iterdir()) == []
    assert Called(capsys, "generate", spec, "--out", out, "--runner", "none", "--shards", "0:1").status == 0
    before = published(disk.path / "data")
    with disk.read_only():
        for words in (
            ["generate", spec, "--out", out, "--runner", "none"],
            ["report", out],
            ["refilter", out, "--clip-text", "0.9", "--write"],
            ["show", out, "--out", str(disk.path / "sheet.png")],
        ):
            one_line(Called(capsys, *words), "Read-only file system", "change its permissions")
        assert Called(capsys, "verify", out, "--clean").status == 0
        assert Called(capsys, "refilter", out, "--clip-text", "0.9").status == 0
    assert published(disk.path / "data") == before


@pytest.mark.parametrize("step", [31, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_no_room_at_any_step_of_a_run(tmp_path: Path, step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        steps = refuse_at(10**6, patch)
        run_all(tmp_path / "whole")
    call, done = 2, False
    while not done:
        dataset = tmp_path / f"data{call}"
        with pytest.MonkeyPatch.context() as patch:
            refuse_at(call, patch)
            try:
                run_all(dataset)
                done = True
            except CounterpoiseError as error:
                check_stopped_run(dataset, error)
        run_all(dataset)
        assert published(dataset) == published(tmp_path / "whole") and verify(dataset) == []
        call += step
    assert call >= len(steps) > 100


def check_stopped_run(dataset: Path, error: CounterpoiseError) -> None:
    """Nothing is half-published; a file that had its name already, but no manifest yet, is known as left over."""
    assert "\n" not in str(error) and os.strerror(errno.ENOSPC) in str(error)
    assert [name for name in dataset.rglob("*") if ".tmp-" in name.name] == []
    if (dataset / "dataset.json").exists():  # what a reader goes by, written last of what a run begins with
        known = ("left over", "is not the newest version")  # the next run takes or mends them
        assert [line for line in verify(dataset) if not any(text in line for text in known)] == []


def test_the_spill_of_a_question_finds_no_room(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage.query import open_records

    run_all(tmp_path / "data")
    monkeypatch.setattr("tempfile.tempdir", str(disk.path))
    disk.resize(256)
    with open_records(tmp_path / "data", 2, memory="60MB") as records:
        many = "(SELECT range::VARCHAR || 'long enough to be kept apart' AS a FROM range(900000))"
        with pytest.raises(CounterpoiseError, match=r"does not fit .*set TMPDIR"):
            records.ask(f"SELECT count(*) FROM {many} x JOIN {many} y USING (a)")
