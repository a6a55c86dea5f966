from __future__ import annotations

import gc
import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from storage_world import SHARDS, SPEC, files, fill, publish, reseal, shard_samples, start, tar_path

from storage import CounterpoiseError, ShardDamaged, finish_dataset, list_shards, read_samples
from storage.errors import CounterpoiseError as Base
from storage.records import sample_json
from storage.tarball import header, tar_blocks, tar_members
from storage.verify import verify


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = tmp_path_factory.mktemp("whole")
    fill(dataset)
    finish_dataset(dataset)
    return dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    fill(tmp_path)
    finish_dataset(tmp_path)
    return tmp_path


KEPT = {sample.key: sample for index in range(SHARDS) for sample in shard_samples(index) if sample.kept}


def _tars(dataset: Path) -> list[str]:
    return [str(tar_path(dataset, shard)) for shard in list_shards(dataset)]


def _parquets(dataset: Path) -> list[str]:
    return [str(dataset / shard.parquet.path) for shard in list_shards(dataset)]


# Both libraries leave files open until they are collected.
OPEN_FILES = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@OPEN_FILES
def test_webdataset_reads_it(whole: Path) -> None:
    import webdataset

    found = {row["__key__"]: row for row in webdataset.WebDataset(_tars(whole), shardshuffle=False)}
    assert {key: row["png"] for key, row in found.items()} == {key: s.image for key, s in KEPT.items()}
    assert {key: row["json"] for key, row in found.items()} == {
        key: sample_json(s) for key, s in KEPT.items()
    }
    gc.collect()


@OPEN_FILES
def test_webdataset_decodes_it(whole: Path) -> None:
    import webdataset

    rows = list(webdataset.WebDataset(_tars(whole), shardshuffle=False).decode("pil"))
    assert [row["png"].size for row in rows] == [(8, 8)] * 36
    assert (
        rows[0]["json"]["prompt"] == "A photo of a Asian woman, chef" and rows[0]["json"]["race"] == "Asian"
    )
    gc.collect()


