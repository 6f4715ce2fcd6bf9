"""Tables and plots over finished runs, and TensorBoard's view of one run.

Reads what training, evaluation and sampling left in results/<run>/ and measures nothing itself. The
page's looks are in templates/report.html; which runs are compared is the caller's choice.
"""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from nanogpt.config import UserError
from nanogpt.files import atomic_write, read_json, write_text

TAGS = {
    "loss": "loss/batch",
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "tokens_per_second": "tokens_per_second",
}

# Okabe and Ito's colours, which the colour-blind tell apart, without yellow and black, which vanish
# on white and on black. Past the sixth run the shape of the mark tells runs of one colour apart.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
MARKS = [("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼")]

INK = "#010203"  # stands for currentColor, which matplotlib does not know
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "nanogpt",
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}
LABEL_POINTS = 13  # from one label's baseline to the next
SAMPLE_CHARACTERS = 600
SAMPLE_HEADER = 4000  # characters that the settings above the samples may take

_si = EngFormatter(sep="\N{NO-BREAK SPACE}")


def _three_digits(value: float) -> str:
    return _si(float(f"{value:.3g}"))


# Column of runs.csv -> heading on the page, and how the page rounds it.
COLUMNS: dict[str, tuple[str, Any]] = {
    "run": ("run", str),
    "dataset": ("dataset", str),
    "parameters": ("parameters", _three_digits),
    "tokens_seen": ("tokens seen", _three_digits),
    "steps": ("steps", "{:,}".format),
    "val_loss_nats_per_token": ("val loss (nats/token)", "{:.4f}".format),
    "val_perplexity_per_token": ("perplexity (per token)", "{:.2f}".format),
    "val_bits_per_byte": ("bits per byte", "{:.4f}".format),
    "train_loss_nats_per_token": ("train loss (nats/token)", "{:.4f}".format),
    "excess_over_source_percent": ("above the source's entropy (%)", "{:.1f}".format),
    "training_seconds": ("training time (s)", "{:,.0f}".format),
    "tokens_per_second": ("speed (tokens/s)", "{:,.0f}".format),
}


def read_metrics(path: Path) -> pd.DataFrame:
    """The metrics.jsonl of a run, one row a line; NaN where a line has null or lacks the key.

    Columns: step, tokens (seen so far), loss, train_loss, val_loss (nats per token), learning_rate,
    grad_norm, tokens_per_second, seconds (of training so far). A last line that was cut off is
    left out. Errors: UserError for a file that is absent, empty or no metrics.
    """
    frame = pd.DataFrame(_read_lines(path)).reindex(columns=["step", "tokens", *TAGS, "seconds"])
    return frame.astype(float).astype({"step": int, "tokens": int})


