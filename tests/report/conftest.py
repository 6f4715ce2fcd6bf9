"""Reports that several tests share."""

import pytest

from nanogpt.report.page import write_report
from nanogpt.report.runs import read_runs
from tests.made_runs import make_run, write_ngram

SHAPES = {"small": {"n_layer": 1}, "middle": {"n_layer": 2}, "large": {"n_layer": 4}}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The directories of three runs on two datasets."""
    root = tmp_path_factory.mktemp("runs")
    write_ngram(root, "play", [1.2, 0.9])
    return [
        make_run(root, "demo", val_loss=0.61237, bench=True),
        make_run(root, "a|b", "shakespeare", 1.71236, sample="<script>alert(1)</script>"),
        make_run(root, "large", "shakespeare", 1.49876, sample=None, model={"n_layer": 3}),
    ]


@pytest.fixture(scope="session")
def report(runs, tmp_path_factory):
    """The directory of a report on `runs`."""
    directory = tmp_path_factory.mktemp("report")
    write_report(read_runs(runs), directory)
    return directory


@pytest.fixture(scope="session")
def sizes(tmp_path_factory):
    """The directories of runs with three sizes and two seeds each."""
    root = tmp_path_factory.mktemp("sizes")
    return [
        make_run(
            root,
            f"s.model-{name}.seed-{seed}",
            val_loss=0.9 / shape["n_layer"] ** 0.3 + seed / 100,
            model=shape,
            train={"seed": seed},
            bench=seed == 1,
        )
        for name, shape in SHAPES.items()
        for seed in (1, 2)
    ]


@pytest.fixture(scope="session")
def sizes_report(sizes, tmp_path_factory):
    """The directory of a report on `sizes`."""
    directory = tmp_path_factory.mktemp("sizes_report")
    write_report(read_runs(sizes), directory)
    return directory
