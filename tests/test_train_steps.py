"""The steps of a training run apart: measured first, then trained; what is handed over; before held against after."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from cli_world import Called, one_line
from tiny_mllm import save
from training_world import dataset, recipe

from debias.skew_json import from_json, to_json
from debias.training.comparing import compared
from debias.training.folder import RunFolder
from debias.training.recipe import Launch, recipe_to_dict
from flows.recipes import recipe_from_dict
from flows.training import Job, open_job, portable


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llava", tmp_path_factory.mktemp("model") / "llava")


def test_where_it_runs_is_no_part_of_a_recipes_identity() -> None:
    plain = recipe(Path("m"), Path("d"))
    elsewhere = replace(plain, launch=Launch(work_pool="gpu", deployment="train/gpu"))
    assert elsewhere.identity() == plain.identity() and elsewhere.launch.elsewhere
    assert replace(plain, launch=Launch(processes=2)).identity() != plain.identity()
    # what earlier versions noted in a run's folder
    noted = {**recipe_to_dict(plain), "launch": 1}
    import hashlib

    assert plain.identity() == hashlib.sha256(json.dumps(noted, sort_keys=True).encode()).hexdigest()


def test_what_is_handed_over_is_the_recipe_with_whole_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m").mkdir()
    plain = recipe(
        Path("m"), Path("d"), axes=("gender",), evaluate_on=("heldout", "other", "s3://b/x"), questions="q.csv",
        launch=Launch(work_pool="gpu", config="fsdp.yaml", processes=2),
    )  # fmt: skip
    given = json.loads(json.dumps(portable(Job(plain, "out/run", fresh=True))))
    assert (given["out"], given["fresh"]) == (str(tmp_path / "out/run"), True)
    there = open_job(given["recipe"], out=given["out"]).recipe
    assert there == replace(
        plain, model=str(tmp_path / "m"), dataset=str(tmp_path / "d"), questions=str(tmp_path / "q.csv"),
        evaluate_on=("heldout", str(tmp_path / "other"), "s3://b/x"),
        launch=replace(plain.launch, config=str(tmp_path / "fsdp.yaml")),
    )  # fmt: skip
    hub = replace(plain, model="llava-hf/llava-1.5-7b-hf")
    assert portable(Job(hub, "x"))["recipe"]["model"] == hub.model


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        ({"deployment": "gpu"}, "launch.deployment: given \"gpu\", wanted a deployment of Prefect as FLOW/NAME"),
        ({"work_pool": ""}, "launch.work_pool: given \"\", wanted a work pool of Prefect"),
        ({"pool": "gpu"}, "launch.pool: unknown key, wanted one of processes, config, work_pool, deployment"),
    ],
)  # fmt: skip
def test_bad_launches(launch: dict[str, Any], words: str) -> None:
    plain = recipe_to_dict(recipe(Path("m"), Path("d")))
    with pytest.raises(ValueError, match=r"^recipe: ") as error:
        recipe_from_dict({**plain, "launch": launch})
    assert words in str(error.value)


def test_bad_calls(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(yaml.safe_dump(recipe_to_dict(recipe(Path("m"), Path("d")))))
    train = ("train", "r.yaml")
    one_line(
        Called(capsys, *train, "--runner", "threads"), "--runner: given 'threads', wanted prefect or none"
    )
    one_line(Called(capsys, *train, "--measure", "--runner", "prefect"), "--measure and --runner prefect")
    one_line(Called(capsys, *train, "--dataset", " "), "dataset: given ' ', wanted the folder or URI")
    one_line(Called(capsys, "skew", "x.csv", "--out", "t.json", "--runner", "ray"), "--runner: given 'ray'")


def test_a_run_on_the_pool_itself_trains_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a worker that is handed a recipe would hand it on to itself, and wait for a place that it holds."""
    from flows import handover

    served, pooled = handover.Target(uuid4(), "train/s", None), handover.Target(uuid4(), "train/gpu", "gpu")
    monkeypatch.setattr(handover.FlowRunContext, "get", lambda: None)
    assert not handover._is_here(pooled)
    for deployment, pool, here in (
        (None, None, ()),
        (uuid4(), "cpu", ()),
        (uuid4(), "gpu", (pooled,)),
        (pooled.id, "gpu", (pooled,)),
        (served.id, None, (served,)),
    ):
        run = SimpleNamespace(deployment_id=deployment, work_pool_name=pool)
        monkeypatch.setattr(handover.FlowRunContext, "get", lambda run=run: SimpleNamespace(flow_run=run))
        assert tuple(one for one in (served, pooled) if handover._is_here(one)) == here


