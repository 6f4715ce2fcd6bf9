"""Colors and markers: runs that differ only in their seed look the same in every chart."""

from dataclasses import dataclass

import pandas as pd

from nanogpt.report.run import natural_order

# Okabe and Ito's palette, made for color-blind readers, without yellow and black, which are
# invisible on white and on black. Groups with the same color differ in the marker's shape.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
MARKS = [("o", "●"), ("s", "■")]
MOST_NAMED = len(COLORS) * len(MARKS)
MOST_DRAWN = 40  # groups in a chart; more would be hard to distinguish, and make the page slow
GREY = "#8c8c8c"


@dataclass(frozen=True)
class Look:
    """A group's color and marker. mark: for matplotlib. character: for the page.

    is_named: whether charts label the group. The others are grey. is_drawn: whether charts of
    curves show the group.
    """

    color: str
    mark: str
    character: str
    is_named: bool = True
    is_drawn: bool = True


def choose_looks(rows: pd.DataFrame) -> dict[str, Look]:
    """Choose the look of each group.

    With more than MOST_NAMED groups, only the best of each dataset get a color; the rest, and
    groups that no chart shows, are grey. With more than MOST_DRAWN, charts of curves show only the
    best of each dataset. Colors are assigned in the order of names, so a group keeps its color in
    every report on the same runs. rows: from `compare.table`.
    """
    measured = measured_rows(rows)
    colored = sorted(set(measured["group"]), key=natural_order)
    drawn = set(colored)
    if len(colored) > MOST_NAMED:
        best = measured.sort_values("val_loss_nats_per_token", kind="stable")
        by_rank = best.drop_duplicates("group").groupby("dataset", sort=False).cumcount()
        ranked = best.loc[by_rank.sort_values(kind="stable").index, "group"]
        colored = sorted(ranked[: len(COLORS)], key=natural_order)
        drawn = set(ranked[:MOST_DRAWN])
    looks = {
        group: Look(GREY, "o", "·", is_named=False, is_drawn=group in drawn)
        for group in rows["group"]
    }
    for place, group in enumerate(colored):
        mark, character = MARKS[place // len(COLORS)]
        looks[group] = Look(COLORS[place % len(COLORS)], mark, character)
    return looks


def measured_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs that have something to draw."""
    return rows[rows["steps"].notna() | rows["val_loss_nats_per_token"].notna()]
