"""A virtual environment for the readers whose pins hold back what the project uses; it sees torch of the project's own.

`python tests/benchmarks/reading_rivals.py` makes it under build/, once.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "reading-rivals"
RIVALS = {"mosaicml-streaming": ("streaming", "0.13.0"), "litdata": ("litdata", "0.2.76")}


def python() -> Path:
    """Return the environment's interpreter; it need not be there."""
    return PLACE / "bin" / "python"


def make() -> dict[str, str]:
    """Make the environment where it is missing; returns why a rival cannot be had, for those that cannot."""
    if not python().exists():
        venv.create(PLACE, with_pip=True)
        own = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        (PLACE / own / "project.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return {name: reason for name in RIVALS if (reason := _missing(name))}


def _missing(name: str) -> str:
    module, version = RIVALS[name]
    check = [str(python()), "-c", f"import {module}; assert {module}.__version__ == {version!r}"]
    if subprocess.run(check, capture_output=True).returncode == 0:
        return ""
    install = [str(python()), "-m", "pip", "install", "--disable-pip-version-check", f"{name}=={version}"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    checked = subprocess.run(check, capture_output=True, text=True)
    return "" if checked.returncode == 0 else checked.stderr.strip().splitlines()[-1]


if __name__ == "__main__":
    print(make() or f"ready: {python()}")
