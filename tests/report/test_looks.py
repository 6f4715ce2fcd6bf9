"""A group's color doesn't depend on the order of runs."""

from nanogpt.report.compare import table
from nanogpt.report.looks import GREY, choose_looks
from nanogpt.report.page import write_report
from nanogpt.report.run import Run
from nanogpt.report.runs import read_runs
from tests.made_runs import make_run


def write(directories, destination):
    return write_report(read_runs(directories), destination)


def test_with_many_groups_only_the_best_of_each_dataset_have_colors(tmp_path):
    runs = [
        make_run(tmp_path, f"{dataset}{i}", dataset, 1 + i / 100, train={"beta1": i / 100})
        for dataset in ("play", "prose")
        for i in range(20)
    ]
    looks = choose_looks(table(read_runs(runs)))
    colored = [group for group, look in looks.items() if look.is_named]
    assert colored == ["play0", "play1", "play2", "prose0", "prose1", "prose2"]
    assert len({looks[group].color for group in colored}) == len(colored)
    assert looks["play9"].color == GREY
    write(runs, tmp_path / "report")
    svg = (tmp_path / "report/loss_tokens.svg").read_text()
    assert ">play0</text>" in svg
    assert ">play9</text>" not in svg


def test_curves_of_the_best_groups_are_drawn_and_the_report_says_so(tmp_path):
    runs = [
        make_run(tmp_path, f"{name}{i}", name, 1 + i / 100, train={"beta1": i / 100}, deep=i < 25)
        for name in ("play", "prose")
        for i in range(30)
    ]
    looks = choose_looks(table(read_runs(runs)))
    drawn = [group for group, look in looks.items() if look.is_drawn]
    assert drawn == [f"{name}{i}" for name in ("play", "prose") for i in range(20)]
    write(runs, tmp_path / "report")
    page, text = ((tmp_path / "report" / name).read_text() for name in ("index.html", "report.md"))
    assert "Shown: the best 40 of 60 groups of runs" in page
    assert "Curves of the best 40 of 60 groups" in text
    svg = (tmp_path / "report/loss_tokens.svg").read_text()
    assert svg.count("stroke: #8c8c8c") < 2 * len(drawn)


def test_all_curves_of_40_groups_are_drawn(tmp_path):
    runs = [make_run(tmp_path, f"r{i}", train={"beta1": i / 100}, deep=False) for i in range(40)]
    looks = choose_looks(table(read_runs(runs)))
    assert all(look.is_drawn for look in looks.values())


def test_a_color_does_not_depend_on_the_order_of_runs(sizes):
    forth, back = (choose_looks(table(read_runs(runs))) for runs in (sizes, sizes[::-1]))
    assert forth == back


def test_a_run_with_nothing_to_draw_uses_no_color(tmp_path):
    failed = [Run(f"a{i}", status="failed", note="no", group=f"a{i}") for i in range(20)]
    looks = choose_looks(table([*failed, *read_runs([make_run(tmp_path, "z")])]))
    assert [group for group, look in looks.items() if look.is_named] == ["z"]
