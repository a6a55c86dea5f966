"""Datasets whose files were changed and whose manifests were made to fit, by somebody with bad intent."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_world import exported, make
from storage_world import HEADER, files, fill, plan_rows, reseal, tar_path

from flows.export.target import inside
from storage import (
    CounterpoiseError,
    ShardDamaged,
    create_dataset,
    finish_dataset,
    list_shards,
    load_dataset,
    read_samples,
)
from storage.metadata import yield_by_cell
from storage.plan import read_table
from storage.query import open_records, quoted
from storage.records import to_parquet
from storage.shardfile import MAX_SHARDS
from storage.skewed import join_skew
from storage.stream import stream
from storage.tarball import header, tar_end, tar_members
from storage.verify import verify


def put(dataset: Path, kind: str, content: bytes) -> None:
    """Another data file in the first shard, and every hash made to fit."""
    digest = hashlib.sha256(content).hexdigest()
    name = f"00000-{digest[:12]}.{kind}"
    (dataset / "shards" / name).write_bytes(content)
    reseal(dataset / "shards/00000.json", {kind: {"name": name, "bytes": len(content), "sha256": digest}})
    claim(dataset, shards=[], counts={}, root_sha256=None)
    finish_dataset(dataset)


def change(dataset: Path, column: str, value: Any) -> None:
    """One value in every row of the first shard's Parquet."""
    rows = pq.read_table(dataset / list_shards(dataset)[0].parquet.path)
    field = rows.schema.field(column)
    values = pa.array([value] * rows.num_rows, field.type)
    put(dataset, "parquet", to_parquet(rows.set_column(rows.schema.get_field_index(column), field, values)))


def claim(dataset: Path, **changes: Any) -> None:
    """Other facts in `dataset.json` and its versions."""
    for path in (dataset / "dataset.json", *sorted((dataset / "versions").iterdir())):
        reseal(path, changes)


ODD = [
    ("split", "../../../x"),
    ("split", "/tmp/x"),
    ("split", "train\n"),
    ("split", ""),
    ("set_id", "../x"),
    ("concept", "a/../b"),
    ("key", "../x-00"),
    ("member", 7),
]


@pytest.mark.parametrize(("column", "value"), ODD)
def test_rows_with_more_than_names_are_refused(tmp_path: Path, column: str, value: Any) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    change(tmp_path, column, value)
    wanted = "key .* has to be" if column in ("key", "member") else f"{column} .* has to match"
    calls: list[Any] = [
        lambda: next(read_samples(tmp_path, 0)),
        lambda: list(stream(tmp_path, keep_sets=False)),
    ]
    for call in calls:
        with pytest.raises(ShardDamaged, match=wanted) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert any("has to" in line for line in verify(tmp_path))


@pytest.mark.parametrize("to", ["hf", "chat", "energon"])
@pytest.mark.parametrize(("column", "value"), [("split", "../../escaped"), ("set_id", "../../../escaped")])
def test_exports_write_nothing_outside(tmp_path: Path, to: str, column: str, value: str) -> None:
    data = make(tmp_path / "data")
    change(data, column, value)
    before = set(files(tmp_path))
    with pytest.raises(ShardDamaged, match="has to match"):
        exported(data, to, tmp_path / "a/b/out")
    assert set(files(tmp_path)) == before


def test_no_file_of_an_export_is_outside_its_folder(tmp_path: Path) -> None:
    assert inside(tmp_path, "train/a.png") == tmp_path / "train/a.png"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path)
    for name in ("../x", "/tmp/x", "link/x", "a/../../x"):
        with pytest.raises(CounterpoiseError, match="nothing outside its folder"):
            inside(tmp_path / "out", name)


INJECTED = "a\", (SELECT content FROM read_text('/etc/passwd')) AS \"b"
WHITE = {"name": "race", "values": ["Asian", "Black", "White"]}
AXES: list[Any] = [
    [{"name": INJECTED, "values": ["woman", "man"]}, WHITE],
    [{"name": "x' || 1 || '", "values": ["woman", "man"]}, WHITE],
    [{"name": "key", "values": ["woman", "man"]}, WHITE],
    [WHITE, WHITE],
    [{"name": "gender", "values": ["woman"] * 2}, WHITE],
    [{"name": "gender", "values": "ab"}, WHITE],
    [{"name": 1, "values": ["woman", "man"]}, WHITE],
    [{"name": "gender", "values": list(map(str, range(101)))}],
    [],
]


