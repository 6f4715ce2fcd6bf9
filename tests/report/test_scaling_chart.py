"""The chart of sizes has a power law if there are enough sizes."""

from nanogpt.report.page import write_report
from nanogpt.report.runs import read_runs


def write(directories, destination):
    return write_report(read_runs(directories), destination)


def test_a_power_law_needs_three_sizes(sizes, tmp_path):
    for name, chosen, n_laws in (("three", sizes, 2), ("two", sizes[:4], 0)):
        write(chosen, tmp_path / name)
        svg = (tmp_path / name / "scaling.svg").read_text()
        assert svg.count(r"\propto") == n_laws