def write_report(runs: Sequence[Path], directory: Path) -> None:
    """Compare runs: index.html (self-contained), report.md, runs.csv and loss.svg in `directory`.

    Each run is a directory with metrics.jsonl, eval.json and, if there are any, samples.txt; it is
    called by the directory's name. The same files give the same bytes.
    Errors: UserError for no runs, or a file of a run that is absent or damaged.
    """
    if not runs:
        raise UserError("report.runs: no runs to report on; name at least one")
    curves = [read_metrics(run / "metrics.jsonl") for run in runs]
    rows = [_summarize(run, metrics) for run, metrics in zip(runs, curves, strict=True)]
    svg = _plot_losses(rows, curves)

    # The page and report.md show the same cells; the page adds marks and samples.
    headings = [heading for heading, _ in COLUMNS.values()]
    shown = []
    for place, (run, row) in enumerate(zip(runs, rows, strict=True)):
        cells = [
            "\N{EN DASH}" if pd.isna(row[name]) else form(row[name])
            for name, (_, form) in COLUMNS.items()
        ]
        shown.append(
            {
                "cells": cells,
                "diverged": row["diverged"],
                "colour": _colour(place),
                "mark": _mark(place)[1],
                "sample": _read_sample(run / "samples.txt"),
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    # Without the XML declaration and document type, which HTML does not allow in its middle.
    page = environment.get_template("report.html").render(
        headings=headings, runs=shown, plot=svg[svg.index("<svg") :]
    )
    write_text(directory / "index.html", page)
    write_text(directory / "report.md", _markdown(headings, shown))
    table = pd.DataFrame(rows, columns=[*COLUMNS, "diverged"])
    write_text(directory / "runs.csv", table.to_csv(index=False, lineterminator="\n"))
    # CanvasText is black or white as the reader's colour scheme has it; a program that does not
    # know it draws black. On the page the SVG has the colour of the text around it.
    style = "<style>:root { color-scheme: light dark; color: CanvasText }</style>"
    write_text(directory / "loss.svg", svg.replace("<defs>", style + "<defs>", 1))


def write_events(metrics: Path, directory: Path) -> None:
    """Write a run's metrics.jsonl as a TensorBoard event file, in place of those in `directory`.

    The wall time of an event is the metrics' `seconds`, so relative time is the training's own; a
    null becomes NaN, which TensorBoard marks. Values are float32. The same metrics give the same
    bytes. Errors: UserError as in `read_metrics`.
    """
    lines = _read_lines(metrics)
    path = directory / "events.out.tfevents.metrics"
    # Records rather than an EventFileWriter: that one puts the time of day into the file and its
    # name, and imports TensorFlow where there is one.
    with atomic_write(path) as file:
        writer = RecordWriter(file)
        writer.write(Event(file_version="brain.Event:2").SerializeToString())
        for line in lines:
            values = [
                Summary.Value(tag=tag, simple_value=_number(line[key]))
                for key, tag in TAGS.items()
                if key in line
            ]
            event = Event(
                wall_time=line.get("seconds"), step=line["step"], summary=Summary(value=values)
            )
            writer.write(event.SerializeToString())
    for other in directory.glob("*tfevents*"):
        if other != path:
            other.unlink()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; train the run first") from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            if number == len(texts):
                break  # cut off while it was written
            line = None
        if not _is_of_metrics(line):
            raise UserError(f"{path}: line {number} is no line of metrics; train the run again")
        lines.append(line)
    if not lines:
        raise UserError(f"{path}: no metrics in it; train the run first")
    return lines


def _is_of_metrics(line: Any) -> bool:
    return (
        isinstance(line, dict)
        and all(type(line.get(name)) is int for name in ("step", "tokens"))
        and all(isinstance(line.get(name), int | float | None) for name in (*TAGS, "seconds"))
    )


def _summarize(run: Path, metrics: pd.DataFrame) -> dict[str, Any]:
    """A run's row of runs.csv, and its vocab_size.

    Speed is the median over the lines of metrics.jsonl, which a slow first step does not move.
    """
    path = run / "eval.json"
    try:
        result = read_json(path)
        source = result.get("source") or {}
        row = {
            "run": run.name,
            "dataset": result["dataset"],
            "parameters": result["model"]["n_parameters"],
            "tokens_seen": metrics["tokens"].iloc[-1],
            "steps": metrics["step"].iloc[-1],
            "val_loss_nats_per_token": _number(result["val"]["loss"]),
            "val_perplexity_per_token": _number(result["val"]["perplexity"]),
            "val_bits_per_byte": _number(result["val"]["bits_per_byte"]),
            "train_loss_nats_per_token": _number(result["train"]["loss"]),
            "excess_over_source_percent": _number(source.get("excess_percent")),
            "training_seconds": metrics["seconds"].iloc[-1],
            "tokens_per_second": metrics["tokens_per_second"].median(),
            "vocab_size": result["model"]["vocab_size"],
        }
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; evaluate the run first") from None
    except KeyError as error:
        raise UserError(
            f"{path}: no evaluation: `{error.args[0]}` is missing; evaluate the run again"
        ) from None
    except (AttributeError, TypeError, ValueError, RecursionError):
        raise UserError(f"{path}: damaged; evaluate the run again") from None
    # The weights that were kept may be older than the divergence, and eval.json sound. In metrics
    # a null is told from an absent key only before they become a table.
    losses = [row["val_loss_nats_per_token"], row["train_loss_nats_per_token"]]
    for line in _read_lines(run / "metrics.jsonl"):
        losses += [_number(line.get(key, 0)) for key in ("loss", "train_loss", "val_loss")]
    row["diverged"] = not np.isfinite(losses).all()
    return row


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _mark(place: int) -> tuple[str, str]:
    """The mark of the run at a place of the list: matplotlib's name of it, and a character."""
    return MARKS[place // len(COLOURS) % len(MARKS)]


def _read_sample(path: Path) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(SAMPLE_HEADER + SAMPLE_CHARACTERS)
    except FileNotFoundError:
        return None
    if text.startswith("# "):  # the settings, up to the first empty line
        text = text.partition("\n\n")[2]
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS] + "…"


def _markdown(headings: list[str], shown: list[dict[str, Any]]) -> str:
    lines = ["# Report", "", "| " + " | ".join(headings) + " |"]
    lines.append("|---|---|" + "--:|" * (len(headings) - 2))
    for run in shown:
        name, *cells = run["cells"]
        name += " (diverged)" if run["diverged"] else ""
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines += [
        "",
        "Losses are of whole splits. Compare them within a dataset only; bits per byte compare",
        "across tokenizers. Unrounded figures: [runs.csv](runs.csv).",
        "",
        "![Loss against tokens seen](loss.svg)",
        "",
    ]
    return "\n".join(lines)


def _plot_losses(rows: list[dict[str, Any]], curves: list[pd.DataFrame]) -> str:
    """Loss in nats per token against tokens seen, as SVG: a panel for each dataset."""
    panels: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        panels.setdefault(row["dataset"], []).append(place)
    # Step 0 has no place on a logarithmic axis, and its loss says nothing about a run.
    curves = [metrics[metrics["tokens"] > 0] for metrics in curves]
    tokens = pd.concat([curve["tokens"][curve["val_loss"].notna()] for curve in curves])
    heights = [max(2.4, 0.6 + len(places) * LABEL_POINTS / 72) for places in panels.values()]

    # From matplotlib's own defaults: a matplotlibrc of the reader's would change the bytes.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(6.4, sum(heights) + 1), layout="constrained")
        figure.suptitle("Loss: validation solid, training dashed", x=0.01, ha="left", fontsize=10)
        all_axes = figure.subplots(
            len(panels), squeeze=False, sharex=True, height_ratios=heights
        ).ravel()
        labels = [
            _draw_panel(axes, dataset, [(p, rows[p], curves[p]) for p in places])
            for axes, (dataset, places) in zip(all_axes, panels.items(), strict=True)
        ]
        axes = all_axes[-1]
        axes.set_xlabel("tokens seen")
        if len(tokens) and tokens.max() >= 10 * tokens.min():
            axes.set_xscale("log")
            subs = (1, 2, 5) if tokens.max() < 1000 * tokens.min() else (1,)
            axes.xaxis.set_major_locator(LogLocator(subs=subs))
            axes.xaxis.set_minor_formatter("")
        axes.xaxis.set_major_formatter(_si)

        figure.draw_without_rendering()  # the layout gives the axes their heights
        for axes, group in zip(all_axes, labels, strict=True):
            low, high = axes.get_ylim()
            gap = LABEL_POINTS / 72 * figure.dpi * (high - low) / axes.get_window_extent().height
            spread = _spread([label.xy[1] for label in group], gap, low, high)
            for label, y in zip(group, spread, strict=True):
                label.set_y(y)
        buffer = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return buffer.getvalue().replace(INK, "currentColor")


def _draw_panel(
    axes: Any, dataset: str, runs: list[tuple[int, dict[str, Any], pd.DataFrame]]
) -> list[Any]:
    """Draw the curves of a dataset's runs (place, row, metrics); the labels, still unspread."""
    axes.set_title(dataset, loc="left", fontsize=10, fontweight="bold")
    axes.set_ylabel("nats per token")
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    ends = []
    for place, row, metrics in runs:
        colour = _colour(place)
        train = metrics[metrics["train_loss"].notna()]
        val = metrics[metrics["val_loss"].notna()]
        axes.plot(train["tokens"], train["train_loss"], color=colour, lw=0.9, ls=(0, (3, 2)))
        axes.plot(val["tokens"], val["val_loss"], color=colour, lw=1.8)
        if len(val):
            end = val["tokens"].iloc[-1], val["val_loss"].iloc[-1]
            axes.plot(*end, color=colour, marker=_mark(place)[0], markersize=4)
            ends.append((row["run"] + " (diverged)" * row["diverged"], end, colour))
    pairs = [metrics[["train_loss", "val_loss"]].to_numpy() for _, _, metrics in runs]
    losses = np.concatenate(pairs)
    losses = losses[np.isfinite(losses)]
    if not len(losses):
        return []
    # A run that blew up would press the others flat; a uniform guess has ln(vocab_size).
    worst = 1.5 * math.log(max(row["vocab_size"] for _, row, _ in runs))
    low, high = losses.min(), min(losses.max(), max(worst, losses.min()))
    margin = 0.05 * (high - low) or 0.05
    axes.set_ylim(low - margin, high + margin)
    return [
        axes.annotate(
            name,
            (x, min(y, high)),
            (1.03, min(y, high)),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "relpos": (0, 0.5)},
        )
        for name, (x, y), colour in ends
    ]


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
