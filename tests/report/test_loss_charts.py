"""Loss curves: one per run, means over seeds, reference lines."""

import itertools
import math
import re

import pytest

from nanogpt.report.looks import MOST_NAMED
from nanogpt.report.page import write_report
from nanogpt.report.runs import read_runs
from tests.made_runs import make_run


def write(directories, destination):
    return write_report(read_runs(directories), destination)


def test_each_dataset_has_its_own_panel(report):
    svg = (report / "loss_tokens.svg").read_text()
    assert len(re.findall(r'id="axes_\d+"', svg)) == 2
    assert ">play</text>" in svg
    assert ">shakespeare</text>" in svg


def test_losses_are_shown_with_the_entropy_and_the_n_grams(report):
    svg = (report / "loss_tokens.svg").read_text()
    assert ">entropy</text>" in svg
    assert ">2-grams</text>" in svg


def test_labels_of_equal_runs_do_not_overlap(tmp_path):
    names = [f"run{i}" for i in range(MOST_NAMED)]
    seeds = [{"beta1": 0.8 + i / 100} for i in range(MOST_NAMED)]
    pairs = zip(names, seeds, strict=True)
    write([make_run(tmp_path, name, train=train) for name, train in pairs], tmp_path)
    svg = (tmp_path / "loss_tokens.svg").read_text()
    found = re.findall(r'<text [^>]* y="([\d.]+)"[^>]*>run\d+</text>', svg)
    heights = sorted(float(y) for y in found)
    assert len(heights) == MOST_NAMED
    assert all(b - a > 9 for a, b in itertools.pairwise(heights))  # 9 pt letters


def test_a_group_with_a_diverged_seed_is_labelled(tmp_path):
    runs = [
        make_run(tmp_path, f"s.seed-{seed}", train={"seed": seed}, diverges_at=step)
        for seed, step in [(1, math.inf), (2, math.inf), (3, 250)]
    ]
    write(runs, tmp_path / "report")
    assert ">s (2 of 3 seeds)</text>" in (tmp_path / "report/loss_tokens.svg").read_text()
    assert "| s | play | 2 of 3 |" in (tmp_path / "report/report.md").read_text()


@pytest.mark.parametrize("step", [100, 150])
def test_a_cross_ends_the_curve_of_a_diverged_run(tmp_path, step):
    """This includes a run that diverged before its first evaluation."""
    found = []
    for name, when in (("good", math.inf), ("bad", step)):
        write([make_run(tmp_path, name, diverges_at=when)], tmp_path / f"of {name}")
        svg = (tmp_path / f"of {name}/loss_tokens.svg").read_text()
        found.append(len(re.findall(r"M -3.5 3.5 \nL 3.5 -3.5", svg)))
    assert found == [0, 1]


def test_runs_with_one_seed_are_not_called_seeds(tmp_path):
    runs = [make_run(tmp_path, name) for name in ("s.cold", "s.hot")]
    write(runs, tmp_path / "report")
    assert "seeds)" not in (tmp_path / "report/loss_tokens.svg").read_text()
