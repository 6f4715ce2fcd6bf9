"""The chart of the loss over parameters and over compute, with power laws."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nanogpt.report.compare import settings_that_differ
from nanogpt.report.drawing import INK, WIDTH, chart_style, draw_nothing, make_logarithmic, to_svg
from nanogpt.report.looks import Look
from nanogpt.report.power_laws import SIZE_SETTINGS, fit_power_law, size_families
from nanogpt.report.run import Run


def draw_scaling_chart(runs: Sequence[Run], look: Mapping[str, Look]) -> str:
    """Loss over parameters and over compute, with a power law from three sizes up.

    A row for each family of runs that differ in size and seed only. Where the entropy of the source
    is known, the loss above it is drawn, which is what more size and compute can take away.
    """
    families = size_families(runs)
    if not families:
        return draw_nothing("scaling", "no two sizes of one recipe, all else equal but the seed")
    with chart_style("scaling"):
        figure = Figure(figsize=(WIDTH, 3.1 * len(families)), layout="constrained")
        grid = figure.subplots(len(families), 2, squeeze=False, sharey="row")
        for axes, family, apart in zip(grid, families, _what_differs(families), strict=True):
            source = family[0].source_loss
            over = f"loss above the entropy, {source:.3f}" if source == source else "loss"
            axes[0].set_title(f"{family[0].dataset}{apart}: {over}")
            axes[0].set_ylabel("nats per token")
            y = np.array([run.evaluation["val"]["loss"] for run in family], dtype=float)
            y = y - (source if source == source else 0.0)
            size = np.array(
                [run.evaluation["model"]["n_parameters"] for run in family], dtype=float
            )
            tokens = np.array([run.metrics["tokens"].iloc[-1] for run in family], dtype=float)
            compute = tokens * np.array([run.flops_per_token for run in family])
            for one, x, name, symbol in (
                (axes[0], size, "parameters", "N"),
                (axes[1], compute, "FLOPs of training", "C"),
            ):
                _draw_power_law(one, x, y, symbol)
                for run, x_, y_ in zip(family, x, y, strict=True):
                    shown = look[run.group]
                    one.plot(x_, y_, color=shown.colour, marker=shown.mark, ms=6, ls="", alpha=0.85)
                one.set_xlabel(name)
                make_logarithmic(one, "x", x)
                make_logarithmic(one, "y", y, "{:g}".format)
        return to_svg(figure)


def _what_differs(families: Sequence[Sequence[Run]]) -> list[str]:
    """What tells each family from the others of its dataset."""
    told = []
    for family in families:
        same = [other[0] for other in families if other[0].dataset == family[0].dataset]
        settings = [
            name
            for name in settings_that_differ(same)[0]
            if name not in SIZE_SETTINGS | {"train.seed"} and name.startswith(("model.", "train."))
        ]
        values = [f", {name.partition('.')[2]} {family[0].settings.get(name)}" for name in settings]
        told.append("".join(values))
    return told


def _draw_power_law(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], name: str) -> None:
    law = fit_power_law(x, y)
    if law is None:
        return
    ends = np.array([x.min() / 1.3, x.max() * 1.3])
    axes.plot(ends, law(ends), color=INK, lw=1.0, ls=(0, (3, 2)), alpha=0.8)
    interval = "" if law.half_width is None else rf" \pm {law.half_width:.2f}"
    axes.text(
        0.97,
        0.95,
        rf"$\propto {name}^{{{law.exponent:.2f}{interval}}}$",
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=12,
    )
