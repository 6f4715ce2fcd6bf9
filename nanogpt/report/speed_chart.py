"""The chart of benchmarks: training speed, MFU, sampling speed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from nanogpt.artifacts.records.benchmarks import Benchmark
from nanogpt.report.drawing import WIDTH, chart_style, draw_nothing, shorten, to_svg
from nanogpt.report.formats import three_digits
from nanogpt.report.looks import Look
from nanogpt.report.run import Run

MOST_BENCHES = 24  # rows of the chart

# The panels: title, value, number format.
PANELS: tuple[tuple[str, Callable[[Benchmark], float], Callable[[float], str]], ...] = (
    ("training (tokens/s)", lambda bench: bench.tokens_per_second, three_digits),
    ("MFU (%)", lambda bench: 100 * bench.mfu, "{:.1f}".format),
    ("sampling (tokens/s)", lambda bench: bench.generation.tokens_per_second, three_digits),
)


@dataclass(frozen=True)
class Row:
    """A row of the chart: a model with its benchmark and its group's look."""

    name: str
    bench: Benchmark
    look: Look


def draw_speed_chart(runs: Sequence[Run], looks: Mapping[str, Look]) -> str:
    """Draw the benchmarks, one row per model, sorted by size."""
    rows = _rows(runs, looks)
    if not rows:
        return draw_nothing("speed", "no run has a benchmark")
    with chart_style("speed"):
        figure = Figure(figsize=(WIDTH, 0.6 + 0.3 * len(rows)), layout="constrained")
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (title, value, form) in zip(panels, PANELS, strict=True):
            values = [value(row.bench) for row in rows]
            for height, (x, row) in enumerate(zip(values, rows, strict=True)):
                axes.plot([0, x], [height, height], color=row.look.color, lw=1.5)
                axes.plot(x, height, color=row.look.color, marker=row.look.mark, ms=6)
                axes.annotate(
                    form(x), (x, height), (7, 0), textcoords="offset points", va="center", size=9
                )
            axes.set_title(title, fontweight="normal")
            axes.set_yticks(range(len(rows)), [row.name for row in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            # The values are written next to the markers, so the x axis isn't needed.
            axes.set_xlim(0, 1.4 * max(values))
            axes.xaxis.set_visible(False)
            axes.spines["bottom"].set_visible(False)
        return to_svg(figure)


def _rows(runs: Sequence[Run], looks: Mapping[str, Look]) -> list[Row]:
    """Return a row per benchmark, by size; beyond MOST_BENCHES, a selection over all sizes."""
    benches: dict[str, tuple[Benchmark, Run]] = {}
    for run in runs:
        # Show the run that was measured if it's in the report, otherwise one with the same model.
        if run.bench and (run.bench.run == run.name or run.bench.run not in benches):
            benches[run.bench.run] = run.bench, run
    chosen = sorted(benches.values(), key=lambda found: found[0].model.n_parameters)
    if len(chosen) > MOST_BENCHES:
        places = np.linspace(0, len(chosen) - 1, MOST_BENCHES).round().astype(int)
        chosen = [chosen[place] for place in places]
    return [
        Row(
            f"{shorten(run.group)}, {three_digits(bench.model.n_parameters)}",
            bench,
            looks[run.group],
        )
        for bench, run in chosen
    ]
