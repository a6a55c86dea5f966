"""Predictions from files and arrays: what is read, and that bad ones are one line that names row and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from debias.predictions import Predictions, axis_column, predictions_from
from debias.predictions_file import read_predictions
from storage import CounterpoiseError

ROWS: dict[str, list[Any]] = {
    "key": ["a-00", "a-01", "b-00", "b-01"],
    "set_id": ["a", "a", "b", "b"],
    "concept": ["chef", "chef", "arts", "arts"],
    "predicted": ["chef", "arts", "arts", "arts"],
    "options": [["chef", "arts", "science"], ["arts", "chef", "science"], ["arts", "chef"], ["arts", "chef"]],
    "gender": ["man", "woman", "man", "woman"],
    "race": ["White", "Black", "Black", "White"],
}


def parquet(folder: Path, **changes: Any) -> Path:
    columns = {name: column for name, column in {**ROWS, **changes}.items() if column is not None}
    pq.write_table(pa.table(columns), folder / "given.parquet")
    return folder / "given.parquet"


def csv(folder: Path, text: str) -> Path:
    (folder / "given.csv").write_text(text, "utf-8")
    return folder / "given.csv"


def facts(given: Predictions) -> dict[str, Any]:
    assert given.concept is not None and given.set_id is not None and given.options is not None
    return {
        "concepts": given.concepts,
        "predicted": given.predicted.tolist(),
        "concept": given.concept.tolist(),
        "axes": {name: (one.values, one.codes.tolist()) for name, one in given.axes.items()},
        "set_id": given.set_id.codes.tolist(),
        "options": given.options.offered[given.options.codes].tolist(),
    }


WANTED = {
    "concepts": ("arts", "chef", "science"),
    "predicted": [1, 0, 0, 0],
    "concept": [1, 1, 0, 0],
    "axes": {"gender": (("man", "woman"), [0, 1, 0, 1]), "race": (("Black", "White"), [1, 0, 0, 1])},
    "set_id": [0, 0, 1, 1],
    "options": [[True, True, True], [True, True, True], [True, True, False], [True, True, False]],
}


def test_parquet_csv_and_arrays_say_the_same(tmp_path: Path) -> None:
    assert facts(read_predictions(parquet(tmp_path))) == WANTED
    lines = [",".join(ROWS)]
    for row in zip(*ROWS.values(), strict=True):
        lines.append(",".join(" | ".join(cell) if isinstance(cell, list) else cell for cell in row))
    assert facts(read_predictions(csv(tmp_path, "\n".join(lines)))) == WANTED
    axes = {name: ROWS[name] for name in ("gender", "race")}
    more = {name: ROWS[name] for name in ("key", "set_id", "concept", "options")}
    assert facts(predictions_from(ROWS["predicted"], axes, **more)) == WANTED


def test_columns_of_other_writers(tmp_path: Path) -> None:
    """Polars writes large strings, pandas categories and its index; numbers may be values."""
    path = parquet(
        tmp_path,
        gender=pa.array(ROWS["gender"], pa.large_string()),
        race=pa.array(ROWS["race"]).dictionary_encode(),
        __index_level_0__=[0, 1, 2, 3],
        age=[20, 60, 60, 20],
        options=["chef|arts|science"] * 4,
    )
    found = read_predictions(path)
    assert list(found.axes) == ["gender", "race", "age"]
    assert found.axes["age"].values == ("20", "60") and found.axes["race"].values == ("Black", "White")
    assert found.options is not None and found.options.offered.tolist() == [[True, True, True]]


def test_only_the_axes_that_are_asked_for(tmp_path: Path) -> None:
    path = parquet(tmp_path, note=["x", "y", "x", "z"])
    assert list(read_predictions(path, ["race"]).axes) == ["race"]
    assert list(read_predictions(path, ["gender*race", "gender"]).axes) == ["gender", "race"]
    given = read_predictions(
        path, values={"gender": ["woman", "man"]}, concepts=["chef", "arts", "science", "none"]
    )
    assert given.axes["gender"].values == ("woman", "man") and given.axes["gender"].codes.tolist() == [
        1,
        0,
        1,
        0,
    ]
    assert given.concepts == ("arts", "chef", "none", "science")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predicted": None}, "no column 'predicted'; its columns are key"),
        ({"gender": None}, "no column 'gender'"),
        ({"gender": ["man", None, "man", "woman"]}, "row 2, column 'gender' is empty"),
        ({"gender": [1.0, float("nan"), 2.0, 1.0]}, "row 2, column 'gender' is empty"),
        ({"gender": [1.5, 2.5, 2.0, 1.0]}, "column 'gender' is double, text is wanted"),
        ({"predicted": ["chef", "arts", " ", "arts"]}, "row 3, column 'predicted' is ' '"),
        ({"set_id": ["a", "a", None, "b"]}, "row 3, column 'set_id' is empty"),
        ({"key": ["a", "b", "a", "c"]}, "key 'a' is there 2 times"),
        ({"gender": ["man"] * 4}, "column 'gender' has 1 different values, an axis has 2 to 100"),
        ({"gender": ["man*x", "b", "b", "b"]}, r"axis 'gender' has '\*' in its name or values"),
        ({"options": [[], ["a"], ["a"], ["a"]]}, "row 1, column 'options' is"),
        ({"options": [["a"], None, ["a"], ["a"]]}, "row 2, column 'options' is empty"),
        ({"options": [["a"], ["a", None], ["a"], ["a"]]}, "row 2, column 'options' is"),
        ({name: [] for name in ROWS}, "has no rows"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    if changes.get("predicted") == []:
        changes = {name: pa.array([], pa.string()) for name in ROWS}
    path = parquet(tmp_path, **changes)
    with pytest.raises(CounterpoiseError, match=words) as caught:
        read_predictions(path, ["gender"])
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_values_and_concepts_that_are_known(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    with pytest.raises(
        CounterpoiseError, match="row 2, column 'race' is 'Black', one of White, Asian is wanted"
    ):
        read_predictions(path, values={"race": ["White", "Asian"]})
    with pytest.raises(CounterpoiseError, match="no row has the value 'Asian' of axis 'race'"):
        read_predictions(path, values={"race": ["White", "Black", "Asian"]})
    with pytest.raises(CounterpoiseError, match="row 1, column 'predicted' is 'chef', one of arts is wanted"):
        read_predictions(path, concepts=["arts"])
    with pytest.raises(CounterpoiseError, match="row 1, column 'concept' is 'chef'"):
        read_predictions(parquet(tmp_path, predicted=["arts"] * 4), concepts=["arts"])


def test_a_combination_that_no_row_has() -> None:
    given = predictions_from(["a"] * 3, {"x": ["p", "q", "q"], "y": ["r", "r", "s"]})
    with pytest.raises(CounterpoiseError, match=r"no row has the value 'p\*s' of axis 'x\*y'"):
        axis_column(given, "x*y")


def test_columns_that_are_no_axes_are_not_taken_for_some(tmp_path: Path) -> None:
    rows = 300
    path = csv(
        tmp_path, "predicted,gender,file\n" + "\n".join(f"chef,{'mw'[i % 2]},{i}.png" for i in range(rows))
    )
    with pytest.raises(CounterpoiseError, match=r"column 'file' has 300 different values.*\(--axis\)"):
        read_predictions(path)
    assert len(read_predictions(path, ["gender"])) == rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is neither Parquet nor CSV"),
        (b"PAR1 and then nothing", "is neither Parquet nor CSV"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xfe", "neither Parquet nor CSV|no column 'predicted'"),
        (b"predicted,gender\nchef,man,more\n", "is neither Parquet nor CSV"),
        (b"predicted,gender\nchef,\xff\n", "is neither Parquet nor CSV"),
        (b"predicted,gender\n", "has no rows"),
        (b"predicted,gender\nchef,man\nchef,\n", "row 2, column 'gender' is empty"),
        (b"predicted,gender\nchef,NaN\nchef,man\n", "row 1, column 'gender' is empty"),
        (b"predicted,gender,gender\nchef,man,man\n", "column 'gender' is there twice"),
        (b"predicted\nchef\n", "has no axis"),
    ],
)
def test_what_is_no_table_of_predictions_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "given").write_bytes(content)
    with pytest.raises(CounterpoiseError, match=words) as caught:
        read_predictions(tmp_path / "given")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(CounterpoiseError, match="is no file"):
            read_predictions(path)


def test_arrays_of_numpy_and_of_different_lengths() -> None:
    given = predictions_from(np.array(["a", "b"]), {"x": np.array(["p", "q"])})
    assert given.predicted.tolist() == [0, 1] and len(given) == 2
    with pytest.raises(CounterpoiseError, match="x has 1 rows, 2 are wanted"):
        predictions_from(["a", "b"], {"x": ["p"]})
    with pytest.raises(CounterpoiseError, match="row 2, column 'x' is None"):
        predictions_from(["a", "b"], {"x": ["p", None]})  # type: ignore[list-item]
