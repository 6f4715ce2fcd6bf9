"""Measure the gain of each part of the modern recipe by training without it.

    snakemake --cores 1 results/datasets/shakespeare_char/meta.json
    python benchmarks/recipe.py [--run shakespeare_char_fast] [--processes 2]

One setting at a time is changed back to GPT-2's. The run is then trained with three seeds, once for
the same number of steps (equal tokens) and once for as many steps as fit into the run's time (equal
time). Time is CPU time on one thread, so several trainings can run in parallel. Losses are of the
whole validation split in nats per token. A positive difference means that the setting helps.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import torch  # noqa: E402

from nanogpt.artifacts.states import TrainingState  # noqa: E402
from nanogpt.config.loading import read  # noqa: E402
from nanogpt.config.resolving import resolve_run  # noqa: E402
from nanogpt.config.schema import EvalSettings, ModelSettings, Run, TrainSettings  # noqa: E402
from nanogpt.data.batches import load  # noqa: E402
from nanogpt.devices import resolve  # noqa: E402
from nanogpt.model.checkpoints import load_model  # noqa: E402
from nanogpt.model.gpt import GPT  # noqa: E402
from nanogpt.model.losses import window_starts, windows_loss  # noqa: E402
from nanogpt.training.loop import train  # noqa: E402

SEEDS = (1337, 1, 2)

# For each part of the recipe, the settings that undo it.
WITHOUT: dict[str, dict[str, Any]] = {
    "position: rotary": {"position": "learned"},
    "norm: rmsnorm": {"norm": "layernorm"},
    "embedding_norm": {"embedding_norm": False},
    "qk_norm": {"qk_norm": False},
    "activation: relu2": {"activation": "gelu"},
    "tie_word_embeddings: false": {"tie_word_embeddings": True},
    "final_logit_softcapping: 15": {"final_logit_softcapping": 0.0},
    "init: zero_proj": {"init": "gpt2"},
    "optimizer: muon": {"optimizer": "adamw", "learning_rate": 4e-3, "weight_decay": 0.1},
    "lr_schedule: wsd": {"lr_schedule": "cosine"},
    "momentum: 0.9, not 0.95": {"momentum": 0.95},
    "ns_steps: 3, not 5": {"ns_steps": 5},
    "weight_decay: 0.01, not 0.1": {"weight_decay": 0.1},
}


def changed(run: Run, changes: dict[str, Any], seed: int, steps: int) -> Run:
    """A run with changed model and training settings, seed and number of steps."""
    model = {k: v for k, v in changes.items() if k in ModelSettings.model_fields}
    rest = {k: v for k, v in changes.items() if k in TrainSettings.model_fields}
    rest |= {"seed": seed, "max_iters": steps, "lr_decay_iters": steps, "eval_interval": steps}
    return run.model_copy(
        update={
            "model": run.model.model_copy(update=model),
            "train": resolve(run.train.model_copy(update=rest)),
        }
    )


def measure(run: Run) -> tuple[float, float]:
    """Train on one thread. Returns CPU seconds and the loss on the whole validation split."""
    torch.set_num_threads(1)
    dataset = PROJECT / "results/datasets" / run.dataset
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory)
        start = time.process_time()
        state = TrainingState(results / "state", "recipe")
        train(run.name, dataset, run.model, run.train, state, results)
        seconds = time.process_time() - start
        model = load_model(results / "model").model
    assert isinstance(model, GPT)
    tokens = load(dataset).val
    starts = window_starts(len(tokens), run.model.block_size, len(tokens))
    settings = EvalSettings(device="cpu", dtype="float32")
    return seconds, windows_loss(model, tokens, starts, settings).mean


def rows(run: Run, processes: int) -> Iterator[str]:
    """Yield a table row for the run and for each change."""
    n_steps = run.train.max_iters
    variants: dict[str, dict[str, Any]] = {"the recipe": {}, **WITHOUT}
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:

        def train_all(steps: dict[str, int]) -> dict[str, list[tuple[float, float]]]:
            """Train all variants seed by seed, so that drifts in speed affect them equally."""
            jobs = [changed(run, variants[v], seed, n) for seed in SEEDS for v, n in steps.items()]
            measured = list(pool.map(measure, jobs))
            return {name: measured[i :: len(steps)] for i, name in enumerate(steps)}

        list(pool.map(measure, [changed(run, {}, 1, 1)] * processes))  # warm up
        without = train_all(dict.fromkeys(variants, n_steps))
        recipe = without.pop("the recipe")
        fitting = {
            name: round(n_steps * _seconds(recipe) / _seconds(measured))
            for name, measured in without.items()
        }
        longer = train_all(fitting)
    loss = statistics.mean(loss for _, loss in recipe)
    yield f"| the recipe | {_mean_and_spread(recipe)} | | | | |"
    for name in WITHOUT:
        gains = [statistics.mean(loss for _, loss in of[name]) - loss for of in (without, longer)]
        yield (
            f"| {name} | {_mean_and_spread(without[name])} | {fitting[name]} "
            f"| {_mean_and_spread(longer[name])} | {gains[0]:+.3f} | {gains[1]:+.3f} |"
        )


def _seconds(measured: list[tuple[float, float]]) -> float:
    return statistics.median(seconds for seconds, _ in measured)


def _mean_and_spread(measured: list[tuple[float, float]]) -> str:
    losses = [loss for _, loss in measured]
    return f"{statistics.mean(losses):.3f} ({max(losses) - min(losses):.3f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", default="shakespeare_char_fast")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    run = resolve_run(read(PROJECT / "config.yaml"), arguments.run)
    print(
        f"| without | loss after {run.train.max_iters} steps (spread) | steps in equal time "
        "| their loss (spread) | gain at equal tokens | at equal time |"
    )
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    for row in rows(run, arguments.processes):
        print(row, flush=True)


if __name__ == "__main__":
    main()
