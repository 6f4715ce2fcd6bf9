"""Patterns of names and of some values, with their descriptions for messages."""

import re

from nanogpt.errors import UserError

# A name becomes a file name, so it must not be able to leave its directory.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

NAME_RULE = "use letters, digits, `.`, `-` and `_`, starting with a letter or digit"

RESERVED_RUN_NAMES = re.compile(r"datasets|report|gpt2.*")

DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"

SHA256 = r"^[0-9a-f]{64}$"

# Descriptions of what these patterns match.
PATTERNS = {DEVICE: "auto, cpu, mps, cuda or cuda:N", SHA256: "64 lowercase hex digits"}


def read_processes(value: object, name: str = "processes") -> int:
    """Read a number of processes from a resource or a flag.

    Errors: UserError unless it's a whole number of at least 1.
    """
    text = str(value)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{name}: should be a whole number of at least 1 (found `{text}`)")
    return int(text)


def read_sharded(value: object) -> bool:
    """Read from a resource or a flag whether the model is sharded over the processes."""
    found = {"0": False, "false": False, "1": True, "true": True}.get(str(value).lower())
    if found is None:
        raise UserError(f"sharded: should be 0 or 1 (found `{value}`)")
    return found
