"""Generation through Prefect's own server: task runs, artifacts, results, retries, errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flows_world import SHARDS, run_all

from storage import list_shards

pytestmark = pytest.mark.prefect
HERE = Path(__file__).parent
NAMES = [f"shard-{index:05d}" for index in range(SHARDS)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="module")
def told(root: Path) -> dict[str, Any]:
    """What happened, from one process with one server."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(root / "home"), "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    done = subprocess.run(
        [sys.executable, str(HERE / "prefect_world.py"), str(root)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=290,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_shard_is_one_task_run(told: dict[str, Any]) -> None:
    assert told["short"]["tasks"] == [[name, "COMPLETED", 1] for name in NAMES]
    assert [state for state, _ in told["short"]["flows"]] == ["COMPLETED"]


def test_the_flow_takes_names_and_numbers_only(told: dict[str, Any], root: Path) -> None:
    parameters = told["short"]["flows"][0][1]
    assert parameters["dataset"] == str(root / "short")
    assert parameters["spec"] == str(root / "small.yaml")
    assert len(json.dumps(parameters)) < 1000


def test_the_shards_are_those_of_a_run_without_prefect(told: dict[str, Any], tmp_path: Path) -> None:
    assert told["passing"]["root"] == told["broken"]["root"] == run_all(tmp_path / "data").root_sha256


def test_falling_short_is_status_3(told: dict[str, Any]) -> None:
    assert told["short"]["status"] == 3
    assert told["short"]["err"].splitlines()[-1].endswith("weapon (1 of 2 sets).")


def test_the_terminal_shows_no_log_of_prefect(told: dict[str, Any]) -> None:
    assert all(line.startswith(("shard ", "Short ")) for line in told["short"]["err"].splitlines())


def test_results_are_json_with_paths_and_hashes(told: dict[str, Any], root: Path) -> None:
    stored = [json.loads(path.read_text()) for path in (root / "home" / "storage").iterdir()]
    results = [one for one in stored if "metadata" in one]
    assert {one["metadata"]["serializer"]["type"] for one in results} == {"json"}
    facts = [json.loads(one["result"]) for one in results]
    made = [one for one in facts if one.get("manifest", "").startswith(str(root / "short"))]
    short = {one["shard"]: one for one in made}
    assert {index: one["manifest_sha256"] for index, one in short.items()} == {
        record.index: record.sha256 for record in list_shards(root / "short")
    }


def test_each_shard_has_its_sheet_beside_its_task(told: dict[str, Any]) -> None:
    for name in NAMES:
        artifact = told["short"]["artifacts"][f"small-{name}"]
        assert (artifact["type"], artifact["task"]) == ("markdown", name)
        assert len(artifact["data"]) <= 200_000
        assert artifact["data"].count("](data:image/webp;base64,") == 1


def test_tables_progress_and_link(told: dict[str, Any], root: Path) -> None:
    artifacts = told["short"]["artifacts"]
    assert set(artifacts) == {
        *(f"small-{name}" for name in NAMES),
        *(f"small-{name}" for name in ("progress", "shards", "concepts", "cells", "report")),
    }
    assert artifacts["small-progress"]["data"] == 100
    shards, concepts, cells = (
        json.loads(artifacts[f"small-{name}"]["data"]) for name in ("shards", "concepts", "cells")
    )
    assert [(row["shard"], row["kept sets"]) for row in shards] == [(0, 2), (1, 2), (2, 1)]
    assert {row["concept"]: (row["kept sets"], row["tries"]) for row in concepts} == {
        "chef": (2, 3),
        "science": (2, 2),
        "weapon": (1, 3),
    }
    assert [row["kept"] for row in cells] == [5] * 4
    assert f"(file://{root}/short/report/report.html)" in artifacts["small-report"]["data"]


def test_errors_that_may_pass_are_tried_again(told: dict[str, Any]) -> None:
    assert told["passing"]["status"] == 0
    assert sum(count for _, _, count in told["passing"]["tasks"]) == SHARDS + 2
    assert {state for _, state, _ in told["passing"]["tasks"]} == {"COMPLETED"}


def test_errors_for_the_user_are_one_line_and_not_tried_again(told: dict[str, Any]) -> None:
    found = told["mend"]
    assert found["status"] == 2
    assert found["err"].splitlines()[-1] == "Error: mend the third set"
    assert "Traceback" not in found["err"]
    assert {count for _, _, count in found["tasks"]} == {1}
    assert [state for state, _ in found["flows"]] == ["FAILED"]


def test_artifacts_that_cannot_be_stored_cost_no_shard(told: dict[str, Any]) -> None:
    assert told["broken"]["status"] == 0
    assert not any(f"small-{name}" in told["broken"]["artifacts"] for name in NAMES)
    assert [state for _, state, _ in told["broken"]["tasks"]] == ["COMPLETED"] * SHARDS


def test_ctrl_c_stops_soon_and_the_same_again_continues(told: dict[str, Any]) -> None:
    stopped, continued = told["stopped"], told["continued"]
    assert stopped["status"] == 130
    assert stopped["err"].splitlines()[-1] == "Stopped. What is finished stays; the same command continues."
    assert "Stopping after the candidates in the making ..." in stopped["err"]
    assert [state for state, _ in stopped["flows"]] == ["CRASHED"]
    assert continued["status"] == 0
    assert continued["root"] == told["passing"]["root"] is not None


@pytest.fixture(scope="module")
def reconciled(told: dict[str, Any]) -> dict[str, Any]:
    """What `counterpoise reconcile` said, in the order of `prefect_world.reconciled`."""
    found: dict[str, Any] = told["reconcile"]
    return found


@pytest.mark.parametrize(
    ("case", "status", "said"),
    [
        ("agreed", 0, ["agree on 3 shards"]),
        ("continued", 0, ["agree on 3 shards"]),
        ("lost", 1, ["shard 00001", "no manifest", "Completed", "flow run", "--fix sets", "Crashed"]),
        ("lost fixed", 0, ["shard 00001", "set to", "agree on 2 shards"]),
        ("back", 1, ["shard 00001", "manifest", "Crashed", "Completed"]),
        ("back fixed", 0, ["agree on 3 shards"]),
        ("made agrees", 0, ["agree on 3 shards"]),
        ("other", 1, ["shard 00001", "Completed, manifest"]),
        ("other fixed", 0, ["set to", "agree on 3 shards"]),
        ("again", 0, ["agree on 3 shards"]),
        ("nothing", 0, ["agree on 0 shards", "Of 3 more Prefect has no record (00000, 00001, 00002)"]),
        ("nothing fixed", 0, ["agree on 0 shards", "Of 3 more Prefect has no record"]),
    ],
)
def test_reconcile_tells_each_disagreement_and_mends_prefect_alone(
    reconciled: dict[str, Any], case: str, status: int, said: list[str]
) -> None:
    found = reconciled[case]
    assert found["status"] == status, found
    assert [words for words in said if words not in found["out"]] == [], found["out"]
    assert found["untouched"], "storage is the truth"
    assert found["err"] == ""


def test_states_that_reconcile_set_are_on_the_server(reconciled: dict[str, Any]) -> None:
    states = reconciled["lost states"]
    assert [state for _, state, _ in states["tasks"]] == ["COMPLETED", "CRASHED", "COMPLETED"]
    assert [state for state, _ in states["flows"]] == ["CRASHED"]
    assert reconciled["made"]["status"] == 0


def test_the_ui_of_this_prefect_shows_pictures_in_markdown() -> None:
    import importlib.util

    spec = importlib.util.find_spec("prefect")
    assert spec is not None
    assert spec.origin is not None
    assets = Path(spec.origin).parent / "server" / "ui-v2" / "assets"
    code = "".join(path.read_text(errors="replace") for path in assets.glob("lazy-markdown-*.js"))
    assert re.search(r"\^data:image\\/", code), "the UI drops data URIs: contact sheets would not show"


def test_no_server_is_one_line(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from flows_world import load, spec_file
from flows import __main__ as cli, opening
opening.load_factory = load()
sys.exit(cli.run(["generate", spec_file(Path(sys.argv[1])), "--out", sys.argv[1] + "/data"]))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": str(tmp_path / "home")}
    environment |= {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert len(done.stderr.splitlines()) == 1
    assert "http://127.0.0.1:9/api" in done.stderr
    assert "--runner none" in done.stderr
