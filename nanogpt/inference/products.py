"""Products with a weight that is copied into the layout which is fastest for few rows.

On a CPU, oneDNN packs weights; for one row and a small weight, a plain product takes less time than
oneDNN's call. On other devices, torch's own linear layer is the fastest.
"""

import torch
from torch import Tensor

from nanogpt.model import alike
from nanogpt.model.gpt import MLP
from nanogpt.model.kernels import ONEDNN_LINEAR, linear

# One row by oneDNN's packed weights is faster from about this many entries on.
PACKED_FROM = 1 << 17
PACKED_FOR = 16  # rows that weights are packed for; others work as well

# GELU's two forms as oneDNN calls them.
ONEDNN_GELU = {"gelu": "none", "gelu_tanh": "tanh"}


class Product:
    """x @ weight.T + bias of x (N, in), weight (out, in), bias (out,)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        """dtype: of the product's factors and of its result."""
        self.dtype = dtype
        self.weight = weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.columns = self.packed = None
        self.is_small = weight.device.type == "cpu" and weight.numel() < PACKED_FROM
        if weight.device.type != "cpu" or alike.on():
            return
        if packs(dtype):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, PACKED_FOR)
        if self.is_small or self.packed is None:
            self.columns = self.weight.t().contiguous()
        del self.weight  # which may be a copy

    def __call__(self, x: Tensor) -> Tensor:
        """The product, (N, out)."""
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
        """The activation of an MLP of the product, (N, out)."""
        form = ONEDNN_GELU.get(mlp.activation)
        if form is None or not self._is_packed_for(x):
            return mlp.activate(self(x))
        y: Tensor = torch.ops.mkldnn._linear_pointwise.default(
            x.to(self.dtype), self.packed, self.bias, "gelu", [], form
        )
        return y

    def added(self, x: Tensor, onto: Tensor) -> Tensor:
        """The product and `onto` (N, out)."""
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
        """Whether packed weights are there, and faster."""
        return self.packed is not None and (self.columns is None or len(x) > 1)


def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN packs weights of a dtype on this CPU."""
    if dtype == torch.bfloat16:
        return ONEDNN_LINEAR and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return ONEDNN_LINEAR and dtype == torch.float32
