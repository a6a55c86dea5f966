from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage_world import (
    AXES,
    ENVIRONMENT,
    HEADER,
    RECIPE,
    SPEC,
    changed,
    files,
    fill,
    plan_rows,
    publish,
    shard_samples,
    start,
)

import storage
from storage import (
    CounterpoiseError,
    DatasetMismatch,
    ShardDamaged,
    create_dataset,
    finish_dataset,
    list_shards,
    load_dataset,
)
from storage.canonical import canonical, first_difference, plain, seal, unseal
from storage.errors import ABSENT, shown
from storage.manifest import read_plan, recipe_hash, root_hash
from storage.records import to_parquet
from storage.shards import EnvironmentDiffers, ShardIncomplete, resume_check
from storage.verify import verify

HERE = Path(__file__).parent


def test_a_new_dataset(tmp_path: Path) -> None:
    manifest = create_dataset(tmp_path / "deep" / "data", HEADER, plan_rows())
    assert dict(manifest.axes) == AXES and list(manifest.axes) == ["gender", "race"]
    assert manifest.header == {"spec": SPEC, "recipe": RECIPE, "split": HEADER["split"]}
    assert (manifest.plan["rows"], manifest.plan["shards"]) == (6, 3)
    assert (manifest.shards, manifest.root_sha256, manifest.missing) == ((), None, [0, 1, 2])
    assert read_plan(tmp_path / "deep" / "data") == plan_rows()
    assert verify(tmp_path / "deep" / "data") == []


def test_order_of_axes_and_of_spec_survives(tmp_path: Path) -> None:
    axes = {"race": ["b", "a"], "age": ["young", "old"], "gender": ["x", "w"]}
    manifest = create_dataset(tmp_path, {"spec": {"z": 1, "axes": axes, "a": 2}, "axes": axes}, plan_rows())
    assert list(manifest.axes.items()) == [(name, tuple(values)) for name, values in axes.items()]
    assert list(manifest.header["spec"]) == ["z", "axes", "a"] and list(
        manifest.header["spec"]["axes"]
    ) == list(axes)


def test_the_same_spec_again_continues(tmp_path: Path) -> None:
    start(tmp_path)
    publish(tmp_path, 1)
    finish_dataset(tmp_path)
    before = files(tmp_path)
    spec = dict(reversed(SPEC.items()))
    assert create_dataset(tmp_path, {**HEADER, "spec": spec}, plan_rows()) == load_dataset(tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "field", "stored", "given_now"),
    [
        ({"spec": {**SPEC, "steps": 30}}, "spec.steps", 20, 30),
        ({"spec": {**SPEC, "seed": 7.0}}, "spec.seed", 7, 7.0),
        ({"spec": {**SPEC, "seed": True}}, "spec.seed", 7, True),
        ({"spec": {**SPEC, "new": None}}, "spec.new", ABSENT, None),
        ({"spec": {"name": "small", "seed": 7, "steps": 20}}, "spec.axes", SPEC["axes"], ABSENT),
        (
            {"spec": {**SPEC, "axes": {**SPEC["axes"], "race": ["a"]}}},
            "spec.axes.race",
            SPEC["axes"]["race"],
            ["a"],
        ),
        ({"recipe": {**RECIPE, "thresholds": {}}}, "recipe.thresholds.clip_text", 0.2, ABSENT),
        ({"axes": dict(reversed(AXES.items()))}, "axes[0].name", "gender", "race"),
        ({"split": {}}, "split.train", 0.8, ABSENT),
        ({"extra": 1}, "extra", ABSENT, 1),
    ],
)
def test_another_spec_is_refused_with_its_field(
    tmp_path: Path, change: dict[str, Any], field: str, stored: object, given_now: object
) -> None:
    fill(tmp_path)
    before = files(tmp_path)
    with pytest.raises(DatasetMismatch) as caught:
        create_dataset(tmp_path, {**HEADER, **change}, plan_rows())
    error = caught.value
    assert (error.field, error.stored, error.given) == (field, stored, given_now)
    text = str(error)
    wanted = (str(tmp_path / "dataset.json"), field, shown(stored), shown(given_now), "another folder")
    assert all(part in text for part in wanted) and "\n" not in text
    assert files(tmp_path) == before
    assert str(pickle.loads(pickle.dumps(error))) == text, "errors travel between processes"


def test_another_plan_of_the_same_spec_is_refused_with_its_row(tmp_path: Path) -> None:
    start(tmp_path)
    rows = plan_rows()
    rows[3]["seed"] = 5
    with pytest.raises(DatasetMismatch, match=r"plan\[3\]\.seed is 1003 there and 5 now"):
        create_dataset(tmp_path, HEADER, rows)
    with pytest.raises(DatasetMismatch, match='plan is "6 entries" there and "5 entries" now'):
        create_dataset(tmp_path, HEADER, plan_rows()[:5])
    (tmp_path / "plan.parquet").unlink()
    with pytest.raises(DatasetMismatch, match="plan is"):
        create_dataset(tmp_path, HEADER, rows)


