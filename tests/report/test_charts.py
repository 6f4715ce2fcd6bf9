"""Charts don't depend on the user's settings, and a group looks the same in all of them."""

import re

import matplotlib
import numpy as np
import pytest

from nanogpt.report.charts import CHARTS
from nanogpt.report.curves import Curve, draw_curves
from nanogpt.report.page import write_report
from nanogpt.report.runs import read_runs
from tests.made_runs import make_run


def write(directories, destination):
    return write_report(read_runs(directories), destination)


def test_a_group_has_the_same_color_everywhere(sizes, sizes_report):
    page = (sizes_report / "index.html").read_text()
    of_run = dict(
        re.findall(r'data-value="(s\.[\w.-]+)"><span class="mark" style="color: (#\w{6})"', page)
    )
    assert len(of_run) == len(sizes)
    assert len(set(of_run.values())) == 3
    for name in ("small", "middle", "large"):
        assert of_run[f"s.model-{name}.seed-1"] == of_run[f"s.model-{name}.seed-2"]
    for chart in CHARTS:
        svg = (sizes_report / f"{chart}.svg").read_text()
        for color in set(of_run.values()):
            assert f"stroke: {color}" in svg, chart


def test_a_users_matplotlib_settings_are_ignored_and_kept(runs, report, tmp_path):
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 5}):
        write(runs, tmp_path / "again")
        assert matplotlib.rcParams["font.size"] == 20
    for chart in CHARTS:
        name = f"{chart}.svg"
        assert (report / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "losses", [[0.0, 0.0, 0.0], [1.5, 0.2, 0.0], [2.0, 2.0, 2.0], [np.nan] * 3]
)
def test_any_losses_are_drawn_without_a_warning(losses):
    """A text with a single letter has a loss of exactly 0."""
    curve = Curve("letter", None, np.array([1.0, 2.0, 3.0]), np.array(losses), label="run")
    for log_y in (False, True):
        svg = draw_curves("loss", [curve], {}, xlabel="tokens", ylabel="loss", log_y=log_y)
        assert "letter" in svg
