"""Charts of runs as SVG, in the colour of the text around them, so that they suit any theme.

Runs that differ in their seed only are one group, with one colour on the page and in every chart.
What is drawn comes from results.py and compare.py; where it stands on a page is left to report.py.
"""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from nanogpt.artifacts.metrics import number
from nanogpt.report.compare import (
    SIZE_SETTINGS,
    fit_power_law,
    grouped,
    one_of_each_seed,
    settings_that_differ,
    size_families,
    three_digits,
)
from nanogpt.report.runs import Run, by_number

# Okabe and Ito's colours, which the colour-blind tell apart, without yellow and black, which vanish
# on white and on black. Past the sixth group the shape of the mark tells those of one colour apart.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
MARKS = [("o", "●"), ("s", "■")]
MOST_NAMED = len(COLOURS) * len(MARKS)
GREY = "#8c8c8c"

INK = "#010203"  # stands for currentColor, which matplotlib does not know
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
LABEL_POINTS = 13  # from one label's baseline to the next
LONGEST_LABEL = 36  # characters
MOST_BENCHES = 24  # rows of the chart of speed
# A run that blew up would press the others flat; a uniform guess has ln(vocab_size).
WORST = 1.1

# What a loss can be drawn over: file name -> (axis, a column of metrics, or FLOPs of it).
LOSS_OVER: dict[str, tuple[str, Callable[[Run], "pd.Series[float]"]]] = {
    "tokens": ("tokens seen", lambda run: run.metrics["tokens"]),
    "steps": ("optimizer steps", lambda run: run.metrics["step"]),
    "seconds": ("seconds of training", lambda run: run.metrics["seconds"]),
    "flops": ("FLOPs of training", lambda run: run.metrics["tokens"] * run.flops_per_token),
}


@dataclass(frozen=True)
class Look:
    """How a group of runs is shown; `mark` is matplotlib's name, `character` the page's."""

    colour: str
    mark: str
    character: str
    named: bool = True


