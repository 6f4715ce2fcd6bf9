"""What all charts share: SVG in the colour of the text around it, so that it suits any theme."""

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

INK = "#010203"  # stands for currentColor, which matplotlib doesn't know
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
    """A name as a chart has room for it."""
    most = LONGEST_LABEL
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def make_logarithmic(
    axes: Axes,
    which: str,
    values: NDArray[np.float64],
    form: Callable[[float], str] = three_digits,
) -> None:
    """Make the `x` or `y` axis logarithmic, with a few round numbers on it."""
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
    """A line of text instead of a chart. why: there isn't one."""
    with chart_style(name):
        figure = Figure(figsize=(WIDTH, 0.6))
        figure.text(0.01, 0.5, f"No chart: {why}.", va="center")
        return to_svg(figure)


@contextmanager
def chart_style(name: str) -> Iterator[None]:
    """Draw from matplotlib's own defaults: the reader's matplotlibrc would change the bytes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Each chart has its own salt: a page holds several, whose ids must differ.
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": f"nanogpt {name}"})
        yield


def to_svg(figure: Figure) -> str:
    """A figure as SVG, in the colour of the text around it, without the time of day."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return buffer.getvalue().replace(INK, "currentColor")


def stand_alone(svg: str) -> str:
    """A chart as a file of its own, black on white or white on black as the reader's theme has it.

    Canvas and CanvasText are the theme's colours. Both are set, as a page that shows the file as a
    picture may have no dark theme. A program that doesn't know them draws in black.
    """
    colours = "color-scheme: light dark; color: CanvasText; background: Canvas"
    return svg.replace("<defs>", f"<style>:root {{ {colours} }}</style><defs>", 1)
