"""Models compute the same in nanoGPT and here, and no checkpoint can run code."""

import collections
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nanogpt.data.tokenizers import char_tokenizer
from nanogpt.errors import UserError
from nanogpt.interchange.imports import import_nanogpt
from nanogpt.interchange.nanogpt_checkpoints import export_nanogpt, read_nanogpt
from nanogpt.interchange.nanogpt_meta import read_meta, write_meta
from nanogpt.model.checkpoints import load_model
from nanogpt.project import Project
from tests.interchange import nanogpt_model
from tests.interchange.models import (
    GPT2,
    MODERN,
    TEXT,
    assert_same_model,
    needs_mirror,
    tokenizer,
    write_model,
)
from tests.mistakes.models import Bomb

LETTERS = char_tokenizer(TEXT)
ARGS = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 24, "bias": True}
ARGS |= {"vocab_size": LETTERS.vocab_size, "dropout": 0.1}


def checkpoint(args=ARGS, weights=None, **more):
    """A checkpoint as saved by nanoGPT's train.py."""
    weights = nanogpt_model.theirs(args) if weights is None else weights
    return {
        "model": weights,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3}]},
        "model_args": args,
        "iter_num": 5,
        "best_val_loss": torch.tensor(2.5),
        "config": {"dataset": "letters", "out_dir": "out", "learning_rate": 1e-3},
        **more,
    }


def save(content, path=Path("out/ckpt.pt"), vocabulary=LETTERS):
    """Write a checkpoint and its vocabulary at their paths in a checkout of nanoGPT."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    if vocabulary:
        write_meta(path.parent.parent / "data/letters/meta.pkl", vocabulary)
    return path


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loss(logits, windows):
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_an_import_has_the_loss_of_nanogpts_model(bias):
    args = {**ARGS, "bias": bias}
    content = checkpoint(args)
    save(content)
    import_nanogpt(Path("out"), Path("model"))
    found = load_model(Path("model"))
    assert found.tokenizer == LETTERS
    assert found.model.settings.bias == bias
    tokens = LETTERS.encode(TEXT)[: 25 * 8].astype(np.int64)
    windows = torch.tensor(tokens.reshape(8, 25))
    theirs = nanogpt_model.logits(content["model"], args, windows[:, :-1])
    ours = found.model.eval()(windows[:, :-1])
    assert theirs.std() > 0.3
    assert (ours - theirs).abs().max().item() < 1e-4
    assert loss(ours, windows) == pytest.approx(loss(theirs, windows), abs=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_nanogpts_model_loads_an_export_and_computes_the_same(bias):
    ours = write_model(Path("results/demo/model"), GPT2.model_copy(update={"bias": bias}))
    export_nanogpt(ours, Path("out"))
    content = torch.load("out/ckpt.pt", weights_only=True)
    args = content["model_args"]
    # nanoGPT's model accepts exactly these tensors.
    assert content["model"].keys() == nanogpt_model.theirs(args).keys()
    idx = torch.randint(args["vocab_size"], (3, args["block_size"]))
    logits = nanogpt_model.logits(content["model"], args, idx)
    assert (load_model(ours).model.eval()(idx) - logits).abs().max().item() < 1e-4
    assert content["config"]["dataset"] == "demo"
    meta = pickle.loads(Path("out/data/demo/meta.pkl").read_bytes())
    assert "".join(meta["itos"][meta["stoi"][c]] for c in "the cat") == "the cat"
    assert meta["vocab_size"] == args["vocab_size"]


def test_an_export_is_imported_as_the_same_model():
    ours = write_model(Path("results/demo/model"))
    export_nanogpt(ours, Path("out"))
    import_nanogpt(Path("out/ckpt.pt"), Path("back"))
    assert_same_model(ours, Path("back"))


def test_prefixes_of_torch_compile_and_old_masks_are_ignored():
    weights = nanogpt_model.theirs(ARGS)
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 24, 24) for i in range(2)}
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in {**weights, **masks}.items()}
    old = {name: value for name, value in ARGS.items() if name not in ("bias", "dropout")}
    save(checkpoint(weights=weights), Path("first/out/ckpt.pt"))
    save(checkpoint(old, compiled), Path("second/out/ckpt.pt"))
    for name in ("first", "second"):
        import_nanogpt(Path(name) / "out", Path(name) / "model")
    first, second = (load_model(Path(name) / "model").model for name in ("first", "second"))
    assert all(
        torch.equal(first.state_dict()[n], second.state_dict()[n]) for n in first.state_dict()
    )


@needs_mirror
@pytest.mark.parametrize("rows", [50_257, 50_304])
def test_without_a_vocabulary_the_tokens_are_gpt2s_and_padding_is_removed(rows):
    args = {**ARGS, "vocab_size": rows, "n_embd": 8}
    save(checkpoint(args), vocabulary=None)
    import_nanogpt(Path("out"), Path("model"), project=Project(Path("project")))
    found = load_model(Path("model"))
    assert found.tokenizer == tokenizer("gpt2")
    assert found.model.vocab_size == 50_257


@needs_mirror
def test_an_export_with_gpt2s_tokens_has_no_vocabulary():
    export_nanogpt(write_model(Path("demo/model"), kind="gpt2"), Path("out"))
    assert sorted(path.name for path in Path("out").rglob("*")) == ["ckpt.pt", "export.json"]


@pytest.mark.parametrize(
    "place",
    ["out/meta.pkl", "out/data/letters/meta.pkl", "data/letters/meta.pkl", "else/where.pkl"],
)
def test_the_vocabulary_is_found_where_nanogpt_or_an_export_writes_it(place):
    save(checkpoint(), vocabulary=None)
    write_meta(Path(place), LETTERS)
    meta = Path(place) if place.startswith("else") else None
    import_nanogpt(Path("out"), Path("model"), meta)
    assert load_model(Path("model")).tokenizer == LETTERS


def refused(source=Path("out"), **more):
    """The error of an import, which must write nothing."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError) as error:
        import_nanogpt(source, Path("model"), **more)
    assert sorted(Path().rglob("*")) == before
    assert not Path("executed").exists()
    return str(error.value)


