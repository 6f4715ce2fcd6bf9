"""torch's layers with faster kernels; each reports its size."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nanogpt.model.kernels import layer_norm, linear, rms_norm

# Training FLOPs per token and entry of a matrix: a multiplication and an addition, once in the
# forward pass and twice in the backward pass (for the gradients of the input and of the matrix).
FLOPS_PER_ENTRY = 2 * 3

# The functions with which torch initializes linear and embedding layers. We use the first.
DRAWS = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


@dataclass(frozen=True)
class Size:
    """A layer's parameters and cost.

    flops_per_token: FLOPs of matrix products, forward and backward. Norms, activations, dropout and
    the optimizer don't count, because their cost is small.
    """

    n_parameters: int = 0
    flops_per_token: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(
            self.n_parameters + other.n_parameters, self.flops_per_token + other.flops_per_token
        )


class Linear(nn.Linear):
    """torch's linear layer, with the fastest kernel."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def size(self) -> Size:
        """Count the whole matrix for each token. The bias is only added, so it costs nothing."""
        return Size(_n_parameters(self), FLOPS_PER_ENTRY * self.weight.numel())


class Embedding(nn.Embedding):
    """torch's embedding: a vector for each token, or for each position."""

    def size(self) -> Size:
        """Count parameters only: a lookup needs no product."""
        return Size(_n_parameters(self))


class LayerNorm(nn.LayerNorm):
    """torch's layer norm, with the kernel that the process uses."""

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps)

    def size(self) -> Size:
        """Count parameters only: there's no matrix."""
        return Size(_n_parameters(self))


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, without weights."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.epsilon)

    def size(self) -> Size:
        """Count nothing: it has no parameters."""
        return Size()


def _n_parameters(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


class WithoutDraws(TorchFunctionMode):
    """A context that skips drawing initial weights, for models of which only the shapes matter.

    On the meta device, the first draw would import torch's compiler, which takes a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        return kwargs["tensor"] if func in DRAWS else func(*args, **kwargs)
