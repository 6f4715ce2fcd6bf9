"""Exports to other programs and imports from them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from nanogpt.config.schema import ModelSettings
from nanogpt.data.tokenizers import ByteTokenizer, Tokenizer, char_tokenizer
from nanogpt.interchange.hugging_face_export import export_hugging_face
from nanogpt.interchange.nanogpt_checkpoints import export_nanogpt
from nanogpt.model.checkpoints import save_ensemble
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from tests.mistakes.base import Mistake, command, in_turn, write_files
from tests.mistakes.materials import MODEL, TINY, edit_json, make_model
from tests.mistakes.models import Bomb

THEIRS, CHECKPOINT = Path("theirs"), Path("out/ckpt.pt")
META = Path("out/data/demo/meta.pkl")
# A pickle that runs a command.
SYSTEM = b"cos\nsystem\n(S'touch executed'\ntR."
EXPORT = "export results/demo/model exported --to"
HUGGING_FACE = "import theirs results/theirs/model --from huggingface"
NANOGPT = "import out results/theirs/model --from nanogpt"


def other_model(tokenizer: Tokenizer | None = None, **changes: object) -> Callable[[], None]:
    """A function that creates a model with another architecture or other tokens."""

    def make() -> None:
        own = tokenizer or char_tokenizer("abc \n")
        settings = ModelSettings.model_validate({**TINY.model_dump(), **changes})
        save_model(MODEL, GPT(settings, own.vocab_size).state_dict(), settings, own)

    return make


def make_ensemble() -> None:
    make_model()
    save_ensemble(Path("results/both/model"), [MODEL, MODEL])


def to_hugging_face() -> None:
    make_model()
    export_hugging_face(MODEL, THEIRS)


def to_nanogpt() -> None:
    make_model()
    export_nanogpt(MODEL, Path("out"))


def hugging_face(title: str, damage: Callable[[], object], message: str) -> Mistake:
    """An import of a damaged directory of transformers."""
    return command(title, HUGGING_FACE, message, in_turn(to_hugging_face, damage))


def their_tensors(**changes: torch.Tensor | None) -> Callable[[], None]:
    """A function that changes tensors in transformers' file; None removes one."""

    def damage() -> None:
        path = THEIRS / "model.safetensors"
        changed = {**load_file(path)}
        for name, tensor in changes.items():
            changed[f"transformer.{name.replace('__', '.')}"] = tensor
        save_file({name: t for name, t in changed.items() if t is not None}, path)

    return damage


def checkpoint(title: str, damage: Callable[[], object], message: str) -> Mistake:
    """An import of a damaged nanoGPT checkpoint."""
    return command(title, NANOGPT, message, in_turn(to_nanogpt, damage))


def edited_checkpoint(edit: Callable[[dict], object]) -> Callable[[], None]:
    """A function that changes the content of a checkpoint."""

    def damage() -> None:
        content = torch.load(CHECKPOINT, weights_only=True)
        edit(content)
        torch.save(content, CHECKPOINT)

    return damage


def without_prefix(content: dict) -> None:
    content["model"] = {
        name.removeprefix("transformer."): tensor for name, tensor in content["model"].items()
    }


def edit_tokenizer(**changes: object) -> Callable[[], None]:
    return lambda: edit_json(THEIRS / "tokenizer.json", **changes)


AGAIN = "export or download the model again"
OF_THEIRS = "theirs/model.safetensors: tensor"

