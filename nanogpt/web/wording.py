"""Numbers and times in words, for templates."""

import re

from markupsafe import Markup, escape

from nanogpt.errors import plural
from nanogpt.report.formats import setting_text, three_digits

DASH = "–"  # noqa: RUF001


def number(value: float | None) -> str:
    """Format a loss; a dash if it isn't known."""
    return DASH if value is None else f"{value:.4f}"


def count(value: float | None) -> str:
    """Format a large number with three digits, such as parameters: `10.7 M`."""
    return DASH if value is None else three_digits(value)


def duration(seconds: float | None) -> str:
    """Format a duration by its two largest units."""
    if seconds is None:
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days:,} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def ago(seconds: float) -> str:
    """Format how long ago something was, by its largest unit."""
    for name, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:,.0f} {name} ago"
    return "now"


def code(text: str) -> Markup:
    """Return a text as HTML in which parts between backticks are code."""
    parts = (
        Markup("<code>{}</code>").format(part) if is_code else escape(part)
        for i, part in enumerate(text.split("`"))
        for is_code in [i % 2 == 1]
    )
    return Markup("").join(parts)


def breakable(name: str) -> Markup:
    """Return a name as HTML that can break after its punctuation."""
    return Markup("<wbr>").join(re.split(r"(?<=[._-])(?=.)", name))


FILTERS = {
    "breakable": breakable,
    "code": code,
    "number": number,
    "amount": count,
    "duration": duration,
    "ago": ago,
    "plural": plural,
    "setting": setting_text,
}
