"""Fixtures of the trainer's tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tensors as small as the tests' gain nothing from more threads, and lose much beside another
    busy process.
    """
    torch.set_num_threads(1)
