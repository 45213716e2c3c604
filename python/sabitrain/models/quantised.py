"""Frozen linear layers held in 4 or 8 bits: the base of QLoRA (arXiv:2305.14314).

``bitsandbytes`` quantises, and widens a matrix again for each product. 4 bits are NF4 in blocks of
64, whose scales are quantised too; 8 bits have a scale a row, as in LLM.int8 (arXiv:2208.07339).
The layers of ``bitsandbytes`` itself are not used: in 8 bits they round activations as well, to
float16, and wait for the device to find outliers; on some CPUs they change weights of 4 bits into a
form without a gradient when something is validated.

A product and that of its backward pass are one opaque op, so that the matrix is widened in both:
``torch.compile``, which saw the same widening twice, would keep the wide matrix between them.

Dimensions: O outputs, I inputs of a layer; N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sabitrain.extras import import_bitsandbytes
from sabitrain.models.precision import product_dtype

# Numbers of a block with a scale of its own in 4 bits, and scales of a block of scales, as in the
# paper.
_BLOCK, _BLOCK_OF_SCALES = 64, 256
_PURPOSE = "lora.bits"


class QuantisedLinear(nn.Linear):
    """A linear layer whose weight is held in few bits, and is not trained.

    Attributes:
        bits: int of a number of the weight.
        weight: The weight in float32, made anew each time that it is asked for.
    """

    codes: Tensor
    scales: Tensor
    scales_of_scales: Tensor | None
    mean_scale: Tensor | None
    table: Tensor | None

    def __init__(self, layer: nn.Linear, bits: int, device: torch.device) -> None:
        """Quantises the weight of a layer, on a device."""
        # The parameters of a layer that is not quantised are not made.
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bits = layer.in_features, layer.out_features, bits
        self.register_parameter("bias", layer.bias)
        functional = import_bitsandbytes(_PURPOSE)
        weight_OI = layer.weight.detach().to(device)
        parts: dict[str, Tensor]
        if bits == 8:
            # Kernels take halves alone: no weight is as large as their largest, 65,504.
            codes_OI, largest_O, _ = functional.int8_vectorwise_quant(weight_OI.half())
            parts = {"codes": codes_OI, "scales": largest_O / 127}
        else:
            codes, state = functional.quantize_4bit(
                weight_OI, blocksize=_BLOCK, compress_statistics=True, quant_type="nf4"
            )
            parts = {
                "codes": codes,
                "scales": state.absmax,
                "scales_of_scales": state.state2.absmax,
                "mean_scale": state.offset,
                "table": state.state2.code,
            }
        for name in ("codes", "scales", "scales_of_scales", "mean_scale", "table"):
            # A checkpoint names the base, and has no copy of it.
            self.register_buffer(name, parts.get(name), persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight in float32, [O, I]."""
        return _widened(*self._parts, self.bits, self.out_features, self.in_features, torch.float32)

    def forward(self, input: Tensor) -> Tensor:
        """Returns the product and the bias, in the type in which ``nn.Linear`` multiplies."""
        x = input.to(product_dtype(input))
        out: Tensor = _product(
            x, *self._parts, self.bits, self.out_features, self.in_features, False
        )
        return out if self.bias is None else out + self.bias.to(out.dtype)

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """The tensors that hold the weight, in the order of the op's arguments."""
        return self.codes, self.scales, self.scales_of_scales, self.mean_scale, self.table


def quantise(units: Sequence[nn.Module], bits: int, device: torch.device | None = None) -> None:
    """Quantises the linear layers of units; embedding, head and norms stay as they are.

    Layers are moved to the device one by one, so that it never holds a whole model in float32.

    Args:
        units: Units of a model, whose parameters are all frozen.
        bits: Bits of a number: 4 or 8.
        device: The device to quantise on; by default, that of the model.

    Raises:
        SabiprepError: If ``bitsandbytes`` is not installed.
    """
    for unit in units:
        for parent in list(unit.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear):
                    there = device or layer.weight.device
                    setattr(parent, name, QuantisedLinear(layer, bits, there))


def bytes_to_widen(outputs: int, inputs: int, bits: int, itemsize: int) -> int:
    """Returns the bytes that a product takes and frees again: the wide matrix, and its scales.

    Args:
        outputs: Outputs of the layer.
        inputs: Inputs of the layer.
        bits: int of a number.
        itemsize: Bytes of a number of the product.
    """
    scales = 0 if bits == 8 else 4 * -(-outputs * inputs // _BLOCK)
    return outputs * inputs * itemsize + scales


def _widened(
    codes: Tensor,
    scales: Tensor,
    scales_of_scales: Tensor | None,
    mean_scale: Tensor | None,
    table: Tensor | None,
    bits: int,
    outputs: int,
    inputs: int,
    dtype: torch.dtype,
) -> Tensor:
    """Returns the weight that codes and scales stand for, [O, I]."""
    if bits == 8:
        # In place, and rounded once: a whole number up to 127 is exact in any type.
        return codes.to(dtype).mul_(scales[:, None])
    functional = import_bitsandbytes(_PURPOSE)
    nested = functional.QuantState(
        absmax=scales_of_scales, code=table, blocksize=_BLOCK_OF_SCALES, dtype=torch.float32
    )
    state = functional.QuantState(
        absmax=scales,
        shape=torch.Size((outputs, inputs)),
        dtype=dtype,
        blocksize=_BLOCK,
        quant_type="nf4",
        offset=mean_scale,
        state2=nested,
    )
    widened: Tensor = functional.dequantize_4bit(codes, state)
    return widened


@torch.library.custom_op("sabitrain::quantised_product", mutates_args=())
def _product(
    x: Tensor,
    codes: Tensor,
    scales: Tensor,
    scales_of_scales: Tensor | None,
    mean_scale: Tensor | None,
    table: Tensor | None,
    bits: int,
    outputs: int,
    inputs: int,
    back: bool,
) -> Tensor:
    """Returns the product of [N, I] with the transposed weight; ``back``, of [N, O] with it."""
    weight_OI = _widened(
        codes, scales, scales_of_scales, mean_scale, table, bits, outputs, inputs, x.dtype
    )
    return x @ weight_OI if back else F.linear(x, weight_OI)


@_product.register_fake
def _shape(x: Tensor, *arguments: Any) -> Tensor:
    """Returns the shape of a product alone."""
    outputs, inputs, back = arguments[-3:]
    return x.new_empty(*x.shape[:-1], inputs if back else outputs)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keeps the tensors that hold the weight; the input is not needed."""
    _, *parts, ctx.bits, ctx.outputs, ctx.inputs, ctx.back = inputs
    ctx.save_for_backward(*parts)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Returns the gradient of the input."""
    parts, sizes = ctx.saved_tensors, (ctx.bits, ctx.outputs, ctx.inputs)
    return _product(grad.contiguous(), *parts, *sizes, not ctx.back), *[None] * 9


_product.register_autograd(_differentiate, setup_context=_save)