@dataclass(frozen=True)
class Curve:
    """A line of a chart, in the panel of its dataset. label: what stands at its end, if anything.

    group: whose look it has; none for a reference, such as an entropy. cross: marks its end.
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


def looks(rows: pd.DataFrame) -> dict[str, Look]:
    """The look of each group; of more than MOST_NAMED, the best of each dataset, the others grey.

    By name, so that a group has one colour in every report of the same runs. What was neither
    evaluated nor has metrics is drawn nowhere, and grey. rows: compare.table of the runs.
    """
    drawn = rows[rows["steps"].notna() | rows["val_loss_nats_per_token"].notna()]
    named = sorted(set(drawn["group"]), key=by_number)
    if len(named) > MOST_NAMED:
        best = drawn.sort_values("val_loss_nats_per_token", kind="stable")
        by_rank = best.drop_duplicates("group").groupby("dataset", sort=False).cumcount()
        ranked = best.loc[by_rank.sort_values(kind="stable").index, "group"]
        named = sorted(ranked[: len(COLOURS)], key=by_number)
    found = {group: Look(GREY, "o", "·", named=False) for group in rows["group"]}
    for place, group in enumerate(named):
        mark, character = MARKS[place // len(COLOURS)]
        found[group] = Look(COLOURS[place % len(COLOURS)], mark, character)
    return found


def loss_plots(runs: Sequence[Run], look: Mapping[str, Look]) -> dict[str, str]:
    """Loss in training over each of LOSS_OVER, by its name: a panel for each dataset."""
    sizes = {run.dataset: run.vocab_size for run in runs if run.vocab_size}
    largest = {dataset: WORST * math.log(size) for dataset, size in sizes.items()}
    return {
        name: _lines(
            f"loss_{name}",
            _loss_curves(runs, look, over),
            look,
            xlabel=axis,
            ylabel="loss (nats per token)",
            log_y=True,
            largest=largest,
        )
        for name, (axis, over) in LOSS_OVER.items()
    }


def _loss_curves(
    runs: Sequence[Run], look: Mapping[str, Look], over: Callable[[Run], "pd.Series[float]"]
) -> list[Curve]:
    """Each run's validation loss, the mean of its group where there are seeds, and references.

    The mean is over the seeds that finished. A cross ends the curve of a run that diverged.
    """
    curves: list[Curve] = []
    few = len(look) <= MOST_NAMED
    for group, members in grouped(runs).items():
        seeds = one_of_each_seed(members)
        lines = {run.name: line for run in seeds if (line := _line(run, over)) is not None}
        drawn = [run for run in seeds if run.name in lines]
        whole = [lines[run.name] for run in drawn if _is_whole(run)]
        alone = len(seeds) == 1 or len(drawn) == 1 or not whole
        for run in drawn:
            line, cross = lines[run.name], run.status == "diverged"
            if not alone:
                thin = {"width": 0.8, "alpha": 0.45, "cross": cross}
                curves.append(_curve(run.dataset, group, line, "y", **thin))
                continue
            if few:
                train = {"width": 0.9, "dashes": (3.0, 2.0)}
                curves.append(_curve(run.dataset, group, line, "train_loss", **train))
            label = _shown(run.name if len(seeds) > 1 else group) + _told(run)
            curves.append(_curve(run.dataset, group, line, "y", label=label, cross=cross))
        if not alone:
            mean = pd.concat(whole).groupby("step").mean()
            of = f"{len(whole)}" if len(whole) == len(seeds) else f"{len(whole)} of {len(seeds)}"
            label = f"{_shown(group)} ({of} seeds)"
            curves.append(_curve(members[0].dataset, group, mean, "y", label=label))
    curves = [curve if _is_named(curve, look) else replace(curve, label="") for curve in curves]
    return curves + _references(runs, curves)


def _line(run: Run, over: Callable[[Run], "pd.Series[float]"]) -> pd.DataFrame | None:
    """The points of a run's curve: x and y, with step and train_loss; None if there are none.

    y is the validation loss; of a run that has none yet, or diverged before it had, a batch's.
    """
    if not len(run.metrics):
        return None
    frame = run.metrics.assign(x=over(run), y=run.metrics["val_loss"])
    # Step 0 has no place on a logarithmic axis, and says nothing about a run.
    frame = frame[(frame["step"] > 0) & (frame["x"] > 0)]
    if frame["y"].isna().all():
        frame = frame.assign(y=frame["loss"])
    frame = frame[frame["y"].notna()][["step", "x", "y", "train_loss"]]
    return frame if len(frame) else None


def _is_named(curve: Curve, look: Mapping[str, Look]) -> bool:
    return curve.group is None or look[curve.group].named


def _is_whole(run: Run) -> bool:
    return run.status in ("finished", "not evaluated")


def _shown(name: str) -> str:
    """A name as a chart has room for it."""
    most = LONGEST_LABEL
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def _curve(dataset: str, group: str, frame: pd.DataFrame, column: str, **style: Any) -> Curve:
    x, y = frame["x"].to_numpy(dtype=float), frame[column].to_numpy(dtype=float)
    return Curve(dataset, group, x, y, **style)


def _told(run: Run) -> str:
    return "" if run.status == "finished" else f" ({run.status})"


def _references(runs: Sequence[Run], curves: Sequence[Curve]) -> list[Curve]:
    """What a loss is held against: the n-grams', and the entropy of the source."""
    found = []
    for dataset in dict.fromkeys(curve.dataset for curve in curves):
        x = np.concatenate([curve.x for curve in curves if curve.dataset == dataset])
        ends = np.array([x.min(), x.max()])
        of_dataset = [run for run in runs if run.dataset == dataset]
        known = {}
        for run in of_dataset:
            if math.isfinite(run.source_loss):
                known["entropy"] = run.source_loss
            if run.ngram_best:
                known[f"{run.ngram_best['order']}-grams"] = run.ngram_best["loss"]
        for name, loss in known.items():
            flat = np.full(2, loss)
            found.append(Curve(dataset, None, ends, flat, name, width=1.0, dashes=(1.0, 2.0)))
    return found


def position_plot(runs: Sequence[Run], look: Mapping[str, Look]) -> str:
    """Loss over the position in the window, of whole validation splits."""
    curves = []
    for group, members in grouped(runs).items():
        having = [run for run in one_of_each_seed(members) if _has(run, "by_position")]
        buckets = [run.evaluation["by_position"] for run in having]
        if not buckets:
            continue
        # A bucket of positions 4 to 7 stands at 1 + their mean, as there is no logarithm of zero.
        x = np.array([1 + (bucket["first"] + bucket["last"]) / 2 for bucket in buckets[0]])
        y = np.array([[number(bucket["loss"]) for bucket in one] for one in buckets]).mean(axis=0)
        label = _shown(group) if look[group].named else ""
        curves.append(Curve(members[0].dataset, group, x, y, label))
    return _lines(
        "position",
        curves,
        look,
        xlabel="tokens read before the predicted one",
        ylabel="loss (nats per token)",
        marked=True,
    )


