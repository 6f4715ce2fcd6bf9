"""The chart of sizes has a power law if there are enough sizes."""

from nanogpt.report.compare import table
from nanogpt.report.looks import choose_looks
from nanogpt.report.page import write_report
from nanogpt.report.runs import read_runs
from nanogpt.report.scaling_chart import MOST_FAMILIES, draw_scaling_chart
from tests.made_runs import make_run


def write(directories, destination):
    return write_report(read_runs(directories), destination)


def test_a_power_law_needs_three_sizes(sizes, tmp_path):
    for name, chosen, n_laws in (("three", sizes, 2), ("two", sizes[:4], 0)):
        write(chosen, tmp_path / name)
        svg = (tmp_path / name / "scaling.svg").read_text()
        assert svg.count(r"\propto") == n_laws


def test_only_the_best_of_many_families_are_drawn(tmp_path):
    runs = [
        make_run(
            tmp_path,
            f"rate-{rate}.n_layer-{n_layer}",
            val_loss=1 + rate / 10 + n_layer / 100,
            model={"n_layer": n_layer},
            train={"beta1": rate / 10},
            deep=False,
        )
        for rate in range(MOST_FAMILIES + 2)
        for n_layer in (1, 2)
    ]
    found = read_runs(runs)
    svg = draw_scaling_chart(found, choose_looks(table(found)))
    drawn = [rate for rate in range(MOST_FAMILIES + 2) if f"beta1 {rate / 10}:" in svg]
    assert drawn == list(range(MOST_FAMILIES))


def test_families_of_another_dataset_are_drawn_although_their_losses_are_higher(tmp_path):
    datasets = ["play"] * (MOST_FAMILIES + 1) + ["prose"]
    runs = [
        make_run(
            tmp_path,
            f"rate-{rate}.n_layer-{n_layer}",
            dataset,
            val_loss=(1 if dataset == "play" else 3) + rate / 10 + n_layer / 100,
            model={"n_layer": n_layer},
            train={"beta1": rate / 10},
            deep=False,
        )
        for rate, dataset in enumerate(datasets)
        for n_layer in (1, 2)
    ]
    found = read_runs(runs)
    svg = draw_scaling_chart(found, choose_looks(table(found)))
    assert svg.count("prose") == 1
