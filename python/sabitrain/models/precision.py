"""The type of matrix products: autocast's type where autocast is on."""

from __future__ import annotations

import torch
from torch import Tensor


def product_dtype(tensor: Tensor) -> torch.dtype:
    """Returns the type in which ``nn.Linear`` multiplies ``tensor`` on its device.

    Without autocast the type is that of the tensor. Autocast leaves float64 as it is.
    """
    device = tensor.device.type
    if tensor.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return tensor.dtype
    return torch.get_autocast_dtype(device)
