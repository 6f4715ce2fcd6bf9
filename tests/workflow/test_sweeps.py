"""A sweep in config.yaml becomes one run per combination."""

from pathlib import Path

from tests.workflow.projects import AFTER_TRAIN, edit_config, error_of, planned, snakemake


def test_a_sweep_has_one_run_per_combination_and_one_benchmark_per_model(
    project: Path,
) -> None:
    grid = {"dataset": "play", "sweep": {"seed": [1, 2, 3], "model.n_layer": [1, 2]}}
    edit_config(
        project,
        lambda config: config.update(runs={"grid": grid}, report={"runs": ["grid"]}),
    )
    assert planned(project) == {**dict.fromkeys(AFTER_TRAIN, 6), "bench_report": 1, "bench": 2}
    samples = "results/grid.seed-2.n_layer-1/samples.txt"
    assert planned(project, samples) == {"train": 1, "sample": 1}
    error = error_of(snakemake(project, "-n", "results/grid/samples.txt"))
    assert error.startswith("error: runs: `grid` is a sweep; use one of its runs: `grid.seed-1.n")
