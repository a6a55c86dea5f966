"""`counterpoise evaluate --suite`: what it calls, prints, writes and refuses; with a stand-in for lmms-eval."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Called, one_line
from suite_world import AFTER, BASE, FAILS, HANGS, TASKS, WRITES, copied, program, samples
from tiny_mllm import save

from debias.suites.lmms_eval import REQUIREMENTS, VERSION, asked, backend_of, command, reason, tasks_of
from flows import children
from storage.errors import CounterpoiseError

ROOT = Path(__file__).resolve().parents[1]
SUITE = "lmms-eval:vqav2_val,mmbench_en_dev_static,mme,pope,colours_two_filters"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("COUNTERPOISE_SUITE_PYTHON", raising=False)


@pytest.fixture(
    scope="module", params=[("llava", "llava_hf"), ("qwen2", "qwen2_vl"), ("qwen2_5", "qwen2_5_vl")]
)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    maker, name = request.param
    return str(save(maker, tmp_path_factory.mktemp("model") / maker)), name


def writes(logs: Path) -> str:
    return program(Path("fake"), WRITES.format(logs=str(logs)))


def read(capsys: pytest.CaptureFixture[str], logs: Path | str, out: str, *more: str) -> Called:
    return Called(capsys, "evaluate", "mine", "--suite-logs", str(logs), "--out", out, *more)


def test_a_suite_is_asked_and_compared(
    capsys: pytest.CaptureFixture[str], model: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, name = model
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    call = ("evaluate", folder, "--suite", SUITE, "--suite-python", writes(BASE))
    first = Called(capsys, *call, "--out", "base", "--limit", "40")
    assert (first.status, first.err) == (0, ""), first.err
    given, variables = json.loads(Path("fake/call.json").read_text())
    assert given == [
        "-m", "lmms_eval", "--model", name, "--model_args", f"pretrained={Path(folder).resolve()},device_map=cpu",
        "--tasks", SUITE.partition(":")[2], "--batch_size", "1", "--device", "cpu", "--limit", "40", "--log_samples",
        "--output_path", str(Path("base/suite.part").resolve()),
    ]  # fmt: skip
    assert "HF_TOKEN" not in variables and variables["HUGGING_FACE_HUB_TOKEN"] == "hf_secret"
    assert "PYTHONPATH" not in variables
    assert re.search(r"pope +│ pope_accuracy +│ +30 │ 0.8667 │ +0.8667", first.out), first.out
    body = json.loads(Path("base/suite.json").read_text())
    assert (body["model"], body["verdict"], list(body["tasks"])) == (folder, None, TASKS)
    assert body["run"]["lmms_eval"] == "0.7.3"
    writes(AFTER)
    second = Called(capsys, *call, "--out", "after", "--baseline", "base")
    assert second.status == 3
    assert second.err == (
        "capability: colours_two_filters is inferior, mmbench_en_dev_static is inconclusive, mme is inconclusive, pope is "
        "inferior, vqav2_val is inconclusive, by a margin of 0.01.\n"
    )
    row = r"pope +│ 0.867 │ -0.2333 │ -0.4093 to -0.0933 │ 0.016 │ +inferior"
    assert re.search(row, second.out) and max(map(len, second.out.splitlines())) <= 80, second.out
    assert sorted(entry.name for entry in Path("after").iterdir()) == ["suite", "suite.json", "suite.log"]
    again = Called(capsys, *call, "--out", "after")
    one_line(again, "after/suite: logs of another run are there", "--suite-logs after/suite")


def test_logs_from_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Kept beside what is said of them, the same to the byte when read again, and a baseline from then on."""
    assert read(capsys, BASE, "base", "--suite", "lmms-eval:pope,mme").status == 0
    assert sorted(path.name for path in Path("base/suite").rglob("*.jsonl")) == sorted(
        samples(BASE, task).name for task in ("mme", "pope")
    )
    found = read(capsys, AFTER, "after", "--baseline", "base", "--suite", "lmms-eval:pope", "--margin", "0.5")
    assert (found.status, found.err) == (0, "") and "non-inferior" in found.out
    before = Path("after/suite.json").read_bytes()
    again = read(
        capsys,
        "after/suite",
        "after",
        "--baseline",
        str(BASE),
        "--suite",
        "lmms-eval:pope",
        "--margin",
        "0.5",
    )
    assert again.status == 0 and Path("after/suite.json").read_bytes() == before
    one_line(read(capsys, BASE, "after"), "after/suite: logs of another run are there")
    one_line(
        read(capsys, AFTER, "other", "--baseline", "base"),
        "task colours_two_filters: it is not in the baseline",
    )
    one_line(read(capsys, "after/suite", "after", "--baseline", "after"), "--baseline", "is this run itself")


