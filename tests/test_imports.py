"""The four packages: every module imports, lies in this repository, and the faces stay light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "generators", "debias", "storage")
HEAVY = ("torch", "diffusers", "transformers", "open_clip", "prefect", "duckdb", "matplotlib")

EVERY = """
import importlib, json, pkgutil, traceback
failed = {}
def note(name): failed[name] = traceback.format_exc(limit=-2)
names = []
for package in %r:
    module = importlib.import_module(package)
    found = pkgutil.walk_packages(module.__path__, package + ".", onerror=note)
    names += [package, *(entry.name for entry in found)]
for name in names:
    try:
        importlib.import_module(name)
    except BaseException:
        note(name)
print(json.dumps({"names": names, "failed": failed}))
"""


def run(code: str) -> str:
    """What a fresh interpreter prints last."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


def test_every_module_imports() -> None:
    found = json.loads(run(EVERY % (PACKAGES,)))
    assert found["failed"] == {}
    assert {"flows.settings", "generators.plan", "storage.errors", "debias"} <= set(found["names"])


def test_the_packages_are_those_of_this_repository() -> None:
    for package in PACKAGES:
        place = run(f"import {package}; print({package}.__file__)")
        assert Path(place).resolve() == ROOT / package / "__init__.py"


@pytest.mark.parametrize("package", PACKAGES)
def test_faces_are_light(package: str) -> None:
    code = f"import sys, {package}; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    assert run(code) == "[]"


@pytest.mark.parametrize("module", ["generators.concepts", "generators.plan", "flows.settings"])
def test_words_plans_and_settings_load_no_model(module: str) -> None:
    assert run(f"import sys, {module}; print(sorted(set(sys.modules) & set({HEAVY!r})))") == "[]"


def test_nothing_shadows_a_dependency() -> None:
    """A package called docker or a mirrored test folder would hide what Prefect and the tests import."""
    assert not (ROOT / "docker" / "__init__.py").exists()
    assert [str(path) for path in (ROOT / "tests").rglob("__init__.py")] == []
