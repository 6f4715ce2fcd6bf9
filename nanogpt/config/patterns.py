"""What names and some values must look like, and how messages say so."""

import re

from nanogpt.errors import UserError

# A name becomes a file name, so it must not be able to leave its directory.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

NAME_RULE = (
    "letters, digits, dot, dash and underscore make a name that begins with a letter or digit"
)

RESERVED_RUN_NAMES = re.compile(r"datasets|report|gpt2.*")

DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"

SHA256 = r"^[0-9a-f]{64}$"

# What they match, in words.
PATTERNS = {DEVICE: "auto, cpu, mps, cuda or cuda:N", SHA256: "64 hex digits in lower case"}


def read_processes(value: object, name: str = "processes") -> int:
    """A number of processes, as a resource or a flag has it.

    Errors: UserError for what isn't a whole number from 1 on.
    """
    text = str(value)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{name}: should be a whole number from 1 on (found `{text}`)")
    return int(text)


def read_sharded(value: object) -> bool:
    """Whether a model is sharded over the processes, as a resource or a flag has it."""
    found = {"0": False, "false": False, "1": True, "true": True}.get(str(value).lower())
    if found is None:
        raise UserError(f"sharded: should be 0 or 1 (found `{value}`)")
    return found
