"""The guard over steps: no bad step touches the model.

A step is bad if its loss or gradient is no number, or spikes. The guard decides on the device,
beside loss and gradient: the host asks for nothing until it has to wait anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sabiprep.dataset import BatchDict
from sabiprep.errors import TrainError
from sabitrain.data.rows import RowSource

# The outcome of a step, by the number that `StepGuard.judge` gives it.
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

    After three bad steps in a row no step is taken any more. A step without targets is not taken
    either, but says nothing about the run: it is not counted as bad.

    Attributes:
        device: The device that computes the steps.
        state: The tensors of the decision, which a checkpoint keeps: ``seen`` float64[2, `WINDOW`]
            (losses and gradient norms of the last steps taken, infinite before there are so many),
            ``taken`` int64[] (the number of steps taken), ``counts`` int64[2] (steps that were not
            finite, and spikes), ``in_a_row`` int64[] (bad steps since the last one taken) and
            ``last`` int64[3] (the numbers of the last bad steps, 0 before there are so many).
    """

    def __init__(self, device: torch.device, spike: float) -> None:
        """Watches steps computed on a device.

        Args:
            device: The device that computes the steps.
            spike: The factor of the median of the last `WINDOW` steps taken above which a loss, or
                a gradient norm, is a spike if it is above 1 too; 0 for no spikes.
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

    def forget(self) -> None:
        """Forgets the losses and norms so far: those of another phase say nothing about this."""
        self.state["seen"] = torch.full_like(self.state["seen"], math.inf)
        self.state["taken"] = torch.zeros_like(self.state["taken"])

    def judge(
        self, loss: Tensor, grad_norm: Tensor, step: int, targets: int
    ) -> tuple[Tensor, Tensor]:
        """Decides about a step, from its loss and its gradient's norm before clipping.

        Args:
            loss: The loss, a scalar on the device.
            grad_norm: The norm, a scalar on the device.
            step: The number of the step, from 1.
            targets: The targets of the step.

        Returns:
            The verdict, float32[] (1 to skip the step, 0 to take it), and the outcome, float64[5]:
            loss, norm, the index of the outcome in `UPDATES`, the steps so far that were not
            finite, and the spikes so far.
        """
        state = self.state
        # Known on the host, and nothing of the state changes.
        if not targets:
            # Filled on the device: a copy from the host would wait for all that is under way.
            told_3 = torch.full((3,), math.nan, dtype=torch.float64, device=loss.device)
            told_3[2].fill_(NO_TARGET)
            return torch.ones_like(loss, dtype=torch.float32), torch.cat(
                (told_3, state["counts"].double())
            )
        seen_2 = torch.stack((loss, grad_norm)).double()
        stopped = state["in_a_row"] >= _MOST_IN_A_ROW
        # Infinite until half of the window is filled, so that nothing is a spike before.
        medians_2 = state["seen"].sort(dim=1).values[:, (WINDOW - 1) // 2]
        spikes = ((seen_2 > self._times * medians_2) & (seen_2 > _HARMLESS)).any()
        update = torch.where(seen_2.isfinite().all(), torch.where(spikes, SPIKE, TAKEN), NOT_FINITE)
        update = torch.where(stopped, STOPPED, update)
        taken = update == TAKEN
        # By masks rather than indices, which would have to come to the host.
        place = torch.arange(WINDOW, device=seen_2.device) == state["taken"] % WINDOW
        # A loss of 0 says nothing about those to come.
        enters = taken & (seen_2[0] > 0)
        state["seen"] = torch.where(place & enters, seen_2[:, None], state["seen"])
        state["taken"] = state["taken"] + enters
        state["counts"] = state["counts"] + torch.stack((update == NOT_FINITE, update == SPIKE))
        state["in_a_row"] = torch.where(taken, 0, state["in_a_row"] + 1)
        # Once stopped, the numbers stay: they name the steps that stopped the run.
        last = torch.cat((state["last"][1:], torch.full_like(state["last"][:1], step)))
        state["last"] = torch.where(taken | stopped, state["last"], last)
        return (~taken).float(), torch.cat(
            (seen_2, update[None].double(), state["counts"].double())
        )

    def stopping_steps(self) -> list[int]:
        """Returns the numbers of the three steps that stop the run, if there are any.

        The host waits for the device.
        """
        if int(self.state["in_a_row"]) < _MOST_IN_A_ROW:
            return []
        # A checkpoint of an earlier version has not kept the numbers.
        return [step for step in self.state["last"].tolist() if step]


def stop_error(step: int, records: Sequence[str], going_on: str) -> TrainError:
    """Returns the error that stops a run, with the records in the batch of its last step.

    Args:
        step: The step, counted from 1.
        records: The records of its rows, from `records_of`.
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
    """Returns the records of the documents of some rows, each once: source, file and byte.

    Args:
        dataset: The dataset of the rows.
        batch: The rows.
    """
    found = zip(batch["source_ids"].tolist(), batch["record_ids"].tolist(), strict=True)
    return [
        f"source '{dataset.sources[source].name}', {dataset.place(source, record)}"
        for source, record in dict.fromkeys(found)
    ]