def test_a_checkpoint_without_its_vocabulary_is_an_error_with_the_missing_file():
    save(checkpoint(), vocabulary=None)
    assert "copy nanoGPT's data/letters/meta.pkl next to it" in refused()


def test_a_dataset_name_that_is_a_path_is_ignored():
    save(checkpoint(config={"dataset": "../../letters"}), vocabulary=None)
    write_meta(Path("letters/meta.pkl"), LETTERS)
    assert "data/<dataset>/meta.pkl" in refused()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transformer.ln_f.bias": None}, "tensor `ln_f.bias` is missing"),
        ({"transformer.h.2.ln_1.weight": torch.ones(16)}, "isn't part of this architecture"),
        ({"transformer.wpe.weight": torch.ones(25, 16)}, "has shape (25, 16), but the model's is"),
        ({"transformer.ln_f.bias": torch.full((16,), torch.nan)}, "has NaN or infinity"),
        ({"transformer.ln_f.bias": torch.ones(16).long()}, "is int64, not one of float32, "),
    ],
)
def test_mismatched_tensors_are_named(change, words):
    weights = {**nanogpt_model.theirs(ARGS), **change}
    save(checkpoint(weights={n: t for n, t in weights.items() if t is not None}))
    assert words in refused()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({**ARGS, "n_head": 3}, "n_embd 16 is not divisible by n_head 3"),
        ({**ARGS, "n_layer": 0}, "n_layer"),
        ({"n_layer": 2}, "n_head"),
    ],
)
def test_impossible_model_args_are_named(args, words):
    save(checkpoint(args, nanogpt_model.theirs(ARGS)))
    assert words in refused()


