"""A GPU's stand-in: it replaces what lies below the argument checks of ``torch.cuda``, and nothing
above them.

Tensors that are to lie on it lie on the CPU. Whatever sets up CUDA is counted.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

PEAK = 123_456_789


class StandIn(TorchFunctionMode):
    """Installed by `install`; a context manager for the thread that moves tensors there.

    Attributes:
        set_up: How often CUDA was set up.
        fractions: What the allocator was limited to, with the index of the device.
        moved: The devices that tensors were sent to or made on.
        pinned: Tensors that were page-locked.
        generator: The GPU's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_up = 0
        self.fractions: list[tuple[float, int]] = []
        self.moved: set[torch.device] = set()
        self.pinned: list[Tensor] = []
        self.generator = torch.Generator()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = {"to": 1, "device": 0}
        taken = getattr(func, "__name__", "")
        kwargs = {name: self._here(value) for name, value in (kwargs or {}).items()}
        if taken in names:
            args = tuple(self._here(value) for value in args)
        return func(*args, **kwargs)

    def _here(self, value: Any) -> Any:
        if isinstance(value, torch.device) and value.type == "cuda":
            self.moved.add(value)
            return torch.device("cpu")
        return value


def install(patch: pytest.MonkeyPatch, total_memory: int = 80 * 10**9) -> StandIn:
    """Have torch see one GPU."""
    gpu = StandIn()
    properties = SimpleNamespace(name="Stand-in", total_memory=total_memory, major=9, minor=0)

    def set_up() -> None:
        gpu.set_up += 1
        patch.setattr(torch.cuda, "_initialized", True)

    def pin(tensor: Tensor) -> Tensor:
        gpu.pinned.append(tensor)
        return tensor.clone()

    def after_set_up(value: Any) -> Any:
        set_up()  # as the C++ of these functions does
        return value

    patch.setattr(torch.cuda, "_lazy_init", set_up)
    patch.setattr(torch.cuda, "_queued_calls", [])
    patch.setattr(torch.cuda, "_cached_device_count", None)
    patch.setattr(torch.cuda, "default_generators", (gpu.generator,))
    patch.setattr(
        torch.cuda, "_get_device_properties", lambda index: [properties][index], raising=False
    )
    below = {
        "_cuda_getDeviceCount": lambda: 1,
        "_cuda_getDevice": lambda: 0,
        "_cuda_init": set_up,
        "_accelerator_getDeviceIndex": lambda: after_set_up(0),
        "_accelerator_getStream": lambda index: after_set_up(
            SimpleNamespace(is_capturing=lambda: False)
        ),
        "_cuda_isInBadFork": lambda: False,
        "_cuda_isCurrentStreamCapturing": lambda: False,
        "_cuda_setMemoryFraction": lambda fraction, index: gpu.fractions.append((fraction, index)),
        "_cuda_memoryStats": lambda index: [{"reserved_bytes": {"all": {"peak": PEAK}}}][index],
    }
    for name, replacement in below.items():
        patch.setattr(torch._C, name, replacement, raising=False)
    patch.setattr(Tensor, "pin_memory", pin)
    return gpu
