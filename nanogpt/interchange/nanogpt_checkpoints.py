"""Read and write nanoGPT's checkpoints: ckpt.pt, with the vocabulary in data/<name>/meta.pkl.

A checkpoint is a pickle. Only tensors and plain values are loaded from it.
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from torch import Tensor

from nanogpt.config.foreign import VocabSize
from nanogpt.config.messages import explain
from nanogpt.config.patterns import NAME
from nanogpt.config.resolving import check_model
from nanogpt.config.schema import ModelSettings
from nanogpt.data.tokenizers import CharTokenizer, Tokenizer
from nanogpt.errors import UserError
from nanogpt.files.atomic import atomic_write
from nanogpt.interchange.destinations import EXPORT_MARK, whole_directory
from nanogpt.interchange.exports import ExportedModel, read_model
from nanogpt.interchange.hugging_face import MASKS
from nanogpt.interchange.nanogpt_meta import read_meta, write_meta
from nanogpt.interchange.weights import check_tensors, empty_weights, model_of, without_padding
from nanogpt.model.checkpoints import Checkpoint

CHECKPOINT = "ckpt.pt"
PREFIX = "transformer."
HEAD = "lm_head.weight"
# The prefix of tensors saved from a compiled model.
COMPILED = "_orig_mod."
# Sizes of GPT-2's vocabulary in nanoGPT, which may round it up for speed.
SIZES_OF_GPT2 = (50_257, 50_304)

GEM = (
    "a checkpoint from nanoGPT's Ruby port, whose checkpoints can't be imported; train a new model "
    "on the same data"
)
PLAIN = "save it again with only tensors and Python's own numbers and strings"


class ModelArgs(BaseModel):
    """model_args of a checkpoint: nanoGPT's GPTConfig. Old ones have no `bias`, which was on.

    Types are strict: `"12"` and `True` aren't numbers.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    n_layer: PositiveInt
    n_head: PositiveInt
    n_embd: PositiveInt
    block_size: PositiveInt
    vocab_size: VocabSize
    bias: bool = True
    dropout: float = 0.0

    @property
    def settings(self) -> ModelSettings:
        """Our settings for the same model, with tied embeddings."""
        return ModelSettings(
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_embd=self.n_embd,
            block_size=self.block_size,
            dropout=self.dropout,
            bias=self.bias,
        )


# --- Reading --------------------------------------------------------------------------------


@dataclass(frozen=True)
class NanogptCheckpoint:
    """A loaded and checked ckpt.pt.

    vocab_size: number of rows of the embedding. vocabulary: from its meta.pkl; None for GPT-2's
    tokens, which don't have one.
    """

    path: Path
    settings: ModelSettings
    vocab_size: int
    weights: Mapping[str, Tensor]
    vocabulary: CharTokenizer | None

    def with_tokenizer(self, tokenizer: Tokenizer) -> Checkpoint:
        """The model and its tokenizer, without padding rows beyond GPT-2's vocabulary."""
        weights = without_padding(self.weights, tokenizer.vocab_size, self.path)
        tied = torch.equal(weights[HEAD], weights["wte.weight"])
        settings = self.settings.model_copy(update={"tie_word_embeddings": tied})
        kept = {name: weight for name, weight in weights.items() if not tied or name != HEAD}
        return Checkpoint(model_of(settings, kept), tokenizer)


def read_nanogpt(source: Path, meta: Path | None = None) -> NanogptCheckpoint:
    """Read a ckpt.pt, or the one in a directory, with its vocabulary if there is one.

    meta: its meta.pkl, if it isn't where nanoGPT puts it.

    Errors: UserError for a file that's missing, damaged, not a checkpoint or refers to code, for
    tensors that don't match, and for a vocabulary that's missing or doesn't match.
    """
    path = source / CHECKPOINT if source.is_dir() else source
    content = _load(path)
    settings, vocab_size = _read_settings(content, path)
    weights = _read_weights(content, path)
    wanted = empty_weights(settings, vocab_size)
    check_tensors(weights, {**wanted, HEAD: wanted["wte.weight"]}, path)
    dataset = _find_dataset(content)
    meta = meta or _find_meta(path, dataset)
    vocabulary = read_meta(meta) if meta else None
    if vocabulary is None and vocab_size not in SIZES_OF_GPT2:
        raise UserError(
            f"{path}: no meta.pkl for its vocabulary of {vocab_size:,} tokens; copy nanoGPT's "
            f"data/{dataset or '<dataset>'}/meta.pkl next to it, or pass it with `--meta`"
        )
    if vocabulary and vocabulary.vocab_size != vocab_size:
        raise UserError(
            f"{path}: the model has {vocab_size:,} tokens, but meta.pkl has "
            f"{vocabulary.vocab_size:,} characters; pass the model's own meta.pkl with `--meta`"
        )
    return NanogptCheckpoint(path, settings, vocab_size, weights, vocabulary)


