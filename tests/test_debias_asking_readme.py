"""What debias/README.md says about asking a model runs as it stands, on a tiny model and dataset of the names it uses."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from storage_world import HEADER, publish
from stream_world import rows, samples
from tiny_mllm import save

from storage import create_dataset, finish_dataset

TEXT = (Path(__file__).resolve().parents[1] / "debias" / "README.md").read_text("utf-8")


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save("llava", Path("llava-hf/llava-1.5-7b-hf"))
    plan = [{**row, "concept_group": "work"} for row in rows(1, 6)]
    create_dataset("data/cmsc", HEADER, plan)
    publish(Path("data/cmsc"), 0, samples(plan, 0))
    finish_dataset("data/cmsc")
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (asking,) = [text for text in section if text.startswith("Asking a model")]
    blocks = re.findall(r"```python\n(.*?)```", asking, re.DOTALL)
    assert len(blocks) == 2
    known: dict[str, object] = {}
    exec(blocks[0], known)
    written = pq.read_table("out/predictions.parquet")
    assert known["unanswered"] == 0 and len(written) == 6
    assert set(written["predicted"].to_pylist()) <= {"chef", "science"}
    exec(blocks[1], known)
    replied = known["table"]
    assert replied["predicted"].null_count == 0  # type: ignore[index]
