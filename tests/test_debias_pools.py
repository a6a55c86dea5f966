"""Pools of a dataset and of labelled pictures: what they give, in which order, and what they refuse."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from storage_world import tar_path
from stream_world import make
from tiny_mllm import photograph

from debias.labelled import table_pool
from debias.pictures import picture
from debias.pools import dataset_pool
from storage import CounterpoiseError, ShardDamaged, list_shards, read_samples
from storage.verdicts import write_verdicts


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("pool") / "data", 2, 3)


def test_a_dataset_is_handed_out_in_the_order_of_storage(dataset: Path) -> None:
    pool = dataset_pool(dataset, "train")
    kept = [
        sample
        for record in list_shards(dataset)
        for sample in read_samples(dataset, record.index)
        if sample.kept and sample.split == "train"
    ]
    items = list(pool)
    assert [item.key for item in items] == [sample.key for sample in kept]
    assert len(pool) == len(items) == 5 * 6
    assert pool.axes == ("gender", "race")
    for item, sample in zip(items, kept, strict=True):
        assert (item.set_id, item.concept) == (sample.set_id, sample.concept)
        assert item.values == dict(sample.attributes)
        assert sample.image is not None
        assert item.image.tobytes() == Image.open(io.BytesIO(sample.image)).convert("RGB").tobytes()


def test_its_groups_are_those_of_the_whole_plan(dataset: Path) -> None:
    groups = {"chef_group": ("chef",), "science_group": ("science",)}
    assert dataset_pool(dataset, "test").groups == groups == dataset_pool(dataset).groups


def test_a_pool_may_be_gone_through_twice(dataset: Path) -> None:
    pool = dataset_pool(dataset)
    assert [item.key for item in pool] == [item.key for item in pool]


def test_rejected_sets_are_left_out(tmp_path: Path) -> None:
    dataset = make(tmp_path / "data", 1, 3)
    first = next(iter(dataset_pool(dataset))).set_id
    assert first is not None
    write_verdicts(dataset, "ann", [(first, "reject", "hands")])
    pool = dataset_pool(dataset)
    assert len(pool) == len(list(pool)) == 2 * 6
    assert first not in {item.set_id for item in pool}


def test_an_unknown_split_is_refused(dataset: Path) -> None:
    with pytest.raises(CounterpoiseError, match="'all'"):
        dataset_pool(dataset, "all")


def test_a_damaged_dataset_is_not_asked_about(tmp_path: Path) -> None:
    dataset = make(tmp_path / "data", 1, 2)
    path = tar_path(dataset, list_shards(dataset)[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardDamaged):
        list(dataset_pool(dataset))


COLUMNS = "file_name,who,gender,race,concept,set\n"


def folder(root: Path, *lines: str) -> Path:
    """Three pictures and what is said of them."""
    (root / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "sub/b.jpg", "c.webp")):
        photograph(number, (20, 10)).save(root / name, lossless=True)
    (root / "metadata.csv").write_text(COLUMNS + "".join(f"{line}\n" for line in lines), "utf-8")
    return root


LINES = ("sub/b.jpg,bea,F,Black,chef,s1", "a.png,ann,F,White,,", "c.webp,cid,M,White,arts,s1")


def test_a_folder_with_a_table(tmp_path: Path) -> None:
    root = folder(tmp_path / "pictures", *LINES)
    pool = table_pool(
        root, ["gender", "race"], key="who", set_id="set", concept="concept",
        labels={"gender": {"F": "woman", "M": "man"}},
    )  # fmt: skip
    items = list(pool)
    assert [(item.key, item.set_id, item.concept) for item in items] == [
        ("bea", "s1", "chef"), ("ann", None, None), ("cid", "s1", "arts"),
    ]  # fmt: skip
    assert [item.values for item in items] == [
        {"gender": "woman", "race": "Black"}, {"gender": "woman", "race": "White"}, {"gender": "man", "race": "White"},
    ]  # fmt: skip
    assert items[1].image.tobytes() == photograph(0, (20, 10)).tobytes()
    assert all(item.image.size == (20, 10) and item.image.mode == "RGB" for item in items)


def test_a_parquet_table_elsewhere_means_the_same(tmp_path: Path) -> None:
    root = folder(tmp_path / "pictures", *LINES)
    rows = {"path": ["a.png", "c.webp"], "race": ["White", "Black"], "age": [30, 40]}
    pq.write_table(pa.table(rows), tmp_path / "labels.parquet")
    items = list(table_pool(tmp_path / "labels.parquet", ["race", "age"], path="path", root=root))
    assert [item.key for item in items] == ["a.png", "c.webp"]
    assert [item.values for item in items] == [{"race": "White", "age": "30"}, {"race": "Black", "age": "40"}]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "metadata.csv: it lists no pictures"),
        (("a.png,ann,,White,,",), "row 1 has no gender; fill it in"),
        (("a.png,ann,F,White,,", "c.webp,ann,X,White,,"), "gender 'X' is unknown; known are F, M"),
        (("a.png,ann,F,White,,", "a.png,bob,M,White,,"), "'a.png' is listed twice"),
        (("a.png,ann",), "row 1 has no gender"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, lines: tuple[str, ...], words: str) -> None:
    root = folder(tmp_path / "pictures", *lines)
    with pytest.raises(CounterpoiseError, match=words):
        table_pool(root, ["gender", "race"], labels={"gender": {"F": "woman", "M": "man"}})


def test_missing_tables_and_columns_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "pictures", *LINES)
    with pytest.raises(CounterpoiseError, match="column 'age' is missing; its columns are file_name, who"):
        table_pool(root, ["age"])
    with pytest.raises(CounterpoiseError, match=r"a folder with metadata.csv or metadata.parquet"):
        table_pool(root / "sub", ["gender"])
    with pytest.raises(CounterpoiseError, match=r"none.csv: cannot be read"):
        table_pool(root / "none.csv", ["gender"])
    (root / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(CounterpoiseError, match=r"bad.parquet: cannot be read"):
        table_pool(root / "bad.parquet", ["gender"])


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "pictures", *LINES)
    (root / "a.png").write_bytes((root / "a.png").read_bytes()[:200])
    with pytest.raises(CounterpoiseError, match=r"a\.png: picture cannot be read"):
        list(table_pool(root, ["race"]))
    (root / "a.png").unlink()
    with pytest.raises(CounterpoiseError, match=r"a\.png: picture cannot be read"):
        list(table_pool(root, ["race"]))


def test_pictures_are_bounded_and_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    photograph(0, (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert picture(tmp_path / "turned.jpg", "turned").size == (10, 20)
    monkeypatch.setattr("storage.images.MAX_PIXELS", 100)
    with pytest.raises(CounterpoiseError, match="here: picture of 20x10 has more than the 100 pixels"):
        picture((tmp_path / "turned.jpg").read_bytes(), "here")
    photograph(0, (5, 5)).save(tmp_path / "one.gif")
    with pytest.raises(CounterpoiseError, match="a whole PNG, JPEG or WebP file is wanted"):
        picture(tmp_path / "one.gif", "gif")
