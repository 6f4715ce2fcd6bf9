"""Colours and marks: runs that differ only in their seed look the same in every chart."""

from dataclasses import dataclass

import pandas as pd

from nanogpt.report.run import natural_order

# Okabe and Ito's colours, which the colour-blind tell apart, without yellow and black, which vanish
# on white and on black. The shape of the mark tells two groups of one colour apart.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
MARKS = [("o", "●"), ("s", "■")]
MOST_NAMED = len(COLOURS) * len(MARKS)
GREY = "#8c8c8c"


@dataclass(frozen=True)
class Look:
    """How a group of runs is shown; `mark` is matplotlib's name, `character` the page's."""

    colour: str
    mark: str
    character: str
    named: bool = True


def choose_looks(rows: pd.DataFrame) -> dict[str, Look]:
    """The look of each group; of more than MOST_NAMED, the best of each dataset have a colour.

    Colours go by name, so that a group has the same one in every report of the same runs. The
    others are grey, and so is what no chart shows. rows: compare.table of the runs.
    """
    drawn = rows[rows["steps"].notna() | rows["val_loss_nats_per_token"].notna()]
    named = sorted(set(drawn["group"]), key=natural_order)
    if len(named) > MOST_NAMED:
        best = drawn.sort_values("val_loss_nats_per_token", kind="stable")
        by_rank = best.drop_duplicates("group").groupby("dataset", sort=False).cumcount()
        ranked = best.loc[by_rank.sort_values(kind="stable").index, "group"]
        named = sorted(ranked[: len(COLOURS)], key=natural_order)
    looks = {group: Look(GREY, "o", "·", named=False) for group in rows["group"]}
    for place, group in enumerate(named):
        mark, character = MARKS[place // len(COLOURS)]
        looks[group] = Look(COLOURS[place % len(COLOURS)], mark, character)
    return looks
