"""Batches for DataLoader: the same for any number of workers, for every rank, and after any interruption."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from storage_world import tar_path
from stream_world import keys, make
from torch import distributed
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from debias.loading import Batches, counted, untouched
from storage import CounterpoiseError, DatasetMismatch, ShardDamaged, list_shards
from storage.sidecar import sidecar_name, write_sidecar
from storage.stream import stream

# More workers are wanted here than a small machine has processors; torchdata calls what torch has come to deprecate.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create:UserWarning", "ignore:'set_vital' is deprecated:UserWarning"
)
OPTIONS: dict[str, Any] = {"seed": 3, "batch_size": 4, "keep_sets": False, "window": 2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("data"), 3, 2)


def expected(dataset: Path, epoch: int = 0, **changes: Any) -> list[list[str]]:
    made = stream(dataset, "train", epoch=epoch, **{**OPTIONS, **changes})
    return [names(batch) for batch in made.batches()]


def names(batch: list[dict[str, Any]]) -> list[str]:
    return [item["key"] for item in batch]


def loader(dataset: Batches, workers: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=None, num_workers=workers, **options)


def test_workers_hand_over_the_fields_that_are_asked_for(dataset: Path) -> None:
    made = Batches(dataset, "train", fields=["prompt"], **OPTIONS)
    (fields,) = {tuple(item) for batch in loader(made, 2) for item in batch}
    assert fields == ("key", "prompt", "image", "skew", "weight", "copy")


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_batches_are_the_same_for_any_number_of_workers(dataset: Path, workers: int) -> None:
    batches = Batches(dataset, "train", **OPTIONS)
    assert [names(batch) for batch in loader(batches, workers)] == expected(dataset)
    assert len(batches) == len(loader(batches, workers)) == len(expected(dataset)) == 8
    batches.set_epoch(1)
    assert [names(batch) for batch in loader(batches, workers)] == expected(dataset, epoch=1)


def test_items_arrive_whole(dataset: Path) -> None:
    for options in ({}, {"collate_fn": untouched}):
        made = loader(Batches(dataset, "train", **OPTIONS), 2, **options)
        assert [item for batch in made for item in batch] == list(stream(dataset, "train", **OPTIONS))


def test_workers_that_persist_follow_the_epoch(dataset: Path) -> None:
    batches = Batches(dataset, "train", **OPTIONS)
    made = loader(batches, 2, persistent_workers=True)
    for epoch in (0, 1, 5):
        batches.set_epoch(epoch)
        assert [names(batch) for batch in made] == expected(dataset, epoch=epoch)


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 3), (2, 0)])
@pytest.mark.parametrize("done", [0, 1, 3, 8])
def test_training_resumes_with_any_number_of_workers(
    dataset: Path, before: int, after: int, done: int
) -> None:
    """Workers had run ahead when training was stopped."""
    batches = Batches(dataset, "train", **OPTIONS)
    batches.set_epoch(2)
    taken = [names(batch) for batch in itertools.islice(counted(loader(batches, before)), done)]
    state = pickle.loads(pickle.dumps(batches.state_dict()))
    assert (state["epoch"], state["batches"]) == (2, done)
    resumed = Batches(dataset, "train", **OPTIONS)
    resumed.load_state_dict(state)
    assert resumed.epoch == 2 and len(resumed) == 8 - done
    resumed.set_epoch(2)
    rest = [names(batch) for batch in counted(loader(resumed, after))]
    assert taken + rest == expected(dataset, epoch=2)
    assert resumed.state_dict()["batches"] == 8
    resumed.set_epoch(3)
    assert [names(batch) for batch in loader(resumed, after)] == expected(dataset, epoch=3)


def test_a_state_is_that_of_the_stream(dataset: Path) -> None:
    batches = Batches(dataset, "train", **OPTIONS)
    next(counted(loader(batches, 2)))
    assert batches.state_dict() == {**stream(dataset, "train", **OPTIONS).state(), "batches": 1}
    other = Batches(dataset, "train", **{**OPTIONS, "seed": 4})
    with pytest.raises(DatasetMismatch, match="seed"):
        other.load_state_dict(batches.state_dict())
    with pytest.raises(CounterpoiseError, match="batches of the state is 9"):
        batches.load_state_dict({**batches.state_dict(), "batches": 9})


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_stateful_data_loader_resumes(dataset: Path, workers: int) -> None:
    def made() -> Any:
        batches = Batches(dataset, "train", **OPTIONS)
        return StatefulDataLoader(batches, batch_size=None, num_workers=workers)

    for done in (1, 4, 6):
        first = made()
        taken = [names(batch) for batch in itertools.islice(first, done)]
        state = pickle.loads(pickle.dumps(first.state_dict()))
        second = made()
        second.load_state_dict(state)
        rest = [names(batch) for batch in itertools.islice(second, 2)]
        third = made()
        third.load_state_dict(second.state_dict())
        rest += [names(batch) for batch in third]
        assert taken + rest == expected(dataset), f"stopped after {done}, and again two later"


def test_stateful_data_loader_goes_on_from_a_state_of_the_dataset(dataset: Path) -> None:
    """Workers are dealt from where it left off, and so they are after another interruption."""
    batches = Batches(dataset, "train", **OPTIONS)
    batches.load_state_dict({**batches.state_dict(), "batches": 3})
    first = StatefulDataLoader(batches, batch_size=None, num_workers=2)
    taken = [names(batch) for batch in itertools.islice(first, 2)]
    second = StatefulDataLoader(Batches(dataset, "train", **OPTIONS), batch_size=None, num_workers=2)
    second.load_state_dict(first.state_dict())
    assert taken + [names(batch) for batch in second] == expected(dataset)[3:]


def _rank(rank: int, place: str, dataset: str, results: Any) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    batches = Batches(dataset, "train", **OPTIONS)
    found = [[item["key"] for item in batch] for batch in DataLoader(batches, batch_size=None, num_workers=1)]
    results.put((rank, found, batches.state_dict()["world_size"]))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_are_those_of_torch_distributed(dataset: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(rank, str(tmp_path / "store"), str(dataset), results))
        for rank in (0, 1)
    ]
    for rank in ranks:
        rank.start()
    found = sorted(results.get(timeout=200) for _ in ranks)
    for rank in ranks:
        rank.join()
    assert [each for _, each, _ in found] == [expected(dataset, rank=rank, world_size=2) for rank in (0, 1)]
    assert [size for _, _, size in found] == [2, 2]


def test_ranks_are_asked_for_when_the_first_batch_is(dataset: Path, tmp_path: Path) -> None:
    early = Batches(dataset, "train", **OPTIONS)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert [names(batch) for batch in early] == expected(dataset)
    finally:
        distributed.destroy_process_group()
    given = Batches(dataset, "train", rank=1, world_size=2, **OPTIONS)
    assert [names(batch) for batch in loader(given, 2)] == expected(dataset, rank=1, world_size=2)


def test_ranks_that_see_different_shards_are_refused(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Batches(dataset, "train", rank=1, world_size=2, **OPTIONS)
    others: dict[str, Any] = {}

    def gathered(every: list[Any], mine: dict[str, Any]) -> None:
        every[:] = [{**mine, **others}, mine]

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "all_gather_object", gathered)
    batches.set_epoch(0)
    others["root_sha256"] = "0" * 64
    with pytest.raises(
        CounterpoiseError, match=r"root_sha256 is '0{64}' on rank 0 and '.*' on rank 1.*version=N"
    ):
        batches.set_epoch(0)


def test_every_epoch_may_have_its_sidecar(tmp_path: Path) -> None:
    dataset = make(tmp_path, 2, 2)
    every = keys(dataset, "train")
    sidecars = [sidecar_name("tiny", "0" * 64, epoch) for epoch in range(2)]
    for epoch, name in enumerate(sidecars):
        write_sidecar(dataset, name, every, [epoch - 0.5] * len(every), multiplicity=[epoch + 1] * len(every))
    batches = Batches(dataset, "train", skew=sidecars[0], **OPTIONS)
    persistent = loader(batches, 1, persistent_workers=True)
    for epoch, name in enumerate(sidecars):
        batches.set_epoch(epoch, skew=name)
        found = [item for batch in loader(batches, 2) for item in batch]
        assert len(found) == (epoch + 1) * len(every) and {item["skew"] for item in found} == {epoch - 0.5}
        if epoch == 0:
            assert len(list(persistent)) == len(batches)
    with pytest.raises(CounterpoiseError, match="persistent_workers=False"):
        list(persistent)
    with pytest.raises(CounterpoiseError, match="is missing"):
        batches.set_epoch(2, skew=sidecar_name("tiny", "0" * 64, 2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batchsize": 3}, "settings batchsize: known are seed, batch_size"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rank": 1}, "rank 1 and world_size None: both or none are wanted"),
        ({"rank": 2, "world_size": 2}, "rank is 2"),
        ({"split": "nowhere"}, "no kept image is in split 'nowhere'"),
        ({"fields": ["promt"]}, "field 'promt': items have no such field"),
        ({"skew": "skew/x"}, "a name inside the dataset is wanted"),
    ],
)
def test_bad_settings_are_refused_before_a_worker_starts(
    dataset: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(CounterpoiseError) as caught:
        Batches(dataset, **{"split": "train", **change})
    assert words in str(caught.value)


def test_counting_wants_batches_made_here(dataset: Path) -> None:
    batches = Batches(dataset, "train", **OPTIONS)
    for wrong in (DataLoader([1, 2]), DataLoader(batches, batch_size=2)):  # type: ignore[arg-type, var-annotated]
        with pytest.raises(CounterpoiseError, match="batch_size=None is wanted"):
            next(counted(wrong))


def test_damage_in_a_worker_arrives_as_what_it_is(tmp_path: Path) -> None:
    dataset = make(tmp_path, 1, 2)
    batches = Batches(dataset, "train", **OPTIONS)
    path = tar_path(dataset, list_shards(dataset)[0])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ShardDamaged, match="its manifest says"):
        list(loader(batches, 1))


def test_the_seeds_of_torchs_workers_change_nothing(dataset: Path) -> None:
    for seed in (1, 2):
        seeded = loader(
            Batches(dataset, "train", **OPTIONS), 2, generator=torch.Generator().manual_seed(seed)
        )
        assert [names(batch) for batch in seeded] == expected(dataset)
