"""The guard over steps: no bad one touches the model.

A step is bad if its loss or gradient is no number, or spikes.

All of it happens on the device, where loss and gradient are: the host asks for nothing until it has
to wait anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sabiprep.dataset import BatchDict
from sabiprep.errors import TrainError
from sabitrain.data.rows import RowSource

# What becomes of a step, by the number that `StepGuard.judge` gives it.
TAKEN, NOT_FINITE, SPIKE, STOPPED, NO_TARGET = range(5)
UPDATES = ("taken", "not finite", "spike", "stopped", "no target")
# Steps that the median is of. Until half as many have been taken, nothing is a spike.
WINDOW = 128
# No loss (nats) and no gradient norm up to this is a spike, however small the others are.
_HARMLESS = 1.0
_MOST_IN_A_ROW = 3
_SHOWN = 5


class StepGuard:
    """Decides, on the device, which steps are taken.

    After three bad ones in a row none is taken any more.

    A step in which no token counts is not taken either, but says nothing about the run: it is not
    one in a row.

    Attributes:
        device: Where steps are computed.
        state: The tensors it decides by, which a checkpoint keeps: ``seen`` float64[2, `WINDOW`]
            (losses and gradient norms of the last steps taken, infinite where there is none yet),
            ``taken`` (how many were), ``counts`` int64[2] (steps that were not finite, and spikes),
            ``in_a_row`` (such steps since one was taken) and ``last`` int64[3] (the numbers of the
            last such steps, 0 where there is none yet).
    """

    def __init__(self, device: torch.device, spike: float) -> None:
        """Watches steps computed on a device.

        Args:
            device: Where they are computed.
            spike: A step is a spike if its loss or its gradient's norm is more than so many times
                the median of the last `WINDOW` taken, and above 1; 0 for none.
        """
        self.device = device
        self._times = spike or math.inf
        self.state = {
            "seen": torch.full((2, WINDOW), math.inf, dtype=torch.float64, device=device),
            "taken": torch.zeros((), dtype=torch.int64, device=device),
            "counts": torch.zeros(2, dtype=torch.int64, device=device),
            "in_a_row": torch.zeros((), dtype=torch.int64, device=device),
            "last": torch.zeros(_MOST_IN_A_ROW, dtype=torch.int64, device=device),
        }

    def judge(
        self, loss: Tensor, grad_norm: Tensor, step: int, targets: int
    ) -> tuple[Tensor, Tensor]:
        """Decides about a step, from its loss and its gradient's norm before clipping.

        Both are scalars on the device.

        Args:
            loss: The loss.
            grad_norm: The norm.
            step: Its number, from 1.
            targets: The tokens in it that count.

        Returns:
            Whether it is to be skipped, float32[] (1 or 0, as optimizers take it); and what to tell
            of it, float64[5]: loss, norm, its number in `UPDATES`, and the steps so far that were
            not finite and that were spikes.
        """
        state = self.state
        if not targets:
            told_3 = torch.tensor((math.nan, math.nan, NO_TARGET), dtype=torch.float64).to(
                loss.device
            )
            return torch.ones_like(loss, dtype=torch.float32), torch.cat(
                (told_3, state["counts"].double())
            )
        seen_2 = torch.stack((loss, grad_norm)).double()
        stopped = state["in_a_row"] >= _MOST_IN_A_ROW
        medians_2 = state["seen"].sort(dim=1).values[:, (WINDOW - 1) // 2]
        spikes = ((seen_2 > self._times * medians_2) & (seen_2 > _HARMLESS)).any()
        update = torch.where(seen_2.isfinite().all(), torch.where(spikes, SPIKE, TAKEN), NOT_FINITE)
        update = torch.where(stopped, STOPPED, update)
        taken = update == TAKEN
        place = torch.arange(WINDOW, device=seen_2.device) == state["taken"] % WINDOW
        # A loss of 0 says nothing about those to come.
        enters = taken & (seen_2[0] > 0)
        state["seen"] = torch.where(place & enters, seen_2[:, None], state["seen"])
        state["taken"] = state["taken"] + enters
        state["counts"] = state["counts"] + torch.stack((update == NOT_FINITE, update == SPIKE))
        state["in_a_row"] = torch.where(taken, 0, state["in_a_row"] + 1)
        last = torch.cat((state["last"][1:], torch.full_like(state["last"][:1], step)))
        state["last"] = torch.where(taken | stopped, state["last"], last)
        return (~taken).float(), torch.cat(
            (seen_2, update[None].double(), state["counts"].double())
        )

    def stopping_steps(self) -> list[int]:
        """Returns the numbers of the three steps that stop the run, if there are any.

        It waits for the device.
        """
        if int(self.state["in_a_row"]) < _MOST_IN_A_ROW:
            return []
        return [step for step in self.state["last"].tolist() if step]


def stop_error(step: int, records: Sequence[str], going_on: str) -> TrainError:
    """Returns the error that stops a run, with the records in the batch of its last step.

    Args:
        step: The step, counted from 1.
        records: What `records_of` says of its rows.
        going_on: The command that goes on past the steps that stopped it.
    """
    more = (
        f"\n  and {len(records) - _SHOWN:,} more, all in metrics.jsonl"
        if len(records) > _SHOWN
        else ""
    )
    return TrainError(
        f"step {step}: the third in a row whose loss or gradient is no number or spikes; none of "
        "them has touched the model. The records in its batch:\n  "
        + "\n  ".join(records[:_SHOWN])
        + more,
        remedy="look at these records and at the losses in metrics.jsonl; if the records are at "
        f"fault, go on without the three batches: {going_on}\n  if they are as they should be, "
        "start another run with a lower --optim.lr, a higher --optim.warmup or another "
        "--optim.spike",
    )


def records_of(dataset: RowSource, batch: BatchDict) -> list[str]:
    """Returns the records of the documents of some rows: source, file and byte.

    Each comes once, in order.
    """
    found = zip(batch["source_ids"].tolist(), batch["record_ids"].tolist(), strict=True)
    return [
        f"source '{dataset.sources[source].name}', {dataset.place(source, record)}"
        for source, record in dict.fromkeys(found)
    ]
