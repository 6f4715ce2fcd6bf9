"""Export a GPT-2 as a GGUF file for llama.cpp and programs based on it: Ollama, LM Studio.

All weights are float32. llama.cpp's GPT-2 always has biases, so missing ones are exported as
zeros. Its GELU is the tanh approximation.
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
# A GGUF file starts with MAGIC. Files written here also have OUR_KEY within the first HEAD_BYTES.
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
    """Write a model to <destination>/<run>.gguf, or to `destination` if it ends in .gguf.

    Returns a one-line summary.

    Errors, before anything is written: UserError for a model or tokenizer that llama.cpp doesn't
    support, and for a destination with other files.
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
        logger.warning("%s: llama.cpp approximates GELU, so outputs differ slightly", directory)
    return "a GPT-2 for llama.cpp, in float32"


def _check_file(path: Path) -> None:
    """Raise UserError if the path exists and isn't an earlier export."""
    if not path.exists():
        return
    if path.is_file():
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
        if head.startswith(MAGIC) and OUR_KEY.encode() in head:
            return
    raise UserError(f"{path}: exists and isn't an earlier export; name another file")


class _Vocabulary:
    """A tokenizer for llama.cpp: kind, tokens, merges, and the id of `<|endoftext|>`."""

    def __init__(
        self,
        kind: str,
        tokens: list[str],
        merges: list[str] | None = None,
        end: int | None = None,
    ) -> None:
        self.kind, self.tokens, self.merges, self.end = kind, tokens, merges, end


def _convert_vocabulary(model: ExportedModel) -> _Vocabulary:
    """Convert a model's vocabulary for llama.cpp.

    Errors: UserError for a vocabulary without a line feed, which llama.cpp needs.
    """
    tokenizer = model.tokenizer
    if isinstance(tokenizer, BytePairTokenizer):
        texts = [*printable_tokens(tokenizer), END_OF_TEXT]
        merges = [" ".join(pair) for pair in merges_of(tokenizer)]
        return _Vocabulary("gpt2", texts, merges, len(tokenizer.tokens))
    if not _has_line_feed(tokenizer):
        raise UserError(
            f"{model.directory}: llama.cpp needs a line feed in the vocabulary; train on a text "
            "with several lines, or with `tokenizer: byte`"
        )
    # This kind has no merges and takes the longest matching token, here a character or a byte.
    escaped = ["".join(f"\\x{byte:02x}" for byte in text) for text in token_texts(tokenizer)]
    return _Vocabulary("rwkv", escaped)


def _has_line_feed(tokenizer: Tokenizer) -> bool:
    return b"\n" in token_texts(tokenizer)


def _write_whole(path: Path, model: ExportedModel, vocabulary: _Vocabulary) -> None:
    """Write the file atomically."""
    temporary = temporary_path(path, "tmp")
    try:
        _write(temporary, model, vocabulary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        put_in_place(temporary, path)
    except OSError as error:
        if error.errno is None:  # raised by numpy if not all bytes could be written
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
        # If omitted, both would default to token 11, a comma in GPT-2.
        writer.add_bos_token_id(vocabulary.end)
        writer.add_eos_token_id(vocabulary.end)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(kinds)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def gguf_weights(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our tensors under llama.cpp's names, with zeros for missing biases."""
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
