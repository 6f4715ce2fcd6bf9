"""nanoGPT's checkpoints, in and out: ckpt.pt, and the vocabulary in data/<name>/meta.pkl.

A checkpoint is a pickle of tensors and plain values. Nothing else in it is read.
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from torch import Tensor

from nanogpt.config.messages import explain
from nanogpt.config.patterns import NAME
from nanogpt.config.resolving import check_model
from nanogpt.config.schema import ModelSettings
from nanogpt.data.byte_pairs import GPT2_SHA256, BytePairTokenizer
from nanogpt.data.tokenizers import CharTokenizer, Tokenizer
from nanogpt.errors import UserError
from nanogpt.files.atomic import atomic_write, sha256_file
from nanogpt.interchange.destinations import EXPORT_MARK, whole_directory
from nanogpt.interchange.exports import TrainedModel, read_trained
from nanogpt.interchange.hugging_face import MASKS
from nanogpt.interchange.nanogpt_meta import read_meta, write_meta
from nanogpt.interchange.weights import check_tensors, empty_weights, model_of, without_padding
from nanogpt.model.checkpoints import Checkpoint

CHECKPOINT = "ckpt.pt"
PREFIX = "transformer."
HEAD = "lm_head.weight"
# Of a model that torch.compile saved.
COMPILED = "_orig_mod."
# Sizes of GPT-2's vocabulary in nanoGPT, which rounds it up for speed.
OF_GPT2 = (50_257, 50_304)

GEM = (
    "a checkpoint of the Ruby gem, which nanogpt doesn't read; its datasets are nanoGPT's, so "
    "train on them again"
)
PLAIN = "save it again with Python's own numbers and texts beside the tensors"


class ModelArgs(BaseModel):
    """model_args of a checkpoint: nanoGPT's GPTConfig. Older ones lack bias, which was on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    n_layer: PositiveInt
    n_head: PositiveInt
    n_embd: PositiveInt
    block_size: PositiveInt
    vocab_size: PositiveInt
    bias: bool = True
    dropout: float = 0.0


# --- In -------------------------------------------------------------------------------------


class NanogptCheckpoint:
    """A ckpt.pt that was read. path: the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _load(path)
        self.dataset = _dataset(content)
        try:
            args = ModelArgs.model_validate(content["model_args"])
        except KeyError:
            raise UserError(f"{path}: not a checkpoint of nanoGPT: no `model_args`") from None
        except ValidationError as error:
            raise UserError(f"{path}: model_args: {explain(error, ModelArgs)}") from None
        self.vocab_size = args.vocab_size
        self._weights = _state_dict(content, path)
        self.settings = ModelSettings(
            n_layer=args.n_layer,
            n_head=args.n_head,
            n_embd=args.n_embd,
            block_size=args.block_size,
            dropout=args.dropout,
            bias=args.bias,
        )
        try:
            check_model(self.settings)
        except UserError as error:
            raise UserError(f"{path}: model_args: {error}; take another checkpoint") from None
        wanted = empty_weights(self.settings, args.vocab_size)
        check_tensors(self._weights, {**wanted, HEAD: wanted["wte.weight"]}, path)

    def find_meta(self) -> Path | None:
        """The meta.pkl of its dataset: beside it, or in data/<dataset>/ there or one level up."""
        here = self.path.parent
        places = [here]
        if self.dataset:
            places += [root / "data" / self.dataset for root in (here, here.resolve().parent)]
        return next(
            (place / "meta.pkl" for place in places if (place / "meta.pkl").is_file()), None
        )

    @property
    def is_of_gpt2(self) -> bool:
        """Whether it has as many tokens as GPT-2 has in nanoGPT."""
        return self.vocab_size in OF_GPT2

    def with_tokenizer(self, tokenizer: Tokenizer) -> Checkpoint:
        """The model and its tokenizer, without rows beyond GPT-2's vocabulary.

        Errors: UserError for the characters of another model.
        """
        if isinstance(tokenizer, CharTokenizer) and tokenizer.vocab_size != self.vocab_size:
            raise UserError(
                f"{self.path}: the model has {self.vocab_size:,} tokens, but its meta.pkl has "
                f"{tokenizer.vocab_size:,} characters; they don't belong together: name its own by "
                "--meta"
            )
        weights = without_padding(self._weights, tokenizer.vocab_size, self.path)
        tied = torch.equal(weights[HEAD], weights["wte.weight"])
        settings = self.settings.model_copy(update={"tie_word_embeddings": tied})
        kept = {name: weight for name, weight in weights.items() if not tied or name != HEAD}
        return Checkpoint(model_of(settings, kept), tokenizer)


def read_nanogpt(source: Path, meta: Path | None = None) -> NanogptCheckpoint | Checkpoint:
    """Read a ckpt.pt, or that of a directory of nanoGPT, with its vocabulary if there is one.

    Returns what still needs a tokenizer for a checkpoint of GPT-2's tokens, which has no meta.pkl.

    Errors: UserError for a file that is absent, damaged or no checkpoint, that names code, whose
    tensors don't fit, or whose vocabulary isn't known.
    """
    checkpoint = NanogptCheckpoint(source / CHECKPOINT if source.is_dir() else source)
    found = meta or checkpoint.find_meta()
    if found:
        return checkpoint.with_tokenizer(read_meta(found))
    if checkpoint.is_of_gpt2:
        return checkpoint
    name = checkpoint.dataset or "<dataset>"
    raise UserError(
        f"{checkpoint.path}: {checkpoint.vocab_size:,} tokens, and no meta.pkl says which; copy "
        f"nanoGPT's data/{name}/meta.pkl beside it, or give it with --meta"
    )


def _load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; only tensors and plain values are read."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a ckpt.pt of nanoGPT or its directory")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not named:
            raise UserError(f"{path}: damaged: not a checkpoint; copy it again") from None
        if named[1].startswith("torch.jit."):
            raise UserError(f"{path}: {GEM}") from None
        raise UserError(
            f"{path}: holds more than tensors and plain values (`{named[1]}`), and no code of a "
            f"file is run; {PLAIN}"
        ) from None
    except MemoryError:
        raise
    except Exception:  # whatever bytes make of an archive
        raise UserError(f"{path}: damaged: not a checkpoint; copy it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), Mapping):
        raise UserError(f"{path}: not a checkpoint of nanoGPT: no weights under `model`")
    return content


def _dataset(content: Mapping[str, Any]) -> str | None:
    """The name of the dataset that a checkpoint was trained on, if it's one."""
    config = content.get("config")
    name = config.get("dataset") if isinstance(config, dict) else None
    return name if isinstance(name, str) and NAME.fullmatch(name) else None


