"""The device to train on, its peak and memory, and the promise of the same bits again."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import sys
import warnings
from collections.abc import Callable

import torch

from sabiprep.errors import TrainError

# bf16, and the flash attention of torch, begin with this generation (CUDA C++ programming guide,
# compute capabilities).
_LEAST_CAPABILITY = (8, 0)
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


def choose_device(wanted: str, say: Callable[[str], None] = lambda note: None) -> torch.device:
    """Returns the device: the CPU, or a GPU by its index.

    Several functions of ``torch.cuda`` refuse a device without an index. Nothing of CUDA is set up
    for a CPU.

    Args:
        wanted: ``cpu``; ``cuda`` for the current GPU, ``cuda:N`` for another; ``auto`` for the
            current GPU if there is one, and the CPU if not.
        say: The function that takes a line about a GPU that is there but cannot be used.

    Raises:
        TrainError: If a GPU is asked for and there is none, or the GPU cannot be used.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    # Before CUDA is set up, which reads it once. Micro-batches differ in their predictions, and
    # blocks of fixed sizes would leave gaps that no later tensor fits.
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    missing = _why_no_gpu()
    if missing is not None:
        reason, there = missing
        if wanted != "auto":
            raise TrainError(reason, remedy="look at nvidia-smi, or use --device cpu")
        if there:
            say(f"{reason}: training on the CPU")
        return torch.device("cpu")
    try:
        # The number, since a name without one is refused by parts of torch.cuda.
        index = int(wanted.partition(":")[2] or torch.cuda.current_device())
        if index >= torch.cuda.device_count():
            raise TrainError(
                f"there is no GPU {index}: torch sees {torch.cuda.device_count()}",
                remedy="use --device cuda:0 or another that `nvidia-smi -L` lists",
            )
        # Kernels that torch.compile makes run on the current device.
        torch.cuda.set_device(index)
        properties = torch.cuda.get_device_properties(index)
    except RuntimeError as error:
        raise TrainError(
            f"the GPU cannot be used: {error}", remedy="look at nvidia-smi, or use --device cpu"
        ) from error
    if (properties.major, properties.minor) < _LEAST_CAPABILITY:
        raise TrainError(
            f"{properties.name} has compute capability {properties.major}.{properties.minor}; bf16 "
            "and flash attention need 8.0: an A100, A10, L4, RTX 3060 or newer",
            remedy="use such a GPU, or --device cpu for a model of a few million parameters",
        )
    return torch.device("cuda", index)


def _why_no_gpu() -> tuple[str, bool] | None:
    """Returns why torch can use no GPU, and whether one seems to be there; None if it can."""
    if torch.version.hip is not None:
        return "this torch is built for ROCm, on which nothing has been tried yet", True
    # An old driver is told as a warning, once.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if available:
        return None
    told = " ".join(str(caught[0].message).split()) if caught else ""
    if torch.version.cuda is None:
        reason = "this torch is built without CUDA"
        return (
            (f"{reason}, though an NVIDIA driver is there", True)
            if _has_driver()
            else (
                reason,
                False,
            )
        )
    if told:
        return f"torch cannot use the GPU: {told}", True
    if torch.backends.mps.is_available():
        return "no CUDA device; Apple's GPUs (MPS) have not been tried yet", True
    if _has_driver():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES is {hidden!r})"
        return f"torch sees no CUDA device, though an NVIDIA driver is there{why}", True
    return "torch sees no CUDA device", False


def _has_driver() -> bool:
    """Returns whether the kernel has loaded NVIDIA's driver."""
    return os.path.exists("/proc/driver/nvidia/version")


def runs_in_bf16(device: torch.device) -> bool:
    """Returns whether products run in bf16 from page-locked batches: on a GPU."""
    return device.type == "cuda"


def memory_limit(device: torch.device, wanted: float | str) -> int:
    """Returns the bytes of a GPU that a run may take: what is free, and no more than is wanted.

    On a CPU, where nothing is planned, the result is 0.

    Args:
        device: The device.
        wanted: GB (10^9 bytes), or ``auto``.
    """
    if device.type == "cpu":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return free if isinstance(wanted, str) else min(int(wanted * 1e9), free)


def limit_memory(device: torch.device, wanted: float | str) -> None:
    """Limits a GPU's allocator to ``wanted`` GB (10^9 bytes); ``auto`` leaves it the card.

    Nothing is done on a CPU.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        # An earlier run of the process may have set another.
        share = 1.0 if isinstance(wanted, str) else min(1.0, wanted * 1e9 / total)
        torch.cuda.set_per_process_memory_fraction(share, device)


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
    # Filling every new tensor with NaN shows reads of unset memory, and takes a write of each.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    # The compiler times some choices, unless it is told; without compiling it is not imported.
    if wanted:
        setattr(importlib.import_module("torch._inductor.config"), "deterministic", True)  # noqa: B010


def use_fast_products(device: torch.device) -> None:
    """Has a GPU compute the products that are left in float32 by TF32, with a mantissa of 10 bits.

    Products of training and of validation are in bf16, so those of the answers are left. A CPU is
    left alone.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")


def precision(device: torch.device, autocast: bool) -> contextlib.AbstractContextManager[object]:
    """Returns a context in which matrix products run in bf16 if ``autocast`` is wanted.

    Copies of weights are not kept for the whole context: a unit that is recomputed would keep its
    copies until the end of the step.
    """
    if not autocast:
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def peak_of(name: str) -> float:
    """Returns the most operations a second in bf16 of a card in the table, by its name.

    Raises:
        KeyError: If there is no figure for it.
    """
    return _PEAKS[name]


def peak_flops(device: torch.device) -> float | None:
    """Returns the most operations a second of a device in bf16; None without a cited figure."""
    return _PEAKS.get(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
