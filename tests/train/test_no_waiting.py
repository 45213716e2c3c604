"""Within a step nothing waits for the device: no number of a tensor is asked for by the host."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sabitrain.config import BatchConfig, OptimConfig
from sabitrain.data.batches import make_step
from sabitrain.data.masking import Masking
from sabitrain.optim.optimizers import clip_gradient
from sabitrain.stopping import StopRequest
from sabitrain.training_state import make_training_state
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


@pytest.mark.parametrize("optim", ["adamw", "muon"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("targets", [0, 9])
def test_a_step_waits_for_nothing(tmp_path, optim, recompute, targets):
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
