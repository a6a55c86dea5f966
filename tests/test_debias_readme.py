"""The worked example of debias/README.md runs as it stands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from cli_world import Called

TEXT = (Path(__file__).resolve().parents[1] / "debias" / "README.md").read_text("utf-8")


def test_the_example_of_skew_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    section = TEXT.partition("## Skew")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    command = next(line for line in TEXT.splitlines() if line.startswith("counterpoise skew"))
    assert len(blocks) == 2
    exec(blocks[0], {})
    found = Called(capsys, *shlex.split(command)[1:])
    assert found.status == 0, found.err
    low = json.loads(Path("table.json").read_text())["axes"]["gender"]["min_skew"]
    exec(blocks[1], {})
    printed = capsys.readouterr().out
    assert f"MinSkew {low:.2f}, floor" in printed
    assert re.search(r"science  woman +\d+  Skew -0\.\d\d  \[-0\.\d\d, -0\.\d\d\]", printed)
