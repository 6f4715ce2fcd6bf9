"""Number formats for tables and charts."""

import math

from pydantic import JsonValue

# SI prefixes for 10^-30, 10^-27, ..., 10^30.
SI_PREFIXES = (*"qryzafpn\N{MICRO SIGN}m", "", *"kMGTPEZYRQ")


def three_digits(value: float) -> str:
    """Format a finite number with three significant digits and an SI prefix: `1.23 M`."""
    value = float(f"{value:.3g}")
    exponent = math.floor(math.log10(abs(value)) / 3) if value else 0
    exponent = max(-10, min(exponent, 10))
    prefix = SI_PREFIXES[exponent + 10]
    return f"{value / 10.0 ** (3 * exponent):g}" + (f"\N{NO-BREAK SPACE}{prefix}" if prefix else "")


def setting_text(value: JsonValue) -> str:
    """Format the value of a setting for a table."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return repr(value) if isinstance(value, str) and not value.strip() else str(value)
