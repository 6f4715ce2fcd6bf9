"""Quantities are formatted as in matplotlib."""

from hypothesis import given
from hypothesis import strategies as st
from matplotlib.ticker import EngFormatter

from nanogpt.report.formats import three_digits

eng = EngFormatter(sep="\N{NO-BREAK SPACE}")


@given(st.floats(1e-30, 1e33) | st.floats(1e-3, 1e6) | st.integers(0, 10**20))
def test_quantities_have_three_digits_and_a_prefix(value):
    assert three_digits(value) == eng(float(f"{value:.3g}"))


def test_a_quantity_is_rounded_before_its_prefix_is_chosen():
    assert three_digits(999_600) == "1\N{NO-BREAK SPACE}M"