INTERCHANGE = [
    command(
        "an export without a format",
        "export results/demo/model exported",
        "export: --to is missing; use --to huggingface, --to gguf or --to nanogpt",
        make_model,
    ),
    command(
        "an export of a dataset without a destination",
        "export dataset results/datasets/book",
        "export dataset: arguments are missing; give a dataset and a directory to write it to",
    ),
    command(
        "an export of a dataset for another program",
        "export dataset results/datasets/book data/book --to gguf",
        "export dataset: datasets are only exported for nanoGPT; remove --to gguf",
    ),
    command(
        "three paths of an export",
        "export results/demo/model exported more --to gguf",
        "export: unexpected argument `more`; give only a model and a destination",
    ),
    command(
        "an export of a missing model",
        f"{EXPORT} gguf",
        "results/demo/model: not a model directory: config.json is missing; train the run, or "
        "name a model directory",
    ),
    command(
        "an export of an ensemble",
        "export results/both/model exported --to huggingface",
        "results/both/model: an ensemble of 2 models, which other programs don't support; "
        "export the model of one of its runs",
        make_ensemble,
    ),
    command(
        "an export over other files",
        f"{EXPORT} huggingface",
        "exported: not empty, and `notes.txt` isn't from an earlier export; name another directory",
        in_turn(make_model, lambda: write_files({"exported/notes.txt": "mine"})),
    ),
    command(
        "an export to a path that is a file",
        f"{EXPORT} nanogpt",
        "exported: a file, not a directory; name another directory",
        in_turn(make_model, lambda: write_files({"exported": "mine"})),
    ),
    command(
        "an export over a GGUF file from elsewhere",
        "export results/demo/model other.gguf --to gguf",
        "other.gguf: exists and isn't an earlier export; name another file",
        in_turn(make_model, lambda: write_files({"other.gguf": "GGUF of another"})),
    ),
    command(
        "an export of a model of transformers",
        "export theirs exported --to gguf",
        "theirs: a model of transformers, not of nanogpt; run `nanogpt import theirs DESTINATION "
        "--from huggingface`, then use DESTINATION",
        to_hugging_face,
    ),
    command(
        "an architecture that transformers doesn't support",
        f"{EXPORT} huggingface",
        "results/demo/model: transformers has no model with these settings: its GPT-2 doesn't "
        "support position: rotary, and its NanoChat doesn't support norm: layernorm, "
        "embedding_norm: false, qk_norm: false; change them to fit one of the two and train again",
        other_model(position="rotary"),
    ),
    command(
        "an architecture that llama.cpp doesn't support",
        f"{EXPORT} gguf",
        "results/demo/model: llama.cpp doesn't support norm: rmsnorm, because its model is "
        "GPT-2's; train a model with other settings, like those of the shipped run "
        "`shakespeare_char_quickstart`",
        other_model(norm="rmsnorm"),
    ),
    command(
        "a vocabulary without a line feed for llama.cpp",
        f"{EXPORT} gguf",
        "results/demo/model: llama.cpp needs a line feed in the vocabulary; train on a text "
        "with several lines, or with `tokenizer: byte`",
        lambda: make_model("abc"),
    ),
    command(
        "an architecture that nanoGPT doesn't support",
        f"{EXPORT} nanogpt",
        "results/demo/model: nanoGPT doesn't support activation: gelu_tanh, because its model "
        "is GPT-2's with exact GELU; train a model with other settings, like those of the "
        "shipped run `shakespeare_char_quickstart`",
        other_model(activation="gelu_tanh"),
    ),
    command(
        "tokens that nanoGPT doesn't support",
        f"{EXPORT} nanogpt",
        "results/demo/model: nanoGPT doesn't support its tokens (bytes); train with `tokenizer: "
        "char` or `tokenizer: gpt2` to export to it",
        other_model(ByteTokenizer()),
    ),
    command(
        "an import of a missing model",
        HUGGING_FACE,
        "theirs: not a model directory: config.json is missing; name a model directory, or one of "
        "gpt2, gpt2-medium, gpt2-large, gpt2-xl",
    ),
    command(
        "an import of a nanogpt model",
        "import results/demo/model results/theirs/model --from huggingface",
        "results/demo/model: already a model directory of nanogpt; use it without importing",
        make_model,
    ),
    command(
        "an import over a trained model",
        "import theirs results/demo/model --from huggingface",
        "results/demo/model: not empty, and `config.json` isn't from an earlier import; name "
        "another directory",
        to_hugging_face,
    ),
    command(
        "a meta.pkl for a model of transformers",
        f"{HUGGING_FACE} --meta meta.pkl",
        "import: --meta is only for --from nanogpt; remove it",
    ),
    hugging_face(
        "an import of a model of another kind",
        lambda: edit_json(THEIRS / "config.json", model_type="llama"),
        "theirs/config.json: not a GPT-2 model that nanogpt supports: model_type: should be "
        "`gpt2` (found `llama`); use another model",
    ),
    hugging_face(
        "an import without a tokenizer",
        lambda: (THEIRS / "tokenizer.json").unlink(),
        "theirs/tokenizer.json: no such file; put the model's tokenizer.json there (transformers "
        "writes it with `AutoTokenizer.from_pretrained(...).save_pretrained(...)`)",
    ),
    hugging_face(
        "an import with a tokenizer that changes texts",
        edit_tokenizer(normalizer={"type": "Lowercase"}),
        "theirs/tokenizer.json: unsupported: this tokenizer changes the text first (Lowercase); "
        "use a model whose tokens are characters, bytes, or byte pairs like GPT-2's",
    ),
    hugging_face(
        "an import without weights",
        lambda: (THEIRS / "model.safetensors").unlink(),
        f"theirs/model.safetensors: no such file; {AGAIN}",
    ),
    hugging_face(
        "an import of a pickle instead of weights",
        lambda: (THEIRS / "model.safetensors").write_bytes(pickle.dumps(Bomb())),
        "theirs/model.safetensors: damaged, or not safetensors (Error while deserializing header: "
        "header too large); "
        f"{AGAIN}",
    ),
    hugging_face(
        "an import with a missing tensor",
        their_tensors(ln_f__weight=None),
        f"{OF_THEIRS} `ln_f.weight` is missing; {AGAIN}",
    ),
    hugging_face(
        "an import with an extra tensor",
        their_tensors(extra=torch.ones(2)),
        f"{OF_THEIRS} `extra` isn't part of this architecture; {AGAIN}",
    ),
    hugging_face(
        "an import with a misshapen tensor",
        their_tensors(ln_f__weight=torch.ones(5)),
        f"{OF_THEIRS} `ln_f.weight` has shape (5,), but the model's is (4,); {AGAIN}",
    ),
    command(
        "an import of a missing checkpoint",
        NANOGPT,
        "out: no such file; name a ckpt.pt of nanoGPT or its directory",
    ),
    checkpoint(
        "a checkpoint without its vocabulary",
        META.unlink,
        "out/ckpt.pt: no meta.pkl for its vocabulary of 5 tokens; copy nanoGPT's "
        "data/demo/meta.pkl next to it, or pass it with `--meta`",
    ),
    checkpoint(
        "a vocabulary with code",
        lambda: META.write_bytes(SYSTEM),
        "out/data/demo/meta.pkl: refers to code (`os.system`), which nanogpt never runs from a "
        "file; use the meta.pkl that nanoGPT's prepare.py wrote for the dataset",
    ),
    checkpoint(
        "a vocabulary of another dataset",
        lambda: META.write_bytes(pickle.dumps({"itos": dict(enumerate("abcdefgh"))})),
        "out/ckpt.pt: the model has 5 tokens, but meta.pkl has 8 characters; pass the model's "
        "own meta.pkl with `--meta`",
    ),
    checkpoint(
        "a checkpoint with code",
        edited_checkpoint(lambda content: content.update(config=Bomb())),
        "out/ckpt.pt: refers to code (`getattr`), which nanogpt never runs from a file; save it "
        "again with only tensors and Python's own numbers and strings",
    ),
    checkpoint(
        "a checkpoint with NumPy numbers",
        edited_checkpoint(lambda content: content.update(best_val_loss=np.float64(1.5))),
        "out/ckpt.pt: refers to code (`numpy._core.multiarray.scalar`), which nanogpt never "
        "runs from a file; save it again with only tensors and Python's own numbers and strings",
    ),
    checkpoint(
        "a checkpoint from the Ruby gem",
        edited_checkpoint(without_prefix),
        "out/ckpt.pt: a checkpoint from nanoGPT's Ruby port, whose checkpoints can't be imported; "
        "train a new model on the same data",
    ),
    checkpoint(
        "a checkpoint with an impossible size",
        edited_checkpoint(lambda content: content["model_args"].update(n_head=0)),
        "out/ckpt.pt: model_args: n_head: should be greater than 0 (found `0`); use another "
        "checkpoint",
    ),
    checkpoint(
        "a truncated checkpoint",
        lambda: CHECKPOINT.write_bytes(CHECKPOINT.read_bytes()[:500]),
        "out/ckpt.pt: damaged: not a checkpoint; copy it again",
    ),
    checkpoint(
        "a checkpoint with a missing tensor",
        edited_checkpoint(lambda content: content["model"].pop("transformer.ln_f.weight")),
        f"out/ckpt.pt: tensor `ln_f.weight` is missing; {AGAIN}",
    ),
]