@pytest.mark.parametrize("axes", AXES)
def test_axes_that_could_not_be_made_are_refused(tmp_path: Path, axes: Any) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    claim(tmp_path, axes=axes)
    calls: list[Any] = [lambda: yield_by_cell(tmp_path), lambda: load_dataset(tmp_path)]
    for call in calls:
        with pytest.raises(ShardDamaged, match=r"dataset\.json is damaged"):
            call()
    assert any("dataset.json is damaged" in line for line in verify(tmp_path))


def test_questions_reach_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "[a] dataset's")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.csv").write_text("a\n1\n")
    assert quoted('a"b') == '"a""b"'
    with open_records("[a] dataset's") as records:
        assert records.ask("SELECT count(*) AS n FROM records") == [{"n": 54}]
        (tmp_path / "[a] dataset's/skew").mkdir()
        keys = pa.table({"key": ["chef_0000-00"], "skew": [1.0]})
        pq.write_table(keys, "[a] dataset's/skew/a-0123456789ab-0.parquet")
        assert join_skew(records, "skew/a-0123456789ab-0.parquet").total["with_skew"] == 1
        for question in (
            f"SELECT * FROM '{tmp_path}/other.csv'",
            f"SELECT * FROM read_text('{tmp_path}/*')",
            f"COPY (SELECT 1) TO '{tmp_path}/new.csv'",
            "SET enable_external_access = true",
        ):
            with pytest.raises((duckdb.Error, CounterpoiseError)):
                records.ask(question)
    assert not (tmp_path / "new.csv").exists()


def members(dataset: Path) -> list[tuple[str, bytes]]:
    return list(tar_members(io.BytesIO(tar_path(dataset, list_shards(dataset)[0]).read_bytes()), "here"))


def packed(pairs: list[tuple[str, bytes]]) -> bytes:
    """A tar of any names and sizes."""
    pieces = [header(name, len(content)) + content + bytes(-len(content) % 512) for name, content in pairs]
    return b"".join((*pieces, tar_end(sum(map(len, pieces)))))


def renamed(pairs: list[tuple[str, bytes]], old: str, new: str) -> list[tuple[str, bytes]]:
    return [(name.replace(old, new), content) for name, content in pairs]


TARS: dict[str, Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]] = {
    "outside": lambda pairs: renamed(pairs, "chef_0000-00", "../../x0"),
    "another suffix": lambda pairs: renamed(pairs, ".png", ".pkl"),
    "the suffix of another image": lambda pairs: renamed(pairs, ".png", ".webp"),
    "another's name": lambda pairs: renamed(pairs, "chef_0000-00", "chef_0000-05"),
    "no image": lambda pairs: [(n, b"\x80\x04." if n.endswith(".png") else c) for n, c in pairs],
    "a huge record": lambda pairs: [(n, c.ljust(2**20 + 1) if n.endswith(".json") else c) for n, c in pairs],
    "a huge image": lambda pairs: [*pairs[1:2], (pairs[0][0], pairs[0][1].ljust(2**26 + 1)), *pairs[2:]],
}


@pytest.mark.parametrize("name", TARS)
@pytest.mark.parametrize("fields", [None, (), ("json",)])
def test_a_tar_whose_hash_fits_has_to_have_the_rows_members(tmp_path: Path, name: str, fields: Any) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    assert len(list(stream(tmp_path, keep_sets=False, fields=fields))) == 36
    put(tmp_path, "tar", packed(TARS[name](members(tmp_path))))
    with pytest.raises(ShardDamaged, match=r"00000-.*\.tar"):
        list(stream(tmp_path, keep_sets=False, fields=fields))


FACTS: list[tuple[str, Any]] = [
    ("counts", []),
    ("counts", {"rows": "18", "images": 12}),
    ("counts", {"rows": 18.5, "images": True}),
    ("index", "0"),
    ("index", False),
    ("dataset_id", 1),
    ("recipe", []),
    ("environment", "cpu"),
    ("tar", []),
    ("parquet", None),
    ("parquet", {"name": 1, "bytes": "1", "sha256": 2}),
]


