"""Measure how long `nanogpt verify` takes for many runs.

    python benchmarks/verify.py                            2,000 runs with models of 3.2 MB
    python benchmarks/verify.py --runs=100 --megabytes=43

Each run has four manifests, as in the workflow. Models are hard links to one file, so disk space
doesn't matter and reading is as fast as it can be. Prints the CPU time of the first check, of one
right after it, and of one that reads everything again.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from nanogpt.artifacts import manifests, verification
from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.project import Project

DATASET = [f"results/datasets/play/{name}" for name in ("train.bin", "val.bin", "tokenizer.json")]
MODEL = ("model/model.safetensors", "model/config.json", "model/tokenizer.json")
# The inputs and outputs of a run's stages.
STAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "train": ((), (*MODEL, "metrics.jsonl")),
    "eval": (MODEL, ("eval.json",)),
    "sample": (MODEL, ("samples.txt", "samples.jsonl")),
    "tensorboard": (("metrics.jsonl",), ("tensorboard/events.out.tfevents.metrics",)),
}


def make_runs(project: Project, n_runs: int, megabytes: float) -> None:
    """Write a dataset and many runs with their manifests."""
    small, weights = project.root / "small", project.root / "weights"
    small.write_bytes(os.urandom(10_000))
    weights.write_bytes(os.urandom(round(1e6 * megabytes)))
    digest = {path: manifests.digests(project, [path.name])[path.name] for path in (small, weights)}
    for file in DATASET:
        link(small, project.root / file)
    environment = manifests.environment(1)
    for number in range(n_runs):
        directory = f"results/run-{number}"
        for stage, (read, written) in STAGES.items():
            for name in written:
                link(weights if name == MODEL[0] else small, project.root / directory / name)
            files = [
                {f"{directory}/{n}": digest[weights if n == MODEL[0] else small] for n in names}
                for names in (read, written)
            ]
            inputs = {**dict.fromkeys(DATASET, digest[small]), **files[0]}
            manifest = Manifest(
                stage=stage,
                version=manifests.version(stage, {}, inputs, ""),
                inputs=inputs,
                parameters={},
                code="",
                outputs=files[1],
                environment=environment,
                wall_seconds=0.0,
            )
            write_record(project.root / directory / f"{stage}.manifest.json", manifest)


def link(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--megabytes", type=float, default=3.2, help="the size of a model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        project = Project(Path(directory))
        make_runs(project, arguments.runs, arguments.megabytes)
        time.sleep(2 * verification.RECENT / 1e9)  # younger files are always read
        for name, read_all in (("first", False), ("again", False), ("with --all", True)):
            start = time.process_time()
            result = verification.verify_files(project, [project.results], read_all)
            seconds = time.process_time() - start
            assert not result.problems
            print(
                f"{name}: {seconds:.1f} s, {len(result.manifests)} manifests, "
                f"{result.n_read} files read, {result.n_unchanged} not read again"
            )


if __name__ == "__main__":
    main()
