"""`--to chat`: items as LLaMA-Factory and TRL read them; resampling; nothing asked of the attributes."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from export_world import SKEW, exported, judge, kept, make, sidecar
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_world import HEADER, files, plan_rows

from debias.sampling import copies, drawn, multiplicity
from debias.wording import CAPTIONS
from flows.export.options import Chat
from flows.export.questions import CHOICE, Questions, open_questions
from storage import CounterpoiseError, DatasetMismatch, create_dataset, load_dataset
from storage.stream import stream


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("chat") / "data")


@pytest.fixture(scope="module")
def out(dataset: Path) -> Path:
    exported(dataset, "chat", dataset.parent / "out", seed=3)
    return dataset.parent / "out"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_files_are_images_beside_their_items(out: Path) -> None:
    images = {f"{one.split}/{one.set_id}/{key}.png": one.image for key, one in kept().items()}
    found = files(out)
    assert {name: found[name] for name in images} == images, "no byte of an image is touched"
    splits = ("train", "validation", "test")
    items = {name for split in splits for name in (f"{split}.jsonl", f"{split}/metadata.jsonl")}
    assert set(found) == {*images, *items, "dataset_info.json", "README.md", "export.json"}


def test_items_to_the_letter(out: Path) -> None:
    question = (
        "Which of the following best describes this person?\\nA. science\\nB. chef\\n"
        "Answer with the option's letter and word."
    )
    caption, _, choice, *_ = (out / "train.jsonl").read_text("utf-8").splitlines()
    assert caption == (
        '{"images":["train/chef_0000/chef_0000-00.png"],"key":"chef_0000-00","messages":['
        '{"content":"<image>What is the person in the picture doing?","role":"user"},'
        '{"content":"A photo of a person, chef.","role":"assistant"}]}'
    )
    assert choice == (
        '{"images":["train/chef_0000/chef_0000-02.png"],"key":"chef_0000-02","messages":['
        f'{{"content":"<image>{question}","role":"user"}},{{"content":"B. chef","role":"assistant"}}]}}'
    )
    assert (out / "train" / "metadata.jsonl").read_text("utf-8").splitlines()[2] == (
        '{"images_file_names":["chef_0000/chef_0000-02.png"],"key":"chef_0000-02","messages":['
        f'{{"content":[{{"type":"image"}},{{"text":"{question}","type":"text"}}],"role":"user"}},'
        '{"content":[{"text":"B. chef","type":"text"}],"role":"assistant"}]}'
    )


def test_llama_factory_is_told_of_every_split(out: Path) -> None:
    found = json.loads((out / "dataset_info.json").read_text("utf-8"))
    assert list(found) == ["small_train", "small_validation", "small_test"]
    assert found["small_train"] == {
        "file_name": "train.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        },
    }
    for row in lines(out / "train.jsonl"):
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
        assert row["messages"][0]["content"].count("<image>") == len(row["images"]) == 1
        assert (out / row["images"][0]).is_file()


def test_datasets_gives_trl_its_columns(out: Path, tmp_path: Path) -> None:
    import datasets

    found = datasets.load_dataset(str(out), cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in found.items()} == {"train": 24, "validation": 6, "test": 6}
    assert found["train"].features["images"] == datasets.List(datasets.Image())
    for row, line in zip(found["train"], lines(out / "train.jsonl"), strict=True):
        assert row["key"] == line["key"] and [image.size for image in row["images"]] == [(8, 8)]
        asked, answered = row["messages"]
        assert [part["type"] for part in asked["content"]] == ["image", "text"]
        assert "<image>" + asked["content"][1]["text"] == line["messages"][0]["content"]
        assert answered["content"][0]["text"] == line["messages"][1]["content"]


def asked(chat: Chat, groups: dict[str, list[str]] | None = None) -> Questions:
    """Questions over a made-up group of seven."""
    words = ["chef", "family", "tool", "weapon", "career", "earning money", "science"]
    return Questions(chat, groups or {"work": words}, ["woman", "man", "Asian", "Black", "White"])


SAMPLE = kept()["chef_0000-00"]


@given(key=st.text(max_size=20), seed=st.integers(0, 2**31), copy=st.integers(0, 3))
def test_the_answer_is_one_of_the_options_and_the_right_one(key: str, seed: int, copy: int) -> None:
    questions = asked(Chat(seed=seed, caption_share=0))
    item = questions.item(replace(SAMPLE, key=key, concept="earning_money"), copy)
    options = re.findall(r"^([A-G])\. (.+)$", item.question, re.M)
    assert [letter for letter, _ in options] == list("ABCDEFG")
    assert sorted(word for _, word in options) == sorted(questions.groups["work"])
    letter, word = item.answer.split(". ")
    assert word == "earning money" and (letter, word) in options
    assert item == questions.item(replace(SAMPLE, key=key, concept="earning_money"), copy)


def test_the_right_letter_is_any_letter_alike() -> None:
    questions = asked(Chat(caption_share=0))
    found = Counter(questions.item(replace(SAMPLE, key=f"k{n}")).answer[0] for n in range(3500))
    assert set(found) == set("ABCDEFG") and max(abs(count - 500) for count in found.values()) < 100


def test_the_order_depends_on_seed_key_and_copy() -> None:
    keys = [replace(SAMPLE, key=f"k{n}") for n in range(30)]
    plain = [asked(Chat()).item(one) for one in keys]
    assert plain == [asked(Chat()).item(one, 0) for one in keys]
    assert plain != [asked(Chat(seed=1)).item(one) for one in keys]
    assert plain != [asked(Chat()).item(one, 1) for one in keys]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_asks_for_a_sentence(share: float) -> None:
    questions = asked(Chat(caption_share=share))
    items = [questions.item(replace(SAMPLE, key=f"k{n}")) for n in range(2000)]
    captions = [item for item in items if item.question in CAPTIONS]
    assert abs(len(captions) / 2000 - share) < 0.04
    assert {item.answer for item in captions} <= {"A photo of a person, chef."}
    assert {item.question.partition("\n")[0] for item in items if item not in captions} <= {
        text.partition("\n")[0] for text in CHOICE
    }


@given(
    words=st.lists(
        st.sampled_from(["a", "Woman", "white", "MAN", "person", "chef", "womanly", "manual"]), max_size=6
    )
)
def test_no_answer_mentions_an_attribute(words: list[str]) -> None:
    questions = asked(Chat(caption_share=1))
    answer = questions.item(replace(SAMPLE, neutral_prompt=" ".join(words))).answer
    told = set(re.findall(r"\w+", answer.lower()))
    assert not told & {"woman", "man", "asian", "black", "white"}
    assert answer.endswith(".") and len(answer) > 1


def test_a_concept_that_names_an_attribute_is_refused() -> None:
    groups = {"work": ["white collar", "chef"]}
    for share in (0, 1):
        sample = replace(SAMPLE, concept="white_collar", neutral_prompt="A white picture")
        with pytest.raises(CounterpoiseError, match=r"concept 'white_collar' names the attribute 'white'"):
            asked(Chat(caption_share=share), groups).item(sample)


@pytest.mark.parametrize(
    ("template", "start", "end"),
    [
        ("Who is this?", "Who is this?\nA. ", ""),
        ("{options}\n\nWhich?", "A. ", "\n\nWhich?"),
        ("Braces {x} stay: {options}", "Braces {x} stay: A. ", ""),
    ],
)
def test_questions_of_ones_own(template: str, start: str, end: str) -> None:
    questions = asked(Chat(questions=(template,), caption_share=0))
    found = questions.item(replace(SAMPLE, concept="chef")).question
    assert found.startswith(start) and found.endswith(end) and "\nG. " in found


def test_at_most_a_letter_each() -> None:
    words = [f"c{n}" for n in range(60)] + ["chef"]
    item = asked(Chat(caption_share=0), {"work": words}).item(SAMPLE)
    assert item.question.count("\n") == 27 and item.answer.endswith(". chef")


def test_a_group_of_one_is_asked_among_all(tmp_path: Path) -> None:
    create_dataset(tmp_path, HEADER, plan_rows())  # chef_group and science_group
    found = open_questions(str(tmp_path), load_dataset(tmp_path), Chat())
    assert dict(found.groups) == {name: ["chef", "science"] for name in ("chef_group", "science_group")}


def test_a_single_concept_can_only_be_described(tmp_path: Path) -> None:
    create_dataset(
        tmp_path, HEADER, [{**row, "concept": "chef", "concept_group": "x"} for row in plan_rows()]
    )
    manifest = load_dataset(tmp_path)
    with pytest.raises(CounterpoiseError, match="--caption-share 1"):
        open_questions(str(tmp_path), manifest, Chat())
    assert open_questions(str(tmp_path), manifest, Chat(caption_share=1)).groups == {"x": ["chef"]}


def test_resampling_repeats_and_drops_by_skew(tmp_path: Path) -> None:
    dataset = make(tmp_path / "data")
    skew = {key: (-2.5, -1.0, -0.3, 0.0, 0.6, 3.0)[n % 6] for n, key in enumerate(kept())}
    sidecar(dataset, skew)
    exported(dataset, "chat", tmp_path / "out", resample=SKEW, seed=5, epoch=2, tau1=0.5, tau2=2.0)
    wanted = {
        key: copies(skew[key], key, 5, 2, tau1=0.5, tau2=2.0) if one.split == "train" else 1
        for key, one in kept().items()
    }
    assert {0, 1, 2} <= set(wanted.values())
    for split in ("train", "validation", "test"):
        rows = lines(tmp_path / "out" / f"{split}.jsonl")
        found = Counter(row["key"] for row in rows)
        assert found == Counter({k: n for k, n in wanted.items() if n and kept()[k].split == split})
    images = {path.stem for path in (tmp_path / "out").rglob("*.png")}
    assert images == {key for key, count in wanted.items() if count}, "what is never asked about is not there"
    assert f"`{SKEW}` for epoch 2" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_the_multiplicities_of_the_sidecar_are_those_of_a_stream(tmp_path: Path) -> None:
    dataset, names = make(tmp_path / "data"), list(kept())
    times = dict(zip(names, [n % 3 for n in range(len(names))], strict=True))
    backwards = dict.fromkeys(reversed(names), -2.5)
    sidecar(dataset, backwards, times=[times[key] for key in backwards])
    judge(dataset, "ann", science_0000="reject")
    left = {key: one.split == "train" for key, one in kept().items() if one.set_id != "science_0000"}
    wanted = Counter({key: n for key, trained in left.items() if (n := times[key] if trained else 1)})
    exported(dataset, "chat", tmp_path / "out", resample=SKEW, seed=4)
    found = Counter(row["key"] for path in (tmp_path / "out").glob("*.jsonl") for row in lines(path))
    assert found == wanted
    streamed = Counter(item["key"] for item in stream(dataset, "train", skew=SKEW, keep_sets=False))
    assert streamed == Counter({key: n for key, n in wanted.items() if left[key]})
    assert f"the multiplicities in `{SKEW}`" in (tmp_path / "out" / "README.md").read_text("utf-8")
    with pytest.raises(DatasetMismatch, match=r"export\.(copies|epoch)"):
        exported(dataset, "chat", tmp_path / "out", resample=SKEW, seed=4, tau2=1.0)
    exported(dataset, "chat", tmp_path / "anew", resample=SKEW, tau2=1.0)
    anew = Counter(row["key"] for path in (tmp_path / "anew").glob("*.jsonl") for row in lines(path))
    assert anew == Counter({key: copies(-2.5, key, 0, 0) if trained else 1 for key, trained in left.items()})


def test_another_epoch_is_another_draw(tmp_path: Path) -> None:
    dataset = make(tmp_path / "data")
    sidecar(dataset, dict.fromkeys(kept(), 1.0))
    names = []
    for epoch in (0, 1):
        exported(dataset, "chat", tmp_path / str(epoch), resample=SKEW, epoch=epoch)
        names.append({path.stem for path in (tmp_path / str(epoch)).rglob("*.png")})
    assert names[0] != names[1]


def test_a_sidecar_of_the_split_for_training_is_enough(tmp_path: Path) -> None:
    dataset = make(tmp_path / "data")
    sidecar(dataset, {key: 0.0 for key, one in kept().items() if one.split == "train"})
    exported(dataset, "chat", tmp_path / "out", resample=SKEW)
    found = Counter(row["key"] for path in (tmp_path / "out").glob("*.jsonl") for row in lines(path))
    assert found == Counter(dict.fromkeys(kept(), 1))


@pytest.mark.parametrize(
    ("skew", "words"),
    [
        (
            {"chef_0000-00": 0.0},
            "23 of 24 images to be handed out have no skew there, 'chef_0000-01' among them",
        ),
        (dict.fromkeys(kept(), 1e15), "drops every image"),
        ({"chef_0000-00": float("nan")}, "a finite number is wanted"),
    ],
)
def test_a_sidecar_that_does_not_fit_leaves_nothing(
    tmp_path: Path, skew: dict[str, float], words: str
) -> None:
    dataset = make(tmp_path / "data")
    sidecar(dataset, skew)
    with pytest.raises(CounterpoiseError, match=words):
        exported(dataset, "chat", tmp_path / "out", resample=SKEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("name", ["skew/none-0123456789ab-0.parquet", "../x.parquet", "skew/../../x.parquet"])
def test_a_sidecar_that_is_not_there(dataset: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(CounterpoiseError, match=r"is missing|a name inside the dataset is wanted"):
        exported(dataset, "chat", tmp_path / "out", resample=name)


def test_rejected_sets_are_not_asked_about(tmp_path: Path) -> None:
    dataset = make(tmp_path / "data")
    judge(dataset, "ann", chef_0000="reject", chef_0001="reject")
    exported(dataset, "chat", tmp_path / "out")
    keys = {row["key"] for path in (tmp_path / "out").glob("*.jsonl") for row in lines(path)}
    assert keys == {key for key, one in kept().items() if one.set_id not in ("chef_0000", "chef_0001")}
    assert not (tmp_path / "out" / "validation").exists()


@settings(max_examples=40)
@given(
    skew=st.floats(-4, 4),
    tau1=st.floats(0.1, 3),
    tau2=st.floats(0.1, 3),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
)
def test_copies_are_right_on_average(skew: float, tau1: float, tau2: float, seed: int, epoch: int) -> None:
    found = [copies(skew, f"k{n}", seed, epoch, tau1=tau1, tau2=tau2) for n in range(400)]
    mean = multiplicity(skew, tau1, tau2)
    assert abs(sum(found) / 400 - mean) < 0.15
    assert max(found) - min(found) <= 1


def test_a_draw_is_spread_evenly() -> None:
    found = Counter(int(drawn("x", n) * 10) for n in range(5000))
    assert set(found) == set(range(10)) and max(abs(count - 500) for count in found.values()) < 100
