"""The command line: what it prints, how it ends, and that bad input is one line and never a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cli_world import Called, generate, one_line, short_scores, use
from flows_world import Interrupting, load, spec_file
from PIL import Image

from flows import __main__ as cli
from flows import opening
from storage import CounterpoiseError, list_shards, load_dataset

ROOT = Path(__file__).resolve().parents[1]
REAL_LOADER = opening.load_factory
COMMANDS = [
    "demo",
    "plan",
    "generate",
    "verify",
    "reconcile",
    "show",
    "refilter",
    "report",
    "export",
    "skew",
    "train",
    "evaluate",
    "version",
]


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prepared parts instead of models, a folder of its own, a terminal of known width."""
    monkeypatch.setattr(opening, "load_factory", load())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def test_help_names_the_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    found = Called(capsys, "--help")
    listed = re.findall(r"^  ([a-z-]+)  ", found.out.split("Commands:")[1], re.MULTILINE)
    assert listed == COMMANDS
    assert found.status == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    found = Called(capsys, command, "--help")
    assert found.status == 0
    assert found.out.startswith(f"Usage: counterpoise {command}")
    assert "ray" not in found.out


def test_help_verify_and_show_load_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(capsys).status == 0
    code = """
import sys
from flows.__main__ import run
assert [run([name, "data"]) for name in ("verify", "show")] == [0, 0]
assert run(["--help"]) == 0
print(sorted(set(sys.modules) & {"torch", "diffusers", "transformers", "open_clip", "prefect", "matplotlib"}))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_generate_then_again(capsys: pytest.CaptureFixture[str]) -> None:
    first = generate(capsys)
    assert first.status == 0
    assert "made     3 shards, 24 images in" in first.out
    assert "6 of 6 sets" in first.out
    assert "shard 00002 done (3 of 3): 2 sets kept of 2 tries" in first.err
    again = generate(capsys)
    assert again.status == 0
    assert "3 of 3 shards are there already and are skipped: nothing to make." in again.err
    assert "made     0 shards, nothing to make" in again.out


def test_ranges_continue_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(capsys, "--shards", "0:1").status == 0
    rest = generate(capsys)
    assert "1 of 3 shards are there already and are skipped: 2 to make." in rest.err
    assert load_dataset("data").missing == []


def test_status_3_names_the_concepts_each_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_scores(monkeypatch)
    for _ in range(2):
        found = generate(capsys)
        assert found.status == 3
        assert found.err.splitlines()[-1] == "Short of the spec, in every cell alike: weapon (1 of 2 sets)."


def test_verify_says_what_is_not_there_yet(capsys: pytest.CaptureFixture[str]) -> None:
    generate(capsys, "--shards", "0:1")
    found = Called(capsys, "verify", "data")
    assert found.status == 0
    assert found.out.splitlines() == [
        "data is sound.",
        "2 planned shards are not there yet; `counterpoise generate` with its spec makes them.",
    ]


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    found, asked = Called(capsys), Called(capsys, "--help")
    assert (found.status, found.out, found.err) == (0, asked.out, "") and "Usage: counterpoise" in found.out


def test_verify_tells_sound_from_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    generate(capsys)
    assert (Called(capsys, "verify", "data").status, Called(capsys, "verify", "data").out) == (
        0,
        "data is sound.\n",
    )
    tar = next(Path("data/shards").glob("00001-*.tar"))
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    found = Called(capsys, "verify", "data")
    assert found.status == 1
    assert [line for line in found.out.splitlines() if tar.name in line] == found.out.splitlines() != []


def test_verify_cleans_what_a_killed_run_left(capsys: pytest.CaptureFixture[str]) -> None:
    generate(capsys)
    left = Path("data/shards/00001.tar.tmp-0123456789abcdef")
    left.write_bytes(b"half")
    found = Called(capsys, "verify", "data")
    assert (found.status, left.exists()) == (1, True)
    assert "--clean" in found.out
    cleaned = Called(capsys, "verify", "data", "--clean")
    assert (cleaned.status, left.exists()) == (0, False)
    assert f"removed shards/{left.name}" in cleaned.out


def test_plan_writes_the_plan_and_generates_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    found = Called(capsys, "plan", spec_file(Path()), "--out", "data")
    assert found.status == 0
    assert "sets    6 of 4 members, 3 concepts" in found.out
    assert "images  24 to keep, at most 48 to generate" in found.out
    assert "shards  3, 3 of them to make" in found.out
    assert "cost    unknown" in found.out
    assert pq.read_table("data/plan.parquet").num_rows == 6
    assert list_shards("data") == []
    assert generate(capsys).status == 0, "what plan wrote is what generate wants"


def test_the_cost_is_measured_when_asked_or_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    spec = spec_file(Path())
    assert re.search(
        r"cost    .+ s an image, measured on one set: 0\.\d s to 0\.\d s on one worker",
        Called(capsys, "plan", spec, "--out", "data", "--calibrate").out,
    )
    assert list_shards("data") == []
    generate(capsys)
    found = Called(capsys, "plan", spec, "--out", "data")
    assert "measured on 24 images of this dataset" in found.out


def size_of(path: str) -> tuple[int, int]:
    """Size of a PNG."""
    with Image.open(path, formats=["PNG"]) as image:
        return image.size


def test_show_draws_the_first_sets_or_those_named(capsys: pytest.CaptureFixture[str]) -> None:
    generate(capsys)
    found = Called(capsys, "show", "data")
    assert (found.status, found.out) == (0, "contact_sheet.png\n")
    assert (
        Called(capsys, "show", "data", "--set", "chef_0001", "--out", "some/one.png", "--size", "100").status
        == 0
    )
    assert size_of("contact_sheet.png")[1] > 6 * 64
    width, height = size_of("some/one.png")
    assert width > 400
    assert 100 < height < 200
    one_line(Called(capsys, "show", "data", "--set", "chef_0002"), "chef_0002", "did you mean")


def test_refilter_prints_then_and_now(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_scores(monkeypatch)
    generate(capsys)
    found = Called(capsys, "refilter", "data", "--clip-text", "0.05", "--faces", "off")
    assert found.status == 0
    assert "clip_text: 0.2 -> 0.05" in found.out
    assert "faces: 1 -> no limit" in found.out
    assert re.search(r"weapon\D+2\D+1\D+1\D+1\D", found.out)
    assert "1 set has a rejected candidate that would be kept now: weapon_0001." in found.out
    assert not Path("data/verdicts").exists()
    written = Called(capsys, "refilter", "data", "--clip-base", "0.95", "--write")
    assert written.out.splitlines()[-1] == "data/verdicts/refilter.parquet"
    assert set(pq.read_table("data/verdicts/refilter.parquet")["verdict"].to_pylist()) == {"reject"}
    one_line(Called(capsys, "refilter", "data", "--nsfw", "low"), "--nsfw: given 'low'")


def test_report_writes_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    generate(capsys)
    Path("data/report/report.html").unlink()
    found = Called(capsys, "report", "data")
    assert (found.status, found.out) == (0, "data/report/report.html\n")
    assert Path("data/report/report.html").stat().st_size > 10_000


def test_the_demo_ends_with_table_report_and_sheet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Called(capsys, "demo", "--out", "shown", "--runner", "none")
    assert found.status == 0
    assert re.search(r"chef +│ +1 / 1 │ +1 │ +24", found.out)
    assert re.search(r"total.+18 / 18 │ +18 │ +432", found.out)
    assert "432 images generated in" in found.out
    assert size_of("shown/report/contact_sheet.png")[0] > 24 * 64
    assert "With and without prompt-to-prompt" in Path("shown/report/report.html").read_text()
    use(monkeypatch, engine=Interrupting(1, AssertionError))
    again = Called(capsys, "demo", "--out", "shown", "--runner", "none")
    assert again.status == 0, "nothing is made and nothing is compared again"
    assert "18 / 18" in again.out


def test_version_and_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert Called(capsys, "version").out.startswith("counterpoise")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "flows", "version"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, Called(capsys, "version").out)


def test_main_exits_with_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["counterpoise", "bogus"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_errors_of_several_lines_become_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, engine=Interrupting(1, lambda: CounterpoiseError("first\nsecond")))
    one_line(generate(capsys), "first second")
