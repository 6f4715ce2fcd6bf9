"""Estimate the memory to request from a cluster for each job, with formulas and without torch.

`planning/memory.py` is more accurate for a training, but importing torch would slow down every dry
run by seconds. A job that requests too little is killed, so these formulas request more than it
uses: up to 2.5 times as much for a training, as `tests/planning/test_needs.py` checks with
`planning/memory.py`, and several times as much for choosing from the documents of a single file,
whose number isn't known before.
"""

import json

from nanogpt.config.corpora import Dataset
from nanogpt.config.resolving import resolve_run
from nanogpt.config.schema import Config, ModelSettings, Run
from nanogpt.planning.vocabulary import find_vocabulary
from nanogpt.project import HERE, Project

MB = 1_000_000
FLOAT32 = 4  # bytes

# A job's Python with torch (350 MB), the two Snakemake processes around it on a cluster (170 MB
# each), and a margin.
PROCESSES = 1_000 * MB
PROCESS = 400 * MB  # each further process with torch

# The memory of a process as a multiple of its tensors: as in planning/memory.py, plus a margin.
BESIDE_TENSORS = 1.6

# How many numbers a step keeps: per token and layer, as a multiple of n_embd; per token, layer and
# head, as a multiple of the context if attention weights are kept; and per token, as a multiple of
# the vocabulary.
WIDTHS = 19
SEEN, SEEN_WITH_DROPOUT = 1, 3
SYMBOLS = 3
LONGEST_PLAIN_WINDOW = (
    512  # tokens; for longer windows without dropout, attention weights aren't kept
)
LARGE_VOCABULARY = 8192
MOST_LOGITS = 1 << 27  # logits of a large vocabulary that are kept at once

# Main memory of a training on a GPU: CUDA's libraries, and the state while it's saved.
BESIDE_GPU = 4_000 * MB

# Stages whose memory depends only on settings, not on the size of files.
BY_SETTINGS = frozenset(
    {"ngram", "train", "bench", "eval", "sample", "count_ngrams", "tensorboard"}
)

# Stages that stream their texts, if they don't plan the dataset.
STREAMING = frozenset({"count", "encode", "prepare"})

SAMPLING_CACHE = 1 << 30  # bytes of keys and values, at most
BYTES_OF_NGRAM = 300  # per counted token
COUNTING = 2_000 * MB  # counting a dataset's n-grams for its statistics
READING = 1_000 * MB  # streaming a text
BYTES_OF_METRICS = 4_000  # per line of metrics.jsonl
BYTES_OF_WORDS = 2  # memory per byte of a text that byte pairs are trained on

# Per document, by `deduplicate`: memory for choosing the documents that stay, and the size of a row
# in a table, as in data/cleaning.py, which a dry run doesn't import.
BYTES_OF_CHOICE = {"none": 5, "exact": 55, "near": 105}
BYTES_OF_ROW = {"none": 33, "exact": 33, "near": 145}
# The size of a document on disk, if their number isn't known. TinyStories averages 470 bytes in
# Parquet.
BYTES_OF_DOCUMENT = 400


def minutes_to_read(megabytes: float) -> int:
    """Return the minutes to request for a job that reads texts at 5 to 100 MB per second.

    100 MB per minute leaves a margin.
    """
    return 30 + round(megabytes / 100)


def n_parameters(model: ModelSettings, vocab_size: int) -> int:
    """Return the number of parameters, without norms and biases."""
    embeddings = vocab_size * model.n_embd * (1 if model.tie_word_embeddings else 2)
    positions = model.block_size * model.n_embd if model.position == "learned" else 0
    return embeddings + positions + 12 * model.n_layer * model.n_embd**2


