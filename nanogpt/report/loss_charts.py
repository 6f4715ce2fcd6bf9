"""Charts of the loss while training, over tokens, steps, seconds and FLOPs."""

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

# A run that blew up would press the others flat; a uniform guess has ln(vocab_size).
WORST = 1.1

# What a loss can be drawn over: file name -> (axis, a column of metrics, or FLOPs of it).
LOSS_OVER: dict[str, tuple[str, Callable[[Run], "pd.Series[float]"]]] = {
    "tokens": ("tokens seen", lambda run: run.metrics["tokens"]),
    "steps": ("optimizer steps", lambda run: run.metrics["step"]),
    "seconds": ("seconds of training", lambda run: run.metrics["seconds"]),
    "flops": ("FLOPs of training", lambda run: run.metrics["tokens"] * run.flops_per_token),
}


def draw_loss_charts(runs: Sequence[Run], look: Mapping[str, Look]) -> dict[str, str]:
    """Loss in training over each of LOSS_OVER, by its name: a panel for each dataset."""
    sizes = {run.dataset: run.vocab_size for run in runs if run.vocab_size}
    largest = {dataset: WORST * math.log(size) for dataset, size in sizes.items()}
    return {
        name: draw_curves(
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
            label = shorten(run.name if len(seeds) > 1 else group) + status_suffix(run)
            curves.append(_curve(run.dataset, group, line, "y", label=label, cross=cross))
        if not alone:
            mean = pd.concat(whole).groupby("step").mean()
            of = f"{len(whole)}" if len(whole) == len(seeds) else f"{len(whole)} of {len(seeds)}"
            label = f"{shorten(group)} ({of} seeds)"
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


def _curve(dataset: str, group: str, frame: pd.DataFrame, column: str, **style: Any) -> Curve:
    x, y = frame["x"].to_numpy(dtype=float), frame[column].to_numpy(dtype=float)
    return Curve(dataset, group, x, y, **style)


def status_suffix(run: Run) -> str:
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
