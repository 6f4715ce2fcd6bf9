"""The chart of benchmarks: speed of training, share of the machine's rate, speed of sampling."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nanogpt.report.drawing import WIDTH, chart_style, draw_nothing, shorten, to_svg
from nanogpt.report.formats import three_digits
from nanogpt.report.looks import Look
from nanogpt.report.run import Run

MOST_BENCHES = 24  # rows of the chart of speed


def draw_speed_chart(runs: Sequence[Run], look: Mapping[str, Look]) -> str:
    """What bench measured, a row a model by size: training, share of the machine, sampling."""
    benches: dict[str, Run] = {}
    for run in runs:
        # The one that was measured, if it is among them, and not one that shares its benchmark.
        if run.bench and (run.bench["run"] == run.name or run.bench["run"] not in benches):
            benches[str(run.bench["run"])] = run
    chosen = sorted(benches.values(), key=lambda run: int(run.bench["model"]["n_parameters"]))
    if not chosen:
        return draw_nothing("speed", "no benchmark was made")
    if len(chosen) > MOST_BENCHES:  # spread over the sizes
        places = np.linspace(0, len(chosen) - 1, MOST_BENCHES).round().astype(int)
        chosen = [chosen[place] for place in places]
    columns: list[tuple[str, Callable[[Any], float], Callable[[float], str]]] = [
        ("training (tokens/s)", lambda bench: bench["tokens_per_second"], three_digits),
        ("MFU (%)", lambda bench: 100 * bench["mfu"], "{:.1f}".format),
        ("sampling (tokens/s)", lambda b: b["generation"]["tokens_per_second"], three_digits),
    ]
    with chart_style("speed"):
        figure = Figure(figsize=(WIDTH, 0.6 + 0.3 * len(chosen)), layout="constrained")
        heights = np.arange(len(chosen))
        names = [
            f"{shorten(run.group)}, {three_digits(run.bench['model']['n_parameters'])}"
            for run in chosen
        ]
        for axes, (title, value, form) in zip(
            figure.subplots(1, len(columns), sharey=True), columns, strict=True
        ):
            values = [value(run.bench) for run in chosen]
            for height, x, run in zip(heights, values, chosen, strict=True):
                shown = look[run.group]
                axes.plot([0, x], [height, height], color=shown.colour, lw=1.5)
                axes.plot(x, height, color=shown.colour, marker=shown.mark, ms=6)
                axes.annotate(
                    form(x), (x, height), (7, 0), textcoords="offset points", va="center", size=9
                )
            axes.set_title(title, fontweight="normal")
            axes.set_yticks(heights, names)
            axes.set_ylim(len(chosen) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            # The numbers stand beside the marks.
            axes.set_xlim(0, 1.4 * max(values))
            axes.xaxis.set_visible(False)
            axes.spines["bottom"].set_visible(False)
        return to_svg(figure)
