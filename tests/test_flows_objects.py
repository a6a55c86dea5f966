"""The commands on a dataset in a bucket: what they print, that a killed run continues, through Prefect as well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from cli_world import Called, one_line
from flows_world import load, spec_file
from PIL import Image
from s3_server import S3, environment
from storage_world import files as local_files

from flows import opening
from flows.artifacts import Shelf
from storage import list_shards, load_dataset
from storage.backend import open_backend
from storage.verify import verify

HERE = Path(__file__).parent
Run = Callable[..., Called]

YOUNG = "it, or what was saved with it, is younger than an hour"


@pytest.fixture
def run(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call a command, with prepared parts instead of models."""
    monkeypatch.setattr(opening, "load_factory", load())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: Called(capsys, *arguments)


def lasting(found: dict[str, bytes]) -> dict[str, bytes]:
    """The files that hold no time and no cost."""
    return {name: content for name, content in found.items() if not name.startswith("report/")}


def test_every_command_on_a_bucket(run: Run, s3: S3, whole: Path, tmp_path: Path) -> None:
    data, spec = "s3://data/flows/every", spec_file(tmp_path)
    assert "3 of them to make" in run("plan", spec, "--out", data).out
    made = run("generate", spec, "--out", data, "--runner", "none")
    assert made.status == 0 and "made     3 shards" in made.out
    assert f"report   {data}/report/report.html" in made.out
    assert lasting(s3.files("flows/every")) == lasting(local_files(whole))
    again = run("generate", spec, "--out", data, "--runner", "none")
    assert again.status == 0 and "nothing to make" in again.out
    assert run("verify", data).out == f"{data} is sound.\n"
    assert run("show", data, "--out", "sheet.png").status == 0
    with Image.open("sheet.png") as sheet:
        assert sheet.size[0] > 64
    assert "kept now" in run("refilter", data, "--clip-text", "0.3", "--write").out
    assert f"{data}/report/report.html" in run("report", data).out
    found = s3.files("flows/every")
    assert {"verdicts/refilter.parquet", "report/report.html", "report/cost.json"} <= set(found)
    assert found["report/report.html"].count(b"data:image/webp") >= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.png", "small.yaml"], (
        "nothing else here"
    )


def test_verify_finds_damage_and_cleans(run: Run, s3: S3, whole: Path, tmp_path: Path) -> None:
    data, client = "s3://data/flows/damaged", s3.client
    for name, content in local_files(whole).items():
        client.put_object(Bucket=s3.bucket, Key=f"flows/damaged/{name}", Body=content)
    orphan = "shards/00001-0123456789ab.tar"
    client.put_object(Bucket=s3.bucket, Key=f"flows/damaged/{orphan}", Body=b"x")
    young = run("verify", data, "--clean")
    assert (young.status, young.out) == (0, f"kept {orphan}: {YOUNG}\n{data} is sound.\n")
    s3.rules({"method": "HEAD", "path": orphan, "later": 4000, "times": 9})
    assert run("verify", data).status == 1
    old = run("verify", data, "--clean")
    assert (old.status, old.out) == (0, f"removed {orphan}\n{data} is sound.\n")
    record = list_shards(data)[1]
    client.put_object(Bucket=s3.bucket, Key=f"flows/damaged/{record.parquet.path}", Body=b"x")
    bad = run("verify", data)
    assert bad.status == 1 and record.parquet.name in bad.out
    one_line(run("report", data), record.parquet.name, f"was moved to {data}/quarantine/")
    again = run("generate", spec_file(tmp_path), "--out", data, "--runner", "none")
    assert (again.status, again.err.count("is made again")) == (0, 1)
    found = lasting(s3.files("flows/damaged"))
    assert found.pop(f"quarantine/{record.parquet.name}") == b"x" and found == lasting(local_files(whole))


@pytest.mark.parametrize("to", ["hf", "chat", "energon"])
def test_an_export_is_the_same_from_and_to_a_bucket(
    run: Run, s3: S3, whole: Path, tmp_path: Path, to: str
) -> None:
    data = f"s3://data/flows/exported-{to}"
    for name, content in local_files(whole).items():
        s3.client.put_object(Bucket=s3.bucket, Key=f"flows/exported-{to}/{name}", Body=content)
    for source, out in ((str(whole), "here"), (data, "fetched"), (data, f"s3://data/flows/out-{to}")):
        assert run("export", source, "--to", to, "--out", out).status == 0
    assert local_files(tmp_path / "fetched") == local_files(tmp_path / "here")
    assert s3.files(f"flows/out-{to}") == local_files(tmp_path / "here")
    one_line(run("export", data, "--to", to, "--out", f"{data}/export"), "is inside the dataset")


def test_a_larger_spec_extends_a_dataset_in_a_bucket(run: Run, s3: S3, whole: Path, tmp_path: Path) -> None:
    data = "s3://data/flows/larger"
    for name, content in local_files(whole).items():
        s3.client.put_object(Bucket=s3.bucket, Key=f"flows/larger/{name}", Body=content)
    spec = spec_file(tmp_path, sets_per_concept=4)
    one_line(run("generate", spec, "--out", data, "--runner", "none"), "--extend")
    assert run("generate", spec, "--out", data, "--runner", "none", "--extend").status == 0
    before, after = local_files(whole), s3.files("flows/larger")
    old = [name for name in before if name.startswith(("shards/", "versions/"))]
    assert {name: after[name] for name in old} == {name: before[name] for name in old}
    assert len(list_shards(data)) > len(list_shards(whole)) and verify(data) == []


