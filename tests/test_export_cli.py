"""`counterpoise export` as it is typed: what it prints, what it refuses, in one line each."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_world import Called, one_line
from export_world import SKEW, exported, judge, kept, make, sidecar
from rich.console import Console

from flows.progress import counting


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make(tmp_path / "data")


def test_every_layout_is_written_and_said(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for to in ("hf", "chat", "energon"):
        found = Called(capsys, "export", "data", "--to", to, "--out", f"out/{to}")
        assert (found.status, found.err) == (0, "")
        assert found.out == f"images    24 train, 6 validation, 6 test\nexport    out/{to}\n"
        assert (world.parent / "out" / to / "export.json").is_file()
        again = Called(capsys, "export", "data", "--to", to, "--out", f"out/{to}")
        assert again.status == 0 and again.out.endswith(f"export    out/{to} is there already\n")


def test_what_is_left_out_is_said(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge(world, "ann", chef_0000="reject")
    found = Called(capsys, "export", "data", "--to", "hf", "--out", "out")
    assert "left out  1 kept sets that verdicts reject" in found.out


def test_flags_of_chat_reach_the_items(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar(world, dict.fromkeys(kept(), -4.0))
    flags = ("--question", "Who?", "--caption-share", "0", "--seed", "7", "--resample", SKEW, "--tau2", "2")
    assert Called(capsys, "export", "data", "--to", "chat", "--out", "out", *flags).status == 0
    lines = (world.parent / "out" / "train.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 24 * 3 and all('"<image>Who?\\nA. ' in line for line in lines)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--to", "zip"), ("--to", "'zip'", "hf, chat, energon")),
        (("--to", "hf", "--seed", "1"), ("--seed", "--to chat")),
        (("--to", "energon", "--question", "Who?"), ("--question", "--to chat")),
        (("--to", "chat", "--caption-share", "1.5"), ("--caption-share", "0 to 1")),
        (("--to", "chat", "--tau1", "0"), ("--tau1", "above 0")),
        (("--to", "chat", "--tau2", "2"), ("--tau2", "--resample")),
        (("--to", "chat", "--epoch", "1"), ("--epoch", "--resample")),
        (("--to", "chat", "--question", "{options}{options}"), ("--question", "at most once")),
        (("--to", "chat", "--question", "<image> Who?"), ("--question", "without <image>")),
        (("--to", "chat", "--resample", "skew.parquet"), ("skew.parquet", "inside the dataset")),
        (
            ("--to", "chat", "--resample", "skew/a-0123456789ab-0.parquet"),
            ("skew/a-0123456789ab-0.parquet", "missing"),
        ),
        (("--to", "chat", "--seed", "x"), ("seed",)),
    ],
)
def test_flags_that_do_not_fit_are_one_line(
    world: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    one_line(Called(capsys, "export", "data", "--out", "out", *flags), *words)
    assert not (world.parent / "out").exists()


def test_no_dataset_and_no_room_are_one_line(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_line(
        Called(capsys, "export", "nothing", "--to", "hf", "--out", "out"), "nothing holds no dataset.json"
    )
    one_line(Called(capsys, "export", "data", "--to", "hf", "--out", "data"), "inside the dataset")


@pytest.mark.parametrize(("to", "rows"), [("hf", 36), pytest.param("chat", 36, marks=pytest.mark.slow)])
def test_the_cards_reading_lines_run_as_they_stand(world: Path, to: str, rows: int) -> None:
    exported(world, to, "out")
    (code,) = re.findall(r"```python\n(.*?)```", Path("out/README.md").read_text("utf-8"), re.DOTALL)
    check = f"assert sum(map(len, rows.values())) == {rows}, rows\n"
    offline = {"HF_HOME": str(world.parent / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code + check]
    run = subprocess.run(command, cwd="out", env={**os.environ, **offline}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_help_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "export" in Called(capsys, "--help").out
    told = Called(capsys, "export", "--help").out
    assert all(word in told for word in ("--to", "--out", "--resample", "--question", "hf|chat|energon"))


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_counts_images_on_a_terminal_alone(terminal: bool) -> None:
    told = io.StringIO()
    console = Console(file=told, force_terminal=terminal, width=80)
    with counting(console, "exporting", 2) as advance:
        advance()
        advance()
    assert ("exporting" in told.getvalue() and "2/2" in told.getvalue()) == terminal
    assert terminal or told.getvalue().strip() == ""
