"""Measure what `snakemake -n` of many runs costs, compared with a bare Snakefile.

    python benchmarks/dag.py                          500 and 2,000 runs
    python benchmarks/dag.py --runs=500 --rounds=5

`benchmarks/bare.smk` has as many rules and jobs as our workflow, with literal values. Both plan
their report from scratch in a temporary directory, in turn. Prints the medians of the user CPU
time, with minimum and maximum.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[1]

CONFIG = {
    "corpora": {"play": {"builtin": "play"}},
    "datasets": {"play": {}},
    "models": {"small": {"n_layer": 4, "n_head": 4, "n_embd": 128}},
    "defaults": {"model": "small"},
}


def make_ours(directory: Path, n_runs: int) -> list[str]:
    """Make a project of many runs. Returns Snakemake's arguments for it."""
    runs = {
        f"run-{number}": {"dataset": "play", "train": {"seed": number}} for number in range(n_runs)
    }
    config = {**CONFIG, "runs": runs, "report": {"runs": list(runs)}}
    directory.mkdir()
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return ["--snakefile", str(PROJECT / "Snakefile"), "--directory", str(directory)]


def make_bare(directory: Path, n_runs: int) -> list[str]:
    """Make a project of the bare Snakefile. Returns Snakemake's arguments for it."""
    directory.mkdir()
    shutil.copy(PROJECT / "benchmarks/bare.smk", directory / "Snakefile")
    for name in ("work.py", "env.yaml"):
        (directory / name).touch()
    here = ["--snakefile", str(directory / "Snakefile"), "--directory", str(directory)]
    return [*here, "--config", f"n_runs={n_runs}"]


def plan(arguments: list[str]) -> tuple[float, int]:
    """Return the user CPU time of a dry run in seconds, and the number of jobs that it plans."""
    profile = ["--workflow-profile", str(PROJECT / "profiles/default")]
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1"]
    before = os.times().children_user
    run = subprocess.run(
        [*command, *profile, *arguments], check=True, capture_output=True, text=True
    )
    seconds = os.times().children_user - before
    return seconds, int(re.findall(r"^total +(\d+)$", run.stdout, re.MULTILINE)[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for n_runs in arguments.runs:
        with tempfile.TemporaryDirectory() as made:
            directory = Path(made)
            workflows = {
                "ours": make_ours(directory / "ours", n_runs),
                "bare": make_bare(directory / "bare", n_runs),
            }
            times: dict[str, list[float]] = {name: [] for name in workflows}
            counts = {}
            for _ in range(arguments.rounds):
                for name, given in workflows.items():
                    seconds, counts[name] = plan(given)
                    times[name].append(seconds)
        assert counts["ours"] == counts["bare"], counts
        for name, taken in times.items():
            middle = statistics.median(taken)
            spread = f"{min(taken):.2f} to {max(taken):.2f}"
            print(f"{n_runs} runs, {counts[name]} jobs, {name}: {middle:.2f} s ({spread})")
        ratio = statistics.median(times["ours"]) / statistics.median(times["bare"])
        print(f"{n_runs} runs: {ratio:.2f} times the bare Snakefile", flush=True)


if __name__ == "__main__":
    main()
