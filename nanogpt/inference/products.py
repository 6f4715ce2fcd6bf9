"""Matrix products with weights in the fastest layout for few rows.

On a CPU, oneDNN packs the weights. For one row and a small weight, a plain product is faster than
calling oneDNN. On other devices, torch's linear layer is the fastest. For int8, FBGEMM reads a
quarter of float32's bytes.
"""

import warnings

import torch
from torch import Tensor

from nanogpt.model import alike
from nanogpt.model.gpt import MLP
from nanogpt.model.kernels import ONEDNN_LINEAR, linear

# From about this many entries on, packed weights are faster for one row.
PACKED_FROM = 1 << 17
PACKED_FOR = 16  # the number of rows to optimise packed weights for; others work as well

# The largest integers for a weight and an input in int8. With 7-bit inputs, the sum of two products
# fits in 16 bits, which a CPU without VNNI uses to add them.
WEIGHT_LEVELS = 127
INPUT_LEVELS = 63
INPUT_ZERO = 64  # the integer for 0, because FBGEMM's inputs are unsigned
TINY = 1e-30  # replaces the largest number of a row of zeros, to avoid dividing by 0

# oneDNN's names for GELU's two forms.
ONEDNN_GELU = {"gelu": "none", "gelu_tanh": "tanh"}


class Product:
    """x @ weight.T + bias, for x (N, in), weight (out, in), bias (out,)."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, is_lone: bool = False
    ) -> None:
        """dtype: of the factors and the result. is_lone: all rows belong to one sequence.

        With packed weights, a row's bits don't depend on the other rows. Rows of one sequence don't
        need that, and small weights are faster unpacked.
        """
        self.dtype = dtype
        self.weight = weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.columns = self.packed = None
        self.is_small = weight.device.type == "cpu" and weight.numel() < PACKED_FROM
        if weight.device.type != "cpu" or alike.on():
            return
        if packs(dtype) and not (is_lone and self.is_small):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, PACKED_FOR)
        if self.is_small or self.packed is None:
            self.columns = self.weight.t().contiguous()
        del self.weight  # may be a copy

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product, (N, out)."""
        if x.dtype != self.dtype:
            x = x.to(self.dtype)
        if self._is_packed_for(x):
            y: Tensor = torch.ops.mkldnn._linear_pointwise.default(
                x, self.packed, self.bias, "none", [], ""
            )
            return y
        if self.columns is None:
            return linear(x, self.weight, self.bias)
        if self.bias is None:
            return torch.mm(x, self.columns)
        return torch.addmm(self.bias, x, self.columns)

    def activated(self, x: Tensor, mlp: MLP) -> Tensor:
        """Return an MLP's activation of the product, (N, out)."""
        form = ONEDNN_GELU.get(mlp.activation)
        if form is None or not self._is_packed_for(x):
            return mlp.activate(self(x))
        y: Tensor = torch.ops.mkldnn._linear_pointwise.default(
            x.to(self.dtype), self.packed, self.bias, "gelu", [], form
        )
        return y

    def added(self, x: Tensor, onto: Tensor) -> Tensor:
        """Return the product plus `onto` (N, out)."""
        if onto.dtype == self.dtype:
            if self._is_packed_for(x):
                y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                    x, onto, self.packed, self.bias, "add"
                )
                return y
            if self.columns is not None and self.bias is None:
                return torch.addmm(onto, x, self.columns)
        return onto + self(x)

    def _is_packed_for(self, x: Tensor) -> bool:
        """Whether there are packed weights, and they're faster for x."""
        return self.packed is not None and (self.columns is None or x.shape[0] > 1)


class Int8Product:
    """x @ weight.T + bias in int8, for x (N, in), weight (out, in), bias (out,).

    Each row of the weight is scaled to -127 ... 127 and each row of x to -63 ... 63, then rounded.
    Integer sums are exact, so a row's bits don't depend on the other rows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        weight = weight.detach().float()
        self.is_small = weight.numel() < PACKED_FROM
        self.bias = None if bias is None else bias.detach().float()
        scales = weight.abs().amax(1).clamp(min=TINY) / WEIGHT_LEVELS
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            # FBGEMM packs this type of tensor, which torch deprecates.
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, None)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product, (N, out)."""
        largest = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True).clamp_(min=TINY)
        y: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x * (INPUT_LEVELS / largest), 1.0, INPUT_ZERO, self.packed
        )
        scales = largest.div_(INPUT_LEVELS)
        return y.mul_(scales) if self.bias is None else torch.addcmul(self.bias, y, scales)

    def activated(self, x: Tensor, mlp: MLP) -> Tensor:
        """Return an MLP's activation of the product, (N, out)."""
        return mlp.activate(self(x))

    def added(self, x: Tensor, onto: Tensor) -> Tensor:
        """Return the product plus `onto` (N, out)."""
        return self(x).add_(onto)


def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN can pack weights with this dtype on this CPU."""
    if dtype == torch.bfloat16:
        return ONEDNN_LINEAR and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return ONEDNN_LINEAR and dtype == torch.float32