def test_a_metric_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = (
        "--metric",
        "mme=mme_cognition_score",
        "--metric",
        "colours_two_filters=exact_match,flexible-extract",
    )
    assert read(capsys, AFTER, "after", *chosen).status == 0
    tasks = json.loads(Path("after/suite.json").read_text())["tasks"]
    assert tasks["mme"]["metric"] == "mme_cognition_score,none" and tasks["mme"]["scored"] == 6
    assert tasks["colours_two_filters"]["mean"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "POOL: missing; name a pool of pictures, or benchmarks"),
        (("--baseline", "x"), "--baseline: it is for benchmarks"),
        (("--limit", "3"), "--limit: it is for benchmarks"),
        (("--metric", "a=b"), "--metric: it is for benchmarks"),
        (("--suite", "vqav2_val"), "--suite: given 'vqav2_val', wanted lmms-eval:TASK"),
        (("--suite", "vlmeval:MME"), "wanted lmms-eval:TASK"),
        (("--suite", "lmms-eval:"), "wanted lmms-eval:TASK"),
        (("--suite", "lmms-eval:a,,b"), "wanted lmms-eval:TASK"),
        (("--suite", "lmms-eval:--x"), "wanted lmms-eval:TASK"),
        (("--suite", "lmms-eval:a,a"), "a task stands twice"),
        (("--suite", "lmms-eval:a", "--margin", "0"), "--margin: given 0"),
        (("--suite", "lmms-eval:a", "--margin", "nan"), "--margin: given nan"),
        (("--suite", "lmms-eval:a", "--limit", "0"), "--limit: given 0"),
        (("--suite", "lmms-eval:a", "--metric", "f1"), "--metric: given 'f1', wanted TASK=METRIC"),
        (("--suite", "lmms-eval:a", "--baseline", "nowhere"), "nowhere: not there"),
        (("--suite-logs", str(BASE), "--limit", "3"), "--limit: it is for a run"),
        (("--suite-logs", "nowhere"), "nowhere: not there"),
        (("--suite-logs", "."), "no DATE_results.json in it"),
        (("--suite", "lmms-eval:a", "--suite-model", "llava_hf,x"), "--suite-model: given 'llava_hf,x'"),
        (
            ("--suite", "lmms-eval:a", "--suite-model", "a", "--suite-python", "nowhere"),
            "--suite-python: nowhere is no",
        ),
        (("--suite", "lmms-eval:a"), "model '.': neither a folder"),
    ],
)
def test_bad_calls(capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], words: str) -> None:
    one_line(Called(capsys, "evaluate", ".", "--out", "e", *flags), words)


def test_a_run_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """lmms-eval ends with status 0 then, too; the same command may be tried again."""
    call = (
        "evaluate",
        "m",
        "--suite",
        "lmms-eval:pope",
        "--suite-model",
        "llava_hf",
        "--out",
        "e",
        "--suite-python",
    )
    for _ in range(2):
        one_line(
            Called(capsys, *call, program(Path("f"), FAILS)),
            "status 0 and wrote no results: no such task; see e/suite.log",
        )
    spoilt = copied(BASE, Path("spoilt"))
    samples(spoilt, "pope").unlink()
    one_line(Called(capsys, *call, writes(spoilt)), "_samples_pope.jsonl: missing beside its results")
    Path("none").write_text("#!/bin/sh\nexit 1\n")
    Path("none").chmod(0o755)
    call = (*call[:-2], "e2", "--suite-python")
    one_line(Called(capsys, *call, "./none"), "no lmms-eval in its environment")


def test_names_that_lmms_eval_would_cut() -> None:
    with pytest.raises(CounterpoiseError, match="a path with ',' in it"):
        command("python", "m", backend_of("x"), ["a"], Path("a,b"), "cpu", None)
    with pytest.raises(CounterpoiseError, match=r"a path with '\{' in it"):
        command("python", "m{", backend_of("x"), ["a"], Path("a"), "cpu", None)
    made = command(
        "python", "org/m", backend_of("x,max_pixels=9,device_map=auto"), ["a"], Path("a"), "cuda", None
    )
    assert "pretrained=org/m,device_map=auto,max_pixels=9" in made and "--limit" not in made
    assert tasks_of("lmms-eval:mmbench_*, gqa") == ["mmbench_*", "gqa"]


