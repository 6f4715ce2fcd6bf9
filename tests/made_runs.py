"""Made-up results of runs, for tests that read results."""

import json
import math
from pathlib import Path

from nanogpt.artifacts.records.base import AnyRecord, write_record
from nanogpt.artifacts.records.benchmarks import Benchmark
from nanogpt.artifacts.records.datasets import DatasetMeta
from nanogpt.artifacts.records.evaluations import Evaluation
from nanogpt.artifacts.records.manifests import Environment, Manifest, TrainingRequest
from nanogpt.artifacts.records.ngrams import NgramEvaluation
from nanogpt.config.schema import EvalSettings, ModelSettings, SampleSettings, TrainSettings
from nanogpt.model.sizing import n_parameters

STEP_TOKENS = 1000
LAST_STEP = 400
VOCAB_SIZE = 65
KINDS = {"letters": 0.7, "blank": 0.3}
# Additional fields of a detailed evaluation.
DEEP = ("by_position", "by_kind", "calibration", "copying")


def make_run(
    root: Path,
    name: str,
    dataset: str = "play",
    val_loss: float = 0.6,
    diverges_at: float = math.inf,
    sample: str | None = "To be",
    model: dict | None = None,
    train: dict | None = None,
    sampling: dict | None = None,
    deep: bool = True,
    bench: bool = False,
) -> Path:
    """Write a run of 400 steps, evaluated every 100 and logged every 50.

    model, train, sampling: settings that aren't the usual ones. deep: with evaluation in depth.
    """
    run = root / "results" / name
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(metrics_text(val_loss, diverges_at))
    parameters = training_parameters(model, train)
    settings = ModelSettings.model_validate(parameters["model"])
    write_record(run / "eval.json", evaluation_of(name, dataset, val_loss, settings, deep=deep))
    if sample is not None:
        heading = "--- sample 1 of 1 ".ljust(80, "-")
        (run / "samples.txt").write_text(f"# 1 sample of {name}\n# seed: 1\n\n{heading}\n{sample}")
    data = {f"results/datasets/{dataset}/{file}": "0" * 64 for file in ("train.bin", "val.bin")}
    weights = {f"results/{name}/model/model.safetensors": "1" * 64}
    write_manifest(run, "train", data, parameters, weights)
    evaluating = {"name": name, "eval": EvalSettings(seed=1).model_dump()}
    write_manifest(run, "eval", weights, evaluating, {f"results/{name}/eval.json": "2" * 64})
    drawing = {"name": name, "sample": SampleSettings(**(sampling or {})).model_dump()}
    write_manifest(run, "sample", weights, drawing, {f"results/{name}/samples.txt": "3" * 64})
    if bench:
        write_record(run / "bench.json", bench_of(name, dataset, settings))
    return run


def make_training(
    root: Path,
    run: str,
    dataset: str = "play",
    last_step: int = 200,
    diverges_at: float = math.inf,
    version: str = "0123456789ab",
    model: dict | None = None,
    train: dict | None = None,
) -> Path:
    """Write the state of an unfinished training."""
    state = root / ".nanogpt/state" / version
    state.mkdir(parents=True)
    parameters = training_parameters(model, train)
    request = TrainingRequest(
        stage="train",
        version=version,
        inputs={f"results/datasets/{dataset}/train.bin": "0" * 64},
        parameters=parameters,
        code="c" * 64,
        run=run,
        settings=parameters,
    )
    write_record(state / "run.json", request)
    (state / "metrics.jsonl").write_text(metrics_text(0.6, diverges_at, last_step))
    return state


def training_parameters(model: dict | None = None, train: dict | None = None) -> dict:
    """Return the parameters of a training, with a small model by default."""
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, **(model or {})}
    usual = {"seed": 1337, "device": "cpu", "dtype": "float32", **(train or {})}
    return {
        "model": ModelSettings(**shape).model_dump(),
        "train": TrainSettings(**usual).model_dump(),
    }


def write_manifest(run: Path, stage: str, inputs: dict, parameters: dict, outputs: dict) -> None:
    """Write the manifest of a stage of a run."""
    manifest = Manifest(
        stage=stage,
        version="0123456789ab",
        inputs=inputs,
        parameters=parameters,
        code="c" * 64,
        summary="made up",
        outputs=outputs,
        environment=Environment(
            nanogpt="1.0.0",
            python="3.11.7",
            platform="Linux",
            cpu="a CPU",
            threads=2,
            ranks=1,
            torch="2.13.0",
            cpu_capability="AVX2",
            gpu=None,
        ),
        wall_seconds=1.5,
    )
    write_record(run / f"{stage}.manifest.json", manifest)