def test_bad_places_are_one_line(run: Run, tmp_path: Path) -> None:
    spec = spec_file(tmp_path)
    one_line(run("generate", spec, "--out", "s3://nobody/x", "--runner", "none"), "make the bucket")
    one_line(run("generate", spec, "--out", "gs://bucket/x", "--runner", "none"), "s3://BUCKET/NAME")
    one_line(run("verify", "s3://data/flows/nothing"), "holds no dataset.json")
    one_line(run("show", "s3://data/flows/nothing"), "holds no dataset.json")
    assert run("plan", spec, "--out", "s3://data/flows/other").status == 0
    other = spec_file(tmp_path, seed=9)
    one_line(run("generate", other, "--out", "s3://data/flows/other", "--runner", "none"), "spec.seed is 5")


def test_bad_places_of_an_export_are_one_line(
    run: Run, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    export = ("export", str(whole), "--to", "hf", "--out")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.filesystem("s3").clear_instance_cache()
    one_line(run(*export, "s3://data/dead"), "--out: s3://data/dead", "AWS_ENDPOINT_URL")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    fsspec.filesystem("s3").clear_instance_cache()
    one_line(run(*export, "s3://data/nobody"), "--out: s3://data/nobody", "set AWS_ACCESS_KEY_ID")
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.slow
def test_a_store_that_fails_in_the_middle_is_one_line_and_continues(
    run: Run, s3: S3, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.s3._PAUSE", 0.001)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)
    data, spec = "s3://data/flows/failing", spec_file(tmp_path)
    s3.rules({"method": "PUT", "path": "shards/00001", "status": 503, "code": "SlowDown", "times": 99})
    one_line(run("generate", spec, "--out", data, "--runner", "none"), "run the same again")
    assert [record.index for record in list_shards(data)] == [0] and verify(data) == []
    s3.rules()
    assert run("generate", spec, "--out", data, "--runner", "none").status == 0
    assert lasting(s3.files("flows/failing")) == lasting(local_files(whole))


# A process that has imported everything forks one run after another, each killed some steps further.
KILLER = """
import json, os, sys
import s3fs
from flows_world import load, opened, run_all
uri, step, warm = sys.argv[1], int(sys.argv[2]), sys.argv[3]
run_all(warm)
number, ends = 1, []
while True:
    child = os.fork()
    if child == 0:
        os.environ["COUNTERPOISE_FAULT"] = f"#{number}"
        try:
            run_all(uri)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(9)
        os._exit(0)
    ends.append(os.waitpid(child, 0)[1])
    if ends[-1] == 0 or len(ends) > 200:
        break
    number += step
print(json.dumps(ends))
"""


@pytest.mark.parametrize("step", [17, pytest.param(2, marks=pytest.mark.slow)])
def test_kill_9_anywhere_and_again_gives_the_same_dataset(
    s3: S3, whole: Path, tmp_path: Path, step: int
) -> None:
    """Each run is killed so many steps further than the one before, whose left-overs it continues."""
    uri = f"s3://data/flows/killed/{step}"
    settings = {**os.environ, **environment(s3.port), "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    command = [sys.executable, "-c", KILLER, uri, str(step), str(tmp_path / "warm")]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    ends = json.loads(done.stdout.splitlines()[-1])
    assert len(ends) >= 3 and ends[-1] == 0 and set(ends[:-1]) == {9}, done.stderr[-3000:]
    assert load_dataset(uri).root_sha256 == load_dataset(whole).root_sha256
    assert lasting(s3.files(f"flows/killed/{step}")) == lasting(local_files(whole))
    assert verify(uri) == []


def test_the_link_to_the_report_names_the_object(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, Any] = {}

    def keep(link: str, **given: Any) -> None:
        stored.update(given, link=link)

    monkeypatch.setattr("flows.artifacts.create_link_artifact", keep)
    shelf, where = Shelf(), "s3://data/flows/linked/report/report.html"
    shelf.link("small-report", open_backend("s3://data/flows/linked").path("report/report.html"), where)
    assert (shelf.failures, stored["link"], stored["key"]) == (0, where, "small-report")


PREFECT = """
import sys
from flows_world import load
from flows import __main__ as cli, opening
opening.load_factory = load()
sys.exit(cli.run(["generate", sys.argv[1], "--out", sys.argv[2], "--workers", "2"]))
"""


@pytest.mark.slow
@pytest.mark.prefect
def test_through_prefect(s3: S3, whole: Path, tmp_path: Path) -> None:
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    settings |= {**environment(s3.port), "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    settings["PREFECT_HOME"] = str(tmp_path / "home")
    command = [sys.executable, "-c", PREFECT, spec_file(tmp_path), "s3://data/flows/prefect"]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert lasting(s3.files("flows/prefect")) == lasting(local_files(whole))
