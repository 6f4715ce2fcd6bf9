"""Power laws agree with the formulas of linear regression."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.report.power_laws import fit_power_law, size_families
from nanogpt.report.runs import read_runs
from tests.made_runs import make_run


@given(
    st.floats(0.1, 100),
    st.floats(-2, -0.01),
    st.lists(st.floats(1e2, 1e12), min_size=3, max_size=9, unique=True),
)
def test_a_power_law_is_recovered(coefficient, exponent, x):
    x = np.array(x)
    if np.ptp(np.log(x)) < 0.5 or len(np.unique(np.log(x))) < 3:
        return
    law = fit_power_law(x, coefficient * x**exponent)
    assert law.exponent == pytest.approx(exponent, abs=1e-6)
    assert law(x) == pytest.approx(coefficient * x**exponent, rel=1e-4)


def test_the_interval_of_an_exponent_agrees_with_linear_regression():
    x, y = np.exp([1.0, 2.0, 3.0, 4.0]), np.exp([2.0, 1.4, 1.1, 0.3])
    law = fit_power_law(x, y)
    assert law.exponent == pytest.approx(-0.54)
    # The squared residuals -0.01, -0.07, 0.17 and -0.09 sum to 0.042. t with 2 degrees is 4.303.
    half_width = 4.303 * math.sqrt(0.042 / 2 / 5)
    assert law.half_width == pytest.approx(half_width)


def test_more_seeds_of_a_size_do_not_narrow_the_interval():
    x, y = np.exp([1.0, 2.0, 3.0, 4.0]), np.exp([2.0, 1.4, 1.1, 0.3])
    one, many = fit_power_law(x, y), fit_power_law(np.repeat(x, 5), np.repeat(y, 5))
    assert many.exponent == pytest.approx(one.exponent)
    assert many.half_width == pytest.approx(one.half_width)


def test_three_sizes_have_no_interval():
    assert fit_power_law(np.array([1.0, 2.0, 4.0]), np.array([4.0, 2.1, 1.0])).half_width is None


@pytest.mark.parametrize("x", [[1.0, 2.0], [1.0, 1.0, 2.0, 2.0], [1.0, 2.0, math.nan]])
def test_fewer_than_three_sizes_give_no_law(x):
    assert fit_power_law(np.array(x), np.ones(len(x))) is None


def test_a_family_is_one_recipe_in_several_sizes(tmp_path):
    runs = [make_run(tmp_path, f"s{n}", model={"n_layer": n}, train={"seed": n}) for n in (1, 2, 3)]
    runs.append(make_run(tmp_path, "dropped", model={"n_layer": 4, "dropout": 0.5}))
    runs.append(make_run(tmp_path, "other", "shakespeare", model={"n_layer": 5}))
    (family,) = size_families(read_runs(runs))
    assert [run.name for run in family] == ["s1", "s2", "s3"]
