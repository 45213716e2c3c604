"""The device to train on, and the promise that it computes the same again."""

from __future__ import annotations

import os

import torch

from sabiprep.errors import TrainError


def choose_device(wanted: str) -> torch.device:
    """The device to train on: ``cpu``, ``cuda``, or for ``auto`` a GPU if there is one.

    Raises:
        TrainError: If a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainError("torch sees no CUDA device", remedy="use --device cpu, or install a CUDA build of torch")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def set_deterministic(wanted: bool) -> None:
    """Have torch use algorithms that give the same bits each time, or leave it free.

    An operation that has none raises an error, rather than break the promise. On CUDA, cuBLAS must be told before its
    first product (CUDA toolkit documentation, cuBLAS, "Results reproducibility").
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = False
