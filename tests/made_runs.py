"""Made-up runs, as the workflow leaves them, for the tests of what is read from them."""

import json
import math
from pathlib import Path

from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.model.sizing import n_parameters

STEP_TOKENS = 1000
LAST_STEP = 400
VOCAB_SIZE = 65
KINDS = {"letters": 0.7, "blank": 0.3}


def make_run(
    root: Path,
    name: str,
    dataset: str = "play",
    val_loss: float = 0.6,
    diverges_at: float = math.inf,
    sample: str | None = "To be",
    model: dict | None = None,
    train: dict | None = None,
    deep: bool = True,
    bench: bool = False,
) -> Path:
    """A run of 400 steps, evaluated every 100, logged every 50. deep: with evaluation in depth."""
    run = root / "results" / name
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(metrics_text(val_loss, diverges_at))
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, **(model or {})}
    settings = ModelSettings(**shape)
    evaluation = evaluation_of(name, dataset, val_loss, settings, deep=deep)
    write(run / "eval.json", evaluation)
    if sample is not None:
        heading = "--- sample 1 of 1 ".ljust(80, "-")
        (run / "samples.txt").write_text(f"# 1 sample of {name}\n# seed: 1\n\n{heading}\n{sample}")
    trained = {"seed": 1337, "device": "cpu", "dtype": "float32", **(train or {})}
    parameters = {
        "model": settings.model_dump(),
        "train": TrainSettings(**trained).model_dump(),
    }
    machine = {"python": "3.11.7", "torch": "2.13.0", "cpu": "a CPU", "gpu": None, "threads": 2}
    write(
        run / "train.manifest.json",
        {
            "inputs": {f"results/datasets/{dataset}/train.bin": "0" * 64},
            "parameters": parameters,
            "environment": machine,
        },
    )
    write(run / "eval.manifest.json", {"parameters": {"name": name, "eval": {"seed": 1}}})
    write(run / "sample.manifest.json", {"parameters": {"name": name, "sample": {"top_k": 200}}})
    if bench:
        write(run / "bench.json", bench_of(name, dataset, settings))
    return run


def metrics_text(val_loss: float, diverges_at: float = math.inf, last_step: int = LAST_STEP) -> str:
    lines = []
    for step in range(0, last_step + 1, 50):
        loss = val_loss + math.exp(-step / 100) if step < diverges_at else None
        line = {"step": step, "tokens": step * STEP_TOKENS}
        if step:
            line["loss"] = loss
        if step % 100 == 0:
            line |= {"train_loss": loss, "val_loss": loss}
        line |= {"learning_rate": 1e-3, "grad_norm": 0.4}
        line |= {"tokens_per_second": 1000.0 + step % 100, "seconds": step / 2}
        lines.append(json.dumps(line))
    return "\n".join(lines) + "\n"


def evaluation_of(
    name: str, dataset: str, val_loss: float, settings: ModelSettings, *, deep: bool
) -> dict:
    split = {"loss": val_loss, "perplexity": math.exp(val_loss), "bits_per_byte": 0.88}
    split |= {"n_tokens": 999, "n_bytes": 999}
    evaluation = {
        "run": name,
        "dataset": dataset,
        "val": split,
        "train": {**split, "loss": val_loss - 0.1},
        "model": {
            "n_parameters": n_parameters(settings, VOCAB_SIZE),
            "vocab_size": VOCAB_SIZE,
            **settings.model_dump(),
        },
    }
    if dataset == "play":
        evaluation["source"] = {"bits_per_byte": 0.85, "excess_percent": 3.5}
    if deep:
        evaluation["val"] |= {
            "bits_per_character": 0.88,
            "interval": {"level": 0.95, "loss": [val_loss - 0.01, val_loss + 0.02]},
        }
        evaluation["by_position"] = [
            {"first": first, "last": last, "loss": val_loss + 1 / (1 + first), "n_tokens": 10}
            for first, last in [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15)]
        ]
        evaluation["by_kind"] = {
            kind: {"loss": val_loss, "n_tokens": 10, "share_of_loss": share}
            for kind, share in KINDS.items()
        }
        evaluation["calibration"] = {
            "accuracy": 0.6,
            "expected_calibration_error": 0.02,
            "bins": [
                {"low": 0.0, "high": 0.5, "confidence": None, "accuracy": None, "n_tokens": 0},
                {"low": 0.5, "high": 1.0, "confidence": 0.7, "accuracy": 0.6, "n_tokens": 99},
            ],
        }
        shares = {"8": 0.9, "16": 0.25, "32": 0.0}
        evaluation["copying"] = {**shares, "reference": {"8": 0.8, "16": 0.2, "32": None}}
    return evaluation


def bench_of(name: str, dataset: str, settings: ModelSettings) -> dict:
    return {
        "run": name,
        "dataset": dataset,
        "model": {
            "n_parameters": n_parameters(settings, VOCAB_SIZE),
            "vocab_size": VOCAB_SIZE,
            **settings.model_dump(),
        },
        "tokens_per_second": 12_345.0,
        "mfu": 0.42,
        "peak_memory_bytes": 10**8,
        "generation": {"batch_size": 1, "max_new_tokens": 128, "tokens_per_second": 678.0},
    }


def write_ngram(root: Path, dataset: str, losses: list[float]) -> None:
    orders = [
        {"order": order, "loss": loss, "bits_per_byte": loss / math.log(2)}
        for order, loss in enumerate(losses, 1)
    ]
    write(root / f"results/datasets/{dataset}/ngram.json", {"dataset": dataset, "orders": orders})


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