def test_measured_first_or_not_the_run_is_the_same(
    capsys: pytest.CaptureFixture[str], llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; and what was measured is not asked again."""
    from debias.training import epochs, evaluating

    monkeypatch.chdir(tmp_path)
    data = dataset(tmp_path / "d")
    given = recipe(llava, data, method="csd", steps=1, evaluate_on=("heldout",), stop_drop=1.0, plateau=0.0)
    Path("r.yaml").write_text(yaml.safe_dump(recipe_to_dict(given)))
    Called(capsys, "train", "r.yaml", "--out", "once")
    measured = Called(capsys, "train", "r.yaml", "--out", "apart", "--measure")
    assert (measured.status, measured.err) == (0, "") and "gender MaxSkew" in measured.out
    assert not Path("apart/model").exists() and Path("apart/epochs/0-skew.json").exists()
    asked: list[str] = []
    for module in (epochs, evaluating):
        ask = module.ask
        monkeypatch.setattr(module, "ask", lambda *a, ask=ask: (asked.append(a[1].name), ask(*a))[1])
    Called(capsys, "train", "r.yaml", "--out", "apart")
    assert asked == ["heldout"]  # after training alone
    for name in ("log.jsonl", "model/model.safetensors", "epochs/0.json", "evaluations/0/heldout-skew.json"):
        assert Path("apart", name).read_bytes() == Path("once", name).read_bytes(), name


def test_before_and_after_are_held_against_each_other_on_the_same_concepts(tmp_path: Path) -> None:
    """A concept that the trained model gives too seldom leaves both sides of the comparison."""
    data = dataset(tmp_path / "d", sets=10)
    given = recipe(Path("m"), data, evaluate_on=("heldout",), min_count=5)
    folder = RunFolder(tmp_path / "run")
    from debias.training.measuring import checked, skew_of, source_of
    from storage.metadata import table as records

    rows = records(str(data)).filter("kept AND split = 'test'").order("key").to_arrow_table().to_pylist()
    options = [["chef", "science"]] * len(rows)
    for epochs, said in ((0, [row["concept"] for row in rows]), (1, ["chef"] * len(rows))):
        answers = pa.table(
            {
                **{
                    name: [row[name] for row in rows]
                    for name in ("key", "set_id", "concept", "gender", "race")
                },
                "predicted": said,
                "options": options,
            }
        )
        place = folder.path / f"evaluations/{epochs}"
        place.mkdir(parents=True)
        pq.write_table(answers, place / "heldout.parquet")
        table = skew_of(checked(answers, source_of(given, "heldout")), given)
        folder.write_text(f"evaluations/{epochs}/heldout-skew.json", to_json(table))
        folder.write(
            f"evaluations/{epochs}/heldout.json", {"weights_sha256": "", "accuracy": 1.0, "note": None}
        )
    (one,) = compared(given, folder)
    assert one.concepts == ("chef",)
    assert one.before is not None and one.before.table is not None and one.same_before is not None
    assert set(one.before.table.axes["gender"].concepts) == {"chef", "science"}
    assert one.same_before.axes["gender"].concepts == ("chef",) == one.same_after.axes["gender"].concepts
    kept = from_json((folder.path / "evaluations/1/heldout-skew.json").read_bytes())
    assert to_json(one.same_after) == to_json(kept), "nothing is measured anew where nothing was dropped"
    (stopped,) = compared(replace(given, epochs=2), folder)
    assert stopped.after is None and stopped.concepts is None
