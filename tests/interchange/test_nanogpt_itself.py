"""nanoGPT's own model.py and sample.py agree with us, if there's a checkout of nanoGPT.

`make test NANOGPT=PATH` sets its path.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nanogpt.data.byte_pairs import GPT2_MERGES_URL
from nanogpt.interchange.imports import import_nanogpt
from nanogpt.interchange.nanogpt_checkpoints import export_nanogpt
from nanogpt.interchange.nanogpt_meta import write_meta
from nanogpt.model.checkpoints import load_model
from tests.checkouts import NANOGPT, own_environment
from tests.interchange.models import (
    GPT2,
    MIRROR,
    TEXT,
    greedy,
    needs_mirror,
    tokenizer,
    write_model,
)

pytestmark = pytest.mark.skipif(not NANOGPT, reason="NANOGPT is not set: no checkout of nanoGPT")

CHECKOUT = Path(NANOGPT or "nowhere").resolve()
LETTERS = tokenizer("char")
ENCODER_URL = GPT2_MERGES_URL.replace("vocab.bpe", "encoder.json")


@pytest.fixture(scope="module")
def theirs():
    """nanoGPT's model.py as a module."""
    spec = importlib.util.spec_from_file_location("nanogpt_peer", CHECKOUT / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A working directory laid out like a checkout of nanoGPT."""
    for name in ("sample.py", "model.py", "configurator.py"):
        shutil.copy(CHECKOUT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_windows(block_size):
    """A text in windows (B, T + 1)."""
    tokens = LETTERS.encode(TEXT).astype(np.int64)
    n_windows = len(tokens) // (block_size + 1)
    return torch.tensor(tokens[: n_windows * (block_size + 1)].reshape(n_windows, -1))


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_an_imported_checkpoint_has_the_loss_of_model_py(theirs, bias):
    args = {"n_layer": 3, "n_head": 4, "n_embd": 32, "block_size": 24, "bias": bias}
    args |= {"vocab_size": LETTERS.vocab_size, "dropout": 0.1}
    torch.manual_seed(0)
    model = theirs.GPT(theirs.GPTConfig(**args)).eval()
    for parameter in model.parameters():  # its initial weights predict almost nothing
        parameter.normal_(0, 0.3)
    # As saved by nanoGPT's train.py.
    Path("out").mkdir()
    config = {"dataset": "letters"}
    content = {"model": model.state_dict(), "model_args": args, "iter_num": 5, "config": config}
    torch.save({**content, "best_val_loss": torch.tensor(2.5), "optimizer": {}}, "out/ckpt.pt")
    write_meta(Path("data/letters/meta.pkl"), LETTERS)

    import_nanogpt(Path("out"), Path("imported"))
    ours = load_model(Path("imported")).model.eval()
    windows = make_windows(args["block_size"])
    loss = compute_their_loss(model, windows)
    assert loss > 1
    assert compute_loss(ours, windows) == pytest.approx(loss, abs=1e-4)


def compute_their_loss(model, windows):
    _, loss = model(windows[:, :-1], windows[:, 1:].contiguous())
    return loss.item()


def compute_loss(model, windows):
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_model_py_computes_the_same_loss_for_an_export(theirs, bias):
    directory = write_model(Path("results/demo/model"), GPT2.model_copy(update={"bias": bias}))
    export_nanogpt(directory, Path("out"))
    content = torch.load("out/ckpt.pt", weights_only=True)
    model = theirs.GPT(theirs.GPTConfig(**content["model_args"])).eval()
    model.load_state_dict(content["model"])
    windows = make_windows(GPT2.block_size)
    ours = load_model(directory).model.eval()
    loss = compute_their_loss(model, windows)
    assert compute_loss(ours, windows) == pytest.approx(loss, abs=1e-4)


def sample(*options, **environment):
    """The samples printed by nanoGPT's sample.py."""
    run = subprocess.run(
        [sys.executable, "sample.py", "--out_dir=out", "--device=cpu", "--top_k=1", *options],
        env=own_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    texts = run.stdout.split("...\n")[-1].split("---------------\n")
    assert texts.pop() == ""
    return texts


def likeliest_text(directory, prompt, n):
    """A prompt and our model's continuation."""
    checkpoint = load_model(directory)
    ids = greedy(checkpoint.model.eval(), checkpoint.tokenizer.encode(prompt).tolist(), n)
    return checkpoint.tokenizer.decode(ids)


def test_sample_py_samples_from_an_exported_model():
    directory = write_model(Path("results/demo/model"))
    export_nanogpt(directory, Path("out"))
    shutil.copytree("out/data", "data")
    texts = sample("--start=the cat", "--num_samples=2", "--max_new_tokens=20")
    assert texts == [f"{likeliest_text(directory, 'the cat', 20)}\n"] * 2


@needs_mirror
def test_sample_py_samples_from_an_exported_model_with_gpt2s_tokens(tmp_path):
    directory = write_model(Path("results/demo/model"), kind="gpt2")
    export_nanogpt(directory, Path("out"))
    for url in (GPT2_MERGES_URL, ENCODER_URL):  # tiktoken checks this directory before downloading
        cached = tmp_path / "cache" / hashlib.sha1(url.encode()).hexdigest()
        cached.parent.mkdir(exist_ok=True)
        shutil.copy(Path(MIRROR) / url.removeprefix("https://"), cached)
    options = ("--start=the cat", "--num_samples=1", "--max_new_tokens=20")
    texts = sample(*options, TIKTOKEN_CACHE_DIR=str(tmp_path / "cache"))
    assert texts == [f"{likeliest_text(directory, 'the cat', 20)}\n"]
