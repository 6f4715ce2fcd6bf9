"""A GPT-2 as a GGUF file, for llama.cpp and what is built on it: Ollama, LM Studio.

All weights are float32. llama.cpp's GPT-2 has biases everywhere, so those that a model lacks are
zeros, and its GELU is the tanh approximation.
"""

import errno
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nanogpt.data.byte_pairs import END_OF_TEXT, BytePairTokenizer
from nanogpt.data.tokenizers import Tokenizer, token_texts
from nanogpt.errors import UserError
from nanogpt.files.atomic import put_in_place
from nanogpt.interchange.architectures import check_package
from nanogpt.interchange.destinations import (
    EXPORT_MARK,
    target_and_parents,
    temporary_path,
    whole_directory,
)
from nanogpt.interchange.exports import ExportedModel, read_model
from nanogpt.interchange.tokenizer_files import merges_of, printable_tokens
from nanogpt.model.gpt import NORM_EPSILON

if TYPE_CHECKING:
    from gguf import GGUFWriter

logger = logging.getLogger(__name__)

SUFFIX = ".gguf"
# The first bytes of a file, and a key of those that are written here, which are near its beginning.
MAGIC = b"GGUF"
OUR_KEY = "nanogpt.weights_sha256"
HEAD_BYTES = 4096

OUTSIDE = {
    "wte.weight": "token_embd.weight",
    "wpe.weight": "position_embd.weight",
    "ln_f": "output_norm",
    "lm_head.weight": "output.weight",
}
OF_A_BLOCK = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def export_gguf(directory: Path, destination: Path) -> str:
    """Write a model as <destination>/<run>.gguf, or as a file whose name ends in .gguf.

    Returns one line about it.

    Errors: UserError for a model or tokenizer that llama.cpp can't run, and for a destination where
    other files are; before anything is written.
    """
    model = read_model(directory, "gguf")
    check_package("gguf")
    vocabulary = _convert_vocabulary(model)
    if destination.suffix == SUFFIX:
        _check_file(destination)
        with target_and_parents(destination) as target:
            _write_whole(target, model, vocabulary)
    else:
        with whole_directory(destination, EXPORT_MARK, model.mark("gguf")) as temporary:
            _write_whole(temporary / f"{model.name}{SUFFIX}", model, vocabulary)
    if model.settings.activation == "gelu":
        logger.warning("%s: llama.cpp approximates GELU, so its numbers differ a little", directory)
    return "a GPT-2 for llama.cpp, in float32"


def _check_file(path: Path) -> None:
    """UserError if a file that isn't an earlier export lies there."""
    if not path.exists():
        return
    if path.is_file():
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
        if head.startswith(MAGIC) and OUR_KEY.encode() in head:
            return
    raise UserError(f"{path}: something is there that isn't an earlier export; name another file")


class _Vocabulary:
    """A tokenizer as llama.cpp has it: kind, tokens, merges, and the token that ends a text."""

    def __init__(
        self,
        kind: str,
        tokens: list[str],
        merges: list[str] | None = None,
        end: int | None = None,
    ) -> None:
        self.kind, self.tokens, self.merges, self.end = kind, tokens, merges, end


def _convert_vocabulary(model: ExportedModel) -> _Vocabulary:
    """The vocabulary of a model for llama.cpp.

    Errors: UserError for one without a line feed, which llama.cpp needs.
    """
    tokenizer = model.tokenizer
    if isinstance(tokenizer, BytePairTokenizer):
        texts = [*printable_tokens(tokenizer), END_OF_TEXT]
        merges = [" ".join(pair) for pair in merges_of(tokenizer)]
        return _Vocabulary("gpt2", texts, merges, len(tokenizer.tokens))
    if not _has_line_feed(tokenizer):
        raise UserError(
            f"{model.directory}: llama.cpp needs a line feed in the vocabulary; train on a text of "
            "several lines, or with `tokenizer: byte`"
        )
    # The longest token that fits, without merges: each is one character or one byte.
    escaped = ["".join(f"\\x{byte:02x}" for byte in text) for text in token_texts(tokenizer)]
    return _Vocabulary("rwkv", escaped)


def _has_line_feed(tokenizer: Tokenizer) -> bool:
    return b"\n" in token_texts(tokenizer)


def _write_whole(path: Path, model: ExportedModel, vocabulary: _Vocabulary) -> None:
    """Write the file, which appears whole or not at all."""
    temporary = temporary_path(path, "tmp")
    try:
        _write(temporary, model, vocabulary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        put_in_place(temporary, path)
    except OSError as error:
        if error.errno is None:  # numpy's, if fewer bytes were written than should be
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, model: ExportedModel, vocabulary: _Vocabulary) -> None:
    """Write the file: settings, tokenizer, tensors."""
    import gguf

    settings = model.settings
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_string(OUR_KEY, model.sha256)
    writer.add_name(model.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(settings.n_layer)
    writer.add_context_length(settings.block_size)
    writer.add_embedding_length(settings.n_embd)
    writer.add_feed_forward_length(4 * settings.n_embd)
    writer.add_head_count(settings.n_head)
    writer.add_layer_norm_eps(NORM_EPSILON)
    _add_tokenizer(writer, vocabulary)
    for name, weight in gguf_weights(model.weights):
        writer.add_tensor(name, weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: "GGUFWriter", vocabulary: _Vocabulary) -> None:
    import gguf

    kinds = [gguf.TokenType.NORMAL] * len(vocabulary.tokens)
    writer.add_tokenizer_model(vocabulary.kind)
    if vocabulary.end is not None:
        kinds[vocabulary.end] = gguf.TokenType.CONTROL
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges(vocabulary.merges or [])
        # Left out, both would be the token 11, a comma in GPT-2.
        writer.add_bos_token_id(vocabulary.end)
        writer.add_eos_token_id(vocabulary.end)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(kinds)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def gguf_weights(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our tensors under llama.cpp's names, and zeros for the biases that there aren't."""
    for name, weight in weights.items():
        if name in OUTSIDE:
            yield OUTSIDE[name], weight
            continue
        layer, _, kind = name.rpartition(".")
        if layer.startswith("h."):
            _, number, part = layer.split(".", 2)
            theirs = f"blk.{number}.{OF_A_BLOCK[part]}"
        else:
            theirs = OUTSIDE[layer]
        yield f"{theirs}.{kind}", weight
        if kind == "weight" and f"{layer}.bias" not in weights:
            yield f"{theirs}.bias", torch.zeros(len(weight))
