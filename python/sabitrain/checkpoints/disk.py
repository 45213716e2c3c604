"""Every kind of change that training makes to a disk, one method each.

`sabitrain.checkpoints.files` makes its changes from these methods alone. Tests give it a disk that
ends the process in the middle of one of them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sabiprep.cache import write_at
from sabiprep.files import open_regular


class Disk:
    """The disk of the machine. No method follows a link to the file that it changes.

    Every method raises `OSError` if the system refuses the change.
    """

    def make_folder(self, path: Path) -> None:
        """Makes a folder and its parents, unless they exist."""
        path.mkdir(parents=True, exist_ok=True)

    def open(self, path: Path, flags: int) -> int:
        """Opens or makes a regular file for writing, and returns its descriptor.

        Args:
            path: The file.
            flags: The flags of `os.open`; they may cut the file to nothing.
        """
        return open_regular(path, flags | os.O_NOFOLLOW)

    def write(self, path: Path, content: bytes) -> None:
        """Writes a file; a file of that name is replaced."""
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)

    def write_tensors(
        self, path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None
    ) -> None:
        """Writes tensors as a new safetensors file with the mode that the umask gives.

        Args:
            path: The file, which must not exist.
            tensors: The tensors, contiguous, on the CPU, sharing no memory.
            metadata: The texts in the head of the file, if any.
        """
        with path.open("xb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        try:
            save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
        except SafetensorError as error:
            raise _os_error(error) from error
        # safetensors renames a file of its own into place, which only its owner may read.
        path.chmod(mode)

    def append(self, file: IO[bytes], content: bytes) -> None:
        """Adds bytes to an open file and hands them to the operating system."""
        file.write(content)
        file.flush()

    def fill(self, descriptor: int, start: int, content: bytes) -> None:
        """Writes bytes at a place of an open file; threads may fill several places at once."""
        write_at(descriptor, start, content)

    def link(self, path: Path, target: str) -> None:
        """Makes a symbolic link to ``target``."""
        path.symlink_to(target)

    def rename(self, old: Path, new: Path) -> None:
        """Renames a file or folder; a file of the new name is replaced."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Removes a file or a link."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Removes an empty folder."""
        path.rmdir()

    def sync(self, descriptor: int) -> None:
        """Waits until the disk holds an open file or folder."""
        os.fsync(descriptor)


def _os_error(error: SafetensorError) -> OSError:
    """Returns the system's error, which safetensors gives in words: ``(os error 28)``."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))
