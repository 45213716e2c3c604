"""Whether and how models are compiled: unit by unit, and the loss's chunk by itself.

Units of one kind share their code, so that a model of any depth takes the compilation of one unit,
and of the last, which computes wanted positions alone. Shapes are dynamic: batches differ in their
predictions, segments and longest document.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.fx.experimental import _config as symbolic_shapes

from sabiprep.errors import TrainError
from sabitrain.models.architecture import CausalModel
from sabitrain.settings import Switch


def compile_units(model: CausalModel) -> None:
    """Has torch compile the units where they are differentiated, when they first run.

    Validation and answers run the units as they are: their lengths change with every token.
    """
    for unit in model.units():
        unit.compiled = torch.compile(unit.forward, dynamic=True, fullgraph=True)


@contextmanager
def sizes_apart() -> Iterator[None]:
    """Has code that is compiled inside the ``with`` serve sizes that were equal, and later differ.

    Otherwise torch takes two sizes of the first batch that are equal by chance, as tokens and
    predictions, for one, and compiles again when they differ.
    """
    with symbolic_shapes.patch(use_duck_shape=False):  # type: ignore[attr-defined]
        yield


def what_compiles(wanted: Switch, device: torch.device) -> tuple[bool, bool, str | None]:
    """Returns whether to compile the units and the loss, and a note if it is not as asked.

    Args:
        wanted: The setting.
        device: The device.

    Raises:
        TrainError: If compilation is asked for, and what it needs is missing.
    """
    on_gpu = device.type == "cuda"
    units = wanted == "on" or (wanted == "auto" and on_gpu)
    loss = units or on_gpu
    if not loss:
        return False, False, None
    missing = missing_for(device)
    if missing is None:
        return units, loss, None
    if wanted == "on":
        raise TrainError(
            f"--compile on: {missing} is missing",
            remedy="install it (on Debian: apt install gcc g++ python3-dev), or use --compile auto",
        )
    return (
        False,
        False,
        f"{missing} is missing, so nothing is compiled: steps take up to twice as long",
    )


def missing_for(device: torch.device) -> str | None:
    """Returns what torch.compile needs for a device and does not find; None if all is there."""
    if device.type == "cuda":
        # Triton builds a module of Python's for each kernel.
        variable, compilers, kind = "CC", ("cc", "gcc", "clang"), "a C compiler"
        header = Path(sysconfig.get_paths()["include"], "Python.h")
        if not header.exists():
            return f"Python's header {header}"
    else:
        variable, compilers, kind = "CXX", ("g++", "clang++", "c++"), "a C++ compiler"
    # The variable may name a wrapper too, as "ccache gcc".
    named = shlex.split(os.environ.get(variable, ""))
    if named:
        return None if shutil.which(named[0]) else f"{named[0]}, which {variable} names,"
    return None if any(map(shutil.which, compilers)) else kind
