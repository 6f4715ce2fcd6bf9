"""Planned memory matches that of real trainings, and the sizes of tensors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanogpt.config.schema import ModelSettings, SampleSettings, TrainSettings
from nanogpt.inference.decoder import GPTDecoder
from nanogpt.model.attention import attend
from nanogpt.model.gpt import GPT
from nanogpt.model.sizing import n_parameters
from nanogpt.planning.memory import largest_batch, sampling_memory, training_memory

ROOT = Path(__file__).resolve().parents[2]

# The largest factor between a plan and a measured peak, in both directions.
FACTOR = 1.4

# Trains some steps in a new process and prints its peak memory in bytes.
TRAIN = """
import json, sys
import numpy as np, torch
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.devices import peak_memory
from nanogpt.model.gpt import GPT
from nanogpt.training.optimizers import configure_optimizer
from nanogpt.training.step import loss_function, loss_scaler, optimizer_step, prepare_process

given = json.loads(sys.argv[1])
model_settings, settings = ModelSettings(**given["model"]), TrainSettings(**given["train"])
prepare_process(settings)
torch.set_num_threads(2)
model = GPT(model_settings, given["vocab_size"])
kept = {name: weight.clone() for name, weight in model.state_dict().items()}
optimizer, scaler = configure_optimizer(model, settings), loss_scaler(settings)
loss_of = loss_function(model, settings)
rows = settings.batch_size * settings.gradient_accumulation_steps
for step in range(3):
    random = np.random.default_rng(step)
    windows = random.integers(given["vocab_size"], size=(rows, model_settings.block_size + 1))
    optimizer_step(loss_of, optimizer, scaler, windows, 1e-3, settings, step)
