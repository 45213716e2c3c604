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
        current: The index of the current GPU.
        products: The precision of float32 products.
        most_tokens: Tokens of the largest micro-batch that its memory takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_up = 0
        self.fractions: list[tuple[float, int]] = []
        self.moved: set[torch.device] = set()
        self.pinned: list[Tensor] = []
        self.generator = torch.Generator()
        self.current = 0
        self.products = ""
        self.most_tokens = 1 << 40

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = {"to": 1, "device": 0}
        taken = getattr(func, "__name__", "")
        # Tensors without numbers, of a plan, take no memory.
        takes = taken == "embedding" and torch.is_grad_enabled() and type(args[0]) is Tensor
        if takes and len(args[0]) > self.most_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        kwargs = {name: self._here(value) for name, value in (kwargs or {}).items()}
        if taken in names:
            args = tuple(self._here(value) for value in args)
        return func(*args, **kwargs)

    def _here(self, value: Any) -> Any:
        if isinstance(value, torch.device) and value.type == "cuda":
            self.moved.add(value)
            return torch.device("cpu")
        return value


def install(
    patch: pytest.MonkeyPatch,
    total_memory: int = 80 * 10**9,
    capability: tuple[int, int] = (9, 0),
    count: int = 1,
    free_memory: int | None = None,
) -> StandIn:
    """Have torch see ``count`` GPUs of a kind; ``free_memory`` is all of it unless given."""
    gpu = StandIn()
    major, minor = capability
    properties = SimpleNamespace(
        name="Stand-in", total_memory=total_memory, major=major, minor=minor
    )
    several = [properties] * count
    free = total_memory if free_memory is None else free_memory

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
    for name in ("_exchange_device", "_maybe_exchange_device"):
        patch.setattr(torch.cuda, name, lambda index: gpu.current)
    patch.setattr(torch.cuda, "_queued_calls", [])
    patch.setattr(torch.cuda, "_cached_device_count", None)
    patch.setattr(torch.cuda, "default_generators", (gpu.generator,) * count)
    patch.setattr(
        torch.cuda,
        "_get_device_properties",
        lambda index: several[index],
        raising=False,
    )
    below = {
        "_cuda_getDeviceCount": lambda: count,
        "_cuda_getDevice": lambda: gpu.current,
        "_cuda_setDevice": lambda index: gpu.__dict__.update(current=index),
        "_cuda_init": set_up,
        "_accelerator_getDeviceIndex": lambda: after_set_up(0),
        "_accelerator_getStream": lambda index: after_set_up(
            SimpleNamespace(is_capturing=lambda: False)
        ),
        "_cuda_isInBadFork": lambda: False,
        "_set_float32_matmul_precision": lambda name: gpu.__dict__.update(products=name),
        "_cuda_synchronize": lambda: None,
        "_cuda_emptyCache": lambda: None,
        "_cuda_isCurrentStreamCapturing": lambda: False,
        "_cuda_setMemoryFraction": lambda fraction, index: gpu.fractions.append((fraction, index)),
        "_cuda_memoryStats": lambda index: [{"reserved_bytes": {"all": {"peak": PEAK}}}][index],
    }
    for name, replacement in below.items():
        patch.setattr(torch._C, name, replacement, raising=False)
    patch.setattr(Tensor, "pin_memory", pin)
    runtime = SimpleNamespace(cudaMemGetInfo=lambda index: (free, total_memory))
    patch.setattr(torch.cuda, "_cudart", runtime)
    # What is below the compiler cannot run here: code stays as it is.
    patch.setattr(torch, "compile", lambda function, **_: function)
    return gpu
