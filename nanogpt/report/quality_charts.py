"""Charts of evaluations in depth: loss over the position in the window, and calibration."""

from collections.abc import Mapping, Sequence

import numpy as np

from nanogpt.artifacts.metrics import number
from nanogpt.report.curves import Curve, draw_curves
from nanogpt.report.drawing import shorten
from nanogpt.report.groups import grouped, one_of_each_seed
from nanogpt.report.looks import Look
from nanogpt.report.run import Run


def draw_position_chart(runs: Sequence[Run], look: Mapping[str, Look]) -> str:
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
        label = shorten(group) if look[group].named else ""
        curves.append(Curve(members[0].dataset, group, x, y, label))
    return draw_curves(
        "position",
        curves,
        look,
        xlabel="tokens read before the predicted one",
        ylabel="loss (nats per token)",
        marked=True,
    )


def draw_calibration_chart(runs: Sequence[Run], look: Mapping[str, Look]) -> str:
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
        label = shorten(group) if look[group].named else ""
        curves.append(Curve(members[0].dataset, group, x, y, label))
    ends = np.array([0.0, 1.0])
    for dataset in dict.fromkeys(curve.dataset for curve in curves):
        curves.append(Curve(dataset, None, ends, ends, "as it should be", 1.0, 1.0, (1.0, 2.0)))
    return draw_curves(
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
