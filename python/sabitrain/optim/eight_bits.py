"""AdamW whose states are held in 8 bits (arXiv:2110.02861).

``bitsandbytes`` quantises the states, in blocks of 256 with a scale each, and widens them again;
the step itself is torch's fused AdamW. The optimizer of ``bitsandbytes`` is not used: it waits
for the device after each parameter, and counts its steps on the host, so the device can skip none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.optim.adamw import adamw

from sabitrain.extras import import_bitsandbytes

FEWEST = 4096
"""Numbers of a parameter from which its states are held in 8 bits, as by ``bitsandbytes``."""

_BLOCK = 256
# Numbers that are widened at a time, so that a step takes little memory beside the states.
_AT_ONCE = 2**23
# The name of each mean in the state of a parameter, and whether it has a sign.
_MEANS = {"mean": True, "square": False}


class AdamW8bit(torch.optim.Optimizer):
    """AdamW with states in 8 bits, and a step that the device can have change nothing.

    Attributes:
        found_inf: 1 to leave everything as it is in the next step, 0 to take it; None for 0.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
    ) -> None:
        """Makes the optimizer.

        Args:
            params: The parameters, or their groups.
            lr: The learning rate.
            betas: The decays of the running means of the gradient and of its square.
            eps: The number added to the root of the mean of the square.
            weight_decay: The decoupled weight decay.

        Raises:
            SabiprepError: If ``bitsandbytes`` is not installed.
        """
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        library = import_bitsandbytes("optim.name adamw8bit")
        device = self.param_groups[0]["params"][0].device
        # With numbers even where a step is planned on tensors without.
        with unset_fake_temporarily(), torch.device("cpu"):
            self._tables = {
                name: library.create_dynamic_map(signed=signed).to(device)
                for name, signed in _MEANS.items()
            }

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Takes one step; ``closure`` must be None."""
        if closure is not None:
            raise ValueError("a step that may be skipped takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a state; torch itself would make numbers of a parameter's type of its codes."""
        codes = {
            index: {key: state[key] for key in _MEANS if key in state}
            for index, state in state_dict["state"].items()
        }
        rest = {
            index: {key: value for key, value in state.items() if key not in _MEANS}
            for index, state in state_dict["state"].items()
        }
        super().load_state_dict({**state_dict, "state": rest})
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, held in codes.items():
            for key, value in held.items():
                self.state[parameters[index]][key] = value.to(parameters[index].device)

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        """Returns the state of a parameter, made if there is none yet."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            blocks = -(-parameter.numel() // _BLOCK)
            for name in _MEANS:
                state[name] = torch.zeros_like(parameter, dtype=torch.uint8)
                state[f"{name}_scale"] = torch.zeros(
                    blocks, dtype=torch.float32, device=parameter.device
                )
        return state

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """Takes a step of a parameter, a part after the other."""
        assert parameter.grad is not None
        state = self._begin(parameter)
        flat, gradient = parameter.view(-1), parameter.grad.reshape(-1)
        steps = state["step"]
        for first in range(0, len(flat), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            blocks = slice(first // _BLOCK, -(-min(first + _AT_ONCE, len(flat)) // _BLOCK))
            codes = {name: state[name].view(-1)[part] for name in _MEANS}
            scales = {name: state[f"{name}_scale"][blocks] for name in _MEANS}
            wide = {
                name: torch.ops.bitsandbytes.dequantize_blockwise(
                    codes[name], scales[name], self._tables[name], _BLOCK, torch.float32
                )
                for name in _MEANS
            }
            # Each part counts the same step.
            steps = state["step"].clone()
            adamw(
                [flat[part]],
                [gradient[part]],
                [wide["mean"]],
                [wide["square"]],
                [],
                [steps],
                fused=True,
                found_inf=self.found_inf,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            for name in _MEANS:
                made = torch.ops.bitsandbytes.quantize_blockwise(
                    wide[name], self._tables[name], _BLOCK
                )
                for held, new in zip((codes[name], scales[name]), made, strict=True):
                    # To quantise what was widened does not always give the same again.
                    held.copy_(
                        new
                        if self.found_inf is None
                        else torch.where(self.found_inf > 0, held, new)
                    )
        state["step"] = steps
