"""Files that are small on disk and huge in memory, and names that are more than names: refused, and quickly."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from storage_world import changed, files, fill, publish, reseal, shard_samples, start

from storage import CounterpoiseError, ShardDamaged, list_shards, read_samples
from storage.images import decoded
from storage.metadata import table
from storage.records import to_parquet
from storage.tarball import header, tar_members
from storage.verify import verify

HERE = Path(__file__).parent
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    start(tmp_path / "data")
    return tmp_path / "data"


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


def png(width: int, height: int, *between: bytes, rows: bytes | None = None) -> bytes:
    """A PNG with chunks of choice; black where no rows are given."""
    data = bytes((1 + 3 * width) * height) if rows is None else rows
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    parts = [chunk(b"IHDR", head), *between, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(parts)


def zeros(megabytes: int) -> bytes:
    """So many megabytes, compressed a thousand times."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()


def text_bomb(kind: bytes, megabytes: int) -> bytes:
    start = {b"iTXt": b"note\0\1\0\0\0", b"zTXt": b"note\0\0", b"iCCP": b"note\0\0"}[kind]
    return chunk(kind, start + zeros(megabytes))


def webp(width: int, height: int) -> bytes:
    """The head of an animation that claims this canvas, and one real frame of 8x8."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "WEBP", lossless=True)
    frame = buffer.getvalue()[12:]

    def riff(kind: bytes, content: bytes) -> bytes:
        return kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)

    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    place = bytes(6) + (7).to_bytes(3, "little") * 2 + bytes(4)
    body = riff(b"VP8X", b"\x02" + bytes(3) + size) + riff(b"ANIM", bytes(6)) + riff(b"ANMF", place + frame)
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


BOMBS: dict[str, bytes] = {
    "a size that is claimed": png(60000, 60000, rows=b""),
    "a size that is real": png(60000, 60000, rows=zeros(1)),
    "the largest size there is": png(2**31 - 1, 2**31 - 1, rows=b""),
    "iTXt": png(8, 8, text_bomb(b"iTXt", 400)),
    "zTXt": png(8, 8, text_bomb(b"zTXt", 400)),
    "many iTXt": png(8, 8, *[chunk(b"iTXt", b"note\0\1\0\0\0" + zlib.compress(bytes(2**20 - 9)))] * 90),
    "an animation's canvas": webp(16383, 16383),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("size", [8, 60000])
def test_bombs_are_not_published(dataset: Path, name: str, size: int) -> None:
    before = files(dataset)
    with pytest.raises(CounterpoiseError, match="sample 'chef_0000-00'") as caught:
        publish(dataset, 0, changed(shard_samples(0), 0, image=BOMBS[name], width=size, height=size))
    assert "\n" not in str(caught.value) and files(dataset) == before


def test_surplus_of_pixels_and_profiles_is_never_unpacked(dataset: Path) -> None:
    """Harmless to those who read so much as the header promises: such pictures are decoded, and that is all."""
    for image in (png(8, 8, rows=bytes(8 * 25) + bytes(2**26)), png(8, 8, text_bomb(b"iCCP", 400))):
        used = _peak_of_checking(image)
        assert used < 60e6, f"{used / 1e6:.0f} MB"


def _peak_of_checking(image: bytes) -> int:
    """Bytes that looking at a picture takes at most, whether it is refused or not."""
    code = (
        "import resource, sys; from storage.images import check_image; from storage import CounterpoiseError; "
        "from storage_world import picture\n"
        "image = sys.stdin.buffer.read(); check_image(picture(1), 8, 8)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\ntry:\n    check_image(image, 8, 8)\nexcept CounterpoiseError: pass\nprint(peak() - before)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, input=image, env=environment, capture_output=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.parametrize("name", ["a size that is real", "iTXt", "many iTXt", "an animation's canvas"])
def test_bombs_take_no_memory(name: str) -> None:
    used = _peak_of_checking(BOMBS[name])
    assert used < 150e6, f"{used / 1e6:.0f} MB"


def smuggle(dataset: Path, image: bytes) -> None:
    """Put another picture into a finished shard, with every hash made to fit, as somebody with bad intent would."""
    record = list_shards(dataset)[0]
    assert record.tar is not None
    rows = pq.read_table(dataset / record.parquet.path)
    key, old = rows["key"][0].as_py(), rows["sha256"][0].as_py()
    new = hashlib.sha256(image).hexdigest()
    hashes = ["sha256", rows["sha256"].to_pylist()]
    hashes[1][0] = new
    column = rows.schema.get_field_index("sha256")
    parquet = to_parquet(rows.set_column(column, rows.schema.field(column), [hashes[1]]))
    members = list(tar_members(io.BytesIO((dataset / record.tar.path).read_bytes()), "here"))
    tar = b"".join(_packed(_smuggled(members, key, old, new, image)))
    facts = {}
    for kind, content in (("parquet", parquet), ("tar", tar)):
        digest = hashlib.sha256(content).hexdigest()
        name = f"00000-{digest[:12]}.{kind}"
        (dataset / "shards" / name).write_bytes(content)
        facts[kind] = {"name": name, "bytes": len(content), "sha256": digest}
    reseal(dataset / "shards/00000.json", facts)


def _smuggled(
    members: list[tuple[str, bytes]], key: str, old: str, new: str, image: bytes
) -> Iterator[tuple[str, bytes]]:
    for name, content in members:
        if name == f"{key}.json":
            content = content.replace(old.encode(), new.encode())
        yield name, image if name == f"{key}.png" else content


def _packed(members: Iterator[tuple[str, bytes]]) -> Iterator[bytes]:
    total = 0
    for name, content in members:
        piece = header(name, len(content)) + content + bytes(-len(content) % 512)
        total += len(piece)
        yield piece
    yield bytes(1024 + -(total + 1024) % 10240)


def test_bombs_in_a_shard_are_found(tmp_path: Path) -> None:
    fill(tmp_path)
    smuggle(tmp_path, png(8, 8))
    assert [line for line in verify(tmp_path) if "left over" not in line] == [], (
        "a sound picture can be smuggled in so"
    )
    for name in ("a size that is claimed", "a size that is real", "iTXt", "many iTXt"):
        smuggle(tmp_path, BOMBS[name])
        lines = [line for line in verify(tmp_path) if "left over" not in line]
        assert len(lines) == 1 and "'chef_0000-00'" in lines[0], lines


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_that_were_smuggled_in_are_told_when_they_are_decoded(name: str) -> None:
    """A reader that trusts hashes alone hands them out; whoever decodes them is told in one line, whose they are."""
    with pytest.raises(CounterpoiseError, match=r"^chef_0000-00: picture") as caught:
        decoded(BOMBS[name], "chef_0000-00")
    assert "\n" not in str(caught.value)


def test_members_over_the_size_limit_are_refused_before_they_are_read(tmp_path: Path) -> None:
    class Counting(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.read_bytes += len(data)
            return data

    for name, limit in (("a-00.png", 2**26), ("a-00.json", 2**20)):
        file = Counting(header(name, limit + 1) + bytes(4096))
        with pytest.raises(ShardDamaged, match="not a plain file of an allowed size"):
            list(tar_members(file, "here"))
        assert file.read_bytes == 512


NAMES = [
    "pipe:touch trace",
    "pipe:touch trace #.tar",
    "|touch trace",
    "file:///etc/passwd",
    "http://host/00000.tar",
]


@pytest.mark.parametrize("kind", ["tar", "parquet"])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_commands_or_addresses_are_refused(
    tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    reseal(tmp_path / "data/shards/00000.json", {kind: {"name": name, "bytes": 1, "sha256": "0" * 64}})
    calls: list[Any] = [
        lambda: list(read_samples("data", 0)),
        lambda: table("data"),
        lambda: list_shards("data"),
    ]
    for call in calls:
        with pytest.raises(ShardDamaged, match="files not its own"):
            call()
    assert any("00000.json is damaged" in line for line in verify("data"))
    assert set(files(tmp_path)) == set(before), "nothing was run"


@pytest.mark.parametrize(
    "name", ["../a-00.png", "pipe:a-00.png", "a-00.pickle", "a/b-00.png", "a-00.png\0.pkl"]
)
def test_members_with_such_names_are_refused(name: str) -> None:
    content = b"".join(_packed(iter([(name, b"data")]))) if "\0" not in name else _forged(name)
    with pytest.raises(ShardDamaged, match="is not the plain name of an image or a record"):
        list(tar_members(io.BytesIO(content), "here"))


def _forged(name: str) -> bytes:
    return name.encode().ljust(100, b"\0") + header("a-00.png", 4)[100:] + b"data" + bytes(508 + 9216)
