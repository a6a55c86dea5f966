"""The order in which a dataset is handed out: complete, disjoint, the same for any number of workers, resumable."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from storage_world import HEADER, NAMES, candidate, changed, files, publish
from stream_world import batches, keys, make, rows, samples

from storage import CounterpoiseError, DatasetMismatch, create_dataset, finish_dataset, read_samples
from storage import pictures as pictures_module
from storage.dealing import Dealing
from storage.order import Order, mix
from storage.records import SCORES, sample_json, to_row
from storage.selection import Selection, select
from storage.stream import Stream, stream
from storage.verdicts import write_verdicts

SHARDS, SETS, CELLS = 7, 3, 6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("data"), SHARDS, SETS)


def stored(dataset: Path, split: str | None = None) -> list[str]:
    """Keys of the kept images in the order of storage."""
    kept = [s for shard in range(SHARDS) for s in read_samples(dataset, shard) if s.kept]
    return [sample.key for sample in kept if split in (None, sample.split)]


@cache
def chosen_of(dataset: Path) -> Selection:
    """What is handed out of the training split, found once."""
    return select(dataset, "train")


def set_of(key: str) -> str:
    return key.rpartition("-")[0]


def test_an_item_is_the_row_with_its_image(dataset: Path) -> None:
    found = {item["key"]: item for item in stream(dataset)}
    for shard in range(SHARDS):
        for sample in read_samples(dataset, shard):
            if sample.kept:
                item = found.pop(sample.key)
                added = {"image": sample.image, "skew": None, "weight": 1.0, "copy": 0}
                assert item == {**to_row(sample), **added} and set(item) >= {*SCORES, *NAMES}
    assert not found, "rejected candidates and nothing else are left out"


@pytest.mark.parametrize(
    "fields", [(), ("prompt", "gender"), ("json",), ("key", "clip_base", "json"), ["reason", "sha256"]]
)
def test_items_have_the_fields_that_are_asked_for(dataset: Path, fields: Any, tmp_path: Path) -> None:
    """The same at first use, when every column is compared, and afterwards, when the others are not even read."""
    copy = Path(shutil.copytree(dataset, tmp_path / "data"))
    whole = {item["key"]: item for item in stream(dataset)}
    records = {s.key: sample_json(s) for n in range(SHARDS) for s in read_samples(dataset, n) if s.kept}
    for _ in range(2):
        for item in stream(copy, fields=fields):
            expected = {**whole[item["key"]], "json": records[item["key"]]}
            assert set(item) == {"key", *fields, "image", "skew", "weight", "copy"}
            assert item == {name: expected[name] for name in item}
    state = stream(dataset).state()
    assert stream(dataset, fields=fields, state=state).state() == state, "fields change no order"


def test_fields_that_are_not_there_are_refused(dataset: Path) -> None:
    with pytest.raises(
        CounterpoiseError, match="field 'promt': items have no such field; known are key, set_id"
    ):
        stream(dataset, fields=["key", "promt"])


@pytest.mark.parametrize("keep_sets", [True, False])
@pytest.mark.parametrize("split", ["train", "test", None])
def test_an_epoch_is_every_image_of_the_split_once(dataset: Path, split: str | None, keep_sets: bool) -> None:
    found = keys(dataset, split, keep_sets=keep_sets)
    assert sorted(found) == sorted(stored(dataset, split)) and found != stored(dataset, split)


def test_without_shuffle_it_is_the_order_of_storage(dataset: Path) -> None:
    for keep_sets in (True, False):
        assert keys(dataset, None, shuffle=False, keep_sets=keep_sets) == stored(dataset)
    assert keys(dataset, None, shuffle=False, seed=9, epoch=4) == stored(dataset)


def test_sets_stay_together_in_the_order_of_their_members(dataset: Path) -> None:
    found = keys(dataset)
    groups = [list(group) for _, group in itertools.groupby(found, key=set_of)]
    assert all(group == [f"{set_of(group[0])}-{member:02d}" for member in range(CELLS)] for group in groups)
    loose = keys(dataset, keep_sets=False)
    together = sum(set_of(a) == set_of(b) for a, b in itertools.pairwise(loose))
    assert together < len(loose) / 4


def test_the_order_hangs_on_seed_epoch_and_dataset_alone(dataset: Path, tmp_path: Path) -> None:
    first = keys(dataset)
    assert keys(dataset, seed=0, epoch=0) == first == keys(dataset)
    others = [keys(dataset, seed=1), keys(dataset, epoch=1), keys(dataset, seed=2), keys(dataset, epoch=2)]
    assert len({tuple(each) for each in (first, *others)}) == 5
    for name, content in files(dataset).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert keys(tmp_path) == first, "not on where it is, nor on when it was written"


def test_the_order_of_this_version_is_the_order_of_the_next(dataset: Path) -> None:
    """States would resume elsewhere if it changed."""
    state = np.array([0, 1, 2**64 - 1], np.uint64)
    assert [int(word) for word in mix(state)] == [
        0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, 0xE4D971771B652C20,
    ]  # fmt: skip


def test_far_apart_shards_meet_and_a_small_window_mixes_its_own(tmp_path: Path) -> None:
    dataset = make(tmp_path, 20, 1)
    place = {key: int(set_of(key)[-4:]) for key in keys(dataset, None)}

    def neighbours(**options: Any) -> float:
        """How often the next image is of the same shard."""
        shards = [place[key] for key in keys(dataset, None, keep_sets=False, **options)]
        return float(np.mean([a == b for a, b in itertools.pairwise(shards)]))

    assert neighbours(window=1) > 0.8, "one shard after the other"
    assert neighbours(window=8) < 0.25 and neighbours(window=20) < 0.15
    shards = [place[key] for key in keys(dataset, None, keep_sets=False, window=4)]
    assert shards[::6] != sorted(shards[::6]) and len(set(shards[:24])) == 4, "four hashed shards at a time"


def test_places_in_the_order_are_uniform(dataset: Path) -> None:
    """The first place of an epoch falls on every set of the window about equally often."""
    chosen = select(dataset)
    first: Counter[tuple[int, int]] = Counter()
    for epoch in range(2100):
        (units,) = Order(chosen, 0, epoch, sets=True, shuffle=True, window=SHARDS).windows(0, SHARDS * SETS)
        first[int(units.part[0]), int(units.unit[0])] += 1
    assert len(first) == SHARDS * SETS
    chi = sum((count - 100) ** 2 / 100 for count in first.values())
    assert chi < 45.3, "the 0.1 % point of chi squared with 20 degrees of freedom"


@pytest.mark.parametrize("keep_sets", [True, False])
@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_are_disjoint_and_equal(dataset: Path, ranks: int, drop: bool, keep_sets: bool) -> None:
    options: dict[str, Any] = {"keep_sets": keep_sets, "drop_uneven": drop, "world_size": ranks, "epoch": 3}
    found = [keys(dataset, rank=rank, **options) for rank in range(ranks)]
    assert len({len(each) for each in found}) == 1
    counts = Counter(itertools.chain(*found))
    whole = stored(dataset, "train")
    unit = CELLS if keep_sets else 1
    lost = len(whole) // unit % ranks
    if drop:
        assert max(counts.values()) == 1 and len(counts) == len(whole) - lost * unit
    else:
        twice = sum(count == 2 for count in counts.values())
        assert set(counts) == set(whole) and twice == -(len(whole) // unit) % ranks * unit
    one = keys(dataset, keep_sets=keep_sets, epoch=3)
    turns = [each[i : i + unit] for i in range(0, len(found[0]), unit) for each in found]
    dealt = list(itertools.chain(*turns))
    assert dealt[: len(one)] == one[: len(dealt)], "dealt like cards from one order"


def test_what_is_dropped_changes_from_epoch_to_epoch(dataset: Path) -> None:
    every = set(stored(dataset, "train"))
    lost = [
        every - {key for rank in range(3) for key in keys(dataset, rank=rank, world_size=3, epoch=epoch)}
        for epoch in range(4)
    ]
    assert {len(each) for each in lost} == {2 * CELLS} and len({frozenset(each) for each in lost}) > 1


@hypothesis_settings(max_examples=15)
@given(
    workers=st.integers(1, 5), size=st.integers(1, 9), ranks=st.integers(1, 3), keep=st.booleans(),
    shuffle=st.booleans(), window=st.integers(1, 9), done=st.integers(0, 12),
)  # fmt: skip
def test_batches_are_the_same_for_any_number_of_workers(
    dataset: Path, workers: int, size: int, ranks: int, keep: bool, shuffle: bool, window: int, done: int
) -> None:
    chosen = chosen_of(dataset)
    dealing = Dealing(0, size, keep, shuffle, window, world_size=ranks)

    def batches(worker: int = 0, workers: int = 1, state: Any = None) -> list[list[str]]:
        made = Stream(chosen, dealing, ranks - 1, worker, workers, state=state)
        return [[item["key"] for item in batch] for batch in made.batches()]

    alone = batches()
    shares = [batches(worker, workers) for worker in range(workers)]
    dealt = [batch for turn in itertools.zip_longest(*shares) for batch in turn if batch is not None]
    assert dealt == alone
    assert {len(batch) for batch in alone[:-1]} <= {size * (CELLS if keep else 1)}
    begun = Stream(chosen, dealing)
    done = min(done, begun.batch_count)
    assert batches(state={**begun.state(), "batches": done}) == alone[done:]


def test_a_version_is_handed_out_as_it_was(tmp_path: Path) -> None:
    plan = rows(3, 2)
    create_dataset(tmp_path, HEADER, plan)
    for shard in (0, 1):
        publish(tmp_path, shard, samples(plan, shard))
    version = len(list((tmp_path / "versions").iterdir()))
    finish_dataset(tmp_path)
    before, half = keys(tmp_path, None), stream(tmp_path, batch_size=1)
    first = [next(half)["key"] for _ in range(CELLS)]
    publish(tmp_path, 2, samples(plan, 2))
    finish_dataset(tmp_path)
    assert len(keys(tmp_path, None)) > len(before) == len(keys(tmp_path, None, version=version))
    assert keys(tmp_path, None, version=version) == before
    rest = stream(tmp_path, batch_size=1, version=version, state=half.state())
    assert first + [item["key"] for item in rest] == keys(tmp_path, None, batch_size=1, version=version)
    with pytest.raises(DatasetMismatch, match=r"root_sha256.*version=N"):
        stream(tmp_path, batch_size=1, state=half.state())


@pytest.mark.parametrize("keep_sets", [True, False])
def test_a_stream_resumes_where_it_was_left(dataset: Path, keep_sets: bool) -> None:
    options: dict[str, Any] = {"keep_sets": keep_sets, "batch_size": 2, "seed": 5}
    whole = batches(dataset, epoch=2, **options)
    for done in {*range(0, len(whole), 7), 1, len(whole)}:
        begun = stream(dataset, "train", epoch=2, **options)
        taken = list(itertools.islice(begun.batches(), done))
        state = json.loads(json.dumps(begun.state()))
        assert len(taken) == done == state["batches"] and state["epoch"] == 2
        assert len(json.dumps(state)) < 600
        begun.close()
        resumed = stream(dataset, "train", state=state, **options)
        assert [[item["key"] for item in batch] for batch in resumed.batches()] == whole[done:]
        assert resumed.state() == {**state, "batches": len(whole)}


def test_a_state_counts_batches_handed_out_in_full(dataset: Path) -> None:
    begun = stream(dataset, "train", batch_size=2, keep_sets=False)
    counts = []
    for _ in range(5):
        next(begun)
        counts.append(begun.state()["batches"])
    assert counts == [0, 1, 1, 2, 2]
    begun.close()
    rest = keys(dataset, batch_size=2, keep_sets=False, state=begun.state())
    assert rest == keys(dataset, keep_sets=False)[4:], "the half batch is handed out again"


def test_one_state_is_for_every_rank(dataset: Path) -> None:
    options: dict[str, Any] = {"world_size": 2, "batch_size": 1}
    begun = stream(dataset, "train", rank=0, **options)
    list(itertools.islice(begun.batches(), 3))
    begun.close()
    rest = batches(dataset, rank=1, state=begun.state(), **options)
    assert rest == batches(dataset, rank=1, **options)[3:]


def test_resuming_reads_no_image_that_was_handed_out(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = pictures_module.Pictures.read
    opened: list[str] = []
    real_open = pictures_module.Pictures.__init__

    def noting(self: Any, place: int, row: Any) -> bytes:
        read.append(row["key"])
        return real(self, place, row)

    def noting_open(self: Any, backend: Any, tar: Any, pairs: int) -> None:
        opened.append(tar.name)
        real_open(self, backend, tar, pairs)

    monkeypatch.setattr(pictures_module.Pictures, "read", noting)
    monkeypatch.setattr(pictures_module.Pictures, "__init__", noting_open)
    options: dict[str, Any] = {"keep_sets": False, "batch_size": 5, "window": 2}
    whole = keys(dataset, **options)
    assert read == whole and len(opened) == SHARDS
    read.clear()
    opened.clear()
    state = {**stream(dataset, "train", **options).state(), "batches": 15}
    assert keys(dataset, **options, state=state) == whole[75:] == read
    assert len(opened) == 3, "tars of windows that are done are not even opened"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_size": 3}, "batch_size"),
        ({"keep_sets": False}, "keep_sets"),
        ({"shuffle": False}, "shuffle"),
        ({"window": 3}, "window"),
        ({"drop_uneven": False}, "drop_uneven"),
        ({"world_size": 2}, "world_size"),
        ({"verdicts": False}, "rejected_sha256"),
        ({"split": "test"}, "split"),
    ],
)
def test_a_state_of_other_settings_is_refused(dataset: Path, change: dict[str, Any], field: str) -> None:
    state = stream(dataset, "train").state()
    with pytest.raises(DatasetMismatch, match=field) as caught:
        stream(dataset, **{"split": "train", **change}, state=state)
    assert caught.value.field == field and "\n" not in str(caught.value)


def test_a_state_of_another_dataset_is_refused(dataset: Path, tmp_path: Path) -> None:
    other = make(tmp_path, 2, 2)
    with pytest.raises(DatasetMismatch, match="root_sha256"):
        stream(other, "train", state=stream(dataset, "train").state())


def test_a_state_outlives_what_changes_no_order(dataset: Path, tmp_path: Path) -> None:
    """A set accepted by one more reviewer; other workers."""
    other = make(tmp_path, 2, 2)
    state = stream(other, "train", batch_size=1).state()
    write_verdicts(other, "ann", [("chef_0000", "accept", None)])
    assert batches(other, batch_size=1, state={**state, "batches": 1}, workers=2, worker=1)
    write_verdicts(other, "ann", [("chef_0000", "reject", "two people")])
    with pytest.raises(DatasetMismatch, match="rejected_sha256"):
        stream(other, "train", batch_size=1, state=state)


@pytest.mark.parametrize(
    "state",
    [
        {}, {"epoch": 0, "batches": 0}, {"format": "counterpoise-stream-9"}, [1], "x",
        {"batches": -1}, {"batches": 1.5}, {"batches": None}, {"epoch": -1}, {"epoch": True}, {"batches": 10**6},
    ],
)  # fmt: skip
def test_what_is_no_state_is_refused_with_one_line(dataset: Path, state: Any) -> None:
    if isinstance(state, dict) and len(state) == 1 and "format" not in state:
        state = {**stream(dataset, "train").state(), **state}
    with pytest.raises(CounterpoiseError, match="state") as caught:
        stream(dataset, "train", state=state)
    assert "\n" not in str(caught.value)


def test_the_epoch_of_a_state_is_the_epoch(dataset: Path) -> None:
    state = stream(dataset, "train", epoch=4).state()
    assert keys(dataset, state=state) == keys(dataset, state=state, epoch=4) == keys(dataset, epoch=4)
    with pytest.raises(CounterpoiseError, match="epoch 3 was given with the state of epoch 4"):
        stream(dataset, "train", epoch=3, state=state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 2, "world_size": 2}, "rank is 2: a whole number from 0 to 1 is wanted"),
        ({"rank": -1}, "rank is -1"),
        ({"worker": 3, "workers": 3}, "worker is 3: a whole number from 0 to 2"),
        ({"workers": 0}, "workers is 0: a whole number from 1"),
        ({"world_size": 0}, "world_size is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"window": 0}, "window is 0"),
        ({"epoch": -1}, "epoch is -1"),
        ({"seed": "x"}, "seed is 'x': a whole number is wanted"),
        ({"split": "training"}, "no kept image is in split 'training'; there are test, train"),
        ({"world_size": 99}, "17 units do not go round 99 ranks"),
    ],
)
def test_bad_settings_are_refused_with_one_line(dataset: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(CounterpoiseError) as caught:
        stream(dataset, **{"split": "train", **change})
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_filling_up_goes_round_more_than_once(tmp_path: Path) -> None:
    dataset = make(tmp_path, 1, 2)
    options: dict[str, Any] = {"world_size": 5, "drop_uneven": False}
    found = [keys(dataset, rank=rank, **options) for rank in range(5)]
    assert [len(each) for each in found] == [CELLS] * 5
    assert found[0] == found[2] == found[4] and found[1] == found[3] != found[0]


def test_datasets_without_anything_to_hand_out_say_why(tmp_path: Path) -> None:
    plan = rows(2, 2)
    create_dataset(tmp_path, HEADER, plan)
    with pytest.raises(CounterpoiseError, match="no finished shard has kept images"):
        stream(tmp_path)
    publish(tmp_path, 1, [sample for row in plan[2:] for sample in candidate(row, 0, False)])
    with pytest.raises(CounterpoiseError, match="no finished shard has kept images"):
        stream(tmp_path)
    publish(tmp_path, 0, samples(plan, 0))
    assert len(keys(tmp_path)) == 2 * CELLS, "a dataset may be read before it is finished"
    with pytest.raises(CounterpoiseError, match=r"holds no dataset\.json"):
        stream(tmp_path / "nowhere")


def test_an_axis_cannot_have_the_name_of_what_is_added(tmp_path: Path) -> None:
    axes = {"weight": ("light", "heavy")}
    create_dataset(tmp_path, {**HEADER, "axes": axes}, rows(1, 1))
    base = candidate(rows(1, 1)[0], 0, True)[:2]
    made = [changed(base, i, attributes={"weight": axes["weight"][i]}, base=0)[i] for i in range(2)]
    from storage import publish_shard

    publish_shard(tmp_path, 0, made, ["weight"], {"shard": 0}, {})
    finish_dataset(tmp_path)
    with pytest.raises(CounterpoiseError, match="axis 'weight' has the name of a field"):
        stream(tmp_path)


def test_jpeg_and_webp_are_handed_out(tmp_path: Path) -> None:
    import io

    from PIL import Image

    create_dataset(tmp_path, HEADER, rows(1, 2))
    made = samples(rows(1, 2), 0)
    for i, kind in enumerate(["PNG", "JPEG", "WEBP"] * 4):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (i * 20, 0, 0)).save(buffer, kind)
        made = changed(made, i + 6, image=buffer.getvalue())
    publish(tmp_path, 0, made)
    images = {sample.key: sample.image for sample in made if sample.kept}
    for _ in range(2):
        assert {item["key"]: item["image"] for item in stream(tmp_path)} == images


def test_streams_are_closed_when_they_are_left(dataset: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    left = stream(dataset, "train")
    next(left)
    assert descriptors() > before
    left.close()
    assert descriptors() == before
    assert list(left.batches()) == [], "a closed stream is at its end"


def test_interleaved_streams_do_not_disturb_each_other(dataset: Path) -> None:
    alone = [keys(dataset, seed=seed) for seed in range(3)]
    open_streams: list[Stream] = [stream(dataset, "train", seed=seed) for seed in range(3)]
    found: list[list[str]] = [[], [], []]
    turns = [seed for seed in range(3) for _ in alone[seed]]
    random.Random(0).shuffle(turns)
    for seed in turns:
        found[seed].append(next(open_streams[seed])["key"])
    assert found == alone
    assert [next(each, None) for each in open_streams] == [None] * 3
