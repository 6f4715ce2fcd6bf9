"""A GGUF file has the model's weights and tokenizer, and llama.cpp computes what we compute."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nanogpt.data.tokenizers import CharTokenizer
from nanogpt.errors import UserError
from nanogpt.interchange.gguf_files import export_gguf
from nanogpt.model.checkpoints import Checkpoint, load_model
from nanogpt.model.directories import save_model
from tests.checkouts import own_environment
from tests.interchange.models import (
    GPT2,
    MODERN,
    TEXT,
    TOKENIZERS,
    needs_mirror,
    random_model,
    tokenizer,
    write_model,
)

gguf = pytest.importorskip("gguf")

# With llama.cpp's activation, and a window for the prompt and 100 tokens.
TANH = GPT2.model_copy(update={"activation": "gelu_tanh", "block_size": 128})
LLAMA = Path(__file__).with_name("llama.py")

each_tokenizer = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=needs_mirror if kind == "gpt2" else ()) for kind in TOKENIZERS],
)


def read(path):
    """The settings and tensors of a file."""
    reader = gguf.GGUFReader(path)
    settings = {name: field.contents() for name, field in reader.fields.items()}
    return settings, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


@pytest.mark.parametrize("bias", [True, False])
def test_a_file_has_the_weights_and_zeros_for_missing_biases(bias, tmp_path):
    ours = write_model(tmp_path / "demo/model", GPT2.model_copy(update={"bias": bias}))
    export_gguf(ours, tmp_path / "a.gguf")
    settings, tensors = read(tmp_path / "a.gguf")
    weights = load_model(ours).model.state_dict()
    assert np.array_equal(tensors["token_embd.weight"], weights["wte.weight"].numpy())
    attention = weights["h.1.attn.c_attn.weight"].numpy()
    assert np.array_equal(tensors["blk.1.attn_qkv.weight"], attention)
    of_blocks = [name for name in tensors if name.startswith("blk.0.") and name.endswith("bias")]
    assert len(of_blocks) == 6
    assert all(tensors[name].any() == bias for name in (*of_blocks, "output_norm.bias"))
    assert settings["general.architecture"] == "gpt2"
    assert settings["gpt2.context_length"] == 32
    assert settings["gpt2.attention.head_count"] == 2


@each_tokenizer
def test_special_tokens_are_those_of_the_tokenizer(kind, tmp_path):
    export_gguf(write_model(tmp_path / "demo/model", TANH, kind), tmp_path / "out")
    settings, _ = read(tmp_path / "out/demo.gguf")
    n_tokens = len(settings["tokenizer.ggml.tokens"])
    named = {name for name in settings if name.endswith("_token_id")}
    if kind in ("bpe", "gpt2"):
        assert settings["tokenizer.ggml.model"] == "gpt2"
        assert settings["tokenizer.ggml.eos_token_id"] == n_tokens - 1
        assert settings["tokenizer.ggml.bos_token_id"] == n_tokens - 1
    else:
        # llama.cpp has none for this kind unless the file has one.
        assert settings["tokenizer.ggml.model"] == "rwkv"
        assert named == set()
    assert not settings["tokenizer.ggml.add_bos_token"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (MODERN, "llama.cpp doesn't support position: rotary"),
        (GPT2.model_copy(update={"activation": "relu2"}), "activation: relu2"),
    ],
)
def test_settings_that_llama_cpp_does_not_support_are_rejected_by_name(settings, words, tmp_path):
    write_model(tmp_path / "model", settings)
    with pytest.raises(UserError) as error:
        export_gguf(tmp_path / "model", tmp_path / "a.gguf")
    assert words in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_vocabulary_without_a_line_feed_is_rejected(tmp_path):
    letters = CharTokenizer("abc ")
    save_model(tmp_path / "model", random_model(GPT2, 4).state_dict(), GPT2, letters)
    with pytest.raises(UserError, match="needs a line feed in the vocabulary"):
        export_gguf(tmp_path / "model", tmp_path / "a.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_only_an_earlier_export_is_overwritten(tmp_path):
    ours = write_model(tmp_path / "model")
    export_gguf(ours, tmp_path / "a.gguf")
    before = (tmp_path / "a.gguf").read_bytes()
    export_gguf(ours, tmp_path / "a.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == before
    (tmp_path / "b.gguf").write_bytes(b"GGUF of somebody else")
    with pytest.raises(UserError, match="exists and isn't an earlier export"):
        export_gguf(ours, tmp_path / "b.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "b.gguf", "model"]


# --- llama.cpp ------------------------------------------------------------------------------


def llama(path, prompts, n_predict, n_context):
    """llama.cpp's results for a file: for each prompt, the most likely first tokens and a text."""
    pytest.importorskip("xllamacpp")
    request = {"path": str(path), "prompts": prompts, "n": n_predict, "n_context": n_context}
    run = subprocess.run(
        [sys.executable, "-P", LLAMA, path.with_suffix(".json")],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=own_environment(),
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(path.with_suffix(".json").read_text())


@torch.no_grad()
def clear_continuations(checkpoint, n):
    """The greedy continuations of three prompts without near ties between tokens.

    Prompt and continuation as tokens. Of many prompts, it returns those with the longest texts.
    """
    model, own = checkpoint.model, checkpoint.tokenizer
    words = random.Random(1)
    starts = {
        tuple(own.encode(" ".join(words.sample(TEXT.split(), 3))).tolist()[:3]) for _ in range(64)
    }
    starts = [
        start for start in sorted(starts) if own.encode(own.decode(start)).tolist() == [*start]
    ]
    tokens = torch.tensor(starts)
    margins = torch.full((len(starts),), math.inf)
    for _ in range(n):
        logits = model.head(model.hidden(tokens)[:, -1])
        first, second = logits.topk(2).values.T
        margins = margins.minimum(first - second)
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    texts = [
        text
        for text, margin in zip(tokens.tolist(), margins.tolist(), strict=True)
        # llama.cpp would return half a character only with the next token.
        if margin > 0.01
        and "\ufffd" not in own.decode(text[3:4])
        and own.vocab_size - 1 not in text
    ]
    assert len(texts) >= 3, "take another seed"
    chosen = sorted(texts, key=lambda text: -len(set(text)))[:3]
    return [(text[:3], text[3:]) for text in chosen]


@each_tokenizer
def test_llama_cpp_computes_the_same_and_generates_the_same_text(kind, tmp_path):
    own = tokenizer(kind)
    model = random_model(TANH, own.vocab_size, inside=0.1, outside=0.5)
    save_model(tmp_path / "model", model.state_dict(), TANH, own)
    export_gguf(tmp_path / "model", tmp_path / "a.gguf")
    texts = clear_continuations(Checkpoint(model, own), 100)
    prompts = [own.decode(start) for start, _ in texts]
    found = llama(tmp_path / "a.gguf", prompts, 100, TANH.block_size)
    for (start, continuation), result in zip(texts, found, strict=True):
        assert result["n_prompt"] == len(start)
        with torch.no_grad():
            wanted = torch.log_softmax(model(torch.tensor([start]))[0, -1], -1)
        assert len(result["first"]) == 20
        assert all(abs(wanted[token].item() - p) < 2e-3 for token, p in result["first"])
        assert result["text"] == own.decode(continuation)


def test_a_missing_package_is_an_error_with_the_command_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    model = write_model(tmp_path / "demo/model")
    with pytest.raises(UserError, match=r"`gguf` isn't installed; run `pip install gguf`$"):
        export_gguf(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
