"""A disk that ends the process, as ``kill -9`` does, in the middle of one change."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from torch import Tensor

from sabitrain.checkpoints.disk import Disk


class TornDisk(Disk):
    """The disk of the machine until a change, of which it does half or nothing.

    A write is half done; every other change is not done at all.
    """

    def __init__(self, fault: int) -> None:
        """Counts the changes, from 1, to the one that is torn."""
        self._left = fault

    def make_folder(self, path: Path) -> None:
        self._tear_before()
        super().make_folder(path)

    def open(self, path: Path, flags: int) -> int:
        self._tear_before()
        return super().open(path, flags)

    def write(self, path: Path, content: bytes) -> None:
        if self._is_torn():
            super().write(path, content[: len(content) // 2])
            _die()
        super().write(path, content)

    def write_tensors(
        self, path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None
    ) -> None:
        torn = self._is_torn()
        super().write_tensors(path, tensors, metadata)
        if torn:
            os.truncate(path, path.stat().st_size // 2)
            _die()

    def append(self, file: IO[bytes], content: bytes) -> None:
        if self._is_torn():
            super().append(file, content[: len(content) // 2])
            _die()
        super().append(file, content)

    def fill(self, descriptor: int, start: int, content: bytes) -> None:
        if self._is_torn():
            super().fill(descriptor, start, content[: len(content) // 2])
            _die()
        super().fill(descriptor, start, content)

    def link(self, path: Path, target: str) -> None:
        self._tear_before()
        super().link(path, target)

    def rename(self, old: Path, new: Path) -> None:
        self._tear_before()
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._tear_before()
        super().unlink(path)

    def remove_folder(self, path: Path) -> None:
        self._tear_before()
        super().remove_folder(path)

    def sync(self, descriptor: int) -> None:
        self._tear_before()
        super().sync(descriptor)

    def _is_torn(self) -> bool:
        """Counts a change and returns whether it is the one to tear."""
        self._left -= 1
        return self._left == 0

    def _tear_before(self) -> None:
        """Counts a change and ends the process if it is the one to tear."""
        if self._is_torn():
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