def test_what_a_log_says() -> None:
    bar = "Model Responding:   8%|▊         | 1/12 [00:00<00:01,  9.16it/s]\rModel Responding:  25%|██▌  | 3/12 [00:00]"
    assert asked(bar) == (3, 12) and asked("nothing") is None
    assert reason("a\nImportError: no module\n\n") == "ImportError: no module" and "empty" in reason("")


def test_a_child_ends_with_its_block(tmp_path: Path) -> None:
    """With what it started, and also if it does not want to."""
    stubborn = (
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(p.pid, flush=True)\ntime.sleep(600)"
    )
    patience, children._PATIENCE = children._PATIENCE, 0.5
    try:
        with (
            (tmp_path / "log").open("wb") as log,
            pytest.raises(KeyboardInterrupt),
            children.child([sys.executable, "-c", stubborn], log, os.environ) as process,
        ):
            while not (tmp_path / "log").read_bytes().endswith(b"\n"):
                assert process.poll() is None
                time.sleep(0.05)
            raise KeyboardInterrupt
    finally:
        children._PATIENCE = patience
    assert process.returncode == -signal.SIGKILL
    assert ended(int((tmp_path / "log").read_text()))


def ended(number: int) -> bool:
    """Whether a process is gone, or waits only to be collected."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def working_on(folder: Path) -> Iterator[int]:
    """Processes whose command names a folder."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words:
            yield int(entry.parent.name)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="counts processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_run_that_is_stopped(tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "out"
    call = [
        sys.executable, "-m", "flows", "evaluate", "m", "--suite", "lmms-eval:pope", "--suite-model", "llava_hf",
        "--suite-python", program(tmp_path / "fake", HANGS), "--out", str(out),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and len(list(working_on(out))) < 3:
            assert parent.poll() is None
            time.sleep(0.2)
        assert len(list(working_on(out))) == 3  # the command, lmms-eval, what that started
        parent.send_signal(how)
        _, said = parent.communicate(timeout=60)
        assert (parent.returncode, said) == (130, "Stopped.\n")
        assert list(working_on(out)) == [] and not (out / "suite").exists()
    finally:
        for process in working_on(out):
            os.kill(process, signal.SIGKILL)
        parent.wait()


@pytest.mark.slow
def test_an_environment_is_made_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From wheels that lie here, whose lmms-eval writes recorded logs; a failed one leaves nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(Path("wheels").absolute()))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    Path("wheels").mkdir()
    home = Path("cache/counterpoise") / f"lmms-eval-{VERSION}"
    call = ("evaluate", "m", "--suite", "lmms-eval:pope", "--suite-model", "llava_hf", "--out")
    one_line(Called(capsys, *call, "a"), "lmms-eval 0.7.3 could not be installed", "No matching distribution")
    assert [entry.name for entry in home.parent.iterdir()] == [f"lmms-eval-{VERSION}.log"]
    main = f"import shutil, sys\nshutil.copytree({str(BASE)!r}, sys.argv[-1], dirs_exist_ok=True)\n"
    wheel("lmms_eval", VERSION, {"lmms_eval/__init__.py": "", "lmms_eval/__main__.py": main})
    for name, version in (
        ("decord", "0.6.0"),
        ("eva-decord", "1"),
        ("torch", "2"),
        ("transformers", "5.23.0"),
    ):
        wheel(name.replace("-", "_"), version, {})
    assert any("decord==0.6.0" in one for one in REQUIREMENTS)
    found = Called(capsys, *call, "a")
    assert (found.status, found.err) == (0, ""), found.err
    made = home.stat().st_ino
    assert Called(capsys, *call, "b").status == 0 and home.stat().st_ino == made
    assert sorted(entry.name for entry in home.parent.iterdir()) == [home.name, f"{home.name}.log"]


def wheel(name: str, version: str, files: dict[str, str]) -> None:
    info = f"{name}-{version}.dist-info"
    needs = "Requires-Dist: torch\n" if name == "lmms_eval" else ""
    with zipfile.ZipFile(f"wheels/{name}-{version}-py3-none-any.whl", "w") as made:
        for path, text in files.items():
            made.writestr(path, text)
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", "")
