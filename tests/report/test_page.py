"""The report says what the runs' files say, alone on its page, for one run as for five hundred."""

import itertools
import json
import math
import re
import time
from html.parser import HTMLParser

import matplotlib
import pandas as pd
import pytest

from nanogpt.errors import UserError
from nanogpt.report.charts import CHARTS
from nanogpt.report.compare import table
from nanogpt.report.looks import GREY, MOST_NAMED, looks
from nanogpt.report.loss_charts import LOSS_OVER
from nanogpt.report.page import write_report
from nanogpt.report.run import Run
from nanogpt.report.runs import find_runs, read_runs
from tests.made_runs import make_run, write_ngram

SHAPES = {"small": {"n_layer": 1}, "middle": {"n_layer": 2}, "large": {"n_layer": 4}}


@pytest.fixture
def runs(tmp_path):
    write_ngram(tmp_path, "play", [1.2, 0.9])
    return [
        make_run(tmp_path, "demo", val_loss=0.61237, bench=True),
        make_run(tmp_path, "a|b", "shakespeare", 1.71236, sample="<script>alert(1)</script>"),
        make_run(tmp_path, "large", "shakespeare", 1.49876, sample=None, model={"n_layer": 3}),
    ]


@pytest.fixture
def report(runs, tmp_path):
    write_report(read_runs(runs), tmp_path / "report")
    return tmp_path / "report"


@pytest.fixture
def sizes(tmp_path):
    """Three sizes of two seeds each."""
    return [
        make_run(
            tmp_path,
            f"s.model-{name}.seed-{seed}",
            val_loss=0.9 / shape["n_layer"] ** 0.3 + seed / 100,
            model=shape,
            train={"seed": seed},
            bench=seed == 1,
        )
        for name, shape in SHAPES.items()
        for seed in (1, 2)
    ]


def write(directories, destination):
    return write_report(read_runs(directories), destination)


