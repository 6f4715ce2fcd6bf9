"""Measure the overhead of saved states, the cache, and planning many runs.

    python benchmarks/resume.py [--rounds 5]

Saves the state of models of several sizes and prints its share of the training time at the default
interval. Restores a model of 100 MB from the cache. Plans 500 runs with `snakemake -n`, compared
with the same rules with constant params. Prints the median, minimum and maximum of the rounds.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

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
N_RUNS = 500
# Params of rules that are functions of a run, and the constants that replace them.
CONSTANT = {
    'lambda wildcards: json.dumps(run_settings("model", "train")(wildcards))': '"{}"',
    'settings=run_settings("name", "dataset", "eval")': "settings={}",
    'settings=run_settings("name", "sample")': "settings={}",
    **{
        f'code=lambda wildcards: stage_code("{rule}")': 'code=""'
        for rule in (
            "train",
            "eval",
            "sample",
            "tensorboard",
            "bench",
            "ngram",
            "bench_report",
            "write_builtin",
        )
    },
    "settings=bench_settings": "settings={}",
    "settings=dataset_settings": "settings={}",
    "code=dataset_code": 'code=""',
    "corpus_state=corpus_state": 'corpus_state=""',
}


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


def plan_times(rounds: int) -> None:
    """Time `snakemake -n` of many runs, with our params and with constant ones."""
    runs = {f"run{number}": {"train": {"seed": number}} for number in range(N_RUNS)}
    with tempfile.TemporaryDirectory() as directory:
        checkouts = [Path(directory) / name for name in ("ours", "constant")]
        for checkout in checkouts:
            for name in ("nanogpt", "workflow", "profiles", "envs"):
                shutil.copytree(PROJECT / name, checkout / name)
            shutil.copy(PROJECT / "Snakefile", checkout)
            settings = yaml.safe_load((PROJECT / "config.yaml").read_text())
            settings["runs"] = {
                name: {"dataset": "playwright", **run} for name, run in runs.items()
            }
            settings["report"] = {"runs": list(runs)}
            (checkout / "config.yaml").write_text(yaml.safe_dump(settings))
        rules = {path: path.read_text() for path in checkouts[1].glob("workflow/rules/*.smk")}
        for params, constant in CONSTANT.items():
            assert any(params in text for text in rules.values()), params
            rules = {path: text.replace(params, constant) for path, text in rules.items()}
        for path, text in rules.items():
            path.write_text(text)
        command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--cores", "1"]
        times: dict[str, list[float]] = {checkout.name: [] for checkout in checkouts}
        for _ in range(rounds):
            for checkout in checkouts:

                def plan(directory: Path = checkout) -> None:
                    subprocess.run(command, cwd=directory, check=True, capture_output=True)

                times[checkout.name].append(seconds(plan))
    for name, taken in times.items():
        report(f"snakemake -n of {N_RUNS} runs, {name} params", taken)


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
    plan_times(rounds)


if __name__ == "__main__":
    main()
