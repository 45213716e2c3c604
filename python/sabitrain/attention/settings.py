"""The choice of the kernels of attention, importable without torch."""

from __future__ import annotations

from typing import Literal

Kernel = Literal["flash2", "cudnn", "flash3"]
"""The kernels of CUDA in half precision: `sabitrain.attention.flash` runs them."""