def change(path: Path, **values: object) -> None:
    """Change some values of a JSON file."""
    write(path, json.loads(path.read_text()) | values)


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
) -> Evaluation:
    evaluation = {
        "run": name,
        "dataset": dataset,
        "val": split_of(val_loss, deep=deep),
        "train": {**split_of(val_loss - 0.1, deep=deep), "n_windows": 9},
        "by_position": [
            {"first": first, "last": last, "loss": val_loss + 1 / (1 + first), "n_tokens": 10}
            for first, last in [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15)]
        ],
        "by_kind": {
            kind: {"loss": val_loss, "n_tokens": 10, "share_of_loss": share}
            for kind, share in KINDS.items()
        },
        "calibration": {
            "accuracy": 0.6,
            "expected_calibration_error": 0.02,
            "bins": [
                {"low": 0.0, "high": 0.5, "confidence": None, "accuracy": None, "n_tokens": 0},
                {"low": 0.5, "high": 1.0, "confidence": 0.7, "accuracy": 0.6, "n_tokens": 99},
            ],
        },
        "copying": {
            "settings": {
                "prompt_tokens": 16,
                "num_samples": 32,
                "max_new_tokens": 128,
                "temperature": 1.0,
                "top_k": 0,
                "seed": 1,
            },
            "n_tokens": 4096,
            **{"8": 0.9, "16": 0.25, "32": 0.0},
            "reference": {"n_tokens": 31, "8": 0.8, "16": 0.2, "32": None},
        },
        "nanogpt_estimate": {
            "train": val_loss - 0.1,
            "val": val_loss,
            "eval_iters": 2,
            "batch_size": 4,
        },
        "model": model_summary(settings),
    }
    if dataset == "play":
        evaluation["source"] = {
            "bits_per_byte": 0.85,
            "excess_bits_per_byte": 0.03,
            "excess_percent": 3.5,
        }
    if not deep:
        evaluation = {name: value for name, value in evaluation.items() if name not in DEEP}
    return made(Evaluation, evaluation)


def split_of(loss: float, *, deep: bool) -> dict:
    split = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": 0.88}
    split |= {"n_tokens": 999, "n_bytes": 999}
    if deep:
        ends = [0.87, 0.9]
        interval = {"level": 0.95, "n_resamples": 1000, "loss": [loss - 0.01, loss + 0.02]}
        interval |= {"bits_per_byte": ends, "bits_per_character": ends}
        split |= {"bits_per_character": 0.88, "n_characters": 999, "interval": interval}
    return split


def model_summary(settings: ModelSettings) -> dict:
    numbers = {"n_parameters": n_parameters(settings, VOCAB_SIZE), "vocab_size": VOCAB_SIZE}
    return {**numbers, **settings.model_dump()}


def bench_of(name: str, dataset: str, settings: ModelSettings) -> Benchmark:
    seconds = {"p10": 0.1, "median": 0.2, "p90": 0.3}
    sampling = {"batch_size": 1, "dtype": "float32", "max_new_tokens": 128}
    return made(
        Benchmark,
        {
            "run": name,
            "dataset": dataset,
            "model": model_summary(settings),
            "device": "cpu",
            "dtype": "float32",
            "compile": False,
            "threads": 2,
            "batch_size": 4,
            "data": "real",
            "burn_in": 1,
            "steps": 9,
            "seconds": dict.fromkeys(("forward", "backward", "optimizer", "step"), seconds),
            "tokens_per_second": 12_345.0,
            "flops_per_token": 6,
            "flops_per_second": 74_070.0,
            "gemm_flops_per_second": 176_357.0,
            "mfu": 0.42,
            "peak_memory_bytes": 10**8,
            "loss": 4.2,
            "generation": {**sampling, "tokens_per_second": 678.0},
            "batch_generation": {**sampling, "batch_size": 10, "tokens_per_second": 3456.0},
        },
    )


def write_ngram(root: Path, dataset: str, losses: list[float]) -> None:
    """Write a dataset's ngram.json. losses: for orders 1, 2, ..."""
    orders = [
        {
            "order": order,
            "loss": loss,
            "perplexity": math.exp(loss),
            "bits_per_byte": loss / math.log(2),
            "bits_per_character": loss / math.log(2),
            "n_tokens": 999,
            "n_bytes": 999,
            "n_characters": 999,
        }
        for order, loss in enumerate(losses, 1)
    ]
    content = {"dataset": dataset, "method": "counts", "n_train_tokens": 9999, "orders": orders}
    directory = root / "results/datasets" / dataset
    write_record(directory / "ngram.json", made(NgramEvaluation, content))


def write_meta(root: Path, dataset: str) -> None:
    """Write a dataset's meta.json."""
    split = {"n_tokens": 999, "n_characters": 999, "n_bytes": 999, "n_documents": 1}
    split |= {"sha256": "0" * 64}
    content = {
        "tokenizer": "char",
        "vocab_size": VOCAB_SIZE,
        "dtype": "uint16",
        "split": "position",
        "tokenizer_sha256": "1" * 64,
        "train": split,
        "val": split,
        "files": [],
    }
    write_record(root / "results/datasets" / dataset / "meta.json", made(DatasetMeta, content))


def made(kind: type[AnyRecord], content: dict) -> AnyRecord:
    """Make a record, validated as when it's read."""
    return kind.parse(content, kind.__name__, "correct made_runs.py")


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def mix_ngrams(run: Path, loss: float) -> None:
    """Add the results of a mixture with n-grams to a run's evaluation."""
    mixture = {"max_order": 8, "weight": 0.9, "caution": 0.5, "n_counted_tokens": 1000}
    mixture |= {"across_windows": split_of(loss, deep=True)}
    mixture |= {"within_windows": split_of(loss + 0.02, deep=True)}
    change(run / "eval.json", mixture=mixture)