def calibration_plot(runs: Sequence[Run], look: Mapping[str, Look]) -> str:
    """How often the likeliest token was right, over the probability that it was given."""
    curves = []
    for group, members in grouped(runs).items():
        bins = [
            run.evaluation["calibration"]["bins"] for run in members if _has(run, "calibration")
        ]
        if not bins:
            continue
        # Over the seeds, each bin weighted by its tokens.
        columns = ("confidence", "accuracy", "n_tokens")
        table = np.array([[[number(b[c]) for c in columns] for b in one] for one in bins])
        weight = np.nan_to_num(table[:, :, 2])
        seen = weight.sum(axis=0) > 0
        mean = np.nan_to_num(table[:, :, :2]) * weight[:, :, None]
        x, y = (mean.sum(axis=0)[seen] / weight.sum(axis=0)[seen, None]).T
        label = _shown(group) if look[group].named else ""
        curves.append(Curve(members[0].dataset, group, x, y, label))
    ends = np.array([0.0, 1.0])
    for dataset in dict.fromkeys(curve.dataset for curve in curves):
        curves.append(Curve(dataset, None, ends, ends, "as it should be", 1.0, 1.0, (1.0, 2.0)))
    return _lines(
        "calibration",
        curves,
        look,
        xlabel="probability given to the likeliest token",
        ylabel="how often it was right",
        log_x=False,
        marked=True,
    )


def _has(run: Run, part: str) -> bool:
    return run.status == "finished" and bool(run.evaluation.get(part))


def scaling_plot(runs: Sequence[Run], look: Mapping[str, Look]) -> str:
    """Loss over parameters and over compute, with a power law from three sizes up.

    A row for each family of runs that differ in size and seed only. Where the entropy of the source
    is known, the loss above it is drawn, which is what more size and compute can take away.
    """
    families = size_families(runs)
    if not families:
        return _nothing("scaling", "no two sizes of one recipe, all else equal but the seed")
    with _style("scaling"):
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
                _logarithmic(one, "x", x)
                _logarithmic(one, "y", y, "{:g}".format)
        return _svg(figure)


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


def speed_plot(runs: Sequence[Run], look: Mapping[str, Look]) -> str:
    """What bench measured, a row a model by size: training, share of the machine, sampling."""
    benches: dict[str, Run] = {}
    for run in runs:
        # The one that was measured, if it is among them, and not one that shares its benchmark.
        if run.bench and (run.bench["run"] == run.name or run.bench["run"] not in benches):
            benches[str(run.bench["run"])] = run
    chosen = sorted(benches.values(), key=lambda run: int(run.bench["model"]["n_parameters"]))
    if not chosen:
        return _nothing("speed", "no benchmark was made")
    if len(chosen) > MOST_BENCHES:  # spread over the sizes
        places = np.linspace(0, len(chosen) - 1, MOST_BENCHES).round().astype(int)
        chosen = [chosen[place] for place in places]
    columns: list[tuple[str, Callable[[Any], float], Callable[[float], str]]] = [
        ("training (tokens/s)", lambda bench: bench["tokens_per_second"], three_digits),
        ("MFU (%)", lambda bench: 100 * bench["mfu"], "{:.1f}".format),
        ("sampling (tokens/s)", lambda b: b["generation"]["tokens_per_second"], three_digits),
    ]
    with _style("speed"):
        figure = Figure(figsize=(WIDTH, 0.6 + 0.3 * len(chosen)), layout="constrained")
        heights = np.arange(len(chosen))
        names = [
            f"{_shown(run.group)}, {three_digits(run.bench['model']['n_parameters'])}"
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
        return _svg(figure)


# --- How all charts are drawn ---------------------------------------------------------------


def _lines(
    name: str,
    curves: Sequence[Curve],
    look: Mapping[str, Look],
    *,
    xlabel: str,
    ylabel: str,
    log_x: bool = True,
    log_y: bool = False,
    marked: bool = False,
    largest: Mapping[str, float] | None = None,
) -> str:
    """Curves in a panel for each dataset, with labels at their ends.

    largest: of y, by dataset: what is above it does not stretch the panel.
    """
    panels: dict[str, list[Curve]] = {}
    for curve in curves:
        panels.setdefault(curve.dataset, []).append(curve)
    if not panels:
        return _nothing(name, "nothing was measured yet")
    x = np.concatenate([curve.x for curve in curves])
    heights = [
        max(2.5, 0.7 + sum(bool(c.label) for c in panel) * LABEL_POINTS / 72)
        for panel in panels.values()
    ]
    with _style(name):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.5), layout="constrained")
        all_axes = figure.subplots(
            len(panels), squeeze=False, sharex=True, height_ratios=heights
        ).ravel()
        for axes, (dataset, panel) in zip(all_axes, panels.items(), strict=True):
            axes.set_title(dataset)
            axes.set_ylabel(ylabel)
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
            top = (largest or {}).get(dataset, math.inf)
            _draw_panel(axes, panel, look, marked=marked, log_y=log_y, top=top)
        all_axes[-1].set_xlabel(xlabel)
        if log_x:
            _logarithmic(all_axes[-1], "x", x)
        for axes, panel in zip(all_axes, panels.values(), strict=True):
            _label_ends(axes, panel, look)
        return _svg(figure)


