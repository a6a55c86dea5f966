"""Predictions on a pool: one row a picture in the pool's order, whatever the batches; written whole."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from stream_world import make
from tiny_mllm import MAKERS, photograph

from debias.asking import Asker
from debias.models.base import MultimodalModel
from debias.models.opening import adapter_of
from debias.pools import Pool, PoolItem, dataset_pool
from debias.predicting import predict, predictions_schema, write_predictions
from debias.questions import of_the_group, same_for_all, with_distractors
from debias.replies import TextAsker
from storage import CounterpoiseError

NAMES = ("chef", "science", "arts")


def tiny(maker: str = "llava") -> MultimodalModel:
    model, processor = MAKERS[maker]()
    return MultimodalModel(maker, model, processor, adapter_of(model.config, maker))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return dataset_pool(make(tmp_path_factory.mktemp("predict") / "data", 2, 2), "train")


def test_a_model_on_a_dataset(pool: Pool) -> None:
    asker = Asker(tiny())
    table = predict(asker, pool, same_for_all(NAMES), batch_size=5)
    assert table.schema == predictions_schema(("gender", "race"))
    assert table.column_names == ["key", "set_id", "concept", "predicted", "options", "gender", "race"]
    items = list(pool)
    assert table["key"].to_pylist() == [item.key for item in items]
    for row, item in zip(table.to_pylist(), items, strict=True):
        known = (row["set_id"], row["concept"], row["gender"], row["race"], tuple(row["options"]))
        assert known == (item.set_id, item.concept, item.values["gender"], item.values["race"], NAMES)
        assert [row["predicted"]] == asker.choose([item.image], [NAMES])


@pytest.mark.parametrize("maker", ["llava", "qwen2_5"])
def test_the_batches_do_not_matter(pool: Pool, maker: str) -> None:
    offer = with_distractors(["chef", "science", "arts", "tool", "career"], 2, seed=4)
    one, all_together = (predict(Asker(tiny(maker)), pool, offer, batch_size=size) for size in (1, len(pool)))
    assert one.equals(all_together)
    by_set = {row["set_id"]: set() for row in one.to_pylist()}
    for row in one.to_pylist():
        by_set[row["set_id"]].add(tuple(row["options"]))
    assert all(len(offered) == 1 for offered in by_set.values()), "twins are asked the same"


def test_a_model_that_answers_in_words(pool: Pool, tmp_path: Path) -> None:
    """It names what it sees as brightness; some answers mean nothing."""

    def answerer(
        images: Sequence[Image.Image], questions: Sequence[str], options: Sequence[Sequence[str]]
    ) -> list[str]:
        shades = [sum(image.convert("L").resize((1, 1)).tobytes()) % 3 for image in images]
        return ["I cannot tell" if shade == 2 else f"It is {NAMES[shade]}." for shade in shades]

    table = predict(TextAsker(answerer), pool, same_for_all(NAMES))
    shades = [item.image.convert("L").resize((1, 1)).tobytes()[0] % 3 for item in pool]
    assert set(shades) == {0, 1, 2}
    assert table["predicted"].to_pylist() == [None if shade == 2 else NAMES[shade] for shade in shades]
    assert table["predicted"].null_count == shades.count(2)
    assert write_predictions(table, tmp_path / "predictions.parquet") == shades.count(2)
    written = pq.read_table(tmp_path / "predictions.parquet")
    assert written.schema.metadata == {b"unanswered": str(shades.count(2)).encode()}
    assert written["predicted"].to_pylist() == [NAMES[shade] for shade in shades if shade < 2]


def test_what_no_picture_has_is_no_column() -> None:
    items = [PoolItem(f"p{number}", None, None, {"race": "White"}, photograph(number)) for number in range(2)]
    table = predict(Asker(tiny()), Pool("two", ("race",), 2, lambda: iter(items)), same_for_all(NAMES))
    assert table.column_names == ["key", "predicted", "options", "race"]
    known = [*items, PoolItem("p2", "s", "chef", {"race": "White"}, photograph(2))]
    table = predict(Asker(tiny()), Pool("three", ("race",), 3, lambda: iter(known)), same_for_all(NAMES))
    assert table["set_id"].to_pylist() == [None, None, "s"]


def test_bad_pools_and_offers_are_refused(pool: Pool) -> None:
    asker = Asker(tiny())
    with pytest.raises(CounterpoiseError, match="nothing: it has no pictures to ask about"):
        predict(asker, Pool("nothing", ("race",), 0, lambda: iter([])), same_for_all(NAMES))
    with pytest.raises(CounterpoiseError, match="concept 'chef' is none of tool, arts"):
        predict(asker, pool, of_the_group({"all": ("tool", "arts")}))
    with pytest.raises(CounterpoiseError, match="batch_size is 0"):
        predict(asker, pool, same_for_all(NAMES), batch_size=0)
    with pytest.raises(CounterpoiseError, match="axis 'concept' has the name of a column"):
        item = PoolItem("a", None, None, {"concept": "x"}, photograph(0))
        predict(asker, Pool("odd", ("concept",), 1, lambda: iter([item])), same_for_all(NAMES))


def test_the_axes_are_checked_before_the_work() -> None:
    def never() -> None:
        raise AssertionError("asked")

    with pytest.raises(CounterpoiseError, match="axis 'options'"):
        predict(Asker(tiny()), Pool("odd", ("options",), 1, never), same_for_all(NAMES))  # type: ignore[arg-type]


def test_progress_is_shown_on_a_terminal(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr("debias.predicting.Console", lambda stderr: terminal)
    predict(Asker(tiny()), pool, same_for_all(NAMES))
    assert "asking" in shown.getvalue()


def test_written_predictions_are_read_by_others(pool: Pool, tmp_path: Path) -> None:
    table = predict(Asker(tiny()), pool, same_for_all(NAMES))
    path = tmp_path / "out" / "predictions.parquet"
    write_predictions(table.slice(0, 1), path)
    assert write_predictions(table, path) == 0
    assert pq.read_table(path).equals(table)
    assert [one.name for one in path.parent.iterdir()] == ["predictions.parquet"]
    frame = pd.read_parquet(path)
    assert frame["predicted"].tolist() == table["predicted"].to_pylist()


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.Table.from_pylist([], schema=predictions_schema(("race",)))
    path = tmp_path / "predictions.parquet"
    write_predictions(table, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.local.os.replace", full)
    with pytest.raises(CounterpoiseError, match="the disk is full"):
        write_predictions(table, path)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == [path.name]
    with pytest.raises(CounterpoiseError, match="the name of a file is wanted"):
        write_predictions(table, f"{tmp_path}/")
