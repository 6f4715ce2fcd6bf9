"""All charts of a report, by file name."""

from collections.abc import Mapping, Sequence

from nanogpt.report.looks import Look
from nanogpt.report.loss_charts import LOSS_OVER, draw_loss_charts
from nanogpt.report.quality_charts import draw_calibration_chart, draw_position_chart
from nanogpt.report.run import Run
from nanogpt.report.scaling_chart import draw_scaling_chart
from nanogpt.report.speed_chart import draw_speed_chart

# Chart names, in the report's order.
CHARTS = (*(f"loss_{name}" for name in LOSS_OVER), "scaling", "speed", "position", "calibration")


def draw_charts(runs: Sequence[Run], looks: Mapping[str, Look]) -> dict[str, str]:
    """Draw each of CHARTS as SVG. looks: by group of runs."""
    drawn = [run for run in runs if looks[run.group].is_drawn]
    charts = {f"loss_{name}": chart for name, chart in draw_loss_charts(drawn, looks).items()} | {
        "scaling": draw_scaling_chart(runs, looks),
        "speed": draw_speed_chart(runs, looks),
        "position": draw_position_chart(drawn, looks),
        "calibration": draw_calibration_chart(drawn, looks),
    }
    assert tuple(charts) == CHARTS
    return charts
