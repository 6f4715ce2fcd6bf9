"""A line on stderr for each action: when, who, what. Never a token."""

import logging
import time

from starlette.types import Scope

from nanogpt.errors import UserError, shorten

LONGEST_LINE = 300  # characters

logger = logging.getLogger(__name__)


def log_action(scope: Scope, line: str) -> None:
    """Log what a client did, or tried to do."""
    client = scope.get("client")
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    # UserError escapes what could end the line or change the terminal.
    what = UserError(shorten(line, LONGEST_LINE))
    logger.warning("%s %s %s", when, client[0] if client else "?", what)
