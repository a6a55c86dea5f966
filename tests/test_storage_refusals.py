"""What a shard must not hold: unfit images and samples, flagged pictures, wrong places, unusable settings."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from storage_world import (
    AXES,
    CELLS,
    ENVIRONMENT,
    NAMES,
    RECIPE,
    changed,
    files,
    picture,
    publish,
    shard_samples,
    start,
)

from storage import CounterpoiseError, publish_shard, read_samples

HERE = Path(__file__).parent


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    start(tmp_path / "data")
    return tmp_path / "data"


def _png(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    import zlib

    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


def _with_clock() -> bytes:
    data = _png()
    return data[:33] + _chunk(b"tIME", bytes([7, 233, 1, 2, 3, 4, 5])) + data[33:]


def _with_text() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("date:create", "2026-01-01")
    return _png(pnginfo=text)


def _with_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0132] = "2026:01:01 00:00:00"
    return _png(exif=exif)


def _bomb() -> bytes:
    head = (60000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (b"GIF89a" + bytes(20), "a PNG, JPEG or WebP file is wanted"),
        (b"", "a PNG, JPEG or WebP file is wanted"),
        (picture(1)[:-40], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "cannot be decoded"),
        (picture(1, (9, 8)), "image is 9x8, its record says 8x8"),
        (_with_clock(), "PNG tIME"),
        (_with_text(), "date:create"),
        (_with_exif(), "EXIF tag 0x0132"),
        (_bomb(), "cannot be decoded|its record says 8x8"),
    ],
)
def test_unfit_images_are_refused_and_nothing_is_left(dataset: Path, image: bytes, wanted: str) -> None:
    before = files(dataset)
    with pytest.raises(CounterpoiseError, match=f"sample 'chef_0000-02': .*({wanted})"):
        publish(dataset, 0, changed(shard_samples(0), 2, image=image))
    assert files(dataset) == before


def test_too_many_pixels_are_refused_before_decoding(dataset: Path) -> None:
    samples = changed(shard_samples(0), 0, width=60000, height=60000, image=_bomb())
    with pytest.raises(CounterpoiseError, match="more than the 67108864 pixels"):
        publish(dataset, 0, samples)


@pytest.mark.parametrize(
    ("place", "changes", "wanted"),
    [
        (0, {"set_id": "../up"}, "set_id '../up' has to match"),
        (0, {"set_id": "a.b"}, "set_id 'a.b' has to match"),
        (0, {"key": "chef_0000-1"}, "the key has to be 'chef_0000-00'"),
        (0, {"member": 6}, "member 6 or base 1 is outside the 6 cells"),
        (0, {"base": -1}, "base -1 is outside"),
        (0, {"attributes": CELLS[1]}, "member 0 is {'gender': 'woman', 'race': 'Asian'}"),
        (0, {"attributes": {"gender": "woman"}}, "attributes are"),
        (0, {"image": None}, "a kept sample has an image and no reason"),
        (0, {"reason": "clip_text"}, "a kept sample has an image and no reason"),
        (6, {"image": picture(1)}, "a rejected sample has a reason and no image"),
        (6, {"reason": None}, "a rejected sample has a reason and no image"),
        (0, {"scores": {"clip_txt": 0.1}}, "unknown score 'clip_txt'"),
        (0, {"scores": {"clip_text": float("nan")}}, "score clip_text is nan"),
        (0, {"scores": {"nsfw": float("nan")}}, "score nsfw is nan"),
        (0, {"scores": {"clip_text": "high"}}, "score clip_text is 'high'"),
        (0, {"guidance": float("inf")}, "guidance is inf"),
        (0, {"seed": 2**63}, "seed is 9223372036854775808"),
        (0, {"seed": -1}, "seed is -1"),
        (0, {"steps": 2.5}, "steps is 2.5"),
        (0, {"prompt": "\ud800"}, "not text that can be stored"),
        (0, {"split": "test"}, "its samples differ in split"),
        (0, {"base": 2}, "names a base that is itself an edit"),
        (0, {"kept": False, "reason": "x", "image": None}, "kept in part"),
        (7, {"member": 0, "key": "science_0000-00", "attributes": CELLS[0]}, "has a member twice"),
    ],
)
def test_unfit_samples_are_refused(dataset: Path, place: int, changes: dict[str, Any], wanted: str) -> None:
    before = files(dataset)
    with pytest.raises(CounterpoiseError) as caught:
        publish(dataset, 0, changed(shard_samples(0), place, **changes))
    assert wanted in str(caught.value) and "\n" not in str(caught.value)
    assert files(dataset) == before


def test_unfit_sets_are_refused(dataset: Path) -> None:
    samples = shard_samples(0)
    with pytest.raises(CounterpoiseError, match="'chef_0000': candidate 0 is kept with 5 of 6 members"):
        publish(dataset, 0, samples[1:])
    twice = [replace(s, candidate=9) for s in samples[:6]]
    with pytest.raises(CounterpoiseError, match=r"candidates \[0, 9\] are both kept"):
        publish(dataset, 0, [*samples, *twice])
    with pytest.raises(CounterpoiseError, match="A shard without samples"):
        publish(dataset, 0, [])


@pytest.mark.parametrize("score", [0.51, 1, True])
def test_a_flagged_image_is_never_stored(dataset: Path, score: float) -> None:
    flagged = changed(shard_samples(0), 3, scores={"nsfw": score})
    with pytest.raises(CounterpoiseError, match="'chef_0000-03', candidate 0: kept, but its nsfw score"):
        publish(dataset, 0, flagged)
    assert list((dataset / "shards").glob("*")) == [] if (dataset / "shards").exists() else True


def test_nsfw_scores_of_rejected_samples_are_stored(dataset: Path) -> None:
    samples = [replace(s, scores={"nsfw": 0.99}) if not s.kept else s for s in shard_samples(0)]
    publish(dataset, 0, samples)
    assert {s.scores["nsfw"] for s in read_samples(dataset, 0) if not s.kept} == {0.99}


def test_an_unusable_nsfw_limit_is_refused(dataset: Path) -> None:
    for limit in ("0.5", True, float("nan")):
        with pytest.raises(CounterpoiseError, match=r"recipe\.thresholds\.nsfw"):
            publish(dataset, 0, recipe={"thresholds": {"nsfw": limit}})


def test_wrong_place_is_refused(dataset: Path) -> None:
    with pytest.raises(CounterpoiseError, match="shard 3: the plan has shards 0 to 2"):
        publish_shard(dataset, 3, shard_samples(0), NAMES, RECIPE, ENVIRONMENT)
    with pytest.raises(
        CounterpoiseError, match=r"axes \['race', 'gender'\]: the dataset has \['gender', 'race'\]"
    ):
        publish_shard(dataset, 0, shard_samples(0), list(reversed(AXES)), RECIPE, ENVIRONMENT)
    with pytest.raises(CounterpoiseError, match=r"holds no dataset\.json"):
        publish_shard(dataset / "nowhere", 0, shard_samples(0), NAMES, RECIPE, ENVIRONMENT)


@pytest.mark.parametrize(
    "recipe", [{"x": float("nan")}, {"x": {1: 2}}, {"x": {"y": [object()]}}, {"x": b"a"}]
)
def test_a_recipe_that_is_not_json_is_refused(dataset: Path, recipe: dict[str, Any]) -> None:
    with pytest.raises(CounterpoiseError, match=r"recipe\.x"):
        publish(dataset, 0, recipe=recipe)
