"""Charts of the loss during training, over tokens, steps, seconds and FLOPs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from nanogpt.report.curves import Curve, draw_curves
from nanogpt.report.drawing import shorten
from nanogpt.report.groups import grouped, one_of_each_seed
from nanogpt.report.looks import MOST_NAMED, Look
from nanogpt.report.run import Run

# The top of a panel, relative to the loss of a uniform guess, ln(vocab_size). Without it, a run
# that diverged would squash the other curves.
WORST = 1.1

# The x axes to choose from: file name -> (axis label, values for each line of a run's metrics).
LOSS_OVER: dict[str, tuple[str, Callable[[Run], "pd.Series[float]"]]] = {
    "tokens": ("tokens seen", lambda run: run.metrics["tokens"]),
    "steps": ("optimizer steps", lambda run: run.metrics["step"]),
    "seconds": ("seconds of training", lambda run: run.metrics["seconds"]),
    "flops": ("FLOPs of training", lambda run: run.metrics["tokens"] * run.flops_per_token),
}


def draw_loss_charts(runs: Sequence[Run], looks: Mapping[str, Look]) -> dict[str, str]:
    """Draw the loss during training over each of LOSS_OVER, one panel per dataset."""
    sizes = {run.dataset: run.vocab_size for run in runs if run.vocab_size}
    largest = {dataset: WORST * math.log(size) for dataset, size in sizes.items()}
    return {
        name: draw_curves(
            f"loss_{name}",
            _loss_curves(runs, looks, over),
            looks,
            xlabel=axis,
            ylabel="loss (nats per token)",
            log_y=True,
            largest=largest,
        )
        for name, (axis, over) in LOSS_OVER.items()
    }


def _loss_curves(
    runs: Sequence[Run], looks: Mapping[str, Look], over: Callable[[Run], "pd.Series[float]"]
) -> list[Curve]:
    """Return the curves of each group, and reference lines. over: x for each line of metrics."""
    curves: list[Curve] = []
    for group, members in grouped(runs).items():
        drawn = _group_curves(group, members, over, with_train=len(looks) <= MOST_NAMED)
        curves += drawn if looks[group].is_named else [replace(curve, label="") for curve in drawn]
    return curves + _references(runs, curves)


def _group_curves(
    group: str,
    members: Sequence[Run],
    over: Callable[[Run], "pd.Series[float]"],
    *,
    with_train: bool,
) -> list[Curve]:
    """Return each run's validation loss, and the mean over the finished seeds if there are several.

    A cross ends the curve of a run that diverged. with_train: also return the training loss, for
    groups without several seeds.
    """
    curves: list[Curve] = []
    seeds = one_of_each_seed(members)
    points = {run.name: frame for run in seeds if (frame := _points(run, over)) is not None}
    drawn = [run for run in seeds if run.name in points]
    complete = [points[run.name] for run in drawn if run.status in ("finished", "not evaluated")]
    has_mean = len(seeds) > 1 and len(drawn) > 1 and len(complete) > 0
    for run in drawn:
        frame, cross = points[run.name], run.status == "diverged"
        if has_mean:
            thin = {"width": 0.8, "alpha": 0.45, "cross": cross}
            curves.append(_curve(run.dataset, group, frame, "y", **thin))
            continue
        if with_train:
            dashed = {"width": 0.9, "dashes": (3.0, 2.0)}
            curves.append(_curve(run.dataset, group, frame, "train_loss", **dashed))
        status = "" if run.status == "finished" else f" ({run.status})"
        label = shorten(run.name if len(seeds) > 1 else group) + status
        curves.append(_curve(run.dataset, group, frame, "y", label=label, cross=cross))
    if has_mean:
        mean = pd.concat(complete).groupby("step").mean()
        all_seeds = "" if len(complete) == len(seeds) else f" of {len(seeds)}"
        label = f"{shorten(group)} ({len(complete)}{all_seeds} seeds)"
        curves.append(_curve(members[0].dataset, group, mean, "y", label=label))
    return curves


def _points(run: Run, over: Callable[[Run], "pd.Series[float]"]) -> pd.DataFrame | None:
    """Return the points of a run's curve as columns step, x, y and train_loss; None without any.

    y is the validation loss, or the batch loss if the validation loss hasn't been measured yet.
    """
    if not len(run.metrics):
        return None
    frame = run.metrics.assign(x=over(run), y=run.metrics["val_loss"])
    # A logarithmic axis has no place for step 0, and the loss there says nothing about a run.
    frame = frame[(frame["step"] > 0) & (frame["x"] > 0)]
    if frame["y"].isna().all():
        frame = frame.assign(y=frame["loss"])
    frame = frame[frame["y"].notna()][["step", "x", "y", "train_loss"]]
    return frame if len(frame) else None


def _curve(dataset: str, group: str, frame: pd.DataFrame, column: str, **style: Any) -> Curve:
    x, y = frame["x"].to_numpy(dtype=float), frame[column].to_numpy(dtype=float)
    return Curve(dataset, group, x, y, **style)


def _references(runs: Sequence[Run], curves: Sequence[Curve]) -> list[Curve]:
    """Return reference lines: the best n-gram model's loss and the source's entropy."""
    references = []
    for dataset in dict.fromkeys(curve.dataset for curve in curves):
        x = np.concatenate([curve.x for curve in curves if curve.dataset == dataset])
        ends = np.array([x.min(), x.max()])
        losses = {}
        for run in runs:
            if run.dataset == dataset and math.isfinite(run.source_loss):
                losses["entropy"] = run.source_loss
            if run.dataset == dataset and run.ngram:
                losses[f"{run.ngram.best.order}-grams"] = run.ngram.best.loss
        for name, loss in losses.items():
            flat = np.full(2, loss)
            references.append(Curve(dataset, None, ends, flat, name, width=1.0, dashes=(1.0, 2.0)))
    return references
