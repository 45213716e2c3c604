"""Within a step nothing waits for the device: no number of a tensor is asked for by the host."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sabitrain.checkpoints.pretrained import load_pretrained, open_pretrained
from sabitrain.config import BatchConfig, OptimConfig
from sabitrain.data.batches import make_step
from sabitrain.data.masking import Masking
from sabitrain.optim.optimizers import clip_gradient
from sabitrain.partial.settings import LoraConfig
from sabitrain.stopping import StopRequest
from sabitrain.training_state import make_training_state
from support.train.bases import from_base, make_base
from support.train.families import VOCAB_SIZE as FAMILY_VOCAB
from support.train.tiny import VOCAB_SIZE, tiny_config, write_tiny

# Operations whose result, or whose shape, is known to the host only once the device is done.
WAITS = {
    "_local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "unique_dim",
    "_unique2",
    "repeat_interleave.Tensor",
    "bincount",
}


class Refuse(TorchDispatchMode):
    """Notes each operation that would have the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[str] = []
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        full = f"{name}.{func._overloadname}"
        self.seen += 1
        # Indexing by booleans asks how many there are.
        boolean = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if boolean or name in WAITS or full in WAITS:
            self.waited.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_check_sees_what_waits():
    with Refuse() as refuse:
        x = torch.arange(4.0)
        _ = x[x > 1], x.sum().item(), x.nonzero(), torch.equal(x, x)
    assert len(refuse.waited) >= 4


@pytest.mark.parametrize("optim", ["adamw", "muon", "adamw8bit"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("targets", [0, 9])
def test_a_step_waits_for_nothing(tmp_path, monkeypatch, optim, recompute, targets):
    # So small a model has no matrix that would be held in 8 bits.
    monkeypatch.setattr("sabitrain.optim.optimizers.FEWEST", 1)
    config = tiny_config(
        "data",
        "run",
        optim=OptimConfig(name=optim),
        batch=BatchConfig(tokens=256, micro_tokens=64),
        z_loss=1e-4,
    )
    state = make_training_state(config, VOCAB_SIZE, torch.device("cpu"), True, print)
    state.model.recompute(recompute)
    with write_tiny(tmp_path) as dataset, StopRequest() as stop:
        step = make_step(dataset.train, range(8), 2, Masking(dataset.sources))
        for _ in range(2):
            with Refuse() as refuse:
                loss = state.accumulate(step.batches, stop)
                norm = clip_gradient(state.model, 1.0)
                skip, _ = state.guard.judge(loss, norm, 1, targets)
                state.update(1e-3, skip)
            assert refuse.seen > 100 and refuse.waited == []


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dora", [False, True])
def test_nor_does_one_on_a_quantised_base(tmp_path, bits, dora):
    data = write_tiny(tmp_path / "data")
    base = make_base(data.path, tmp_path / "base")
    lora = LoraConfig(rank=2, bits=bits, dora=dora, dropout=0.1)
    config = from_base(data.path, tmp_path / "run", base, train="lora", lora=lora)
    rows, opened = data.train, open_pretrained(base)
    shape = load_pretrained(opened).config
    state = make_training_state(
        replace(config, model=shape), FAMILY_VOCAB, torch.device("cpu"), True, print, opened
    )
    with StopRequest() as stop:
        step = make_step(rows, range(4), 2, Masking(data.sources))
        state.seed_dropout(0)
        with Refuse() as refuse:
            loss = state.accumulate(step.batches, stop)
            skip, _ = state.guard.judge(loss, clip_gradient(state.model, 1.0), 1, 9)
            state.update(1e-3, skip)
        assert refuse.seen > 100 and refuse.waited == []
