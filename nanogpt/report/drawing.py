"""Shared drawing code: charts are SVG in the color of the surrounding text, to fit any theme."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from nanogpt.report.formats import three_digits

INK = "#010203"  # a placeholder for currentColor, which matplotlib doesn't know
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}
WIDTH = 7.2  # inches
LONGEST_LABEL = 36  # characters


def shorten(name: str) -> str:
    """Cut the middle out of a name that's too long for a chart."""
    most = LONGEST_LABEL
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def make_logarithmic(
    axes: Axes,
    which: str,
    values: NDArray[np.float64],
    form: Callable[[float], str] = three_digits,
) -> None:
    """Make the `x` or `y` axis logarithmic, with a few round numbers as ticks."""
    good = values[np.isfinite(values) & (values > 0)]
    if not len(good):
        return
    axes.set(**{f"{which}scale": "log"})
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    span = good.max() / good.min()
    subs = (1, 1.5, 2, 3, 5, 7) if span < 8 else (1, 2, 5) if span < 1000 else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))


def draw_nothing(name: str, why: str) -> str:
    """Draw a line of text instead of a chart. why: the reason why there's no chart."""
    with chart_style(name):
        figure = Figure(figsize=(WIDTH, 0.6))
        figure.text(0.01, 0.5, f"No chart: {why}.", va="center")
        return to_svg(figure)


@contextmanager
def chart_style(name: str) -> Iterator[None]:
    """Draw with matplotlib's defaults, because a user's matplotlibrc would change the bytes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Each chart has its own salt, because ids must be unique on a page with several charts.
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": f"nanogpt {name}"})
        yield


def to_svg(figure: Figure) -> str:
    """Write a figure as SVG in the color of the surrounding text, without a timestamp."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return buffer.getvalue().replace(INK, "currentColor")


def stand_alone(svg: str) -> str:
    """Make a chart readable as a separate file, in the reader's light or dark theme.

    Canvas and CanvasText are the theme's background and text colors. Both are set because a page
    that embeds the file as an image may have no dark theme. Programs that don't support them draw
    in black.
    """
    colors = "color-scheme: light dark; color: CanvasText; background: Canvas"
    return svg.replace("<defs>", f"<style>:root {{ {colors} }}</style><defs>", 1)