def test_a_lost_or_damaged_plan_is_written_again(tmp_path: Path) -> None:
    start(tmp_path)
    before = files(tmp_path)
    for content in (None, b"PAR1"):
        (tmp_path / "plan.parquet").unlink()
        if content:
            (tmp_path / "plan.parquet").write_bytes(content)
        with pytest.raises(ShardDamaged):
            read_plan(tmp_path)
        start(tmp_path)
        assert files(tmp_path) == before


def test_a_plan_written_by_another_version_of_the_library_is_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path)
    dataset_id = load_dataset(tmp_path).dataset_id
    with monkeypatch.context() as patch:
        other = "storage.manifest.to_parquet"
        patch.setattr(other, lambda table: to_parquet(table.replace_schema_metadata({"a": "b"})))
        start(tmp_path)
        assert load_dataset(tmp_path).dataset_id == dataset_id
        (tmp_path / "plan.parquet").unlink()
        start(tmp_path)
    assert load_dataset(tmp_path).dataset_id == dataset_id and read_plan(tmp_path) == plan_rows()
    assert verify(tmp_path) == []


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ({"spec": {}}, "a mapping 'axes' is wanted"),
        ({"axes": ["gender"]}, "a mapping 'axes' is wanted"),
        ({"axes": AXES, "shards": []}, r"none of .*; got \['shards'\]"),
        ({"axes": {}}, "at least one axis"),
        ({"axes": {"gender": []}}, "axis 'gender' has the values"),
        ({"axes": {"gender": ["a", "a"]}}, "axis 'gender' has the values"),
        ({"axes": {"gender": [1, 2]}}, "axis 'gender' has the values"),
        ({"axes": {"gender": "ab"}}, "axis 'gender' has the values"),
        ({"axes": {"prompt": ["a", "b"]}}, "axis 'prompt'"),
        ({"axes": {"Gender": ["a", "b"]}}, "axis 'Gender'"),
        ({"axes": {"a": list("abcdefghijk"), "b": list("abcdefghij")}}, "110 cells"),
        ({"axes": AXES, "spec": {"x": float("nan")}}, r"header\.spec\.x is nan"),
        ({"axes": AXES, "spec": {"x": {"y": object()}}}, r"header\.spec\.x\.y is a object"),
    ],
)
def test_unusable_headers_are_refused(tmp_path: Path, header: dict[str, Any], wanted: str) -> None:
    with pytest.raises(CounterpoiseError, match=wanted):
        create_dataset(tmp_path, header, plan_rows())
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda rows: rows.clear(), "no rows"),
        (lambda rows: rows[1].pop("set_id"), "the same columns"),
        (
            lambda rows: [row.pop("concept") for row in rows],
            "concept, concept_group, set_id, shard among them",
        ),
        (lambda rows: rows[1].update(set_id=rows[0]["set_id"]), "names a set twice"),
        (lambda rows: [row.update(shard=row["shard"] + 1) for row in rows], "numbered from 0 without gaps"),
        (lambda rows: rows[1].update(shard="0"), "its shard a whole number"),
        (lambda rows: rows[5].update(seed="x"), "one kind of value each"),
    ],
)
def test_unusable_plans_are_refused(tmp_path: Path, change: Any, wanted: str) -> None:
    rows = plan_rows()
    change(rows)
    with pytest.raises(CounterpoiseError, match=wanted):
        create_dataset(tmp_path, HEADER, rows)
    assert files(tmp_path) == {}


def test_unusable_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CounterpoiseError, match="a folder is wanted"):
            create_dataset(place, HEADER, plan_rows())
    for uri in ("gs://bucket/name", "memory://x", ""):
        with pytest.raises(CounterpoiseError, match="give a"):
            create_dataset(uri, HEADER, plan_rows())


def test_a_read_only_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "data"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CounterpoiseError, match=r"data: Permission denied\. .*change its permissions"):
        start(tmp_path / "data")


def test_finishing_lists_the_shards(tmp_path: Path) -> None:
    start(tmp_path)
    publish(tmp_path, 2)
    publish(tmp_path, 0)
    manifest = finish_dataset(tmp_path)
    records = list_shards(tmp_path)
    assert [entry.index for entry in manifest.shards] == [0, 2] == [record.index for record in records]
    assert [entry.sha256 for entry in manifest.shards] == [record.sha256 for record in records]
    assert manifest.counts == {"candidates": 6, "images": 24, "rows": 36, "sets": 4} and manifest.missing == [
        1
    ]
    assert manifest.root_sha256 == root_hash(records)


