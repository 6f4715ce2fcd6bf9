"""Measure the overhead of saved states and the cache.

    python benchmarks/resume.py [--rounds 5]

Saves the state of models of several sizes and prints its share of the training time at the default
interval. Restores a model of 100 MB from the cache. Prints the median, minimum and maximum of the
rounds.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.artifacts import cache, manifests  # noqa: E402
from nanogpt.artifacts.records.manifests import Manifest  # noqa: E402
from nanogpt.config.loading import read  # noqa: E402
from nanogpt.config.schema import ModelSettings, TrainSettings  # noqa: E402
from nanogpt.model.gpt import GPT  # noqa: E402
from nanogpt.project import Project  # noqa: E402
from nanogpt.training.optimizers import configure_adamw  # noqa: E402
from nanogpt.training.saved_state import Progress, save_state  # noqa: E402
from nanogpt.training.session import SAVE_INTERVAL, interval_between_saves  # noqa: E402
from nanogpt.training.step import loss_scaler  # noqa: E402

GPT2 = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024}


def seconds(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def report(what: str, times: list[float], note: str = "") -> None:
    """Print one line of results."""
    middle = statistics.median(times)
    print(f"{what:<58} {middle:7.3f} s ({min(times):.3f} to {max(times):.3f}){note}", flush=True)


def save_times(name: str, settings: ModelSettings, vocab_size: int, rounds: int) -> None:
    """Time saving a state with moments and best weights, as a training does."""
    model = GPT(settings, vocab_size)
    training = TrainSettings(device="cpu", dtype="float32")
    optimizer, scaler = configure_adamw(model, training), loss_scaler(training)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kept = {key: weight.clone() for key, weight in model.state_dict().items()}
    progress = Progress("v", step=1, kept=kept, metrics=bytearray(b"{}\n" * 1000))
    with tempfile.TemporaryDirectory(dir=PROJECT) as directory:

        def save() -> None:
            progress.step += 1
            save_state(Path(directory), progress, model, optimizer, scaler)

        times = [seconds(save) for _ in range(rounds)]
    middle = statistics.median(times)
    share = middle / (middle + interval_between_saves(middle))
    millions = model.n_parameters() / 1e6
    report(
        f"save the state of {name} ({millions:.1f} M)", times, f", {share:.2%} of the training time"
    )


def restore_times(rounds: int) -> None:
    """Time restoring an artifact of 100 MB from the cache."""
    with tempfile.TemporaryDirectory(dir=PROJECT) as directory:
        project = Project(Path(directory))
        outputs = {"model/model.safetensors": "results/big/model/model.safetensors"}
        weights = project.root / outputs["model/model.safetensors"]
        weights.parent.mkdir(parents=True)
        weights.write_bytes(os.urandom(100_000_000))
        manifest = Manifest(
            stage="train",
            version=manifests.version("train", {}, {}, ""),
            inputs={},
            parameters={},
            code="",
            outputs=manifests.digests(project, outputs.values()),
            environment=manifests.environment(threads=1),
            wall_seconds=0.0,
        )
        os.environ["NANOGPT_CACHE"] = "cache"
        cache.store(project, manifest, outputs)
        times = []
        for _ in range(rounds):
            weights.unlink()
            times.append(seconds(lambda: cache.restore(project, manifest.version, outputs)))
            assert weights.exists()
    report("restore 100 MB from the cache", times)


def main() -> None:
    """Print all results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    models = read(PROJECT / "config.yaml").models
    print(f"default interval {SAVE_INTERVAL:.0f} s")
    save_times("modern", models["modern"], 65, rounds)
    save_times("baby", models["baby"], 65, rounds)
    save_times("GPT-2", ModelSettings(**GPT2), 50257, rounds)
    restore_times(rounds)


if __name__ == "__main__":
    main()
