"""The chart of the loss over parameters and compute, with power laws."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nanogpt.report.compare import settings_that_differ
from nanogpt.report.drawing import (
    INK,
    WIDTH,
    chart_style,
    draw_nothing,
    make_logarithmic,
    shorten,
    to_svg,
)
from nanogpt.report.looks import Look
from nanogpt.report.power_laws import SIZE_SETTINGS, fit_power_law, size_families
from nanogpt.report.run import Run

MOST_FAMILIES = 6  # rows of the chart


def draw_scaling_chart(runs: Sequence[Run], looks: Mapping[str, Look]) -> str:
    """Draw the loss over parameters and compute, with a power law from three sizes up.

    There's one row per family of runs that differ only in size and seed. If the source's entropy is
    known, the chart shows the loss above it, the part that more size and compute can remove. Of
    more than MOST_FAMILIES, it shows the best of each dataset.
    """
    families = _best_families(size_families(runs))
    if not families:
        return draw_nothing("scaling", "no two runs differ only in size and seed")
    with chart_style("scaling"):
        figure = Figure(figsize=(WIDTH, 3.1 * len(families)), layout="constrained")
        grid = figure.subplots(len(families), 2, squeeze=False, sharey="row")
        for axes, family in zip(grid, families, strict=True):
            _draw_family(axes, family, _differences(family, families), looks)
        return to_svg(figure)


def _best_families(families: Sequence[Sequence[Run]]) -> list[Sequence[Run]]:
    """Choose families to draw. Losses of different datasets or tokens can't be compared."""
    places: Counter[str] = Counter()
    ranked = []
    for family in sorted(families, key=lambda family: min(run.val_loss for run in family)):
        ranked.append((places[family[0].dataset], family))
        places[family[0].dataset] += 1
    ranked.sort(key=lambda pair: pair[0])
    kept = {id(family) for _, family in ranked[:MOST_FAMILIES]}
    return [family for family in families if id(family) in kept]


def _draw_family(
    panels: Sequence[Axes], family: Sequence[Run], differences: str, looks: Mapping[str, Look]
) -> None:
    """Draw a family's losses over parameters in one panel and over compute in the other."""
    source = family[0].source_loss
    has_source = math.isfinite(source)
    over = f"loss above the entropy of {source:.3f}" if has_source else "loss"
    panels[0].set_title(f"{shorten(family[0].dataset)}{differences}: {over}")
    panels[0].set_ylabel("nats per token")
    y = np.array([run.val_loss for run in family]) - (source if has_source else 0.0)
    size = np.array([run.n_parameters for run in family], dtype=float)
    compute = np.array([run.training_flops for run in family])
    for axes, x, name, symbol in (
        (panels[0], size, "parameters", "N"),
        (panels[1], compute, "FLOPs of training", "C"),
    ):
        _draw_power_law(axes, x, y, symbol)
        for run, run_x, run_y in zip(family, x, y, strict=True):
            look = looks[run.group]
            axes.plot(run_x, run_y, color=look.color, marker=look.mark, ms=6, ls="", alpha=0.85)
        axes.set_xlabel(name)
        make_logarithmic(axes, "x", x)
        make_logarithmic(axes, "y", y, "{:g}".format)


def _differences(family: Sequence[Run], families: Sequence[Sequence[Run]]) -> str:
    """Return the settings, with values, that distinguish a family from others of its dataset."""
    firsts = [other[0] for other in families if other[0].dataset == family[0].dataset]
    names = [
        name
        for name in settings_that_differ(firsts)[0]
        if name not in SIZE_SETTINGS | {"train.seed"} and name.startswith(("model.", "train."))
    ]
    values = [f", {name.partition('.')[2]} {family[0].settings.get(name)}" for name in names]
    return "".join(values)


def _draw_power_law(
    axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], symbol: str
) -> None:
    law = fit_power_law(x, y)
    if law is None:
        return
    ends = np.array([x.min() / 1.3, x.max() * 1.3])
    axes.plot(ends, law(ends), color=INK, lw=1.0, ls=(0, (3, 2)), alpha=0.8)
    interval = "" if law.half_width is None else rf" \pm {law.half_width:.2f}"
    axes.text(
        0.97,
        0.95,
        rf"$\propto {symbol}^{{{law.exponent:.2f}{interval}}}$",
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=12,
    )
