"""The command line as a test calls it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from flows_world import bad_candidates, load, small, spec_file

from flows import __main__ as cli
from flows import opening

SHORT = {"chef_0000": 1, "weapon_0001": 2}


def use(monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
    monkeypatch.setattr(opening, "load_factory", load(**given))


def short_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, scorers=bad_candidates(small(), SHORT))


class Called:
    """A command that was run: status, stdout, stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        capsys.readouterr()
        self.status = cli.run(arguments)
        self.out, self.err = capsys.readouterr()


def generate(capsys: pytest.CaptureFixture[str], *more: str, spec: str | None = None) -> Called:
    return Called(capsys, "generate", spec or spec_file(Path()), "--out", "data", "--runner", "none", *more)


def one_line(found: Called, *words: str) -> None:
    """Assert that a command ended with one line that says what was wrong."""
    assert found.status == 2
    lines = [line for line in found.err.splitlines() if not re.match("shard |. of . shards ", line)]
    assert len(lines) == 1, found.err
    assert lines[0].startswith("Error: ")
    assert "Traceback" not in found.err + found.out
    for word in words:
        assert word in lines[0], lines[0]