def _state_dict(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors that count, under their names in our model."""
    weights: dict[str, Tensor] = {}
    for name, tensor in content["model"].items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{path}: not a checkpoint of nanoGPT: no tensor `{name}`")
        weights[name.removeprefix(COMPILED)] = tensor
    if "wte.weight" in weights:
        raise UserError(f"{path}: {GEM}")
    return {
        name.removeprefix(PREFIX): tensor
        for name, tensor in weights.items()
        if not name.endswith(MASKS)
    }


# --- Out ------------------------------------------------------------------------------------


def export_nanogpt(directory: Path, destination: Path) -> str:
    """Write a model as nanoGPT's sample.py reads it; returns one line about it.

    Errors: UserError for a model or tokenizer that nanoGPT doesn't have, and for a destination
    where other files are; before anything is written.
    """
    model = read_trained(directory, "nanogpt")
    is_gpt2 = sha256_file(directory / "tokenizer.json") == GPT2_SHA256
    if not isinstance(model.tokenizer, CharTokenizer) and not is_gpt2:
        is_pairs = isinstance(model.tokenizer, BytePairTokenizer)
        kind = "byte pairs of its own" if is_pairs else "bytes"
        raise UserError(
            f"{directory}: its tokens are {kind}, which nanoGPT doesn't know; it has "
            "`tokenizer: char` and `tokenizer: gpt2`"
        )
    with whole_directory(destination, EXPORT_MARK, model.mark("nanogpt")) as made:
        with atomic_write(made / CHECKPOINT) as file:
            torch.save(_content(model), file)
        for name in meta_files(model.name, model.tokenizer):
            write_meta(made / name, model.tokenizer)
    return "a checkpoint for nanoGPT"


def meta_files(name: str, tokenizer: Tokenizer) -> list[str]:
    """The vocabulary beside a checkpoint, which GPT-2's tokens need not."""
    return [f"data/{name}/meta.pkl"] if isinstance(tokenizer, CharTokenizer) else []


def _content(model: TrainedModel) -> dict[str, Any]:
    """A checkpoint as nanoGPT's train.py saves it, without the state of an optimizer."""
    settings = model.settings
    weights = {f"{PREFIX}{name}": weight for name, weight in model.weights.items()}
    return {
        "model": {**weights, HEAD: model.weights["wte.weight"]},
        "model_args": {
            "n_layer": settings.n_layer,
            "n_head": settings.n_head,
            "n_embd": settings.n_embd,
            "block_size": settings.block_size,
            "bias": settings.bias,
            "vocab_size": model.tokenizer.vocab_size,
            "dropout": settings.dropout,
        },
        "iter_num": 0,
        "best_val_loss": 1e9,
        "config": {"dataset": model.name},
    }
