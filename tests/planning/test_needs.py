"""The memory requested from a cluster matches that of a plan, which traces real steps."""

import subprocess
import sys
from pathlib import Path

import pytest

from nanogpt.config.corpora import Dataset
from nanogpt.config.loading import load
from nanogpt.config.resolving import resolve_run
from nanogpt.config.schema import Config
from nanogpt.data.cleaning import row_type
from nanogpt.model import kernels
from nanogpt.model.sizing import n_parameters as count_parameters
from nanogpt.planning import needs
from nanogpt.planning.memory import training_memory
from nanogpt.planning.needs import (
    PROCESSES,
    memory_mb,
    n_parameters,
    planning_mb,
    training_bytes,
)
from nanogpt.project import Project

ROOT = Path(__file__).resolve().parents[2]

CPU = {"device": "cpu", "dtype": "float32"}
GPT2 = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "dropout": 0.0}
SMALL = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 256, "dropout": 0.0}
MODERN = {"position": "rotary", "norm": "rmsnorm", "qk_norm": True, "tie_word_embeddings": False}
CASES = {
    "124 M parameters": (GPT2, {"batch_size": 12}, 50_257),
    "124 M parameters with dropout": ({**GPT2, "dropout": 0.2}, {"batch_size": 4}, 65),
    "a small model": (SMALL, {"batch_size": 32}, 65),
    "a small model with many symbols": ({**SMALL, **MODERN}, {"batch_size": 32}, 4000),
    "muon in bfloat16": (
        {**SMALL, **MODERN, "dropout": 0.2},
        {"batch_size": 32, "dtype": "bfloat16", "optimizer": "muon"},
        50_257,
    ),
}


def config_of(model: dict, train: dict, **run: object) -> Config:
    own = {"dataset": "text", "model": model, "train": {**CPU, **train}, **run}
    corpora = {"text": {"builtin": "play"}}
    return load({"corpora": corpora, "datasets": {"text": {}}, "runs": {"one": own}}, [])


@pytest.mark.parametrize("what", CASES)
def test_training_requests_its_planned_memory_and_little_more(what: str) -> None:
    model, train, vocab_size = CASES[what]
    run = resolve_run(config_of(model, train), "one")
    planned = training_memory(run.model, run.train, vocab_size)
    # The plan includes this process, which has more modules loaded than a training.
    expected = planned.total - planned.process
    assert expected < training_bytes(run, vocab_size) - PROCESSES < 2.5 * expected


def test_parameter_count_matches_the_model_without_norms_and_biases() -> None:
    for model in (GPT2, {**SMALL, **MODERN}):
        settings = resolve_run(config_of(model, {}), "one").model
        expected = count_parameters(settings, 65)
        assert n_parameters(settings, 65) == pytest.approx(expected, rel=0.002)


def test_a_training_of_124_million_parameters_is_not_killed_at_3_gb(tmp_path: Path) -> None:
    config = config_of(GPT2, {"batch_size": 12})
    assert memory_mb(config, "train", "one", 8, 0, project=Project(tmp_path)) > 13_000


def test_a_gpu_keeps_the_activations(tmp_path: Path) -> None:
    on_gpu = config_of(GPT2, {"batch_size": 512, "device": "cuda", "dtype": "bfloat16"})
    here = config_of(GPT2, {"batch_size": 512})
    asked = [memory_mb(c, "train", "one", 8, 0, project=Project(tmp_path)) for c in (on_gpu, here)]
    assert asked[0] < 8_000
    assert asked[1] > 100_000


def test_each_further_process_has_its_own_weights() -> None:
    run = resolve_run(config_of(GPT2, {"batch_size": 4}), "one")
    one, two = (training_bytes(run, 50_257, processes) for processes in (1, 2))
    assert one + 3 * 4 * 124e6 < two < 2 * one


def test_known_vocabulary_size_is_used(tmp_path: Path) -> None:
    config, project = config_of(SMALL, {"batch_size": 64}), Project(tmp_path)
    assumed = memory_mb(config, "train", "one", 1, 0, project=project)
    (project.datasets / "text").mkdir(parents=True)
    (project.datasets / "text/meta.json").write_text('{"vocab_size": 6000}')
    assert memory_mb(config, "train", "one", 1, 0, project=project) > assumed + 1000


def test_ngrams_and_larger_files_need_more_memory(tmp_path: Path) -> None:
    config = config_of(SMALL, {}, ngram={"max_tokens": 8_000_000})
    project = Project(tmp_path)
    assert memory_mb(config, "count_ngrams", "one", 1, 0, project=project) >= 3000
    assert memory_mb(config, "eval", "one", 1, 0, project=project) >= 3000
    assert memory_mb(config, "export_gguf", "one", 1, 6000, project=project) >= 18_000
    assert planning_mb(config.datasets["text"], 1) == planning_mb(config.datasets["text"], 50_000)


@pytest.mark.parametrize("setting", [{"deduplicate": "near"}, {"min_characters": 9}])
def test_choosing_documents_needs_memory_for_each_of_them(setting: dict) -> None:
    plain, dataset = planning_mb(Dataset(), 50_000, 0), Dataset(**setting)
    table_bytes = needs.BYTES_OF_ROW[dataset.deduplicate] * 10**8
    of_choice = needs.BYTES_OF_CHOICE[dataset.deduplicate] * 100
    assert planning_mb(dataset, 50_000, table_bytes) == plain + of_choice
    # One job doesn't know the number of documents before.
    assert planning_mb(dataset, 40_000) == plain + of_choice


@pytest.mark.parametrize("deduplicate", ["none", "exact", "near"])
def test_the_number_of_documents_follows_from_the_size_of_tables(deduplicate: str) -> None:
    dataset = Dataset(deduplicate=deduplicate, min_characters=9)
    assert needs.BYTES_OF_ROW[deduplicate] == row_type(dataset).itemsize


@pytest.mark.parametrize("stage", ["count", "encode", "prepare"])
def test_jobs_that_plan_nothing_need_no_memory_for_documents_or_words(stage: str) -> None:
    config = config_of(SMALL, {})
    plain, asked = (memory_mb(config, stage, "", 8, size) for size in (1, 50_000))
    assert asked == plain
    for setting in ({"deduplicate": "near"}, {"tokenizer": "bpe"}):
        assert planning_mb(Dataset(**setting), 50_000) > plain


def test_tensorboard_needs_memory_for_each_line_of_metrics(tmp_path: Path) -> None:
    short = config_of(SMALL, {})
    long = config_of(SMALL, {"max_iters": 5_000_000, "log_interval": 1})
    asked = [memory_mb(c, "tensorboard", "one", 1, 0, Project(tmp_path)) for c in (short, long)]
    assert asked == [2100, 22_100]


def test_needs_does_not_import_torch() -> None:
    code = "import sys, nanogpt.planning.needs, nanogpt.planning.partitions\n"
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_large_vocabulary_means_the_same_as_in_kernels() -> None:
    """The kernels need torch, so a dry run can't import them."""
    assert needs.LARGE_VOCABULARY == kernels.LARGE_VOCABULARY
