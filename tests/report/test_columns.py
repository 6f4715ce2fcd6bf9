"""The dictionary of runs.csv is complete."""

import re

from nanogpt.report.columns import COLUMNS


def test_every_column_has_a_meaning_and_every_quantity_a_unit():
    quantities = re.compile(r"loss|bits|percent|seconds|second|bytes|flops|tokens|steps|parameters")
    for column in COLUMNS:
        assert column.meaning
        assert column.unit or not quantities.search(column.name), column.name
