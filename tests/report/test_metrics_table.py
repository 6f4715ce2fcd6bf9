"""metrics.jsonl is read quickly, and as carefully as line by line."""

import json

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.artifacts.records.metrics import MEASURES, read_metrics
from nanogpt.errors import UserError
from nanogpt.report.metrics_table import metrics_table, read_table


def outcome(read, path):
    """Return what a function returns, or its error's message."""
    try:
        return read(path)
    except UserError as error:
        return str(error)


values = st.one_of(
    st.floats(), st.integers(-3, 2**70), st.none(), st.booleans(), st.sampled_from(["1", [], {}])
)
counts = st.one_of(st.integers(0, 10**9), st.integers(0, 10**9), values)
lines = st.fixed_dictionaries(
    {"step": counts, "tokens": counts},
    optional={name: st.floats() for name in MEASURES} | {"seconds": values, "other": values},
)


@settings(deadline=None, max_examples=300)
@given(st.lists(lines, min_size=1, max_size=4))
def test_lines_are_read_as_one_by_one(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in found))
    found, expected = outcome(read_table, path), outcome(read_metrics, path)
    if isinstance(expected, str):
        assert found == expected
        return
    pd.testing.assert_frame_equal(found.table, metrics_table(expected), check_exact=True)
    assert found.diverged == any(line.diverged() for line in expected)
