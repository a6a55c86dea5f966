"""What goes wrong is told by name: planted faults, each with its own line; and bad input before anything is trained."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_mllm import photograph, save
from training_world import dataset, recipe

from debias import instance
from debias.models.opening import open_model
from debias.training import epochs as beginning
from debias.training.capability import answered, read_questions
from debias.training.card import licence
from debias.training.evaluating import Evaluator
from debias.training.measuring import ask, chosen_sets, source_of
from debias.training.planning import preview
from debias.training.recipe import Lora, Parts, Recipe
from debias.training.run import train
from debias.training.subject import Share
from storage import CounterpoiseError
from storage.sidecar import write_sidecar


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data") / "d")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llava", tmp_path_factory.mktemp("model") / "llava")


def csd(llava: Path, data: Path, **changes: Any) -> Recipe:
    return recipe(llava, data, **{"method": "csd", "evaluate_on": ("heldout",), "stop_drop": 1.0, **changes})


def test_a_bias_that_does_not_fall(llava: Path, data: Path, tmp_path: Path) -> None:
    """A learning rate at which nothing happens; the model is saved all the same, and the card says so."""
    found = train(csd(llava, data, learning_rate=1e-12), str(tmp_path))
    assert found.model is not None
    assert found.shortfall.startswith(
        "bias plateaus: the excess of MaxSkew - MinSkew over a fair model's went from gender"
    )
    for words in ("10%", "skew_pool", "Copies of a picture in the last epoch, the least even: ", "woman"):
        assert words in found.shortfall
    card = (tmp_path / "README.md").read_text()
    assert found.shortfall in card and card == (tmp_path / "model" / "README.md").read_text()
    assert "root_sha256" in json.loads((tmp_path / "recipe.json").read_text())["resolved"]
    assert "\n" not in found.shortfall
    none = train(csd(llava, data, learning_rate=1e-12, plateau=0.0), str(tmp_path / "other"))
    assert none.shortfall == ""


def test_capability_that_falls_stops_training(
    llava: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: after the second of three epochs the model is worse by 3 %."""
    drops = {0: 0.8, 1: 0.79, 2: 0.77, 3: 0.9}
    monkeypatch.setattr(Evaluator, "capability", lambda self, epochs, step: drops[epochs])
    found = train(csd(llava, data, epochs=3, stop_drop=0.02), str(tmp_path))
    assert found.shortfall.startswith("capability falls: 77.0% right after epoch 2, 80.0% before training")
    for words in ("the learning rate or the resampling is too strong", "tau1", "checkpoint-4"):
        assert words in found.shortfall
    assert found.model is None and not (tmp_path / "model").exists()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["checkpoint-4"]


