"""Check the tensors of another program's file, and load them into a model."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nanogpt.config.schema import ModelSettings
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT
from nanogpt.model.layers import WithoutDraws

# The matrices with a row for each token of the vocabulary.
OF_VOCABULARY = ("wte.weight", "lm_head.weight")
# The dtypes of tensors that can be read. All become float32.
PRECISIONS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def empty_weights(settings: ModelSettings, vocab_size: int) -> dict[str, Tensor]:
    """The tensors of a model without values: only names and shapes."""
    with torch.device("meta"), WithoutDraws():
        return GPT(settings, vocab_size).state_dict()


def check_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError for the first tensor that's missing, unknown, misshapen or not finite.

    wanted: tensors with the expected names and shapes.
    """
    for name in sorted(tensors.keys() | wanted.keys()):
        flaw = _find_flaw(tensors.get(name), wanted.get(name))
        if flaw:
            raise UserError(f"{path}: tensor `{name}` {flaw}; export or download the model again")


def _find_flaw(tensor: Tensor | None, wanted: Tensor | None) -> str | None:
    if tensor is None or wanted is None:
        return "is missing" if tensor is None else "isn't part of this architecture"
    if tensor.dtype not in PRECISIONS:
        return (
            f"is {_name_dtype(tensor.dtype)}, not one of {', '.join(map(_name_dtype, PRECISIONS))}"
        )
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return "isn't a plain tensor"
    if tensor.shape != wanted.shape:
        return f"has shape {tuple(tensor.shape)}, but the model's is {tuple(wanted.shape)}"
    # Checked as float32, because a larger float64 would become infinity.
    if tensor.numel() and not torch.stack(torch.aminmax(tensor)).float().isfinite().all():
        return "has NaN or infinity"
    return None


def _name_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def without_padding(
    weights: Mapping[str, Tensor], vocab_size: int, path: Path
) -> dict[str, Tensor]:
    """Remove rows beyond the vocabulary, which some programs add to round up its size.

    Errors: UserError for fewer rows than tokens.
    """
    n_rows = len(weights["wte.weight"])
    if n_rows < vocab_size:
        raise UserError(
            f"{path}: the model has {n_rows:,} tokens, but the tokenizer has {vocab_size:,}; use "
            "the model's own tokenizer"
        )
    return {
        name: weight[:vocab_size] if name in OF_VOCABULARY else weight
        for name, weight in weights.items()
    }


def model_of(settings: ModelSettings, weights: Mapping[str, Tensor]) -> GPT:
    """A float32 model with these weights, created without the slow random initialization."""
    with torch.device("meta"), WithoutDraws():
        model = GPT(settings, len(weights["wte.weight"]))
    own = {name: weight.float().contiguous() for name, weight in weights.items()}
    model.load_state_dict(own, assign=True)
    return model
