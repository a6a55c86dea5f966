"""Disks that refuse: a small tmpfs, where this process may mount one, and one that fails at a step of choice."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """A mounted tmpfs; `size` in KiB."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, size: int) -> None:
        """Give it more room, or less."""
        self._remount(f"size={size}k")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nobody may write inside the block, not even root."""
        self._remount("ro")
        try:
            yield
        finally:
            self._remount("rw")

    def _remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.path)], check=True, capture_output=True)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of that many KiB on a new folder; skips the test where that is not allowed."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}k,mode=755", "counterpoise-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def refuse_at(call: int, patch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> list[str]:
    """Let the call-th step that changes the disk fail, and all after it; the steps seen are noted in the list."""
    seen: list[str] = []

    def step(name: str) -> None:
        seen.append(name)
        if len(seen) > call:
            raise OSError(number, os.strerror(number))

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def run(*values: Any, **more: Any) -> Any:
            step(name)
            return real(*values, **more)

        return run

    class Writing:
        """A file that may refuse to be written."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Writing:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            step("write")
            return int(self.file.write(data))

    real_open = Path.open

    def opened(path: Path, mode: str = "r", *values: Any, **more: Any) -> Any:
        if mode != "xb":
            return real_open(path, mode, *values, **more)
        step("open")
        return Writing(real_open(path, mode, *values, **more))

    for name in ("fsync", "replace", "link", "mkdir"):
        patch.setattr(os, name, counted(name))
    patch.setattr(Path, "open", opened)
    return seen
