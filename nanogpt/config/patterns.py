"""What names and some values must look like, and how messages say so."""

import re

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