@OPEN_FILES
def test_datasets_reads_it_offline(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    import datasets  # type: ignore[import-untyped]

    options: dict[str, Any] = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    rows = datasets.load_dataset("webdataset", data_files=_tars(whole), **options)
    assert rows["__key__"] == list(KEPT) and rows[0]["png"].size == (8, 8)
    assert [row["seed"] for row in rows["json"]] == [sample.seed for sample in KEPT.values()]
    assert [row["edited_words"] for row in rows["json"]] == [s.edited_words for s in KEPT.values()]
    streamed = datasets.load_dataset("webdataset", data_files=_tars(whole), streaming=True, **options)
    assert [row["__key__"] for row in streamed] == list(KEPT)
    records = datasets.load_dataset("parquet", data_files=_parquets(whole), **options)
    assert records.num_rows == 18 * SHARDS
    gc.collect()


@OPEN_FILES
def test_datasets_reads_scores_that_begin_late(tmp_path: Path) -> None:
    """It infers types from the first five records, in which nothing was computed here."""
    import datasets

    start(tmp_path)
    late = [
        replace(s, scores={"attribute_failed": "race"} if i > 6 else {})
        for i, s in enumerate(shard_samples(0))
    ]
    record = publish(tmp_path, 0, late)
    paths = [str(tar_path(tmp_path, record))]
    rows = datasets.load_dataset(
        "webdataset", data_files=paths, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows.num_rows == 12
    gc.collect()


def test_pandas_duckdb_and_polars_read_it(whole: Path) -> None:
    import duckdb
    import pandas  # type: ignore[import-untyped]
    import polars

    paths = _parquets(whole)
    frame = pandas.concat(map(pandas.read_parquet, paths))
    assert len(frame) == 18 * SHARDS and frame["kept"].sum() == len(KEPT)
    assert frame["clip_text"].dtype == "float64" and frame["face_count"].isna().all()
    pattern = str(whole / "shards/*.parquet")
    with duckdb.connect() as connection:
        counts = connection.execute(f"SELECT count(*), sum(kept::INT) FROM '{pattern}'").fetchall()
    assert counts == [(18 * SHARDS, len(KEPT))]
    lazy = polars.scan_parquet(pattern).filter(polars.col("kept")).select("key", "clip_base").collect()
    assert sorted(lazy["key"]) == sorted(KEPT) and lazy["clip_base"].null_count() == 2 * 6
    hashes = dict(zip(frame["key"][frame["kept"]], frame["sha256"][frame["kept"]], strict=True))
    assert hashes == {key: hashlib.sha256(sample.image or b"").hexdigest() for key, sample in KEPT.items()}


def test_reading_an_unfinished_or_unknown_shard(tmp_path: Path) -> None:
    start(tmp_path)
    publish(tmp_path, 1)
    assert len(list(read_samples(tmp_path, 1))) == 18, "a shard is readable before the dataset is finished"
    for index in (0, 7, -1):
        with pytest.raises(ShardDamaged, match="the shard is not finished"):
            next(read_samples(tmp_path, index))
    with pytest.raises(CounterpoiseError, match=r"holds no dataset\.json"):
        next(read_samples(tmp_path / "nowhere", 0))
    with pytest.raises(CounterpoiseError, match="gs:// are not supported"):
        next(read_samples("gs://bucket/name", 0))
    assert len(list(read_samples(tmp_path.as_uri(), 1))) == 18


def test_nothing_beside_the_manifests_is_read(dataset: Path) -> None:
    tar = next(dataset.glob("shards/00000-*.tar"))
    tar.with_name("00000-0123456789ab.tar").write_bytes(tar.read_bytes())
    (dataset / "shards/99999.tar").write_bytes(tar.read_bytes())
    assert [shard.index for shard in list_shards(dataset)] == [0, 1, 2]
    assert [
        sample.key for index in range(SHARDS) for sample in read_samples(dataset, index) if sample.kept
    ] == list(KEPT)
    lines = verify(dataset)
    assert len(lines) == 2 and "left over" in lines[0] and "99999.tar is foreign" in lines[1]


def test_symlinked_files_are_read(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Download caches keep every file as a link to a blob."""
    blobs, view = tmp_path_factory.mktemp("blobs"), tmp_path_factory.mktemp("view")
    for number, (name, content) in enumerate(files(dataset).items()):
        (blobs / str(number)).write_bytes(content)
        (view / name).parent.mkdir(exist_ok=True)
        (view / name).symlink_to(blobs / str(number))
    assert verify(view) == [] and len(list(read_samples(view, 2))) == 18


def _members(count: int = 3) -> list[tuple[str, bytes]]:
    names = [f"set-{i:02d}.{suffix}" for i in range(count) for suffix in ("json", "png")]
    return [(name, bytes([place]) * (100 + 200 * place)) for place, name in enumerate(names)]


def test_tar_round_trip() -> None:
    for members in ([], _members(), [("a-00.png", b"")], [("a-00.png", bytes(512))]):
        content = b"".join(tar_blocks(members))
        assert list(tar_members(io.BytesIO(content), "here")) == members
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            assert [(info.name, tar.extractfile(info).read()) for info in tar] == members  # type: ignore[union-attr]


def test_tar_headers_never_change() -> None:
    """Shards written today have to be readable with every later version of Python and of this code."""
    digest = hashlib.sha256(header("chef_0000-00.png", 1234)).hexdigest()
    assert digest == "88dce8ec66641700630a65bad95b48444024cb61b4d3ca1818aa1b7eca69caf3"
    info = tarfile.TarInfo.frombuf(header("chef_0000-00.png", 1234), "utf-8", "strict")
    assert (info.name, info.size, info.mode, info.mtime, info.isreg()) == (
        "chef_0000-00.png",
        1234,
        0o644,
        0,
        True,
    )


def test_members_above_the_limit_are_not_written() -> None:
    with pytest.raises(CounterpoiseError, match="at most 1048576 can be stored"):
        list(tar_blocks([("a-00.json", bytes(2**20 + 1))]))


def test_a_tar_cut_at_any_byte_is_noticed_without_a_hash() -> None:
    content = b"".join(tar_blocks(_members(2)))
    for end in range(len(content)):
        with pytest.raises(ShardDamaged):
            list(tar_members(io.BytesIO(content[:end]), "here"))
    for tail in (b"\0", b"x", bytes(10240)):
        with pytest.raises(ShardDamaged):
            list(tar_members(io.BytesIO(content + tail), "here"))


def _tar(
    change: Callable[[tarfile.TarInfo], None], name: str = "a-00.png", form: int = tarfile.USTAR_FORMAT
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        change(info)
        tar.addfile(info, io.BytesIO(b"evil") if info.isreg() else None)
    return buffer.getvalue()


def _kind(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.size, info.linkname = kind, 0, "/etc/passwd"

    return change


def _same(_: tarfile.TarInfo) -> None:
    """Leave a member as it is."""


def _set(**values: Any) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        for name, value in values.items():
            setattr(info, name, value)

    return change


EVIL = {
    "symlink": _tar(_kind(tarfile.SYMTYPE)),
    "hard link": _tar(_kind(tarfile.LNKTYPE)),
    "device": _tar(_kind(tarfile.CHRTYPE)),
    "pipe": _tar(_kind(tarfile.FIFOTYPE)),
    "folder": _tar(_kind(tarfile.DIRTYPE)),
    "old regular": _tar(_set(type=tarfile.AREGTYPE)),
    "sparse": _tar(_set(type=tarfile.CONTTYPE)),
    "pax": _tar(_set(pax_headers={"comment": "x"}), form=tarfile.PAX_FORMAT),
    "long name": _tar(_same, name="a" * 120 + "-00.png", form=tarfile.GNU_FORMAT),
    "parent": _tar(_same, name="../a-00.png"),
    "absolute": _tar(_same, name="/a-00.png"),
    "folder name": _tar(_same, name="x/a-00.png"),
    "pickle": _tar(_same, name="a-00.pkl"),
    "double suffix": _tar(_same, name="a-00.pkl.json"),
    "pyd": _tar(_same, name="a-00.pyd"),
    "pth": _tar(_same, name="a-00.pth"),
    "no member": _tar(_same, name="a.png"),
    "upper case": _tar(_same, name="A-00.png"),
    "newline": _tar(_same, name="a-00.png\n"),
    "clock": _tar(_set(mtime=1)),
    "owner": _tar(_set(uid=1)),
    "mode": _tar(_set(mode=0o4755)),
    "huge": header("a-00.png", 2**26 + 1) + bytes(1024),
    "huge record": header("a-00.json", 2**20 + 1) + bytes(1024),
    "promise": header("a-00.png", 2**26) + bytes(1024),
    "base-256 size": header("a-00.png", 1)[:124] + b"\x80" + bytes(11) + header("a-00.png", 1)[136:],
    "gzip": b"\x1f\x8b" + bytes(1000),
    "empty": b"",
    "hidden in the padding": header("a-00.png", 4) + b"evil" + b"more" * 127 + bytes(9216),
}


@pytest.mark.parametrize("name", EVIL)
def test_evil_tars_are_refused(name: str) -> None:
    with pytest.raises(ShardDamaged):
        list(tar_members(io.BytesIO(EVIL[name]), "here"))


def _replace_tar(dataset: Path, content: bytes) -> None:
    """A tar that its manifest vouches for."""
    digest = hashlib.sha256(content).hexdigest()
    name = f"00000-{digest[:12]}.tar"
    (dataset / "shards" / name).write_bytes(content)

    reseal(dataset / "shards/00000.json", {"tar": {"name": name, "bytes": len(content), "sha256": digest}})


@pytest.mark.parametrize("name", ["symlink", "pickle", "parent", "promise"])
def test_evil_tars_are_refused_even_with_a_manifest(tmp_path: Path, name: str) -> None:
    fill(tmp_path)
    _replace_tar(tmp_path, EVIL[name])
    with pytest.raises(ShardDamaged):
        list(read_samples(tmp_path, 0))
    assert any("00000" in line for line in verify(tmp_path))


class Bomb:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    dataset, trace = tmp_path / "data", tmp_path / "trace"
    fill(dataset)
    payload = pickle.dumps(Bomb(trace))
    pickle.loads(payload)
    assert trace.exists()
    trace.unlink()
    for name in ("chef_0000-00.pyd", "chef_0000-00.json", "chef_0000-00.png"):
        _replace_tar(
            dataset, b"".join((header(name, len(payload)), payload, bytes(-len(payload) % 512), bytes(9216)))
        )
        with pytest.raises(ShardDamaged):
            list(read_samples(dataset, 0))
    assert not trace.exists()


def test_members_that_do_not_fit_the_rows_are_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    tar = next(tmp_path.glob("shards/00000-*.tar"))
    members = list(tar_members(io.BytesIO(tar.read_bytes()), "here"))
    other = [
        (name, content.replace(b"Asian", b"asian")) if name.endswith("json") else (name, content)
        for name, content in members
    ]
    swapped = [(members[i ^ 2][0], members[i][1]) for i in range(len(members))]
    for bad in (
        members[:-2],
        members[2:],
        members[:-1],
        [*members, ("z-00.json", b"{}")],
        members[::-1],
        other,
        swapped,
    ):
        _replace_tar(tmp_path, b"".join(tar_blocks(bad)))
        with pytest.raises(ShardDamaged):
            list(read_samples(tmp_path, 0))


@pytest.mark.parametrize(
    "change",
    [
        {"tar": {"name": "../../etc/passwd", "bytes": 1, "sha256": "0" * 64}},
        {"parquet": {"name": "00001-000000000000.parquet", "bytes": 1, "sha256": "0" * 64}},
        {"parquet": {"name": "00000-000000000000.tar", "bytes": 1, "sha256": "0" * 64}},
        {"parquet": {"name": "00000-000000000000.parquet", "bytes": -1, "sha256": "0" * 64}},
        {"parquet": None},
        {"parquet": ["a"]},
        {"index": 1},
        {"dataset_id": "0" * 64},
        {"format": "counterpoise-shard-9"},
        {"extra": 1},
        {"recipe": {"other": 1}},
        {"counts": {"rows": 17, "images": 12, "sets": 2, "candidates": 3}},
    ],
)
def test_manifests_that_lie_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    fill(tmp_path)
    reseal(tmp_path / "shards/00000.json", change)
    lines = verify(tmp_path)
    assert lines and all("00000" in line for line in lines)
    if "counts" not in change:
        with pytest.raises(ShardDamaged):
            list(read_samples(tmp_path, 0))


def test_errors_are_one_line_for_the_terminal(tmp_path: Path) -> None:
    fill(tmp_path)
    next(tmp_path.glob("shards/00000-*.tar")).unlink()
    with pytest.raises(Base) as caught:
        list(read_samples(tmp_path, 0))
    assert "\n" not in str(caught.value) and "is missing" in str(caught.value)
    assert SPEC["name"] == "small"
