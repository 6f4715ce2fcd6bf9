"""torch's layers as the model uses them; each knows its size."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nanogpt.model.kernels import layer_norm, linear, rms_norm

# FLOPs of a training for each entry of a matrix that a vector is multiplied with: a multiplication
# and an addition, once forward and twice backward (for the gradients of the input and the matrix).
FLOPS_PER_ENTRY = 2 * 3

# How torch's linear and embedding layers draw their weights; ours are drawn with the first one.
DRAWS = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


@dataclass(frozen=True)
class Size:
    """What a layer learns and costs.

    n_parameters: numbers that are learned. flops_per_token: FLOPs of matrix products, forward and
    backward; norms, activations, dropout and the optimizer are small and don't count.
    """

    n_parameters: int = 0
    flops_per_token: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(
            self.n_parameters + other.n_parameters, self.flops_per_token + other.flops_per_token
        )


class Linear(nn.Linear):
    """torch's linear layer with the fastest kernel."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def size(self) -> Size:
        """A token is multiplied with the whole matrix; the bias is only added."""
        return Size(_n_parameters(self), FLOPS_PER_ENTRY * self.weight.numel())


class Embedding(nn.Embedding):
    """torch's embedding: a vector for each token, or for each position."""

    def size(self) -> Size:
        """A vector is looked up, which is no product."""
        return Size(_n_parameters(self))


class LayerNorm(nn.LayerNorm):
    """torch's layer norm."""

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps)

    def size(self) -> Size:
        """No matrix, so no product of one."""
        return Size(_n_parameters(self))


class RMSNorm(nn.Module):
    """Root mean square norm over the last dimension, without weights."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.epsilon)

    def size(self) -> Size:
        """Nothing is learned."""
        return Size()


def _n_parameters(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


class WithoutDraws(TorchFunctionMode):
    """A context in which initial weights aren't drawn, for a model of which only shapes matter.

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
