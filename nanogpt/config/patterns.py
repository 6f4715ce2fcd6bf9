"""Patterns of names and of some values, with their descriptions for messages."""

import re

# A name becomes a file name, so it must not be able to leave its directory.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

NAME_RULE = "use letters, digits, `.`, `-` and `_`, starting with a letter or digit"

RESERVED_RUN_NAMES = re.compile(r"datasets|report|gpt2.*")

DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"

SHA256 = r"^[0-9a-f]{64}$"

# Descriptions of what these patterns match.
PATTERNS = {DEVICE: "auto, cpu, mps, cuda or cuda:N", SHA256: "64 lowercase hex digits"}