print(peak_memory())
"""

CPU = {"device": "cpu", "dtype": "float32"}
CASES = {
    "dropout": (
        {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "dropout": 0.2},
        {**CPU, "batch_size": 12},
        65,
    ),
    "the modern recipe with muon": (
        {
            **{"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 128, "dropout": 0.0},
            **{"position": "rotary", "norm": "rmsnorm", "qk_norm": True, "activation": "relu2"},
            "tie_word_embeddings": False,
        },
        {**CPU, "batch_size": 48, "optimizer": "muon"},
        65,
    ),
    "a large vocabulary": (
        {"n_layer": 2, "n_head": 4, "n_embd": 128, "block_size": 256, "dropout": 0.0},
        {**CPU, "batch_size": 4, "gradient_accumulation_steps": 2},
        50_257,
    ),
    "bfloat16": (
        {"n_layer": 6, "n_head": 4, "n_embd": 256, "block_size": 128, "dropout": 0.1},
        {"device": "cpu", "dtype": "bfloat16", "batch_size": 48},
        65,
    ),
    "long windows": (
        {"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 1024, "dropout": 0.0},
        {**CPU, "batch_size": 6},
        65,
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator's habits are glibc's")
@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=[] if what == "dropout" else pytest.mark.slow) for what in CASES],
)
def test_training_uses_the_planned_memory(what: str) -> None:
    model, train, vocab_size = CASES[what]
    given = json.dumps({"model": model, "train": train, "vocab_size": vocab_size})
    command = [sys.executable, "-c", TRAIN, given]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    planned = training_memory(ModelSettings(**model), TrainSettings(**train), vocab_size)
    # This process has more modules loaded than a training, so its own memory isn't compared.
    of_python = 340e6
    measured, expected = int(ended.stdout) - of_python, planned.total - planned.process
    assert measured / FACTOR < expected < measured * FACTOR, (measured, expected)


def test_weights_gradients_and_moments_match_the_model(tiny: ModelSettings) -> None:
    n = n_parameters(tiny, 65)
    planned = training_memory(tiny, TrainSettings(device="cpu", dtype="float32"), 65)
    assert planned.weights == planned.gradients == planned.kept == 4 * n
    assert 8 * n <= planned.optimizer < 8 * n + 2000  # two moments and step counters


def test_deep_model_is_extrapolated_from_shallow_ones(tiny: ModelSettings) -> None:
    train = TrainSettings(device="cpu", dtype="float32", batch_size=4)
    model = tiny.model_copy(update={"n_layer": 8, "block_size": 64})
    eight, nine = (
        training_memory(model.model_copy(update={"n_layer": n}), train, 65) for n in (8, 9)
    )
    by_layer = [nine.weights - eight.weights, nine.activations - eight.activations]
    few = [training_memory(model.model_copy(update={"n_layer": n}), train, 65) for n in (2, 3)]
    assert by_layer == [few[1].weights - few[0].weights, few[1].activations - few[0].activations]
    assert eight.weights == 4 * n_parameters(model, 65)


def test_missing_gpu_keeps_all_logits_of_a_large_vocabulary(
    tiny: ModelSettings,
) -> None:
    train = TrainSettings(device="cuda:99", dtype="bfloat16", batch_size=256)
    cpu = train.model_copy(update={"device": "cpu"})
    vocab_size = 50_304
    there, here = (
        training_memory(tiny, settings, vocab_size, is_here=settings.device == "cpu")
        for settings in (train, cpu)
    )
    n = train.batch_size * tiny.block_size * vocab_size
    assert there.logits == 4 * n
    assert there.activations - here.activations == 10 * n
    assert there.weights == here.weights


def test_keeping_the_last_weights_needs_no_copy(tiny: ModelSettings) -> None:
    train = TrainSettings(device="cpu", dtype="float32", keep="last")
    assert training_memory(tiny, train, 65).kept == 0


def test_sampling_cache_matches_the_decoder(tiny: ModelSettings) -> None:
    dtype = torch.bfloat16
    decoder = GPTDecoder(GPT(tiny, 65), dtype, tiny.block_size)
    decoder.reserve(3)
    sample = SampleSettings(num_samples=3, device="cpu", dtype="bfloat16")
    planned = sampling_memory([tiny], sample, 65)
    assert planned.cache == decoder.cache.untyped_storage().nbytes()


def test_with_drafts_a_plan_has_the_cache_of_one_sample(tiny: ModelSettings) -> None:
    settings = {"device": "cpu", "dtype": "float32"}
    alone = sampling_memory([tiny], SampleSettings(**settings, num_samples=1), 65)
    several = sampling_memory([tiny], SampleSettings(**settings, num_samples=9, draft=4), 65)
    assert (several.cache, several.logits) == (alone.cache, alone.logits)


def test_sampling_copies_match_the_models_matrices(tiny: ModelSettings) -> None:
    model = GPT(tiny, 65)
    matrices = [p for name, p in model.named_parameters() if name.startswith("h.") and p.dim() == 2]
    n = sum(matrix.numel() for matrix in (*matrices, model.output_matrix))
    sample = SampleSettings(device="cpu", dtype="float32")
    assert sampling_memory([tiny], sample, 65).copies == 4 * n


def test_suggested_batch_size_fits(tiny: ModelSettings) -> None:
    train = TrainSettings(device="cpu", dtype="float32", batch_size=512)
    planned = training_memory(tiny, train, 65)
    limit = (planned.total + planned.process) // 2
    batch = largest_batch(planned, 512, limit)
    assert 0 < batch < 512
    smaller = train.model_copy(update={"batch_size": batch})
    assert training_memory(tiny, smaller, 65).total <= limit * 1.02
    assert largest_batch(planned, 512, 1000) == 0


def test_planning_does_not_affect_later_training() -> None:
    """Attention caches its masks, and a plan's tensors have no data."""
    model = ModelSettings(n_layer=1, n_head=2, n_embd=32, block_size=19, dropout=0.0)
    training_memory(model, TrainSettings(**CPU, batch_size=2), 50)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 19, 16)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attend(q, k, v, 0.0), expected)


def test_int8_cache_is_as_large_as_float32() -> None:
    model = ModelSettings(n_layer=2, n_head=2, n_embd=64, block_size=32, dropout=0.0)
    in_int8, in_float32 = (
        sampling_memory([model], SampleSettings(device="cpu", dtype=dtype), 65)
        for dtype in ("int8", "float32")
    )
    assert in_int8.cache == in_float32.cache
    assert 4 * in_int8.copies == in_float32.copies