def test_capability_by_general_questions(llava: Path, data: Path, tmp_path: Path) -> None:
    """The same question with a picture, once with each letter as its answer: one of both is right."""
    photograph(0).save(tmp_path / "a.png")
    question = "What is it?\nA. a cat\nB. a dog"
    with (tmp_path / "q.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["image", "question", "answer"], ["a.png", question, "A"], ["a.png", question, "b"]]
        )
    questions = read_questions(str(tmp_path / "q.csv"))
    assert questions[0].options == ("a cat", "a dog") and questions[0].text == "What is it?"
    assert sorted(answered(open_model(str(llava)), questions)) == [False, True]
    made = csd(llava, data, questions=str(tmp_path / "q.csv"), evaluate_on=(), steps=1)
    train(made, str(tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["accuracy"] for line in lines if line["kind"] == "evaluation"] == [0.5, 0.5]
    (tmp_path / "q.csv").write_text('image,question,answer\na.png,"Which? A cat",A\n')
    with pytest.raises(CounterpoiseError, match=r"q\.csv: row 1: a question with options"):
        train(made, str(tmp_path / "other"))


def test_weights_too_large(llava: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: one picture in two weighs as much as a float32 can hold, twice."""

    def wrong(dataset: Any, name: str, keys: list[str], skew: Any, weight: Any, times: Any) -> str:
        return write_sidecar(
            dataset, name, keys, skew, [3e38 if n % 2 else 1.0 for n in range(len(keys))], times
        )

    monkeypatch.setattr(instance, "write_sidecar", wrong)
    with pytest.raises(CounterpoiseError) as caught:
        train(csd(llava, data, faithful=True), str(tmp_path))
    text = str(caught.value)
    assert text.startswith("step 1: the loss is not finite; weights too large. Largest weights: 3e+38 of ")
    assert "skew_clamp of 2" in text and "\n" not in text


def test_a_model_that_gives_no_numbers(llava: Path, data: Path, tmp_path: Path) -> None:
    """Planted: a rate that blows the model up; the checkpoint before is kept."""
    made = recipe(llava, data, learning_rate=1e38, save_steps=1, epochs=2, max_grad_norm=0.0)
    with pytest.raises(
        CounterpoiseError, match="step 2: the loss is not finite; the model itself gives no number"
    ):
        train(made, str(tmp_path))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-1"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes": ("gender", "agee")}, "axes: given 'agee', but .* has the axes gender, race"),
        ({"smoothing": 0.0}, "smoothing: given 0, wanted a number above 0: .* infinite Skew"),
        ({"split": "training"}, "no kept image is in split 'training'; there are test, train"),
        ({"batch": 10}, "batch: given 10, wanted a multiple of 6"),
        ({"batch": 60}, r"batch: given 60, but the epoch has 5\d pictures"),
        ({"train": Parts(False, False, False)}, "train: vision, projector and language are all false"),
        (
            {"train": Parts(language=False), "lora": Lora()},
            r"train\.language: given false, wanted true with lora",
        ),
        ({"method": "cds"}, "method: given 'cds', wanted one of sft, csd, consistency"),
        ({"method": "consistency", "consistency": 0.0}, "consistency: given 0"),
        ({"skew_pool": "nowhere"}, "nowhere holds no dataset.json"),
        ({"min_count": 1000}, "no concept was given 1000 times"),
    ],
)
def test_what_cannot_be_trained(
    llava: Path, data: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(CounterpoiseError, match=words) as caught:
        train(csd(llava, data, evaluate_on=(), **changes), str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_model_without_an_image_processor(data: Path, tmp_path: Path) -> None:
    folder = save("llava", tmp_path / "model")
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(CounterpoiseError, match=r"no image processor|processor cannot be loaded"):
        train(csd(folder, data), str(tmp_path / "run"))


def test_a_dataset_that_cannot_be_written_to(llava: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", 1, 5)
    (data / "skew").write_text("")
    with pytest.raises(CounterpoiseError, match=r"skew.* make it writable|skew"):
        train(csd(llava, data), str(tmp_path / "run"))


def test_a_table_of_another_dataset(
    llava: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skew measured on pictures of other concepts cannot be given to these."""
    monkeypatch.setattr(instance, "dataset_concepts", lambda name: ["chef", "tool"])
    monkeypatch.setattr(beginning, "write_skew", instance.write_skew)
    with pytest.raises(CounterpoiseError, match=r"concepts: only .* has"):
        train(csd(llava, data, evaluate_on=()), str(tmp_path / "run"))


def test_sets_are_chosen_whole_and_by_hash(llava: Path, data: Path) -> None:
    source = source_of(csd(llava, data), "train")
    every = chosen_sets(source, None, 3)
    some = chosen_sets(source, 13, 3)
    assert len(every) == 8 and some == every[:3]
    assert {name.split("_")[0] for name in some[:2]} == {"chef", "science"}
    assert chosen_sets(source, None, 4) != every
    table = ask(open_model(str(llava)), source, some, Share(), 4)
    assert len(table) == 18 and set(table["set_id"].to_pylist()) == set(some)
    parts = [ask(open_model(str(llava)), source, some[rank::2], Share(), 4).to_pylist() for rank in (0, 1)]
    assert sorted([*parts[0], *parts[1]], key=lambda row: row["key"]) == table.to_pylist()


def test_a_pool_too_small_for_skew_has_its_accuracy(llava: Path, data: Path, tmp_path: Path) -> None:
    made = recipe(llava, data, evaluate_on=("heldout",), min_count=30, stop_drop=1.0, steps=1)
    found = train(made, str(tmp_path))
    assert found.before["heldout"].table is None and 0 <= found.before["heldout"].accuracy <= 1
    assert "no concept was given 30 times" in (tmp_path / "README.md").read_text()


def test_the_licence_is_the_base_models(tmp_path: Path) -> None:
    assert licence(str(tmp_path)) is None
    (tmp_path / "README.md").write_text("---\nlicense: llama2\n---\n# Base\n")
    assert licence(str(tmp_path)) == "llama2"
    (tmp_path / "README.md").write_text("---\n[\n---\n")
    assert licence(str(tmp_path)) is None


def test_a_preview_writes_nothing(llava: Path, data: Path) -> None:
    found = preview(replace(csd(llava, data), epochs=3))
    assert found["steps"] == "4 an epoch before resampling, 3 epochs"
    assert "38,944 parameters trained" in found["model"]
