"""Student's t distribution, for 95 % intervals from a few values."""

# The 97.5 % quantile of Student's t for 1 to 30 degrees of freedom, and of the normal distribution.
_T = """12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262 2.228 2.201 2.179 2.160 2.145 2.131
    2.120 2.110 2.101 2.093 2.086 2.080 2.074 2.069 2.064 2.060 2.056 2.052 2.048 2.045 2.042"""

T_975 = [float(value) for value in _T.split()]

NORMAL_975 = 1.95996


def t_975(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t; beyond the table, to within 0.0001."""
    if degrees <= len(T_975):
        return T_975[degrees - 1]
    return NORMAL_975 + 2.3722 / degrees + 2.8225 / degrees**2
