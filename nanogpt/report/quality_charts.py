"""Charts of evaluations in depth: loss by position in the window, and calibration."""

from collections.abc import Mapping, Sequence

import numpy as np

from nanogpt.artifacts.records.evaluations import Evaluation
from nanogpt.report.curves import Curve, draw_curves
from nanogpt.report.drawing import shorten
from nanogpt.report.groups import grouped, one_of_each_seed
from nanogpt.report.looks import Look
from nanogpt.report.run import Run


def draw_position_chart(runs: Sequence[Run], looks: Mapping[str, Look]) -> str:
    """Draw the loss on the validation split by position in the window."""
    curves = []
    for group, members in grouped(runs).items():
        finished = _evaluations(one_of_each_seed(members))
        seeds = [evaluation.by_position for evaluation in finished if evaluation.by_position]
        if not seeds:
            continue
        # Positions 4 to 7 are drawn at 1 + their mean, because zero has no logarithm.
        x = np.array([1 + (bucket.first + bucket.last) / 2 for bucket in seeds[0]])
        y = np.array([[bucket.loss for bucket in buckets] for buckets in seeds]).mean(axis=0)
        label = shorten(group) if looks[group].is_named else ""
        curves.append(Curve(members[0].dataset, group, x, y, label))
    return draw_curves(
        "position",
        curves,
        looks,
        xlabel="tokens of context",
        ylabel="loss (nats per token)",
        marked=True,
    )


def draw_calibration_chart(runs: Sequence[Run], looks: Mapping[str, Look]) -> str:
    """Draw how often the likeliest token was right, over the probability it was given."""
    curves = []
    for group, members in grouped(runs).items():
        finished = _evaluations(members)
        seeds = [evaluation.calibration.bins for evaluation in finished if evaluation.calibration]
        if not seeds:
            continue
        # The mean over seeds, with each bin weighted by its tokens.
        table = np.array(
            [[[one.confidence, one.accuracy, one.n_tokens] for one in bins] for bins in seeds]
        )
        weight = np.nan_to_num(table[:, :, 2])
        seen = weight.sum(axis=0) > 0
        mean = np.nan_to_num(table[:, :, :2]) * weight[:, :, None]
        x, y = (mean.sum(axis=0)[seen] / weight.sum(axis=0)[seen, None]).T
        label = shorten(group) if looks[group].is_named else ""
        curves.append(Curve(members[0].dataset, group, x, y, label))
    ends = np.array([0.0, 1.0])
    for dataset in dict.fromkeys(curve.dataset for curve in curves):
        curves.append(Curve(dataset, None, ends, ends, "ideal", 1.0, 1.0, (1.0, 2.0)))
    return draw_curves(
        "calibration",
        curves,
        looks,
        xlabel="probability of the likeliest token",
        ylabel="how often it was right",
        log_x=False,
        marked=True,
    )


def _evaluations(runs: Sequence[Run]) -> list[Evaluation]:
    """Return the evaluations of finished runs."""
    return [run.evaluation for run in runs if run.status == "finished" and run.evaluation]
