"""Read and check the weights in a model directory's model.safetensors."""

from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nanogpt.errors import REMAKE, UserError, missing_file


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file into a model with the same architecture.

    Errors: UserError for a missing or damaged file, and for the first tensor that doesn't fit or
    isn't finite.
    """
    put_weights(model, read_weights(path), path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Errors: UserError for a file that is missing, damaged, or not readable.
    """
    if not path.is_file():
        raise missing_file(path)
    try:
        with path.open("rb"):  # gives a reason for a failure, unlike safetensors
            return load_file(path)
    except PermissionError as error:
        raise UserError(
            f"{path}: can't read this file ({error.strerror}); change its permissions"
        ) from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); {REMAKE}") from None


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a model. path: their file, for messages.

    Errors: UserError for the first tensor that doesn't fit or isn't finite.
    """
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        flaw = _tensor_flaw(weights.get(name), wanted.get(name))
        if flaw:
            raise UserError(f"{path}: tensor `{name}` {flaw}; {REMAKE}")
    model.load_state_dict(weights)


def _tensor_flaw(found: Tensor | None, wanted: Tensor | None) -> str | None:
    if found is None or wanted is None:
        return "is missing" if found is None else "isn't part of this model"

    def form(tensor: Tensor) -> str:
        return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"

    if form(found) != form(wanted):
        return f"is {form(found)}, but the model needs {form(wanted)}"
    # The smallest and largest values are enough. isfinite().all() takes twenty times as long.
    if not torch.stack(torch.aminmax(found)).isfinite().all():
        return "has NaN or infinity"
    return None
