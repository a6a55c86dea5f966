"""`counterpoise skew`: what it prints and writes, and that bad input is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_world import Called, one_line
from storage_world import AXES, CELLS
from stream_world import make

from flows.skew_view import number as shown
from storage.metadata import table as records
from storage.sidecar import read_sidecar

ROOT = Path(__file__).resolve().parents[1]
MODEL = ("--slug", "llava", "--weights-sha256", "cd" * 32, "--epoch", "2")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    write("given.parquet")


def write(path: str, sets: int = 40, **changes: list[str]) -> None:
    """A model that gives chef to women more seldom."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[str]] = {name: [] for name in ("set_id", "concept", "predicted", *AXES)}
    for number in range(sets):
        concept = ("chef", "science")[number % 2]
        for cell in CELLS:
            right = rng.random() < (0.4 if concept == "chef" and cell["gender"] == "woman" else 0.85)
            said = concept if right else ("science", "chef")[number % 2]
            for name, value in {
                "set_id": f"s{number}",
                "concept": concept,
                "predicted": said,
                **cell,
            }.items():
                columns[name].append(value)
    pq.write_table(pa.table({**columns, **changes}), path)


def skew(capsys: pytest.CaptureFixture[str], *more: str, given: str = "given.parquet") -> Called:
    return Called(capsys, "skew", given, "--out", "out/table.json", *more)


def test_it_prints_tables_and_writes_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = skew(capsys, "--axis", "gender", "--axis", "gender*race")
    assert (found.status, found.err) == (0, "")
    body = json.loads(Path("out/table.json").read_text())
    assert list(body["axes"]) == ["gender", "gender*race"]
    gender = body["axes"]["gender"]
    for words in (
        "Skew, target uniform: 240 answers in 40 sets, 2 concepts used, 0 dropped",
        f"MaxSkew │  {shown(gender['max_skew'])} │",
        "Cells furthest from 0",
        "flips       ",
        "worst cell  ",
        "recall      ",
        "table       out/table.json",
    ):
        assert words in found.out
    assert all(len(line) <= 100 for line in found.out.splitlines())
    assert gender["min_p"] <= 0.05 and gender["concepts_used"] == 2


def test_a_narrow_terminal_keeps_names_and_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = skew(capsys, "--axis", "gender*race")
    body = json.loads(Path("out/table.json").read_text())["axes"]["gender*race"]
    assert f"│ gender*race │ MaxSkew │  {shown(body['max_skew'])} │" in found.out


def test_every_other_column_is_an_axis(capsys: pytest.CaptureFixture[str]) -> None:
    assert skew(capsys).status == 0
    assert list(json.loads(Path("out/table.json").read_text())["axes"]) == ["gender", "race"]


def test_the_same_command_writes_the_same_bytes_and_another_seed_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    skew(capsys, "--axis", "gender")
    first = Path("out/table.json").read_bytes()
    skew(capsys, "--axis", "gender")
    assert Path("out/table.json").read_bytes() == first
    skew(capsys, "--axis", "gender", "--seed", "1")
    assert Path("out/table.json").read_bytes() != first


def test_settings_reach_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = skew(
        capsys, "--axis", "race", "--target", "pool", "--smoothing", "0", "--min-count", "100", "--shrink"
    )
    assert found.status == 0
    body = json.loads(Path("out/table.json").read_text())
    assert (body["target"], body["smoothing"], body["min_count"]) == ("pool", 0.0, 100)
    assert "shrunk" in body["axes"]["race"]["cells"][0]
    assert body["axes"]["race"]["dropped"] == {"chef": 94}


def test_a_constant_model_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    write("given.parquet", predicted=["chef"] * 240)
    found = skew(capsys, "--axis", "gender")
    assert found.status == 0
    assert found.err.startswith("Warning: Every answer is 'chef'") and len(found.err.splitlines()) == 1
    assert "lowest science 0.0%" in found.out


def test_the_sidecar_of_a_dataset(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make(tmp_path / "data", 2, 3)
    found = skew(capsys, "--dataset", "data", *MODEL)
    assert found.status == 0, found.err
    name = f"skew/llava-{'cd' * 6}-2.parquet"
    assert f"sidecar     {name}: 36 images, " in found.out
    sidecar = read_sidecar("data", name).table
    kept = records("data").filter("kept").order("key").to_arrow_table()
    assert sidecar["key"].to_pylist() == kept["key"].to_pylist()
    assert Path("data", name).with_suffix(".json").exists()
    faithful = skew(capsys, "--dataset", "data", *MODEL, "--faithful", "--shrink")
    assert faithful.status == 0
    again = read_sidecar("data", name).table
    assert np.abs(again["skew"].to_numpy()).sum() < np.abs(sidecar["skew"].to_numpy()).sum()


def test_a_dataset_alone_says_which_axes_there_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make(tmp_path / "data", 2, 3)
    write("given.parquet", file=[f"{i}.png" for i in range(240)])
    one_line(skew(capsys), "column 'file' has 240 different values", "--axis")
    assert skew(capsys, "--dataset", "data").status == 0
    write("given.parquet", race=["Purple"] * 240)
    one_line(skew(capsys, "--dataset", "data"), "row 1, column 'race' is 'Purple'", "Asian, Black, White")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--axis", "age"), ("no column 'age'",)),
        (("--target", "equal"), ("target: given 'equal', wanted uniform or pool",)),
        (("--min-count", "1000"), ("no concept was given 1000 times", "--min-count")),
        (("--smoothing", "-1"), ("smoothing: given -1.0",)),
        (("--slug", "m"), ("--dataset, --weights-sha256, --epoch: missing",)),
        (MODEL, ("--dataset: missing",)),
        (("--dataset", "nowhere"), ("nowhere holds no dataset.json",)),
        (("--faithful",), ("are for a sidecar",)),
        (("--dataset", "data", *MODEL, "--faithful", "--skew-clamp", "1"), ("wanted is one of them",)),
        (("--dataset", "data", *MODEL, "--skew-clamp", "0"), ("given 0.0, wanted a number above 0",)),
        (
            ("--dataset", "data", *MODEL, "--smoothing", "0", "--min-count", "1"),
            ("is infinite", "--smoothing"),
        ),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, more: tuple[str, ...], words: tuple[str, ...]
) -> None:
    if "data" in more:
        make(tmp_path / "data", 2, 3)
    if "0" in more and "--smoothing" in more:
        table = pq.read_table("given.parquet").to_pydict()
        said = [
            "science" if value == "woman" else "chef" if i % 2 else "science"
            for i, value in enumerate(table["gender"])
        ]
        write("given.parquet", predicted=said)
    one_line(skew(capsys, *more), *words)
    assert not Path("out/table.json").exists()


def test_bad_files_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    one_line(skew(capsys, given="none.parquet"), "none.parquet is no file")
    Path("image.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    one_line(skew(capsys, given="image.png"), "image.png")
    Path("file").write_text("")
    one_line(Called(capsys, "skew", "given.parquet", "--axis", "gender", "--out", "file/table.json"), "file")


def test_it_loads_no_torch() -> None:
    code = """
import sys
from flows.__main__ import run
assert run(["skew", "given.parquet", "--out", "table.json", "--axis", "gender"]) == 0
print(sorted(set(sys.modules) & {"torch", "diffusers", "transformers", "prefect", "matplotlib"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
