"""The choice of the device: what cannot be trained on is refused, or said, in words."""

from __future__ import annotations

import os
import warnings

import pytest
import torch

from sabiprep.errors import ConfigError, TrainError
from sabitrain import device
from sabitrain.device import choose_device, limit_memory, memory_limit, precision
from sabitrain.models import compiling
from sabitrain.models.compiling import what_compiles
from support.train import stand_in_gpu
from support.train.tiny import tiny_config


def test_a_gpu_is_chosen_where_there_is_one_by_its_index(monkeypatch):
    gpu = stand_in_gpu.install(monkeypatch, count=2)
    assert choose_device("cpu") == torch.device("cpu")
    assert gpu.set_up == 0
    assert [choose_device(wanted) for wanted in ("auto", "cuda")] == [torch.device("cuda", 0)] * 2
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    # Kernels that are compiled run on the current device.
    assert gpu.current == 1
    with pytest.raises(TrainError, match="no GPU 2: torch sees 2"):
        choose_device("cuda:2")


def test_without_a_gpu_auto_takes_the_cpu(monkeypatch):
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 0, raising=False)
    said: list[str] = []
    monkeypatch.setattr(device.os.path, "exists", lambda path: False)
    assert choose_device("auto", said.append).type == "cpu" and said == []
    for wanted in ("cuda", "cuda:0"):
        with pytest.raises(TrainError, match="no CUDA device"):
            choose_device(wanted)
    # A driver that is there, and hides its GPUs, is no machine without one.
    monkeypatch.setattr(device.os.path, "exists", lambda path: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_device("auto", said.append).type == "cpu"
    assert len(said) == 1 and "CUDA_VISIBLE_DEVICES is ''" in said[0] and "on the CPU" in said[0]


def test_a_driver_too_old_for_the_wheel_is_said_loudly(monkeypatch):
    """torch tells so in a warning that nobody reads, and trains on the CPU."""
    old = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."

    def count() -> int:
        warnings.warn(old, UserWarning, stacklevel=2)
        return 0

    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", count, raising=False)
    said: list[str] = []
    assert choose_device("auto", said.append).type == "cpu"
    assert len(said) == 1 and old in said[0] and "training on the CPU" in said[0]
    with pytest.raises(TrainError, match="driver on your system is too old"):
        choose_device("cuda")


@pytest.mark.parametrize("wanted", ["auto", "cuda", "cuda:0"])
@pytest.mark.parametrize("capability", [(7, 0), (7, 5)])
def test_a_t4_or_v100_is_refused_with_the_cards_that_run(monkeypatch, wanted, capability):
    stand_in_gpu.install(monkeypatch, capability=capability)
    with pytest.raises(TrainError) as refused:
        choose_device(wanted)
    text = str(refused.value)
    assert f"capability {capability[0]}.{capability[1]}" in text and "L4" in text
    assert "--device cpu" in text


def test_rocm_and_mps_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    said: list[str] = []
    assert choose_device("auto", said.append).type == "cpu" and "ROCm" in said[0]
    with pytest.raises(TrainError, match="ROCm"):
        choose_device("cuda")
    monkeypatch.undo()
    for name in ("mps", "rocm", "xpu:0"):
        with pytest.raises(ConfigError, match=f"not '{name}': nothing has been tried"):
            tiny_config("data", "run", device=name)
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 0, raising=False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    said.clear()
    assert choose_device("auto", said.append).type == "cpu" and "MPS" in said[0]


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda 1", ""])
def test_a_device_that_is_none_is_a_wrong_setting(name):
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda or cuda:N"):
        tiny_config("data", "run", device=name)


def test_a_gpu_that_cannot_be_set_up_is_an_error_in_words(monkeypatch):
    stand_in_gpu.install(monkeypatch)

    def fail() -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")

    monkeypatch.setattr(torch.cuda, "_lazy_init", fail)
    with pytest.raises(TrainError, match="busy or unavailable") as refused:
        choose_device("auto")
    assert "--device cpu" in str(refused.value.remedy)


def test_the_allocator_is_told_of_segments_that_grow_before_cuda_starts(monkeypatch):
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    gpu = stand_in_gpu.install(monkeypatch)
    seen: list[str | None] = []
    below = torch.cuda._lazy_init

    def set_up() -> None:
        seen.append(os.environ.get("PYTORCH_CUDA_ALLOC_CONF"))
        below()

    monkeypatch.setattr(torch.cuda, "_lazy_init", set_up)
    choose_device("auto")
    assert gpu.set_up > 0 and seen[0] == "expandable_segments:True"
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    # What the user has set stays.
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    choose_device("auto")
    assert "PYTORCH_CUDA_ALLOC_CONF" not in os.environ


def test_the_limit_is_what_the_card_has_free_unless_said_otherwise(monkeypatch):
    gpu = stand_in_gpu.install(monkeypatch, total_memory=80 * 10**9, free_memory=71 * 10**9)
    card = choose_device("cuda")
    assert memory_limit(card, "auto") == 71 * 10**9
    assert memory_limit(card, 24.0) == 24 * 10**9
    assert memory_limit(card, 100.0) == 71 * 10**9
    for limit in ("auto", 24.0, 100.0):
        limit_memory(card, limit)
    limit_memory(torch.device("cpu"), 1.0)
    assert gpu.fractions == [(1.0, 0), (0.3, 0), (1.0, 0)]


def test_what_compiling_needs_is_named(monkeypatch):
    cpu = torch.device("cpu")
    assert what_compiles("auto", cpu) == (False, False, None)
    monkeypatch.setenv("CXX", "ccache g++")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: name if name == "ccache" else None)
    assert what_compiles("on", cpu) == (True, True, None)
    monkeypatch.setenv("CXX", "nope -O2")
    with pytest.raises(TrainError, match="nope, which CXX names, is missing"):
        what_compiles("on", cpu)
    monkeypatch.delenv("CXX")
    with pytest.raises(TrainError, match=r"a C\+\+ compiler is missing"):
        what_compiles("on", cpu)
    card = torch.device("cuda", 0)
    monkeypatch.setenv("CC", "nope")
    monkeypatch.setattr(compiling.Path, "exists", lambda path: True)
    units, loss, note = what_compiles("auto", card)
    assert not units and not loss and note is not None and "nope, which CC names," in note
    monkeypatch.setenv("CC", "ccache gcc")
    assert what_compiles("auto", card) == (True, True, None)
    # The loss is compiled in any case.
    assert what_compiles("off", card) == (False, True, None)
    monkeypatch.setattr(compiling.Path, "exists", lambda path: False)
    assert "Python.h is missing" in str(what_compiles("auto", card)[2])


def test_autocast_without_its_cache_gives_the_same_gradients():
    """The cache kept a copy of every weight to the end of the step, recomputed or not."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64)
    x, gradients = torch.randn(32, 64), []
    for context in (precision(torch.device("cpu"), True), torch.autocast("cpu", torch.bfloat16)):
        layer.zero_grad()
        with context:
            assert torch.is_autocast_cache_enabled() is bool(gradients)
            (layer(x).float() ** 2).sum().backward()
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.clone())
    assert torch.equal(*gradients)
