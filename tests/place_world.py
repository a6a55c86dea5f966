"""The places that a dataset can lie in, and the world behind each to look at and to damage it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from storage_world import files as local_files

from storage.backend import Backend, open_backend


@dataclass
class Place:
    """A dataset's place, and the world behind it to look at and to damage it."""

    uri: Any
    files: Callable[[], dict[str, bytes]]
    write: Callable[[str, bytes], None]
    delete: Callable[[str], None]

    @property
    def backend(self) -> Backend:
        return open_backend(self.uri)


def folder(tmp_path: Path) -> Place:
    """A folder."""
    root = tmp_path / "data"

    def write(name: str, content: bytes) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return Place(str(root), lambda: local_files(root), write, lambda name: (root / name).unlink())


def bucket(request: pytest.FixtureRequest) -> Place:
    """A prefix of the test store's bucket that no other test uses."""
    s3 = request.getfixturevalue("s3")
    prefix = f"places/{request.node.name}".replace("[", "/").replace("]", "")
    client = s3.client
    return Place(
        f"s3://{s3.bucket}/{prefix}",
        lambda: s3.files(prefix),
        lambda name, content: client.put_object(Bucket=s3.bucket, Key=f"{prefix}/{name}", Body=content),
        lambda name: client.delete_object(Bucket=s3.bucket, Key=f"{prefix}/{name}"),
    )
