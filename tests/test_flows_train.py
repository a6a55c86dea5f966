"""The flows `train` and `skew` through Prefect's own server: artifacts, hand-overs, cancellation, errors."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from debias.skew_json import from_json

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def told(root: Path) -> dict[str, Any]:
    """What happened, from one process with one server; to a file, since a server may outlive a pipe."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(root / "home"), "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    with (root / "out").open("wb") as out, (root / "err").open("wb") as err:
        command = [sys.executable, str(HERE / "training_flow_world.py"), str(root)]
        done = subprocess.run(command, env=environment, stdout=out, stderr=err, timeout=580)
    assert done.returncode == 0, (root / "err").read_text()[-3000:]
    found: dict[str, Any] = json.loads((root / "out").read_text().splitlines()[-1])
    return found


def keys(case: dict[str, Any]) -> set[str]:
    return {key for key, one in case["artifacts"].items() if one["type"] != "result"}


def pictures(case: dict[str, Any], key: str) -> Image.Image:
    """The one picture in an artifact."""
    (found,) = re.findall(r"!\[heatmap\]\(data:image/webp;base64,([^)]+)\)", case["artifacts"][key]["data"])
    return Image.open(io.BytesIO(base64.b64decode(found)))


def rows(text: str) -> list[list[str]]:
    """Rows of the one table in Markdown, without its head."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def test_what_the_command_prints_is_what_it_prints_without_prefect(told: dict[str, Any]) -> None:
    found = told["here"]
    assert found["status"] == 3 and found["err"].splitlines()[-1].startswith("bias plateaus: ")
    for words in ("steps       4", "heldout     accuracy ", "gender MaxSkew ", "model       here/model"):
        assert words in found["out"]
    assert [(run["state"], run["part"]) for run in found["runs"]] == [("COMPLETED", False)]
    assert found["runs"][0]["parameters"] == {
        "recipe": "here.yaml", "dataset": "data", "out": "here", "fresh": False,
    }  # fmt: skip


def test_artifacts_of_a_run(told: dict[str, Any], root: Path) -> None:
    found = told["here"]
    assert keys(found) == {
        "here-base-gender", "here-base-race", "here-heatmap-heldout-gender", "here-heatmap-heldout-race",
        "here-skew", "here-cells", "here-checkpoint",
    }  # fmt: skip
    assert f"(file://{root.resolve()}/here/model)" in found["artifacts"]["here-checkpoint"]["data"]
    one, two = (pictures(found, key).size for key in ("here-base-gender", "here-heatmap-heldout-gender"))
    assert two[0] >= one[0], "before and after stand beside each other"
    assert all(len(found["artifacts"][key]["data"]) < 200_000 for key in keys(found))


def test_the_table_holds_the_figures_of_the_run_beside_a_fair_models(
    told: dict[str, Any], root: Path
) -> None:
    table = {tuple(row[:3]): row[3:] for row in rows(told["here"]["artifacts"]["here-skew"]["data"])}
    kept = [root / "here" / "evaluations" / epochs for epochs in "01"]
    before, after = (from_json((one / "heldout-skew.json").read_bytes()) for one in kept)
    accuracy = [json.loads((one / "heldout.json").read_text())["accuracy"] for one in kept]
    assert [table["heldout", "", "accuracy"][place] for place in (0, 3)] == [f"{one:.1%}" for one in accuracy]
    for axis in ("gender", "race"):
        was, now = before.axes[axis].max_skew, after.axes[axis].max_skew
        row = table["heldout", axis, "MaxSkew"]
        assert [row[place] for place in (0, 2, 3, 5)] == [
            f"{value:.2f}" for value in (was.value, was.floor.mean, now.value, now.floor.mean)
        ]


def test_cells_are_those_of_both_tables(told: dict[str, Any], root: Path) -> None:
    cells = json.loads(told["here"]["artifacts"]["here-cells"]["data"])
    after = from_json((root / "here/evaluations/1/heldout-skew.json").read_bytes())
    given = {(row["axis"], row["concept"], row["value"]): row["answers after"] for row in cells}
    assert {
        (axis, cell.concept, cell.value): cell.count
        for axis, one in after.axes.items()
        for cell in one.cells()
    }.items() <= given.items()


def test_skew_is_refreshed_once_and_training_uses_it(told: dict[str, Any], root: Path) -> None:
    log = [json.loads(line) for line in (root / "here/log.jsonl").read_text().splitlines()]
    skews = [line for line in log if line["kind"] == "skew"]
    assert [(line["epoch"], line["step"]) for line in skews] == [(0, 0)]
    assert json.loads((root / "here/epochs/0.json").read_text())["sidecar"] == skews[0]["sidecar"]
    assert (root / "data" / skews[0]["sidecar"]).exists()


def test_a_run_that_was_handed_over_is_shown_from_its_folder(told: dict[str, Any], root: Path) -> None:
    found, here = told["handed"], told["here"]
    assert found["status"] == 3 and found["out"] == here["out"]
    mine, theirs = found["runs"]
    assert (mine["state"], mine["part"]) == ("COMPLETED", False) and (theirs["deployed"], theirs["part"]) == (
        True,
        True,
    )
    given = theirs["parameters"]
    assert given["out"] == str(root / "handed") and given["recipe"]["dataset"] == str(root / "data")
    assert given["recipe"]["model"] == str(root / "model") and given["recipe"]["evaluate_on"] == ["heldout"]
    assert {key.removeprefix("handed-") for key in keys(found)} == {
        key.removeprefix("here-") for key in keys(here) if "base" not in key
    }


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no deployment", ["launch.deployment: given 'train/gpu'", "does not know", "prefect deploy flows/train.py:train"]),
        ("no pool", ["launch.work_pool: given 'gpu'", "prefect work-pool create gpu", "PREFECT_API_URL is not set"]),
        ("wrong pool", ["given 'gpu', but the deployment train/other is on 'other'"]),
        ("two", ["several deployments of train: train/gpu, train/second", "launch.deployment"]),
        ("failed", ["train/gpu: the run failed", "is Failed: SpecError: mend the recipe."]),
        ("cancelled there", ["is Cancelled: by hand."]),
        ("nobody", ["no worker polls the work pool 'gpu'", "prefect worker start --pool gpu"]),
        ("waiting cancelled", ["The run was cancelled"]),
        ("another", ["another: the run first (", "trains in this folder and is Running", "prefect flow-run cancel"]),
        ("not shared", ["notshared: the run is over, but what it left cannot be seen from here", "share"]),
        ("no data", ["nowhere holds no dataset.json"]),
        ("cancelled", ["The run was cancelled; the same again goes on from the last checkpoint."]),
        ("dies", ["the launched processes ended with status 7 and said nothing; see dies/launch.log"]),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line(told: dict[str, Any], case: str, words: list[str]) -> None:
    found = told[case]
    assert found["status"] == 2
    (line,) = found["err"].splitlines()
    assert line.startswith("Error: ")
    assert [word for word in words if word not in line] == [], line


def test_whoever_is_not_waited_for_is_cancelled(told: dict[str, Any]) -> None:
    """A run that nobody took does not begin hours later, and one at work ends with the flow that waits for it."""
    assert [run["state"] for run in told["nobody"]["runs"]] == ["FAILED", "CANCELLED"]
    assert [run["state"] for run in told["waiting cancelled"]["runs"]] == ["CANCELLED", "CANCELLING"]


def test_cancelling_ends_the_processes(told: dict[str, Any]) -> None:
    found = told["cancelled"]
    assert [run["state"] for run in found["runs"]] == ["CANCELLED"] and not found["left"]


def test_bad_parameters_are_one_line_in_prefect(told: dict[str, Any]) -> None:
    wanted = "recipe: tau: unknown key, wanted one of method, model"
    for case, words in (("bad", wanted), ("both", "predictions and model: given both, wanted one of them.")):
        found = told[case]
        assert found["error"].startswith(words)
        (run,) = found["runs"]
        assert run["state"] == "FAILED" and words in run["message"] and "\n" not in run["message"]


def test_skew_of_a_model_and_of_its_predictions(told: dict[str, Any], root: Path) -> None:
    asked, given = told["asked"], told["given"]
    assert keys(asked) == {
        "table-heatmap-gender",
        "table-heatmap-race",
        "table-skew",
        "table-cells",
        "table-table",
    }
    assert keys(given) == {"given-heatmap-gender", "given-skew", "given-cells", "given-table"}
    assert given["status"] == 0 and "table       given.json" in given["out"]
    assert pq.read_table(root / asked["facts"]["predictions"]).num_rows == 12
    one, two = (json.loads((root / name).read_text()) for name in ("asked/table.json", "given.json"))
    cells = [sorted(body["axes"]["gender"]["cells"], key=str) for body in (one, two)]
    assert [cell["count"] for cell in cells[0]] == [cell["count"] for cell in cells[1]] and cells[0][0][
        "count"
    ]
    sidecar = asked["facts"]["sidecar"]["name"]
    assert re.fullmatch(r"skew/tiny-[0-9a-f]{12}-0\.parquet", sidecar) and (root / "data" / sidecar).exists()
    assert [row[:2] for row in rows(given["artifacts"]["given-skew"]["data"])] == [
        ["gender", "MaxSkew"], ["gender", "MinSkew"],
    ]  # fmt: skip