class Page(HTMLParser):
    """What of a page a test asks for: attributes of each tag, and the texts of cells."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_table_has_a_column_for_each_in_the_dictionary(report):
    columns = pd.read_csv(report / "columns.csv")
    assert list(columns["column"]) == list(pd.read_csv(report / "runs.csv").columns)
    units = columns.set_index("column")["unit"]
    assert units["val_loss_nats_per_token"] == "nats per token"
    assert units["training_flops"] == "FLOPs"


@pytest.mark.parametrize("name", ["report.md", "index.html"])
def test_each_run_is_shown_with_its_val_loss(report, name):
    text = (report / name).read_text().replace("\\|", "|")
    for run, val_loss in [("demo", "0.6124"), ("a|b", "1.7124"), ("large", "1.4988")]:
        assert run in text
        assert val_loss in text


@pytest.mark.parametrize("name", ["index.html", *(f"{chart}.svg" for chart in CHARTS)])
def test_nothing_is_loaded_from_elsewhere(report, name):
    text = (report / name).read_text()
    body = text[text.index("<svg") :] if name.endswith(".svg") else text
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", body)
    assert not re.search(r"(https?:)?//\w", re.sub(r"\n\s*//.*", "", without_namespaces))
    assert "@import" not in text
    for tag, attributes in Page(text).tags:
        assert tag not in ("img", "iframe", "object", "video")
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:,")), tag


def test_no_two_elements_of_the_page_have_the_same_id(report):
    page = Page((report / "index.html").read_text())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    # Matplotlib's own names of parts, such as axes_1, are referred to by nobody.
    referred = re.findall(r"(?:url\(#|href=\"#)([\w-]+)", (report / "index.html").read_text())
    assert referred
    for name in set(referred):
        assert ids.count(name) == 1, name


def test_samples_are_escaped(report):
    page = (report / "index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_samples_are_shown_without_their_settings_and_cut(tmp_path):
    write([make_run(tmp_path, "demo", sample="word " * 1000)], tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert page.count("word ") == 120
    assert "--- sample" not in page


def test_datasets_have_panels_of_their_own(report):
    svg = (report / "loss_tokens.svg").read_text()
    assert len(re.findall(r'id="axes_\d+"', svg)) == 2
    assert ">play</text>" in svg
    assert ">shakespeare</text>" in svg


def test_the_losses_are_held_against_the_entropy_and_the_n_grams(report):
    svg = (report / "loss_tokens.svg").read_text()
    assert ">entropy</text>" in svg
    assert ">2-grams</text>" in svg


def test_a_group_has_the_same_colour_everywhere(sizes, tmp_path):
    write(sizes, tmp_path / "report")
    page = (tmp_path / "report/index.html").read_text()
    of_run = dict(
        re.findall(r'data-value="(s\.[\w.-]+)"><span class="mark" style="color: (#\w{6})"', page)
    )
    assert len(of_run) == len(sizes)
    assert len(set(of_run.values())) == len(SHAPES)
    for name in SHAPES:
        assert of_run[f"s.model-{name}.seed-1"] == of_run[f"s.model-{name}.seed-2"]
    for chart in CHARTS:
        svg = (tmp_path / f"report/{chart}.svg").read_text()
        for colour in set(of_run.values()):
            assert f"stroke: {colour}" in svg, chart


def test_three_sizes_get_a_power_law_and_two_do_not(sizes, tmp_path):
    for name, chosen, n_laws in (("three", sizes, 2), ("two", sizes[:4], 0)):
        write(chosen, tmp_path / name)
        svg = (tmp_path / name / "scaling.svg").read_text()
        assert svg.count(r"\propto") == n_laws


def test_seeds_are_shown_with_mean_and_interval(sizes, tmp_path):
    write(sizes, tmp_path / "report")
    for name in ("report.md", "index.html"):
        # Two seeds one hundredth apart: 0.005 * 12.706.
        assert "± 0.0635" in (tmp_path / "report" / name).read_text()


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


def test_the_same_runs_give_the_same_bytes(runs, report, tmp_path):
    write(runs, tmp_path / "again")
    names = {path.name for path in report.iterdir()}
    charts = {f"{chart}.svg" for chart in CHARTS}
    assert names == {"index.html", "report.md", "runs.csv", "columns.csv", *charts}
    for name in names:
        assert (report / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_readers_matplotlib_settings_do_not_matter_and_are_kept(runs, report, tmp_path):
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 5}):
        write(runs, tmp_path / "again")
        assert matplotlib.rcParams["font.size"] == 20
    for chart in CHARTS:
        name = f"{chart}.svg"
        assert (report / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_one_run_is_a_report(tmp_path):
    said = write([make_run(tmp_path, "alone", val_loss=0.5)], tmp_path)
    assert said == "1 run; 0.880 bits per byte on play"
    assert "0.5000" in (tmp_path / "report.md").read_text()
    assert "No chart: no two sizes" in (tmp_path / "scaling.svg").read_text()


@pytest.mark.parametrize("step", [0, 50, 300])
def test_a_run_that_diverged_is_marked_beside_one_that_did_not(tmp_path, step):
    runs = [make_run(tmp_path, "good"), make_run(tmp_path, "bad", diverges_at=step)]
    write(runs, tmp_path)
    assert "| bad (diverged) |" in (tmp_path / "report.md").read_text()
    assert "(diverged)</span>" in (tmp_path / "index.html").read_text()
    assert list(pd.read_csv(tmp_path / "runs.csv")["diverged"]) == [False, True]


def test_nothing_but_failures_is_a_report_too(tmp_path):
    run = Run("mine", status="failed", note="out of memory; lower batch_size", group="mine")
    write_report([run], tmp_path)
    for name in ("report.md", "index.html"):
        text = (tmp_path / name).read_text()
        assert "(failed)" in text
        assert "out of memory; lower batch_size" in text
        assert "nan" not in text


def test_a_run_without_an_evaluation_is_marked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (make_run(tmp_path, "early") / "eval.json").unlink()
    make_run(tmp_path, "whole", model={"n_layer": 1})
    write_report(find_runs(tmp_path / "results"), tmp_path)
    assert "| early (not evaluated) |" in (tmp_path / "report.md").read_text()
    assert ">early (not evaluated)</text>" in (tmp_path / "loss_tokens.svg").read_text()


def test_no_runs_are_told(tmp_path):
    with pytest.raises(UserError, match=r"report\.runs"):
        write_report([], tmp_path)


def test_settings_that_differ_stand_in_a_table(sizes, tmp_path):
    write(sizes, tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    assert "| run | model.n_layer | train.seed |" in text
    assert "| s.model-large.seed-2 | 4 | 2 |" in text


def test_copying_and_kinds_of_tokens_stand_in_tables(report):
    text = (report / "report.md").read_text()
    assert "| demo | 90.0 % | 25.0 % | 0.0 % | 80.0 % | 20.0 % | – |" in text  # noqa: RUF001
    assert "| demo | 0.612 (70 %) | 0.612 (30 %) |" in text


def test_of_many_groups_the_best_of_each_dataset_have_colours(tmp_path):
    runs = [
        make_run(tmp_path, f"{dataset}{i}", dataset, 1 + i / 100, train={"beta1": i / 100})
        for dataset in ("play", "prose")
        for i in range(20)
    ]
    look = looks(table(read_runs(runs)))
    named = [group for group, shown in look.items() if shown.named]
    assert named == ["play0", "play1", "play2", "prose0", "prose1", "prose2"]
    assert len({look[group].colour for group in named}) == len(named)
    assert look["play9"].colour == GREY
    write(runs, tmp_path / "report")
    svg = (tmp_path / "report/loss_tokens.svg").read_text()
    assert ">play0</text>" in svg
    assert ">play9</text>" not in svg


@pytest.mark.slow
def test_five_hundred_runs_take_seconds_and_a_page_that_loads(tmp_path):
    runs = [
        make_run(tmp_path, f"s.model-{i}.seed-{seed}", train={"seed": seed, "beta1": i / 1000})
        for i in range(100)
        for seed in range(5)
    ]
    start = time.monotonic()
    write(runs, tmp_path / "report")
    assert time.monotonic() - start < 120, "a bound on the order of growth, not on speed"
    assert (tmp_path / "report/index.html").stat().st_size < 8e6
    page = Page((tmp_path / "report/index.html").read_text())
    assert sum("data-filter" in attributes for _, attributes in page.tags) == 1
    assert len(pd.read_csv(tmp_path / "report/runs.csv")) == 500


def test_every_loss_chart_can_be_chosen_on_the_page(report):
    page = Page((report / "index.html").read_text())
    choices = [a["id"] for tag, a in page.tags if tag == "input" and a.get("name") == "over"]
    assert choices == [f"over-{name}" for name in LOSS_OVER]


def test_a_colour_does_not_depend_on_the_order_of_runs(sizes):
    forth, back = (looks(table(read_runs(runs))) for runs in (sizes, sizes[::-1]))
    assert forth == back


def test_a_run_that_left_nothing_to_draw_takes_no_colour(tmp_path):
    failed = [Run(f"a{i}", status="failed", note="no", group=f"a{i}") for i in range(20)]
    look = looks(table([*failed, *read_runs([make_run(tmp_path, "z")])]))
    assert [group for group, shown in look.items() if shown.named] == ["z"]


def test_a_group_of_which_a_seed_diverged_says_so(tmp_path):
    runs = [
        make_run(tmp_path, f"s.seed-{seed}", train={"seed": seed}, diverges_at=step)
        for seed, step in [(1, math.inf), (2, math.inf), (3, 250)]
    ]
    write(runs, tmp_path / "report")
    assert ">s (2 of 3 seeds)</text>" in (tmp_path / "report/loss_tokens.svg").read_text()
    assert "| s | play | 2 of 3 |" in (tmp_path / "report/report.md").read_text()


def test_the_best_run_is_one_that_did_not_diverge(tmp_path):
    runs = [make_run(tmp_path, "good", val_loss=0.7), make_run(tmp_path, "bad", diverges_at=300)]
    write(runs, tmp_path / "report")
    assert "bits per byte, good" in (tmp_path / "report/report.md").read_text()


def test_long_names_leave_room_for_the_charts(tmp_path):
    names = [
        f"a_sweep_over_many.learning_rate-0.{i}01.weight_decay-0.05.batch_size-16" for i in (1, 2)
    ]
    runs = [
        make_run(tmp_path, name, bench=True, model={"n_layer": i}, train={"beta1": i / 10})
        for i, name in enumerate(names, 1)
    ]
    write(runs, tmp_path / "report")
    for chart in ("loss_tokens", "speed", "position"):
        svg = (tmp_path / f"report/{chart}.svg").read_text()
        axes = re.findall(r'id="patch_2">\s*<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+)', svg)
        left, right = map(float, axes[0])
        assert right - left > 80, chart  # points, of 518
    assert names[0] in (tmp_path / "report/index.html").read_text()


def test_runs_with_the_same_reason_are_told_together(tmp_path):
    failed = [Run(f"r{i}", status="failed", note="out of memory", group=f"r{i}") for i in range(9)]
    write_report(failed, tmp_path)
    assert "- r0, r1, r2, r3 and 5 more (failed): out of memory" in (
        (tmp_path / "report.md").read_text()
    )


def test_other_settings_of_sampling_are_shown_beside_one_another(tmp_path):
    runs = [make_run(tmp_path, name, sample=f"text of {name}") for name in ("cold", "hot", "again")]
    for run, top_k in zip(runs, (1, 2, 2), strict=True):
        said = {"parameters": {"sample": {"top_k": top_k}}}
        (run / "sample.manifest.json").write_text(json.dumps(said))
    write(runs, tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    assert "text of cold" in text
    assert "text of hot" in text
    assert "text of again" not in text


def test_report_md_keeps_its_tables_whole(tmp_path):
    run = make_run(tmp_path, "a")
    said = {"parameters": {"sample": {"start": "two\nlines | a bar"}}}
    (run / "sample.manifest.json").write_text(json.dumps(said))
    write([run, make_run(tmp_path, "b")], tmp_path / "report")
    assert "two\\nlines \\| a bar" in (tmp_path / "report/report.md").read_text()


@pytest.mark.parametrize("step", [100, 150])
def test_a_cross_ends_the_curve_of_a_run_that_diverged(tmp_path, step):
    """Also where it diverged before its first evaluation."""
    found = []
    for name, when in (("good", math.inf), ("bad", step)):
        write([make_run(tmp_path, name, diverges_at=when)], tmp_path / f"of {name}")
        svg = (tmp_path / f"of {name}/loss_tokens.svg").read_text()
        found.append(len(re.findall(r"M -3.5 3.5 \nL 3.5 -3.5", svg)))
    assert found == [0, 1]


def test_runs_of_one_seed_are_not_told_as_seeds(tmp_path):
    runs = [make_run(tmp_path, name) for name in ("s.cold", "s.hot")]
    write(runs, tmp_path / "report")
    assert "seeds)" not in (tmp_path / "report/loss_tokens.svg").read_text()
