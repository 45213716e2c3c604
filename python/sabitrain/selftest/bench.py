"""The bench that the cells of the self-test work at: the device, the time left, and the measures.

A cell is a list of parts. A part is measured by itself: an error in one leaves the others to run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sabitrain.device import set_deterministic
from sabitrain.models.compiling import missing_for

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a part.

    Attributes:
        held: Whether what it checks is so; None if it only measures, or could not be measured.
        numbers: The numbers, by the names they have in the record.
        why: The fault, or the reason why it could not be measured.
    """

    held: bool | None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    why: str | None = None


@dataclass(frozen=True)
class Part:
    """A part of a cell.

    Attributes:
        name: Its name.
        seconds: The seconds that it takes on a GPU at most, roughly: with fewer left it is not
            begun.
        measure: The function that measures it.
    """

    name: str
    seconds: float
    measure: Callable[[], Outcome]


class Bench:
    """The device to test, and the time that is left for it.

    Attributes:
        device: The device.
        small: Whether sizes are small: on a CPU, where only the cells themselves are tried.
        bf16: Whether training computes in bf16 here.
        children: The processes that are running.
    """

    def __init__(self, device: torch.device, deadline: float) -> None:
        """Sets up a bench.

        Args:
            device: The device.
            deadline: The time, by `time.monotonic`, at which no part may run any more.
        """
        self.device, self._deadline = device, deadline
        self.small = device.type == "cpu"
        if self.small:
            # So little gains nothing from more threads, and loses much beside a busy process.
            torch.set_num_threads(1)
        self.bf16 = not self.small
        self.children: list[subprocess.Popen[bytes]] = []
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """A temporary folder, removed by `clear_away`."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="sabitrain-selftest-"))
        return self._folder

    def left(self) -> float:
        """Returns the seconds that are left."""
        return self._deadline - time.monotonic()

    def cannot_compile(self) -> str | None:
        """Returns why nothing can be compiled here; None if it can."""
        missing = missing_for(self.device)
        return None if missing is None else f"{missing} is missing"

    def synchronize(self) -> None:
        """Waits until the device has done all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def tidy(self) -> None:
        """Frees what the last part left: its tensors, its compiled code, its settings."""
        gc.collect()
        # Blocks of another shape are compiled as if they were the first.
        torch._dynamo.reset()
        set_deterministic(False)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def clear_away(self) -> None:
        """Ends the processes that still run, and removes the temporary folder."""
        for child in self.children:
            with contextlib.suppress(OSError):
                child.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def milliseconds(self, call: Callable[[], object], times: int) -> float:
        """Returns the milliseconds of a call, the mean of ``times`` calls after two others."""
        times = 2 if self.small else times
        for _ in range(2):
            call()
        self.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            call()
        self.synchronize()
        return (time.perf_counter() - began) * 1e3 / times

    def peak_megabytes(self, call: Callable[[], object]) -> float | None:
        """Returns the MB that a call allocates at its peak beyond what is held; None on a CPU."""
        if self.device.type != "cuda":
            call()
            return None
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        self.synchronize()
        return (torch.cuda.max_memory_allocated(self.device) - before) / 1e6


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Has torch use algorithms that give the same bits each time inside the ``with``."""
    before = os.environ.get(_CUBLAS)
    set_deterministic(True)
    try:
        yield
    finally:
        set_deterministic(False)
        if before is None:
            os.environ.pop(_CUBLAS, None)


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """Returns the root of the mean squared difference, as a share of the reference's own."""
    reference = reference.double()
    difference = (ours.double() - reference).square().mean()
    return float((difference / reference.square().mean()).sqrt())


def described(error: BaseException, most: int = 300) -> str:
    """Returns the kind of an error, its last line in this package, and its message's beginning."""
    place, trace = "", error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE):
            place = f" at {path.relative_to(_PACKAGE)}:{trace.tb_lineno}"
        trace = trace.tb_next
    lines = " ".join(str(error).split())
    return f"{type(error).__name__}{place}: {lines}"[:most]
