"""The device to train on, its peak and memory, and the promise of the same bits again."""

from __future__ import annotations

import contextlib
import os
import resource
import sys

import torch

from sabiprep.errors import TrainError

# Dense bf16 with float32 accumulation, by the name that CUDA reports.
_PEAKS = {
    # NVIDIA H100 and H200 Tensor Core GPU datasheets: half of the figures given with sparsity.
    "NVIDIA H100 80GB HBM3": 989.5e12,
    "NVIDIA H100 PCIe": 756.5e12,
    "NVIDIA H200": 989.5e12,
    # NVIDIA A100 Tensor Core GPU datasheet.
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    # NVIDIA A10, L4 (half of the figure with sparsity) and L40S datasheets.
    "NVIDIA A10": 125e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    # NVIDIA Ampere GA102 and Ada GPU architecture whitepapers, appendix A.
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
}


def choose_device(wanted: str) -> torch.device:
    """Returns the device: the CPU, or for ``cuda`` and ``auto`` the current GPU, by its index.

    Several functions of ``torch.cuda`` refuse a device without an index. Nothing of CUDA is set up
    for a CPU.

    Raises:
        TrainError: If a GPU is asked for and there is none, or the GPU cannot be set up.
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
    """Returns whether products run in bf16 from page-locked batches: on a GPU."""
    return device.type == "cuda"


def limit_memory(device: torch.device, gigabytes: float) -> None:
    """Limits a GPU's allocator to ``gigabytes`` GB (10^9 bytes); does nothing on a CPU."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total), device)


def peak_memory(device: torch.device) -> int:
    """Returns the most memory held so far, in bytes.

    On a GPU, torch's allocator holds the memory; on a CPU, the process (resident).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    # macOS counts bytes, Linux kibibytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def set_deterministic(wanted: bool) -> None:
    """Has torch use algorithms that give the same bits each time, or leaves it free.

    An operation without such an algorithm raises an error. cuBLAS reads its setting before its
    first product (CUDA toolkit documentation, cuBLAS, "Results reproducibility").
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = False


def precision(device: torch.device, autocast: bool) -> contextlib.AbstractContextManager[object]:
    """Returns a context in which matrix products run in bf16 if ``autocast`` is wanted."""
    return torch.autocast(device.type, torch.bfloat16) if autocast else contextlib.nullcontext()


def peak_flops(device: torch.device) -> float | None:
    """Returns the most operations a second of a device in bf16; None without a cited figure."""
    return _PEAKS.get(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
