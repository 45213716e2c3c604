"""Packages that are extras, imported only where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from sabiprep.errors import SabiprepError


def import_bitsandbytes(purpose: str) -> Any:
    """Returns the module ``bitsandbytes.functional``.

    Args:
        purpose: The setting that needs it, for the error.

    Raises:
        SabiprepError: If it is not installed.
    """
    # On the CPU and with numbers, whatever the caller makes tensors on and of: the module keeps
    # tables.
    with unset_fake_temporarily(), torch.device("cpu"):
        try:
            functional = importlib.import_module("bitsandbytes.functional")
        except ImportError as error:
            raise SabiprepError(
                f"{purpose} needs the package bitsandbytes: {error}",
                remedy="pip install 'sabiprep[quant]'",
            ) from error
        if "dynamic" not in functional.name2qmap:
            functional.name2qmap["dynamic"] = functional.create_dynamic_map()
    return functional
