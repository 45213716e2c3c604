"""The device to train on, and the promise that it computes the same again."""

from __future__ import annotations

import os
import resource
import sys

import torch

from sabiprep.errors import TrainError


def choose_device(wanted: str) -> torch.device:
    """Returns the device to train on: the CPU, or for ``cuda`` and ``auto`` the current GPU, by its
    index.

    Several functions of ``torch.cuda`` refuse a device without an index. Nothing of CUDA is set up
    for a CPU.

    Raises:
        TrainError: If a GPU is asked for and there is none, or the one there is cannot be set up.
    """
    if wanted == "cpu" or not torch.cuda.is_available():
        if wanted == "cuda":
            raise TrainError(
                "torch sees no CUDA device",
                remedy="use --device cpu, or install a CUDA build of torch",
            )
        return torch.device("cpu")
    try:
        return torch.device("cuda", torch.cuda.current_device())
    except RuntimeError as error:
        raise TrainError(
            f"the GPU cannot be used: {error}", remedy="look at nvidia-smi, or use --device cpu"
        ) from error


def runs_in_bf16(device: torch.device) -> bool:
    """Whether matrix products run in bf16, and batches come from page-locked memory: on a GPU."""
    return device.type == "cuda"


def limit_memory(device: torch.device, gigabytes: float) -> None:
    """Have a GPU's allocator hand out so many GB (10^9 bytes) at most, as a smaller card would; a
    CPU is left alone.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total), device)


def peak_memory(device: torch.device) -> int:
    """The most memory held so far, in bytes: a GPU's, by torch's allocator; on a CPU, resident, by
    the process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def set_deterministic(wanted: bool) -> None:
    """Have torch use algorithms that give the same bits each time, or leave it free.

    An operation that has none raises an error, rather than break the promise. On CUDA, cuBLAS must
    be told before its first product (CUDA toolkit documentation, cuBLAS, "Results
    reproducibility").
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = False