def test_finishing_again_gives_the_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        start(tmp_path / name)
        for index in order:
            publish(tmp_path / name, index)
            if name == "b":
                finish_dataset(tmp_path / name)
        finish_dataset(tmp_path / name)
        written = (tmp_path / name / "dataset.json").stat().st_mtime_ns
        finish_dataset(tmp_path / name)
        assert (tmp_path / name / "dataset.json").stat().st_mtime_ns == written, (
            "nothing new, nothing written"
        )
    a, b = (_without_versions(tmp_path / name) for name in "ab")
    assert a == b


def _without_versions(dataset: Path) -> dict[str, bytes]:
    """Every file but the versions, which tell how often it was finished."""
    return {name: content for name, content in files(dataset).items() if not name.startswith("versions/")}


def test_the_root_hash_tells_another_dataset(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    start(tmp_path / "b")
    for index in range(3):
        samples = shard_samples(index)
        publish(tmp_path / "b", index, changed(samples, 0, scores={"clip_text": 0.26}) if index else samples)
    assert finish_dataset(tmp_path / "a").root_sha256 != finish_dataset(tmp_path / "b").root_sha256


def _settings(index: int) -> dict[str, Any]:
    return {"recipe": {**RECIPE, "shard": index}, "environment": ENVIRONMENT}


def test_resume_check(tmp_path: Path) -> None:
    start(tmp_path)
    assert resume_check(tmp_path, 0, **_settings(0)) is None
    record = publish(tmp_path, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resume_check(tmp_path, 0, **_settings(0), strict=True) == record
    with pytest.raises(DatasetMismatch, match=r"00000\.json .*: recipe\.shard is 0 there and 1 now"):
        resume_check(tmp_path, 0, **_settings(1))


def test_resume_in_another_environment_warns_or_refuses(tmp_path: Path) -> None:
    start(tmp_path)
    record = publish(tmp_path, 0)
    settings = {**_settings(0), "environment": {**ENVIRONMENT, "torch": "2.1"}}
    with pytest.warns(EnvironmentDiffers, match='environment.torch is "2.0" there and "2.1" now'):
        assert resume_check(tmp_path, 0, **settings) == record
    with pytest.raises(DatasetMismatch) as caught:
        resume_check(tmp_path, 0, **settings, strict=True)
    assert (caught.value.field, caught.value.stored, caught.value.given) == (
        "environment.torch",
        "2.0",
        "2.1",
    )


@pytest.mark.parametrize("kind", ["tar", "parquet", "json"])
def test_resume_does_not_believe_a_damaged_shard(tmp_path: Path, kind: str) -> None:
    start(tmp_path)
    publish(tmp_path, 0)
    path = next(tmp_path.glob(f"shards/00000*.{kind}"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(ShardIncomplete, match=rf"is damaged.* was moved to .*quarantine/{path.name}"):
        assert resume_check(tmp_path, 0, **_settings(0)) is None
    publish(tmp_path, 0)
    assert resume_check(tmp_path, 0, **_settings(0)) is not None and verify(tmp_path) == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('aé\u2028"\\'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé"), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc"), JSON))
def test_sealed_documents_come_back(body: dict[str, Any]) -> None:
    assert unseal(seal(body), "here") == body
    assert canonical(body) == canonical(json.loads(canonical(body)))


@given(JSON, JSON)
def test_a_difference_is_found_exactly_where_the_hashes_differ(first: object, second: object) -> None:
    found = first_difference({"x": first}, {"x": second})
    assert (found is None) == (recipe_hash(first) == recipe_hash(second))
    assert found is None or found[0].startswith("x")


def test_recipe_hash_is_stable() -> None:
    recipe = {"b": [1, 2.5, True, None], "a": {"z": "é", "y": ()}}
    assert canonical(recipe) == '{"a":{"y":[],"z":"é"},"b":[1,2.5,true,null]}'.encode()
    assert recipe_hash(recipe) == recipe_hash(dict(reversed(recipe.items())))
    assert recipe_hash({"a": 1}) != recipe_hash({"a": 1.0}) != recipe_hash({"a": True})
    assert plain({"a": (1, 2)}) == {"a": [1, 2]}


def test_the_face_is_small_and_light() -> None:
    assert storage.__all__ == sorted(storage.__all__) and len(storage.__all__) <= 12
    assert all(hasattr(storage, name) for name in storage.__all__)
    heavy = ("torch", "diffusers", "transformers", "prefect", "duckdb", "pandas")
    script = f"import sys, storage; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=HERE.parent
    )
    assert run.stdout.strip() == "[]"
