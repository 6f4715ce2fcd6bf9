"""The memory that a cluster is asked for, for each job: worked out by formulas, without torch.

`planning/memory.py` knows a training better, but a dry run must not take the seconds that torch
needs to start. These formulas ask for more than a job takes, up to 2.5 times as much, as one that
asks for too little is killed. `tests/planning/test_needs.py` compares them with
`planning/memory.py`.
"""

import json

from nanogpt.config.resolving import resolve_run
from nanogpt.config.schema import Config, ModelSettings, Run
from nanogpt.planning.vocabulary import find_vocabulary
from nanogpt.project import HERE, Project

MB = 1_000_000
FLOAT32 = 4  # bytes

# A job's own Python with torch (350 MB), the two of Snakemake around it on a cluster (170 MB each),
# and some room.
PROCESSES = 1_000 * MB
PROCESS = 400 * MB  # each further one with torch

# How much more than its tensors a process takes: as in planning/memory.py, and some room.
BESIDE_TENSORS = 1.6

# Numbers that a step keeps: for each token and layer in widths of the model; for each token, layer
# and head in tokens that it sees, if their weights are kept; and for each token in symbols.
WIDTHS = 19
SEEN, SEEN_WITH_DROPOUT = 1, 3
SYMBOLS = 3
LONGEST_PLAIN_WINDOW = 512  # tokens; beyond, the weights of attention aren't kept without dropout
LARGE_VOCABULARY = 8192
MOST_LOGITS = 1 << 27  # numbers of a large vocabulary that are kept at once

# What a training on a GPU needs beside it: CUDA's libraries, and its state while it's saved.
BESIDE_GPU = 4_000 * MB

# Stages whose memory follows from settings alone, so that no file's size is asked for.
BY_SETTINGS = frozenset({"ngram", "train", "bench", "eval", "sample", "count_ngrams"})

SAMPLING_CACHE = 1 << 30  # bytes of keys and values, at most
BYTES_OF_NGRAM = 300  # for each token that is counted
COUNTING = 2_000 * MB  # of n-grams up to a fixed order, for a dataset's statistics
READING = 1_000 * MB  # a text as a stream
BYTES_OF_WORDS = 2  # of memory for each byte of a text that byte pairs are trained on


def n_parameters(model: ModelSettings, vocab_size: int) -> int:
    """How many numbers a model learns, without its norms and biases."""
    embeddings = vocab_size * model.n_embd * (1 if model.tie_word_embeddings else 2)
    positions = model.block_size * model.n_embd if model.position == "learned" else 0
    return embeddings + positions + 12 * model.n_layer * model.n_embd**2


def training_bytes(run: Run, vocab_size: int, processes: int = 1) -> int:
    """What a training of a run takes of a machine's memory, on its CPU or its GPUs.

    processes: on this machine. They share the rows of a step and the optimizer's moments, and each
    has the weights, their gradients and the sum of these.
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
    # Weights, gradients, two moments and the best weights; gradients of both uses of an embedding.
    kept = (5 + 3 * others) * learned + 2 * vocab_size * model.n_embd
    numbers = kept + tokens * model.n_layer * of_layer + logits
    return PROCESSES + others * PROCESS + round(BESIDE_TENSORS * FLOAT32 * numbers)


def inference_bytes(runs: list[Run], vocab_size: int, threads: int) -> int:
    """What an evaluation or sampling of the models of these runs takes, whichever takes more."""
    learned = sum(n_parameters(run.model, vocab_size) for run in runs)
    window = max(_inference_numbers(run.model, vocab_size) for run in runs)
    of_sample = sum(2 * m.n_layer * m.n_embd * m.block_size for m in (run.model for run in runs))
    cache = min(SAMPLING_CACHE, FLOAT32 * runs[0].sample.num_samples * of_sample)
    # Weights, and the same as they are laid out for one token after another.
    numbers = 2 * learned + threads * window
    return PROCESSES + round(BESIDE_TENSORS * (FLOAT32 * numbers + cache))


def _inference_numbers(model: ModelSettings, vocab_size: int) -> int:
    """Numbers that a forward pass of one window holds at once."""
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
    """Megabytes that a job of a stage asks a cluster for.

    name: of the run or dataset; what has neither isn't asked. input_mb: of the job's input files.
    processes: of a training, on one machine.
    """
    if stage in ("count", "plan", "encode", "prepare"):
        has_words = config.datasets[name].tokenizer == "bpe" and stage in ("plan", "prepare")
        words = BYTES_OF_WORDS * input_mb * MB if has_words else 0
        return _megabytes(PROCESSES + READING + words)
    if stage == "ngram":
        return _megabytes(PROCESSES + COUNTING)
    if stage in BY_SETTINGS:
        run = resolve_run(config, name)
        return _megabytes(_bytes_of_run(config, stage, run, threads, project, processes))
    # Of models that are read and written in other forms, and of tables and charts.
    return _megabytes(PROCESSES + READING + 3 * input_mb * MB)


def _bytes_of_run(
    config: Config, stage: str, run: Run, threads: int, project: Project, processes: int
) -> int:
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
    """The vocabulary's size as meta.json has it, or as the settings say until it's there."""
    try:
        meta = json.loads((project.datasets / dataset / "meta.json").read_text())
        return int(meta["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return find_vocabulary(config, dataset)[0]


def _megabytes(n_bytes: float) -> int:
    """Rounded up to hundreds."""
    return -round(-n_bytes // (100 * MB)) * 100
