"""Models that are missing or damaged."""

import json
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from nanogpt.cli.main import main
from nanogpt.config.schema import EvalSettings
from nanogpt.data.tokenizers import CharTokenizer
from nanogpt.evaluation.evaluate import evaluate
from tests.mistakes.base import EXECUTED, Mistake, command, in_turn
from tests.mistakes.materials import BOOK, MODEL, edit_json, make_dataset, make_model

WEIGHTS = MODEL / "model.safetensors"


class Bomb:
    """An object whose pickle creates a file when it's loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (EXECUTED,))


def damaged_model(title: str, shown: str, damage: Callable[[], object], message: str) -> Mistake:
    """Sample from a model that was damaged after training."""

    def make() -> None:
        make_model()
        damage()
        main(["sample", str(MODEL)])

    return Mistake(title, shown, make, message)


def weights(
    title: str, shown: str, change: Callable[[bytearray], bytes | bytearray], message: str
) -> Mistake:
    """Weights with changed bytes."""
    return damaged_model(
        title, shown, lambda: WEIGHTS.write_bytes(change(bytearray(WEIGHTS.read_bytes()))), message
    )


def tensors(
    title: str, shown: str, changes: Mapping[str, torch.Tensor | None], message: str
) -> Mistake:
    """Weights with changed tensors."""

    def damage() -> None:
        changed = {**load_file(WEIGHTS), **changes}
        save_file({name: t for name, t in changed.items() if t is not None}, WEIGHTS)

    return damaged_model(title, shown, damage, message)


def flipped(data: bytearray, at: int) -> bytearray:
    data[at] ^= 1
    return data


def safetensors(*offsets: tuple[int, int]) -> bytes:
    """A safetensors file with 16 bytes of data, whose header puts its tensors at these offsets."""
    header = json.dumps(
        {
            f"tensor{number}": {"dtype": "F32", "shape": [2], "data_offsets": place}
            for number, place in enumerate(offsets)
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


def evaluate_another() -> None:
    make_dataset()
    make_model()
    evaluate("demo", BOOK, MODEL, EvalSettings(device="cpu"), Path("results/demo/eval.json"))


MODELS = [
    command(
        "a missing model",
        "sample results/demo/model",
        "results/demo/model: not a model directory: config.json is missing; train the run, or "
        "name a model directory",
    ),
    damaged_model(
        "a model without a config",
        "`config.json` removed",
        lambda: (MODEL / "config.json").unlink(),
        "results/demo/model: not a model directory: config.json is missing; train the run, or "
        "name a model directory",
    ),
    damaged_model(
        "a model without weights",
        "`model.safetensors` removed",
        WEIGHTS.unlink,
        "results/demo/model/model.safetensors: no such file; run the workflow again",
    ),
    damaged_model(
        "a model without a tokenizer",
        "`tokenizer.json` removed",
        lambda: (MODEL / "tokenizer.json").unlink(),
        "results/demo/model/tokenizer.json: no such file; run the workflow again",
    ),
    damaged_model(
        "half a config",
        "`config.json` cut in half",
        lambda: (MODEL / "config.json").write_text('{"archi'),
        "results/demo/model/config.json: damaged: not JSON; delete the file and run the workflow "
        "again",
    ),
    damaged_model(
        "a config from Hugging Face",
        '`{"model_type": "gpt2", "n_layer": 12}`',
        lambda: (MODEL / "config.json").write_text('{"model_type": "gpt2", "n_layer": 12}'),
        "results/demo/model: a model of transformers, not of nanogpt; run `nanogpt import "
        "results/demo/model DESTINATION --from huggingface`, then use DESTINATION",
    ),
    damaged_model(
        "another architecture",
        '`"architecture": "llama"`',
        lambda: edit_json(MODEL / "config.json", architecture="llama"),
        "results/demo/model/config.json: unknown architecture `llama` (this version of nanogpt "
        "reads only `gpt2`); use the version that wrote it, or delete the file and run the "
        "workflow again",
    ),
    damaged_model(
        "a model from a later version of nanogpt",
        '`"format": 9`',
        lambda: edit_json(MODEL / "config.json", format=9),
        "results/demo/model/config.json: format 9, but this version of nanogpt reads formats up "
        "to 2; upgrade nanogpt, or delete the file and run the workflow again",
    ),
    damaged_model(
        "a model without layers",
        '`"n_layer": 0`',
        lambda: edit_json(MODEL / "config.json", n_layer=0),
        "results/demo/model/config.json: invalid model config: n_layer: should be greater than or "
        "equal to 1 (found `0`); delete the file and run the workflow again",
    ),
    damaged_model(
        "an unknown setting of a model",
        '`"n_layers": 1`',
        lambda: edit_json(MODEL / "config.json", n_layers=1),
        "results/demo/model/config.json: invalid model config: n_layers: unknown setting; did you "
        "mean `n_layer`?; delete the file and run the workflow again",
    ),
    damaged_model(
        "brackets nested too deeply in a model's config",
        "`config.json` of 100,000 `[`",
        lambda: (MODEL / "config.json").write_text(100_000 * "["),
        "results/demo/model/config.json: damaged: not JSON; delete the file and run the workflow "
        "again",
    ),
    damaged_model(
        "heads that don't divide a model's width",
        '`"n_head": 3`',
        lambda: edit_json(MODEL / "config.json", n_head=3),
        "results/demo/model/config.json: n_embd 4 is not divisible by n_head 3; delete the file "
        "and run the workflow again",
    ),
    damaged_model(
        "another model's tokenizer",
        "`tokenizer.json` with two characters",
        lambda: CharTokenizer("ab").save(MODEL / "tokenizer.json"),
        "results/demo/model/config.json: `vocab_size` is 5, but `tokenizer.json` has 2 tokens; "
        "delete the file and run the workflow again",
    ),
    damaged_model(
        "a model's tokenizer cut in half",
        "`tokenizer.json` cut in half",
        lambda: (MODEL / "tokenizer.json").write_text('{"type": "ch'),
        "results/demo/model/tokenizer.json: not a nanogpt tokenizer; delete the file and run the "
        "workflow again",
    ),
    weights(
        "weights cut in half",
        "`model.safetensors` cut in half",
        lambda data: data[: len(data) // 2],
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: "
        "incomplete metadata, file not fully covered); delete the file and run the workflow again",
    ),
    weights(
        "empty weights",
        "`model.safetensors` with 0 bytes",
        lambda _: b"",
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: header "
        "too small); delete the file and run the workflow again",
    ),
    weights(
        "weights overwritten with zeros",
        "`model.safetensors` full of zero bytes",
        lambda data: bytes(len(data)),
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: invalid "
        "JSON in header: EOF while parsing a value at line 1 column 0); delete the file and run "
        "the workflow again",
    ),
    weights(
        "weights with trailing bytes",
        "four extra bytes at the end",
        lambda data: data + bytes(4),
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: "
        "incomplete metadata, file not fully covered); delete the file and run the workflow again",
    ),
    weights(
        "a flipped bit",
        "one bit of the header changed",
        lambda data: flipped(data, 8),
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: invalid "
        "JSON in header: expected value at line 1 column 1); delete the file and run the workflow "
        "again",
    ),
    weights(
        "a pickle instead of weights",
        "`model.safetensors` that is really a pickle that runs code",
        lambda _: pickle.dumps(Bomb()),
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: header "
        "too large); delete the file and run the workflow again",
    ),
    weights(
        "a header that claims to be huge",
        "a length of 2^63 bytes",
        lambda data: struct.pack("<Q", 2**63) + data[8:],
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: header "
        "too large); delete the file and run the workflow again",
    ),
    weights(
        "a tensor before the start of the file",
        "offsets from -8 to 0",
        lambda _: safetensors((-8, 0)),
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: invalid "
        "JSON in header: invalid value: integer `-8`, expected usize at line 1 column 68); delete "
        "the file and run the workflow again",
    ),
    weights(
        "a tensor past the end of the file",
        "offsets from 0 to 8 and from 8 to 4096",
        lambda _: safetensors((0, 8), (8, 4096)),
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: invalid "
        "shape, data type, or offset for tensor); delete the file and run the workflow again",
    ),
    weights(
        "overlapping tensors",
        "offsets from 0 to 8 and from 4 to 12",
        lambda _: safetensors((0, 8), (4, 12)),
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: invalid "
        "offset for tensor `tensor1`); delete the file and run the workflow again",
    ),
    damaged_model(
        "a directory instead of weights",
        "`model.safetensors/`",
        in_turn(WEIGHTS.unlink, WEIGHTS.mkdir),
        "results/demo/model/model.safetensors: no such file; run the workflow again",
    ),
    tensors(
        "a weight that isn't a number",
        "NaN in `h.0.ln_1.weight`",
        {"h.0.ln_1.weight": torch.tensor([1, torch.nan, 1, 1])},
        "results/demo/model/model.safetensors: tensor `h.0.ln_1.weight` has NaN or infinity; "
        "delete the file and run the workflow again",
    ),
    tensors(
        "an infinite weight",
        "-inf in `h.0.ln_1.weight`",
        {"h.0.ln_1.weight": torch.tensor([1, -torch.inf, 1, 1])},
        "results/demo/model/model.safetensors: tensor `h.0.ln_1.weight` has NaN or infinity; "
        "delete the file and run the workflow again",
    ),
    tensors(
        "integer weights",
        "`h.0.ln_1.weight` as int64",
        {"h.0.ln_1.weight": torch.ones(4, dtype=torch.int64)},
        "results/demo/model/model.safetensors: tensor `h.0.ln_1.weight` is int64 of shape (4,), "
        "but the model needs float32 of shape (4,); delete the file and run the workflow again",
    ),
    tensors(
        "half-precision weights",
        "`h.0.ln_1.weight` as float16",
        {"h.0.ln_1.weight": torch.ones(4, dtype=torch.float16)},
        "results/demo/model/model.safetensors: tensor `h.0.ln_1.weight` is float16 of shape (4,), "
        "but the model needs float32 of shape (4,); delete the file and run the workflow again",
    ),
    tensors(
        "weights with another width",
        "`h.0.ln_1.weight` with 5 numbers",
        {"h.0.ln_1.weight": torch.ones(5)},
        "results/demo/model/model.safetensors: tensor `h.0.ln_1.weight` is float32 of shape (5,), "
        "but the model needs float32 of shape (4,); delete the file and run the workflow again",
    ),
    tensors(
        "a missing tensor",
        "no `h.0.ln_2.weight`",
        {"h.0.ln_2.weight": None},
        "results/demo/model/model.safetensors: tensor `h.0.ln_2.weight` is missing; delete the "
        "file and run the workflow again",
    ),
    tensors(
        "an extra tensor",
        "`h.1.ln_1.weight` in a model with one layer",
        {"h.1.ln_1.weight": torch.ones(4)},
        "results/demo/model/model.safetensors: tensor `h.1.ln_1.weight` isn't part of this model; "
        "delete the file and run the workflow again",
    ),
    Mistake(
        "a model with another vocabulary",
        "evaluated on a dataset with different letters",
        evaluate_another,
        "results/demo/model: trained with a different vocabulary from results/datasets/book; "
        "evaluate it on its own dataset, or delete the model and run the workflow again",
    ),
]