@pytest.mark.parametrize(("name", "value"), FACTS)
def test_shard_manifests_of_other_kinds_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    claim(tmp_path, shards=[], counts={}, root_sha256=None)
    reseal(tmp_path / "shards/00000.json", {name: value})
    calls: list[Any] = [lambda: list_shards(tmp_path), lambda: finish_dataset(tmp_path)]
    for call in calls:
        with pytest.raises(ShardDamaged, match=r"00000\.json is damaged"):
            call()
    assert any("00000.json is damaged" in line for line in verify(tmp_path))


PLAN = {"rows": 6, "shards": 3, "bytes": 1, "rows_sha256": "a", "sha256": "b"}
DOCUMENTS: list[tuple[str, Any]] = [
    ("counts", []),
    ("counts", {"rows": "1"}),
    ("plan", []),
    ("plan", {"rows": 6, "shards": 3}),
    ("plan", {**PLAN, "bytes": "1"}),
    ("plan", {**PLAN, "shards": 10**18}),
    ("plan", {**PLAN, "rows": -1}),
    ("shards", 1),
    ("shards", {"0": 1}),
    ("shards", [{"index": "0", "sha256": "a", "counts": {}}]),
    ("shards", [{"index": 0, "sha256": "a", "counts": [1]}]),
    ("root_sha256", 1),
    ("dataset_id", None),
]


@pytest.mark.parametrize(("name", "value"), DOCUMENTS)
def test_documents_of_other_kinds_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    claim(tmp_path, **{name: value})
    with pytest.raises(ShardDamaged, match=r"dataset\.json is damaged"):
        load_dataset(tmp_path)
    assert any("dataset.json is damaged" in line for line in verify(tmp_path))


def test_more_shards_than_are_listed_are_not_planned(tmp_path: Path) -> None:
    fill(tmp_path)
    rows = [{**plan_rows()[0], "set_id": f"chef_{n}", "shard": n} for n in range(MAX_SHARDS + 1)]
    for extend in (False, True):
        with pytest.raises(CounterpoiseError, match="at most 100000 are listed"):
            create_dataset(tmp_path, HEADER, rows, extend=extend)


def bomb(dataset: Path, rows: int, length: int, groups: int = 1) -> bytes:
    """A Parquet of a shard's columns, whose prompts are one long text, stored once."""
    table = pq.read_table(dataset / list_shards(dataset)[0].parquet.path).slice(0, 1)
    table = table.take(pa.array([0] * rows))
    place = table.schema.get_field_index("prompt")
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * length])
    sink = pa.BufferOutputStream()
    bombed = table.set_column(place, pa.field("prompt", texts.type, nullable=False), texts)
    pq.write_table(bombed, sink, compression="zstd", store_schema=False, row_group_size=rows // groups)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("groups", [1, 4])
def test_a_text_stored_once_for_many_rows_is_not_decoded(tmp_path: Path, groups: int) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    small, content = bomb(tmp_path, 2**10, 2**10, groups), bomb(tmp_path, 2**17, 2**19, groups)
    assert len(content) < 2**20
    with pytest.raises(ShardDamaged, match="bytes when decoded"):
        read_table(content, "here")
    put(tmp_path, "parquet", content)
    for call in (lambda: next(read_samples(tmp_path, 0)), lambda: list(stream(tmp_path))):
        with pytest.raises(ShardDamaged, match="is refused"):
            call()
    assert read_table(small, "here").num_rows == 2**10


def test_tables_over_the_limits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    content = to_parquet(pa.table({"a": list(range(1000))}))
    assert read_table(content, "here").num_rows == 1000
    for limit, value in (("MAX_ROWS", 999), ("MAX_TABLE", 1000)):
        with monkeypatch.context() as patch, pytest.raises(ShardDamaged, match="here is refused"):
            patch.setattr(f"storage.plan.{limit}", value)
            read_table(content, "here")
    monkeypatch.setattr("storage.plan.MAX_ROWS", 17)
    monkeypatch.setattr("storage.query.plan_of", lambda *_: pa.table({"set_id": ["a"]}))
    with pytest.raises(ShardDamaged, match="18 rows"), open_records(tmp_path):
        pass


def test_questions_are_asked_of_the_datasets_columns_alone(tmp_path: Path) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    put(tmp_path, "parquet", to_parquet(pa.table({"set_id": ["a"], "kept": [True]})))
    with pytest.raises(ShardDamaged, match="columns are not those of the dataset"), open_records(tmp_path):
        pass