def _draw_panel(
    axes: Axes,
    curves: Sequence[Curve],
    look: Mapping[str, Look],
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
    if log_y:
        _logarithmic(axes, "y", np.array([low, high]), "{:g}".format)
        axes.set_ylim(low / 1.03, high * 1.03)
    else:
        margin = 0.05 * (high - low) or 0.05
        axes.set_ylim(low - margin, high + margin)
    for curve in curves:
        shown = _look_of(curve, look)
        axes.plot(
            curve.x,
            curve.y,
            color=shown.colour,
            lw=curve.width,
            alpha=curve.alpha * (1.0 if shown.named else 0.5),
            ls=(0, curve.dashes) if curve.dashes else "-",
            marker=shown.mark if marked and curve.group else "",
            ms=4,
            zorder=2 if shown.named else 1,
        )
        end = _last_finite(curve)
        if end and curve.group and not marked and (curve.label or curve.cross):
            mark = "x" if curve.cross else shown.mark
            axes.plot(*end, color=shown.colour, marker=mark, ms=7 if curve.cross else 4)


def _look_of(curve: Curve, look: Mapping[str, Look]) -> Look:
    return look[curve.group] if curve.group else Look(INK, "", "")


def _label_ends(axes: Axes, curves: Sequence[Curve], look: Mapping[str, Look]) -> None:
    """Write the labels of curves beside the panel, each as near to its end as there is room."""
    labelled = [(curve, end) for curve in curves if curve.label and (end := _last_finite(curve))]
    if not labelled:
        return
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # the layout gives the axes their heights
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = np.clip(to_axes.transform([end for _, end in labelled]), 0, 1)
    gap = LABEL_POINTS / 72 * figure.dpi / axes.get_window_extent().height
    heights = _spread(list(ends[:, 1]), gap, 0.0, 1.0)
    for (curve, _), end, height in zip(labelled, ends, heights, strict=True):
        line = {"arrowstyle": "-", "color": _look_of(curve, look).colour, "lw": 0.6}
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


def _logarithmic(
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


def _nothing(name: str, why: str) -> str:
    """A chart that says why there is none."""
    with _style(name):
        figure = Figure(figsize=(WIDTH, 0.6))
        figure.text(0.01, 0.5, f"No chart: {why}.", va="center")
        return _svg(figure)


@contextmanager
def _style(name: str) -> Iterator[None]:
    """Draw from matplotlib's own defaults: the reader's matplotlibrc would change the bytes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Of its own for each chart, as several stand in one page and must not share names.
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": f"nanogpt {name}"})
        yield


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return buffer.getvalue().replace(INK, "currentColor")


def _spread(heights: list[float], gap: float, low: float, high: float) -> list[float]:
    """The nearest heights (least squares) that lie at least `gap` apart, within low and high.

    Pool adjacent violators: heights less their rank times the gap must not decrease.
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
