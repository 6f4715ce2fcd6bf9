"""The report page is self-contained and shows the runs' results, for one run or five hundred."""

import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

import nanogpt
from nanogpt.errors import UserError
from nanogpt.project import Project
from nanogpt.report.charts import CHARTS
from nanogpt.report.content import SMALLEST_FILTERED
from nanogpt.report.loss_charts import LOSS_OVER
from nanogpt.report.page import write_report
from nanogpt.report.run import Run
from nanogpt.report.runs import find_runs, read_runs
from tests.made_runs import make_run


def write(directories, destination):
    return write_report(read_runs(directories), destination)


class Page(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_table_has_every_column_of_the_dictionary(report):
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


def test_ids_on_the_page_are_unique(report):
    page = Page((report / "index.html").read_text())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    # Nothing refers to matplotlib's own ids, such as axes_1.
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


def test_seeds_are_shown_with_mean_and_interval(sizes_report):
    for name in ("report.md", "index.html"):
        # Two seeds one hundredth apart: 0.005 * 12.706.
        assert "± 0.0635" in (sizes_report / name).read_text()


def test_the_same_runs_give_the_same_bytes(runs, report, tmp_path):
    write(runs, tmp_path / "again")
    names = {path.name for path in report.iterdir()}
    charts = {f"{chart}.svg" for chart in CHARTS}
    assert names == {"index.html", "report.md", "runs.csv", "columns.csv", *charts}
    for name in names:
        assert (report / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_report_works_with_one_run(tmp_path):
    summary = write([make_run(tmp_path, "alone", val_loss=0.5)], tmp_path)
    assert summary == "1 run; at best 0.880 bits per byte on play"
    assert "0.5000" in (tmp_path / "report.md").read_text()
    assert "No chart: no two runs" in (tmp_path / "scaling.svg").read_text()


@pytest.mark.parametrize("step", [0, 50, 300])
def test_a_diverged_run_is_marked(tmp_path, step):
    runs = [make_run(tmp_path, "good"), make_run(tmp_path, "bad", diverges_at=step)]
    write(runs, tmp_path)
    assert "| bad (diverged) |" in (tmp_path / "report.md").read_text()
    assert "(diverged)</span>" in (tmp_path / "index.html").read_text()
    assert list(pd.read_csv(tmp_path / "runs.csv")["diverged"]) == [False, True]


def test_a_report_works_with_only_failed_runs(tmp_path):
    run = Run("mine", status="failed", note="out of memory; lower batch_size", group="mine")
    write_report([run], tmp_path)
    for name in ("report.md", "index.html"):
        text = (tmp_path / name).read_text()
        assert "(failed)" in text
        assert "out of memory; lower batch_size" in text
        assert "nan" not in text


def test_a_run_without_an_evaluation_is_marked(tmp_path):
    (make_run(tmp_path, "early") / "eval.json").unlink()
    make_run(tmp_path, "whole", model={"n_layer": 1})
    write_report(find_runs(tmp_path / "results", Project(tmp_path)), tmp_path)
    assert "| early (not evaluated) |" in (tmp_path / "report.md").read_text()
    assert ">early (not evaluated)</text>" in (tmp_path / "loss_tokens.svg").read_text()


def test_a_report_on_no_runs_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"report\.runs"):
        write_report([], tmp_path)


def test_a_missing_template_is_named_in_one_line(tmp_path):
    """Run a copy of the package without its templates."""
    shutil.copytree(
        Path(nanogpt.__file__).parent,
        tmp_path / "nanogpt",
        ignore=shutil.ignore_patterns("templates", "__pycache__"),
    )
    code = (
        "from pathlib import Path\n"
        "from nanogpt.report.page import write_report\n"
        "from nanogpt.report.run import Run\n"
        "write_report([Run('mine')], Path('report'))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    templates = tmp_path / "nanogpt/report/templates"
    message = f"{templates}: `report.html` is missing from this installation; reinstall nanogpt"
    assert found.stderr.splitlines()[-1] == f"nanogpt.errors.UserError: {message}"
    assert not (tmp_path / "report").exists()


def test_only_the_first_rows_are_shown_at_first(tmp_path, monkeypatch):
    monkeypatch.setattr("nanogpt.report.page.MOST_ROWS", 7)
    runs = [
        Run(f"r{i}", status="failed", note="", group=f"r{i}") for i in range(SMALLEST_FILTERED + 1)
    ]
    write_report(runs, tmp_path)
    page = Page((tmp_path / "index.html").read_text())
    rows = [attributes for tag, attributes in page.tags if "data-seeds" in attributes]
    assert ["hidden" in row for row in rows] == [False] * 7 + [True] * (len(runs) - 7)
    (chosen,) = [a for tag, a in page.tags if tag == "option" and "selected" in a]
    assert chosen["value"] == "7"
    assert "the first 7<" in (tmp_path / "index.html").read_text()


def test_runs_with_the_same_note_share_a_line(tmp_path):
    failed = [Run(f"r{i}", status="failed", note="out of memory", group=f"r{i}") for i in range(9)]
    write_report(failed, tmp_path)
    assert "- r0, r1, r2, r3 and 5 more (failed): out of memory" in (
        (tmp_path / "report.md").read_text()
    )


@pytest.mark.slow
def test_five_hundred_runs_take_seconds_and_give_a_page_that_loads(tmp_path):
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