def _read_settings(content: Mapping[str, Any], path: Path) -> tuple[ModelSettings, int]:
    """Our settings for a checkpoint's model, and its embedding's number of rows."""
    reader: type[BaseModel] = ModelArgs
    try:
        args = ModelArgs.model_validate(content["model_args"])
        reader = ModelSettings
        settings = args.settings
        check_model(settings)
    except KeyError:
        raise UserError(
            f"{path}: not a checkpoint of nanoGPT: no `model_args`; use another checkpoint"
        ) from None
    except ValidationError as error:
        problem = explain(error, reader)
        raise UserError(f"{path}: model_args: {problem}; use another checkpoint") from None
    except UserError as error:
        raise UserError(f"{path}: model_args: {error}; use another checkpoint") from None
    return settings, args.vocab_size


def _find_meta(path: Path, dataset: str | None) -> Path | None:
    """Find meta.pkl: in the checkpoint's directory, or in data/<dataset>/ there or one level up."""
    directory = path.parent
    places = [directory]
    if dataset:
        roots = (directory, directory.resolve().parent)
        places += [root / "data" / dataset for root in roots]
    return next((place / "meta.pkl" for place in places if (place / "meta.pkl").is_file()), None)


def _load(path: Path) -> dict[str, Any]:
    """Load a checkpoint. Only tensors and plain values are loaded, so no code is run."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a ckpt.pt of nanoGPT or its directory")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # only files that are rejected cause warnings
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not code:
            raise UserError(f"{path}: damaged: not a checkpoint; copy it again") from None
        if code[1].startswith("torch.jit."):
            raise UserError(f"{path}: {GEM}") from None
        raise UserError(
            f"{path}: refers to code (`{code[1]}`), which nanogpt never runs from a file; {PLAIN}"
        ) from None
    except (MemoryError, OSError):
        raise
    except Exception:  # a damaged archive can raise anything
        raise UserError(f"{path}: damaged: not a checkpoint; copy it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), Mapping):
        raise UserError(
            f"{path}: not a checkpoint of nanoGPT: no weights in `model`; use another checkpoint"
        )
    return content


def _find_dataset(content: Mapping[str, Any]) -> str | None:
    """The name of the dataset that a checkpoint was trained on, if it's a valid name."""
    config = content.get("config")
    name = config.get("dataset") if isinstance(config, dict) else None
    return name if isinstance(name, str) and NAME.fullmatch(name) else None


def _read_weights(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors that our model needs, under their names there."""
    weights: dict[str, Tensor] = {}
    for name, tensor in content["model"].items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(
                f"{path}: not a checkpoint of nanoGPT: `{name}` isn't a tensor; use another "
                "checkpoint"
            )
        weights[name.removeprefix(COMPILED)] = tensor
    if "wte.weight" in weights:
        raise UserError(f"{path}: {GEM}")
    return {
        name.removeprefix(PREFIX): tensor
        for name, tensor in weights.items()
        if not name.endswith(MASKS)
    }


# --- Writing --------------------------------------------------------------------------------


def export_nanogpt(directory: Path, destination: Path) -> str:
    """Write a model for nanoGPT's sample.py; return a one-line summary.

    Errors, before anything is written: UserError for a model or tokenizer that nanoGPT doesn't
    support, and for a destination with other files.
    """
    model = read_model(directory, "nanogpt")
    with whole_directory(destination, EXPORT_MARK, model.mark("nanogpt")) as temporary:
        with atomic_write(temporary / CHECKPOINT) as file:
            torch.save(_make_content(model), file)
        for name in meta_files(model.name, model.tokenizer):
            write_meta(temporary / name, model.tokenizer)
    return "a checkpoint for nanoGPT"


def meta_files(name: str, tokenizer: Tokenizer) -> list[str]:
    """The vocabulary files of a checkpoint; none for GPT-2's tokens."""
    return [f"data/{name}/meta.pkl"] if isinstance(tokenizer, CharTokenizer) else []


def _make_content(model: ExportedModel) -> dict[str, Any]:
    """The content of a checkpoint, as saved by nanoGPT's train.py, but without optimizer state."""
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
