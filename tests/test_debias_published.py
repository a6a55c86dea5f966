"""FairFace and SocialCounterfactuals in their published forms: labels are taken by name, whatever their numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from tiny_mllm import photograph

from debias.pools import Pool
from debias.published import FAIRFACE, fairface_csv, fairface_parquet, social_counterfactuals
from storage import CounterpoiseError

#: Orders in which publications number FairFace's races and genders.
HUB = ("East Asian", "Indian", "Black", "White", "Middle Eastern", "Latino_Hispanic", "Southeast Asian")
CLASSIFIER = ("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern")  # fmt: skip
VISION_LANGUAGE = (
    "White", "Southeast Asian", "Middle Eastern", "Black", "Indian", "Latino_Hispanic", "East Asian",
)  # fmt: skip
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
TRUTH = [
    ("20-29", "Male", "East Asian"), ("more than 70", "Female", "Latino_Hispanic"), ("0-2", "Female", "Southeast Asian"),
    ("30-39", "Male", "White"), ("3-9", "Male", "Middle Eastern"), ("40-49", "Female", "Black"),
    ("60-69", "Female", "Indian"),
]  # fmt: skip
VALUES = [
    ("20-29", "man", "Asian"), ("more than 70", "woman", "Latino"), ("0-2", "woman", "Asian"),
    ("30-39", "man", "White"), ("3-9", "man", "Middle Eastern"), ("40-49", "woman", "Black"),
    ("60-69", "woman", "Indian"),
]  # fmt: skip


def encoded(seed: int) -> bytes:
    buffer = io.BytesIO()
    photograph(seed, (12, 12)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(count: int) -> list[dict[str, Any]]:
    return [{"bytes": encoded(seed), "path": None} for seed in range(count)]


def hub_file(path: Path, races: Sequence[str], genders: Sequence[str] = ("Male", "Female")) -> Path:
    """FairFace as `datasets` writes it, with classes in the order given."""
    features = Features(
        image=Image(), age=ClassLabel(names=list(AGES)), gender=ClassLabel(names=list(genders)),
        race=ClassLabel(names=list(races)), service_test=Value("bool"),
    )  # fmt: skip
    columns = dict(zip(("age", "gender", "race"), map(list, zip(*TRUTH, strict=True)), strict=True))
    data = {"image": pictures(len(TRUTH)), **columns, "service_test": [True] * len(TRUTH)}
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(data, features=features).to_parquet(path)
    return path


def found(pool: Pool) -> list[tuple[str, ...]]:
    return [tuple(item.values[axis] for axis in ("age", "gender", "race")) for item in pool]


@pytest.mark.parametrize("genders", [("Male", "Female"), ("Female", "Male")])
@pytest.mark.parametrize("races", [HUB, CLASSIFIER, VISION_LANGUAGE])
def test_numbers_mean_what_the_file_says(
    tmp_path: Path, races: Sequence[str], genders: Sequence[str]
) -> None:
    path = hub_file(tmp_path / "validation-00000-of-00001.parquet", races, genders)
    stored = pq.read_table(path, columns=["race"])["race"].to_pylist()
    assert stored == [races.index(race) for _, _, race in TRUTH], "the file has numbers"
    pool = fairface_parquet(path)
    assert found(pool) == VALUES and len(pool) == len(VALUES)
    items = list(pool)
    assert items[0].key == "validation-00000-of-00001-000000" and items[0].set_id is items[0].concept is None
    assert [item.image.tobytes() for item in items] == [
        photograph(seed, (12, 12)).tobytes() for seed in range(len(TRUTH))
    ]


def test_several_files_in_order_of_name(tmp_path: Path) -> None:
    for number in (1, 0):
        hub_file(tmp_path / "0.25" / f"train-{number}.parquet", HUB)
    pool = fairface_parquet(tmp_path)
    assert found(pool) == [*VALUES, *VALUES]
    assert len({item.key for item in pool}) == len(pool) == 14
    other = hub_file(tmp_path / "1.25" / "train-0.parquet", HUB)
    with pytest.raises(CounterpoiseError, match="two files have the same name"):
        fairface_parquet([tmp_path / "0.25", other])


def without_names(path: Path) -> Path:
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    return path


def test_numbers_without_names_are_refused(tmp_path: Path) -> None:
    path = without_names(hub_file(tmp_path / "a.parquet", HUB))
    with pytest.raises(
        CounterpoiseError, match=r"column 'gender' has numbers, and the file's metadata do not say"
    ):
        fairface_parquet(path)


def test_text_needs_no_names(tmp_path: Path) -> None:
    columns = dict(zip(("age", "gender", "race"), map(list, zip(*TRUTH, strict=True)), strict=True))
    table = pa.table({"image": pictures(len(TRUTH)), **columns})
    pq.write_table(table, tmp_path / "a.parquet")
    assert found(fairface_parquet(tmp_path / "a.parquet")) == VALUES


def test_unknown_and_missing_labels_are_named(tmp_path: Path) -> None:
    path = hub_file(tmp_path / "a.parquet", [*HUB[:-1], "Not sure", HUB[-1]])
    assert found(fairface_parquet(path)) == VALUES
    races = {**FAIRFACE["race"]}
    del races["Southeast Asian"]
    with pytest.raises(CounterpoiseError, match="race 'Southeast Asian' is unknown; known are White"):
        fairface_parquet(path, {"race": races})
    table = pq.read_table(path)
    numbers = pa.array([-1, *table["race"].to_pylist()[1:]], pa.int64())
    pq.write_table(table.set_column(table.column_names.index("race"), "race", numbers), path)
    with pytest.raises(CounterpoiseError, match="row 1 has race -1, of 8 classes"):
        fairface_parquet(path)
    numbers = pa.array([None, *table["race"].to_pylist()[1:]], pa.int64())
    pq.write_table(table.set_column(table.column_names.index("race"), "race", numbers), path)
    with pytest.raises(CounterpoiseError, match="row 1 has no race"):
        fairface_parquet(path)


def test_the_authors_csv(tmp_path: Path) -> None:
    lines = ["file,age,gender,race,service_test"]
    (tmp_path / "pictures" / "val").mkdir(parents=True)
    for seed, (age, gender, race) in enumerate(TRUTH):
        lines.append(f"val/{seed + 1}.jpg,{age},{gender},{race},True")
        photograph(seed, (12, 12)).save(tmp_path / "pictures" / "val" / f"{seed + 1}.jpg")
    labels = tmp_path / "fairface_label_val.csv"
    labels.write_text("\n".join(lines) + "\n", "utf-8")
    pool = fairface_csv(labels, tmp_path / "pictures")
    assert found(pool) == VALUES
    assert [item.key for item in pool][:2] == ["val/1.jpg", "val/2.jpg"]
    assert fairface_csv(labels, tmp_path / "pictures", {"race": FAIRFACE["race"]}).axes == ("race",)
    labels.write_text(labels.read_text().replace("Latino_Hispanic", "Latino Hispanic"))
    with pytest.raises(CounterpoiseError, match="race 'Latino Hispanic' is unknown"):
        fairface_csv(labels, tmp_path / "pictures")


SOCIAL: list[tuple[str, str, str, str, str, str]] = [
    # set, a1_type, a1, a2_type, a2, caption
    ("plumber_0", "race", "White", "gender", "male", "A picture of a White male plumber"),
    (
        "plumber_0",
        "race",
        "Middle Eastern",
        "gender",
        "female",
        "A picture of a Middle Eastern female plumber",
    ),
    ("engineer_3", "physical", "obese", "gender", "female", "an obese female Civil Engineer"),
    ("engineer_3", "physical", "old", "gender", "male", "an old male Civil Engineer"),
    ("tailor_1", "physical", "tattooed", "race", "Asian", "A photo of a tattooed Asian tailor."),
]


def social_file(path: Path, rows: Sequence[tuple[str, ...]] = SOCIAL) -> Path:
    names = ("counterfactual_set", "a1_type", "a1", "a2_type", "a2", "caption")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table({"image": pictures(len(rows)), **columns}), path)
    return path


def test_a_segment_of_social_counterfactuals(tmp_path: Path) -> None:
    path = social_file(tmp_path / "train-00000.parquet")
    items = list(social_counterfactuals(path))
    assert [(item.key, item.set_id, item.concept) for item in items] == [
        ("train-00000-000000", "plumber_0", "plumber"), ("train-00000-000001", "plumber_0", "plumber"),
    ]  # fmt: skip
    assert [item.values for item in items] == [
        {"race": "White", "gender": "man"}, {"race": "Middle Eastern", "gender": "woman"},
    ]  # fmt: skip
    pool = social_counterfactuals(path, ("physical", "gender"))
    assert len(pool) == 2
    assert [(item.concept, item.values["physical"]) for item in pool] == [
        ("civil engineer", "obese"), ("civil engineer", "old"),
    ]  # fmt: skip
    assert [item.image.tobytes() for item in pool] == [
        photograph(seed, (12, 12)).tobytes() for seed in (2, 3)
    ]
    (one,) = social_counterfactuals(path, ("physical", "race"))
    assert (one.concept, one.values) == ("tailor", {"physical": "tattooed", "race": "Asian"})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            ("s", "race", "Martian", "gender", "male", "a Martian male chef"),
            "race 'martian' is unknown; known are white",
        ),
        (("s", "race", "White", "gender", "male", "a chef"), "caption 'a chef' does not name its attributes"),
        (("s", "race", "White", "gender", "male", "a White male"), "and something behind them"),
        (("s", "race", "White", "gender", "", "a White chef"), "row 1 has no a2"),
        (
            ("s", "physical", "old", "gender", "male", "an old male chef"),
            "race and gender; there are physical and gender",
        ),
    ],
)
def test_bad_rows_of_social_counterfactuals(tmp_path: Path, row: tuple[str, ...], words: str) -> None:
    with pytest.raises(CounterpoiseError, match=words):
        social_counterfactuals(social_file(tmp_path / "a.parquet", [row]))


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CounterpoiseError, match="no Parquet file is there"):
        fairface_parquet(tmp_path)
    with pytest.raises(CounterpoiseError, match=r"none.parquet: cannot be read"):
        fairface_parquet(tmp_path / "none.parquet")
    pq.write_table(pa.table({"race": ["White"]}), tmp_path / "a.parquet")
    with pytest.raises(CounterpoiseError, match="column 'image' is missing"):
        fairface_parquet(tmp_path / "a.parquet")
    pq.write_table(pa.table({"race": ["White"], "image": ["a.png"]}), tmp_path / "a.parquet")
    with pytest.raises(CounterpoiseError, match="column 'image' is string, a struct with bytes is wanted"):
        fairface_parquet(tmp_path / "a.parquet")
    pq.write_table(pa.table({"race": ["White"], "image": pictures(1)}), tmp_path / "a.parquet")
    with pytest.raises(
        CounterpoiseError, match="column 'counterfactual_set' is missing; its columns are race, image"
    ):
        social_counterfactuals(tmp_path / "a.parquet")


def test_an_empty_file_and_a_damaged_picture(tmp_path: Path) -> None:
    path = social_file(tmp_path / "a.parquet")
    pq.write_table(pq.read_table(path).slice(0, 0), tmp_path / "b.parquet")
    with pytest.raises(CounterpoiseError, match="there are none"):
        social_counterfactuals(tmp_path / "b.parquet")
    table = pq.read_table(path)
    broken = [{"bytes": encoded(0)[:60], "path": None}, *pictures(4)]
    pq.write_table(table.set_column(table.column_names.index("image"), "image", pa.array(broken)), path)
    with pytest.raises(CounterpoiseError, match=r"a\.parquet: a-000000: picture cannot be read"):
        list(social_counterfactuals(path))
