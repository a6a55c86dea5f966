"""What the UI is told: small enough, escaped, and the same as what is on record."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from flows_world import SHARDS, bad_candidates, load, opened, run_all, small
from PIL import Image

from flows.home import prefect_home, prepare_prefect
from flows.markdown import cell_rows, concept_rows, shard_markdown, shard_rows
from flows.preview import first_rows, set_rows, sheet
from storage import CounterpoiseError, list_shards
from storage.metadata import yield_by_concept


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mark_down*") / "data"
    spec = small()
    run_all(folder, spec, load(bad_candidates(spec, {"chef_0000": 1, "weapon_0001": 2})))
    return folder


def test_a_shard_shows_its_sheet_scores_and_reasons(dataset: Path) -> None:
    text = shard_markdown(str(dataset), list_shards(dataset)[0])
    assert len(text) <= 200_000
    assert "2 sets kept of 3 candidates, 8 images" in text
    assert "| clip\\_text | 0.1 | 0.3 | 0.3 |" in text
    assert "| clip\\_text | 1 |" in text.split("rejected for")[1]
    uri = re.search(r"!\[contact sheet\]\(data:image/webp;base64,([^)]+)\)", text)
    assert uri is not None
    assert Image.open(io.BytesIO(base64.b64decode(uri[1]))).width > 4 * 64


def test_text_of_others_is_escaped(dataset: Path) -> None:
    assert "mark\\_down\\*" in shard_markdown(str(dataset), list_shards(dataset)[0]).splitlines()[0]


def test_a_shard_without_kept_sets_has_no_sheet(tmp_path: Path) -> None:
    spec = small()
    run_all(tmp_path, spec, load(bad_candidates(spec, {"chef_0000": 2, "science_0000": 2})), shards="0:1")
    text = shard_markdown(str(tmp_path), list_shards(tmp_path)[0])
    assert "0 sets kept of 4 candidates" in text
    assert "contact sheet" not in text


def test_rows_of_shards_come_from_the_tasks(tmp_path: Path) -> None:
    campaign = opened(tmp_path)
    campaign.start()
    results = [campaign.make_shard(index) for index in campaign.todo]
    rows = shard_rows(results, {index: len(sets) for index, sets in campaign.plan.items()})
    assert [(row["shard"], row["planned sets"], row["kept sets"], row["images"]) for row in rows] == [
        (index, 2, 2, 8) for index in range(SHARDS)
    ]
    assert rows[0]["sha256"] == results[0]["manifest_sha256"][:12]


def test_rows_of_concepts_and_cells(dataset: Path) -> None:
    weapon = next(row for row in concept_rows(yield_by_concept(dataset)) if row["concept"] == "weapon")
    assert (weapon["kept sets"], weapon["tries"], weapon["kept per try"]) == (1, 3, "33%")
    cells = cell_rows(str(dataset))
    assert [(row["gender"], row["race"]) for row in cells] == [
        (gender, race) for gender in ("woman", "man") for race in ("White", "Middle Eastern")
    ]
    assert {(row["tried"], row["kept"], row["kept share"]) for row in cells} == {(8, 5, "62%")}


def test_the_first_sets_are_of_every_concept(dataset: Path) -> None:
    assert [row.set_id for row in first_rows(str(dataset), per_concept=1)] == [
        "chef_0000",
        "science_0000",
        "weapon_0000",
    ]
    assert len(first_rows(str(dataset))) == 5
    assert len(first_rows(str(dataset), most=2)) == 2


def test_sets_are_shown_as_asked(dataset: Path) -> None:
    assert [row.set_id for row in set_rows(str(dataset), ["weapon_0000", "chef_0001"])] == [
        "weapon_0000",
        "chef_0001",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [("chef_0007", "did you mean 'chef_000"), ("weapon_0001", "no candidate of this set was kept")],
)
def test_sets_that_cannot_be_shown(dataset: Path, name: str, message: str) -> None:
    with pytest.raises(CounterpoiseError, match=message):
        set_rows(str(dataset), [name])


def test_nothing_to_show_yet(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(CounterpoiseError, match="no set is kept yet"):
        sheet(str(tmp_path), first_rows(str(tmp_path)))
    with pytest.raises(CounterpoiseError, match="its shard 1 is not made yet"):
        set_rows(str(tmp_path), ["weapon_0000"])


def test_the_users_own_prefect_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"PREFECT_API_URL": "http://mine/api", "PREFECT_LOGGING_LEVEL": "ERROR"}
    for name in (
        "HOME",
        "API_URL",
        "LOGGING_LEVEL",
        "RESULTS_DEFAULT_SERIALIZER",
        "SERVER_ANALYTICS_ENABLED",
    ):
        monkeypatch.delenv(f"PREFECT_{name}", raising=False)
    environment: dict[str, str] = dict(mine)
    monkeypatch.setattr("flows.home.os.environ", environment)
    prepare_prefect()
    assert "PREFECT_HOME" not in environment
    assert {name: environment[name] for name in mine} == mine
    assert environment["PREFECT_RESULTS_DEFAULT_SERIALIZER"] == "json"


def test_the_folder_that_prefects_home_lies_in_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a fresh checkout: Prefect makes the last folder alone, and without it waits in vain for its database."""
    monkeypatch.setattr("flows.home.os.environ", {})
    monkeypatch.setattr("flows.home.prefect_home", lambda: tmp_path / "out" / "prefect")
    prepare_prefect()
    assert (tmp_path / "out").is_dir()


def test_prefect_lives_where_make_ui_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr("flows.home.os.environ", environment)
    prepare_prefect()
    root = Path(__file__).resolve().parents[1]
    assert environment["PREFECT_HOME"] == str(prefect_home()) == str(root / "out" / "prefect")
    assert "PREFECT_HOME='$(CURDIR)/out/prefect'" in (root / "Makefile").read_text()
    assert environment["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "240"
