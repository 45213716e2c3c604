"""The facts of the machine that a self-test ran on."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

_DRIVER = Path("/proc/driver/nvidia/version")


def facts(device: torch.device) -> dict[str, Any]:
    """Returns the names and versions of a device and of what computes on it."""
    found: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": _version("triton"),
        "python": platform.python_version(),
        "sabitrain": _version("sabiprep"),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_mb": properties.total_memory / 1e6,
            "free_mb": torch.cuda.mem_get_info(device)[0] / 1e6,
            "multiprocessors": properties.multi_processor_count,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "driver": _driver(),
        }
    return found


def _version(package: str) -> str | None:
    """Returns the version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    """Returns the line in which NVIDIA's driver names its version; None if it cannot be read."""
    try:
        return " ".join(_DRIVER.read_text("utf-8").partition("\n")[0].split())
    except OSError:
        return None
