"""Line charts with one panel per dataset and a label at the end of each curve."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

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

LABEL_POINTS = 13  # distance between the baselines of two labels


@dataclass(frozen=True)
class Curve:
    """A line in the panel of its dataset. label: written at its end, if not empty.

    group: sets its look; None for a reference line such as an entropy. cross: mark its end with a
    cross.
    """

    dataset: str
    group: str | None
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    label: str = ""
    width: float = 1.8
    alpha: float = 1.0
    dashes: tuple[float, ...] | None = None
    cross: bool = False


def draw_curves(
    name: str,
    curves: Sequence[Curve],
    looks: Mapping[str, Look],
    *,
    xlabel: str,
    ylabel: str,
    log_x: bool = True,
    log_y: bool = False,
    marked: bool = False,
    largest: Mapping[str, float] | None = None,
) -> str:
    """Draw curves as SVG, one panel per dataset, with labels at their ends.

    marked: mark each point. largest: the largest y to show, by dataset.
    """
    panels: dict[str, list[Curve]] = {}
    for curve in curves:
        panels.setdefault(curve.dataset, []).append(curve)
    if not panels:
        return draw_nothing(name, "nothing has been measured yet")
    x = np.concatenate([curve.x for curve in curves])
    heights = [
        max(2.5, 0.7 + sum(bool(c.label) for c in panel) * LABEL_POINTS / 72)
        for panel in panels.values()
    ]
    with chart_style(name):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.5), layout="constrained")
        all_axes = figure.subplots(
            len(panels), squeeze=False, sharex=True, height_ratios=heights
        ).ravel()
        for axes, (dataset, panel) in zip(all_axes, panels.items(), strict=True):
            axes.set_title(shorten(dataset))
            axes.set_ylabel(ylabel)
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
            top = (largest or {}).get(dataset, math.inf)
            _draw_panel(axes, panel, looks, marked=marked, log_y=log_y, top=top)
        all_axes[-1].set_xlabel(xlabel)
        if log_x:
            make_logarithmic(all_axes[-1], "x", x)
        for axes, panel in zip(all_axes, panels.values(), strict=True):
            _label_ends(axes, panel, looks)
        return to_svg(figure)


def _draw_panel(
    axes: Axes,
    curves: Sequence[Curve],
    looks: Mapping[str, Look],
    *,
    marked: bool,
    log_y: bool,
    top: float,
) -> None:
    y = np.concatenate([curve.y for curve in curves])
    y = y[np.isfinite(y)]
    if not len(y):
        return
    low, high = y.min(), min(y.max(), max(top, y.min()))
    if log_y and low > 0:
        make_logarithmic(axes, "y", np.array([low, high]), "{:g}".format)
        axes.set_ylim(low / 1.03, high * 1.03)
    else:
        margin = 0.05 * (high - low) or 0.05
        axes.set_ylim(low - margin, high + margin)
    for curve in curves:
        look = _look_of(curve, looks)
        axes.plot(
            curve.x,
            curve.y,
            color=look.color,
            lw=curve.width,
            alpha=curve.alpha * (1.0 if look.is_named else 0.5),
            ls=(0, curve.dashes) if curve.dashes else "-",
            marker=look.mark if marked and curve.group else "",
            ms=4,
            zorder=2 if look.is_named else 1,
        )
        end = _last_finite(curve)
        if end and curve.group and not marked and (curve.label or curve.cross):
            mark = "x" if curve.cross else look.mark
            axes.plot(*end, color=look.color, marker=mark, ms=7 if curve.cross else 4)


def _look_of(curve: Curve, looks: Mapping[str, Look]) -> Look:
    return looks[curve.group] if curve.group else Look(INK, "", "")


def _label_ends(axes: Axes, curves: Sequence[Curve], looks: Mapping[str, Look]) -> None:
    """Write the curves' labels next to the panel, each as close to its curve's end as it fits."""
    labelled = [(curve, end) for curve in curves if curve.label and (end := _last_finite(curve))]
    if not labelled:
        return
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # lays out the figure, which sets the heights of the axes
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = np.clip(to_axes.transform([end for _, end in labelled]), 0, 1)
    gap = LABEL_POINTS / 72 * figure.dpi / axes.get_window_extent().height
    heights = _spread(list(ends[:, 1]), gap, 0.0, 1.0)
    for (curve, _), end, height in zip(labelled, ends, heights, strict=True):
        line = {"arrowstyle": "-", "color": _look_of(curve, looks).color, "lw": 0.6}
        axes.annotate(
            curve.label,
            end,
            (1.03, height),
            xycoords="axes fraction",
            va="center",
            size=9,
            arrowprops={**line, "relpos": (0, 0.5)},
        )


def _last_finite(curve: Curve) -> tuple[float, float] | None:
    good = np.flatnonzero(np.isfinite(curve.x) & np.isfinite(curve.y))
    return (float(curve.x[good[-1]]), float(curve.y[good[-1]])) if len(good) else None


def _spread(heights: list[float], gap: float, low: float, high: float) -> list[float]:
    """Move heights as little as possible (least squares) to be `gap` apart, from low to high.

    Uses pool adjacent violators: heights minus their rank times the gap must not decrease.
    """
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    pools: list[list[float]] = []
    for height in np.array(heights)[order] - steps:
        pools.append([height])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    pooled = [np.mean(pool) for pool in pools for _ in pool]
    spread = np.empty(len(heights))
    spread[order] = np.clip(pooled, low, high - gap * (len(heights) - 1)) + steps
    return list(spread)
