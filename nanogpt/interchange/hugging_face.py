"""Formats of others: weights of Hugging Face's GPT-2 in, datasets for nanoGPT out.

Where such weights come from is left to the caller.
"""

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from torch import Tensor

from nanogpt.config.schema import ModelSettings, UserError, explain
from nanogpt.data import batches as dataset
from nanogpt.data.tokenizers import GPT2_SHA256
from nanogpt.files.atomic import atomic_write, sha256_file
from nanogpt.model.gpt import NORM_EPSILON

# transformers keeps these as Conv1D, whose weight is the transpose of a linear layer's.
TRANSPOSED = (
    "attn.c_attn.weight",
    "attn.c_proj.weight",
    "mlp.c_fc.weight",
    "mlp.c_proj.weight",
)
# Causal masks that old files hold, and the output embedding, which is tied to `wte`.
NOT_WEIGHTS = (".attn.bias", ".attn.masked_bias", "lm_head.weight")

ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}

REFUSED = "not a GPT-2 that can be read here"

# What else a GPT-2 of theirs can be, and ours cannot.
REQUIRED = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "layer_norm_epsilon": NORM_EPSILON,
    "tie_word_embeddings": True,
    "add_cross_attention": False,
}


def settings_from_hugging_face(config: Mapping[str, Any]) -> tuple[ModelSettings, int]:
    """Our model settings and vocab_size for the `config.json` of a Hugging Face GPT-2.

    Errors: UserError for an architecture that ours is not.
    """
    for name, wanted in REQUIRED.items():
        if (found := config.get(name, wanted)) != wanted:
            raise UserError(f"{REFUSED}: {name} is {found}; only {wanted} can be read")
    try:
        if config.get("n_inner") not in (None, 4 * config["n_embd"]):
            raise UserError(f"{REFUSED}: n_inner is not 4 * n_embd")
        settings = ModelSettings(
            n_layer=config["n_layer"],
            n_head=config["n_head"],
            n_embd=config["n_embd"],
            block_size=config["n_positions"],
            dropout=config["resid_pdrop"],
            bias=True,
            activation=ACTIVATIONS[config["activation_function"]],
        )
        return settings, int(config["vocab_size"])
    except KeyError as error:
        raise UserError(f"{REFUSED}: {error} is absent or not one we know") from None
    except ValidationError as error:
        raise UserError(f"{REFUSED}: {explain(error, ModelSettings)}") from None


def weights_from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a Hugging Face GPT-2 as our model's."""
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    return {
        name: tensor.t().contiguous() if name.endswith(TRANSPOSED) else tensor
        for name, tensor in renamed.items()
        if not name.endswith(NOT_WEIGHTS)
    }


def export_dataset(directory: Path, destination: Path) -> None:
    """Write a dataset as a directory data/<name>/ of nanoGPT: train.bin, val.bin, meta.pkl.

    meta.pkl tells nanoGPT's train.py the size of the vocabulary, and its sample.py the text of each
    token; it has none for GPT-2's tokens, which nanoGPT knows.

    Errors: UserError for a directory that is no dataset, and for tokens that nanoGPT cannot read.
    """
    files = dataset.load(directory)
    if files.train.dtype.itemsize > 2:
        raise UserError(
            f"{directory}: a vocabulary of {files.tokenizer.vocab_size:,} tokens is stored as "
            f"uint32, and nanoGPT reads uint16 only; lower vocab_size to 65,535"
        )
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{destination}: no directory can be made there: {error.strerror}; name another"
        ) from None
    for name in ("train.bin", "val.bin"):
        with open(directory / name, "rb") as source, atomic_write(destination / name) as copy:
            shutil.copyfileobj(source, copy)
    meta_file = destination / "meta.pkl"
    if sha256_file(directory / "tokenizer.json") == GPT2_SHA256:
        meta_file.unlink(missing_ok=True)  # another dataset's, from an earlier export
        return
    texts = [files.tokenizer.decode([token]) for token in range(files.tokenizer.vocab_size)]
    with atomic_write(meta_file) as file:
        pickle.dump(
            {
                "vocab_size": len(texts),
                "itos": dict(enumerate(texts)),
                "stoi": {text: token for token, text in enumerate(texts)},
            },
            file,
        )
