"""Recorded logs of lmms-eval 0.7.3, copies of them that a test may spoil, and a program that stands in for it.

They were recorded with the real tasks and their code on a few dozen drawn squares, and a stand-in for a model that
answers right or wrong by a hash; colours_two_filters is a task of two filters made for that. One path is shortened.
"""

from __future__ import annotations

import json
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "data" / "lmms_eval"
BASE, AFTER = RECORDED / "base", RECORDED / "after"
TASKS = ["colours_two_filters", "mmbench_en_dev_static", "mme", "pope", "vqav2_val"]

FAKE = """#!{python}
import json, os, shutil, sys, time
from pathlib import Path
given = sys.argv[1:]
if given[0] == "-c":
    print(json.dumps({{"lmms_eval": "0.7.3", "torch": "0", "transformers": "0"}}))
    sys.exit()
assert given[:2] == ["-m", "lmms_eval"], given
rest = [one for one in given[2:] if one != "--log_samples"]
flags = dict(zip(rest[::2], rest[1::2]))
here = Path(__file__).parent
(here / "call.json").write_text(json.dumps([given, dict(os.environ)]))
print("Model Responding:  50%|xx| 6/12 [00:01<00:01]", end="\\r", flush=True)
{body}
"""
WRITES = 'shutil.copytree({logs!r}, flags["--output_path"], dirs_exist_ok=True)'
FAILS = 'print("\\x1b[31mError during evaluation: no such task. Please set `--verbosity=DEBUG` to get more.\\x1b[0m")'
HANGS = (
    "import subprocess; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', flags['--output_path']]); "
    "time.sleep(600)"
)


def program(folder: Path, body: str) -> str:
    """A stand-in for the python of an environment with lmms-eval."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    path.write_text(FAKE.format(python=sys.executable, body=body))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def copied(source: Path, folder: Path) -> Path:
    """Logs that may be spoilt."""
    shutil.copytree(source, folder)
    return folder


def results(folder: Path) -> Path:
    return next(folder.rglob("2*_results.json"))


def samples(folder: Path, task: str) -> Path:
    return next(folder.rglob(f"*_samples_{task}.jsonl"))


def changed(folder: Path, task: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Let a function change a task's rows in place."""
    path = samples(folder, task)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def altered(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let a function change the results in place."""
    body = json.loads(results(folder).read_text())
    change(body)
    results(folder).write_text(json.dumps(body))