def training_bytes(run: Run, vocab_size: int, processes: int = 1) -> int:
    """Estimate the main memory of a training on one machine, on its CPU or its GPUs.

    processes: on this machine. They share the rows of a step and the optimizer's moments, and each
    has the weights, their gradients and the sum of the gradients.
    """
    model, train = run.model, run.train
    learned = n_parameters(model, vocab_size)
    others = processes - 1
    if train.device.startswith("cuda"):
        of_gpus = processes * (BESIDE_GPU + 4 * FLOAT32 * learned)
        return PROCESSES + others * PROCESS + of_gpus
    rows = -(-train.batch_size * train.gradient_accumulation_steps // processes)  # of each
    tokens = processes * min(train.batch_size, rows) * model.block_size
    is_short = model.block_size <= LONGEST_PLAIN_WINDOW
    seen = SEEN_WITH_DROPOUT if model.dropout else SEEN if is_short else 0
    of_layer = WIDTHS * model.n_embd + seen * model.n_head * model.block_size
    logits = SYMBOLS * tokens * vocab_size
    if vocab_size >= LARGE_VOCABULARY:  # as in model/kernels.py
        logits = min(logits, processes * MOST_LOGITS)
    # Weights, gradients, two moments and the best weights; two gradients of a tied embedding.
    kept = (5 + 3 * others) * learned + 2 * vocab_size * model.n_embd
    numbers = kept + tokens * model.n_layer * of_layer + logits
    return PROCESSES + others * PROCESS + round(BESIDE_TENSORS * FLOAT32 * numbers)


def inference_bytes(runs: list[Run], vocab_size: int, threads: int) -> int:
    """Estimate the memory of evaluating or sampling these runs' models, whichever is more."""
    learned = sum(n_parameters(run.model, vocab_size) for run in runs)
    window = max(_inference_numbers(run.model, vocab_size) for run in runs)
    of_sample = sum(2 * m.n_layer * m.n_embd * m.block_size for m in (run.model for run in runs))
    cache = min(SAMPLING_CACHE, FLOAT32 * runs[0].sample.num_samples * of_sample)
    # The weights, and a copy in the layout for generating token by token.
    numbers = 2 * learned + threads * window
    return PROCESSES + round(BESIDE_TENSORS * (FLOAT32 * numbers + cache))


def _inference_numbers(model: ModelSettings, vocab_size: int) -> int:
    """Return how many numbers a forward pass of one window keeps at once."""
    of_layer = WIDTHS * model.n_embd + SEEN * model.n_head * model.block_size
    return model.block_size * (of_layer + min(vocab_size, LARGE_VOCABULARY))


def memory_mb(
    config: Config,
    stage: str,
    name: str,
    threads: int,
    input_mb: float,
    project: Project = HERE,
    processes: int = 1,
) -> int:
    """Return the megabytes to request from a cluster for a job of a stage.

    `planning_mb` is for jobs that plan a dataset. name: the run; unused for stages of datasets.
    input_mb: the size of the job's input files. processes: of a training, on one machine.
    """
    if stage in STREAMING:
        return _megabytes(PROCESSES + READING)
    if stage == "ngram":
        return _megabytes(PROCESSES + COUNTING)
    if stage in BY_SETTINGS:
        run = resolve_run(config, name)
        return _megabytes(_bytes_of_run(config, stage, run, threads, project, processes))
    # Conversions of models, tables and charts.
    return _megabytes(PROCESSES + READING + 3 * input_mb * MB)


def planning_mb(dataset: Dataset, input_mb: float, table_bytes: int | None = None) -> int:
    """Return the megabytes to request for a job that plans a dataset.

    table_bytes: the size of the tables of documents, if they exist already.
    """
    words = BYTES_OF_WORDS * input_mb * MB if dataset.tokenizer == "bpe" else 0
    choice = 0.0
    if dataset.cleans:
        n_documents = input_mb * MB / BYTES_OF_DOCUMENT
        if table_bytes is not None:
            n_documents = table_bytes / BYTES_OF_ROW[dataset.deduplicate]
        choice = BYTES_OF_CHOICE[dataset.deduplicate] * n_documents
    return _megabytes(PROCESSES + READING + words + choice)


def _bytes_of_run(
    config: Config, stage: str, run: Run, threads: int, project: Project, processes: int
) -> int:
    if stage == "tensorboard":
        train = run.train
        lines = train.max_iters // train.log_interval + train.max_iters // train.eval_interval
        return PROCESSES + READING + BYTES_OF_METRICS * lines
    vocab_size = _vocab_size(config, run.dataset, project)
    counted = BYTES_OF_NGRAM * run.ngram.max_tokens if run.ngram else 0
    if stage == "count_ngrams":
        return PROCESSES + counted
    models = [resolve_run(config, member) for member in run.ensemble] or [run]
    inference = inference_bytes(models, vocab_size, threads) + counted
    if stage in ("eval", "sample"):
        return inference
    if stage == "train":
        return training_bytes(run, vocab_size, processes)
    return max(training_bytes(run, vocab_size), inference)


def _vocab_size(config: Config, dataset: str, project: Project) -> int:
    """Return the vocabulary size from meta.json, or from the settings if it doesn't exist yet."""
    try:
        meta = json.loads((project.datasets / dataset / "meta.json").read_text())
        return int(meta["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return find_vocabulary(config, dataset)[0]


def _megabytes(n_bytes: float) -> int:
    """Round up to a multiple of 100 MB."""
    return -round(-n_bytes // (100 * MB)) * 100
