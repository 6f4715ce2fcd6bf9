"""Student's t agrees with published tables."""

import pytest

from nanogpt.report.intervals import t_975


@pytest.mark.parametrize(("degrees", "t"), [(1, 12.706), (30, 2.042), (31, 2.0395), (60, 2.0003)])
def test_students_t_agrees_with_published_tables(degrees, t):
    assert t_975(degrees) == pytest.approx(t, abs=1e-4)