def test_a_pickle_with_code_is_rejected_without_running_it():
    save(checkpoint(config=Bomb()))
    assert "refers to code (`" in refused()
    Path("out/ckpt.pt").write_bytes(pickle.dumps(Bomb()))
    assert "damaged: not a checkpoint" in refused()
    save(checkpoint())
    Path("data/letters/meta.pkl").write_bytes(pickle.dumps({"itos": Bomb()}))
    assert "refers to code (`" in refused()


def test_not_even_harmless_code_in_a_vocabulary_is_accepted():
    save(checkpoint())
    content = {"itos": collections.OrderedDict(a=1)}
    Path("data/letters/meta.pkl").write_bytes(pickle.dumps(content))
    assert "`collections.OrderedDict`" in refused()


def test_numpy_numbers_are_an_error_with_a_remedy():
    save(checkpoint(best_val_loss=np.float64(2.5)))
    assert "save it again with only tensors and Python's own numbers" in refused()


def test_a_checkpoint_from_the_gem_is_recognised():
    weights = nanogpt_model.theirs(ARGS)
    of_gem = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    save(checkpoint(weights=of_gem))
    assert "a checkpoint from nanoGPT's Ruby port" in refused()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"PK\x03\x04 and so on", "damaged"),
        (pickle.dumps({"model": 5}), "not a checkpoint"),
        (pickle.dumps([1, 2]), "not a checkpoint"),
    ],
)
def test_files_that_are_not_checkpoints_are_rejected(content, words):
    Path("out").mkdir()
    Path("out/ckpt.pt").write_bytes(content)
    assert words in refused()


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        (b"", "damaged: not a pickle"),
        (pickle.dumps([1]), "not a vocabulary of single characters"),
        (pickle.dumps({"itos": {0: "the", 1: "cat"}}), "not a vocabulary of single characters"),
        (pickle.dumps({"itos": {0: "a", 2: "b"}}), "not a vocabulary of single characters"),
        (pickle.dumps({"itos": {0: "a", 1: "a"}}), "not a vocabulary of single characters"),
    ],
)
def test_files_that_are_not_vocabularies_are_rejected(meta, words):
    save(checkpoint())
    Path("data/letters/meta.pkl").write_bytes(meta)
    assert words in refused()


@pytest.mark.parametrize("text", [TEXT + "xyzXYZ", TEXT.replace(TEXT[0], "")])
def test_a_vocabulary_of_another_size_is_rejected(text):
    """A smaller one would decode to other characters. Only GPT-2's rows are padded."""
    save(checkpoint(), vocabulary=char_tokenizer(text))
    assert "pass the model's own meta.pkl" in refused()


def test_a_vocabulary_is_read_as_it_was_written():
    write_meta(Path("meta.pkl"), LETTERS)
    assert read_meta(Path("meta.pkl")) == LETTERS


def test_a_model_with_untied_embeddings_keeps_them_untied():
    weights = nanogpt_model.theirs(ARGS)
    save(checkpoint(weights={**weights, "lm_head.weight": weights["lm_head.weight"] + 1}))
    read = read_nanogpt(Path("out"))
    assert not read.with_tokenizer(LETTERS).model.settings.tie_word_embeddings


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        (MODERN, "char", "nanoGPT doesn't support position: rotary, norm: rmsnorm"),
        (GPT2.model_copy(update={"activation": "gelu_tanh"}), "char", "activation: gelu_tanh"),
        (GPT2.model_copy(update={"tie_word_embeddings": False}), "char", "tie_word_embeddings"),
        (GPT2, "byte", "doesn't support its tokens (bytes)"),
        (GPT2, "bpe", "doesn't support its tokens (byte pairs of its own)"),
    ],
)
def test_settings_that_nanogpt_does_not_support_are_rejected_by_name(settings, kind, words):
    write_model(Path("demo/model"), settings, kind)
    with pytest.raises(UserError) as error:
        export_nanogpt(Path("demo/model"), Path("out"))
    assert words in str(error.value)
    assert not Path("out").exists()
