"""A config.yaml that can't be read."""

from pathlib import Path

from nanogpt.config.loading import read
from tests.mistakes.base import Mistake, code, command, in_turn, write_files


def config_file(title: str, shown: str, content: bytes, message: str) -> Mistake:
    """A config.yaml with this content."""

    def make() -> None:
        write_files({"config.yaml": content})
        read()

    return Mistake(title, shown, make, message)


CONFIG_FILES = [
    command(
        "a missing config file",
        "config first",
        "config.yaml: no such file; run this in the project's directory",
    ),
    Mistake(
        "a directory instead of the config file",
        "`config.yaml/`",
        in_turn(Path("config.yaml").mkdir, read),
        "config.yaml: can't be read: Is a directory; check the path",
    ),
    config_file(
        "a list instead of settings",
        code("- runs"),
        b"- runs",
        "config.yaml: should be a mapping at top level, with keys such as `runs:`",
    ),
    config_file(
        "an unclosed bracket",
        code("runs: {first: {}"),
        b"runs: {first: {}",
        "config.yaml: line 1, column 17: invalid YAML: expected ',' or '}', but got '<stream end>'",
    ),
    config_file(
        "a tab in YAML",
        "`runs:`, then a line that starts with a tab",
        b"runs:\n\tfirst: {}\n",
        "config.yaml: line 2, column 1: invalid YAML: found character '\\t' that cannot start any "
        "token",
    ),
    config_file(
        "a config file in Latin-1",
        code("# für später") + " in Latin-1",
        "# für später".encode("latin-1"),
        "config.yaml: not UTF-8 (byte 0xfc at offset 3); save it as UTF-8",
    ),
    config_file(
        "a duplicate key",
        "`runs:` in line 1 and again in line 3",
        b"runs: {first: {}}\ntrain: {seed: 1}\nruns: {second: {}}\n",
        "config.yaml: line 3: `runs` is already in line 1; merge the two",
    ),
    config_file(
        "a duplicate setting",
        code("train: {seed: 1, seed: 2}"),
        b"train: {seed: 1, seed: 2}",
        "config.yaml: line 1: `seed` is already in line 1; remove one of them",
    ),
    config_file(
        "an invalid date",
        code("runs: {2024-13-45: {}}"),
        b"runs: {2024-13-45: {}}",
        "config.yaml: invalid date: month must be in 1..12; put it in quotes if you mean text",
    ),
    config_file(
        "a number with a leading zero",
        code("train: {seed: 010}"),
        b"train: {seed: 010}",
        "config.yaml: line 1: YAML reads `010` as 8; write 8, or put it in quotes",
    ),
    config_file(
        "brackets nested too deeply",
        "5,000 `[`",
        b"[" * 5000,
        "config.yaml: not a config file; its brackets are nested too deeply",
    ),
    config_file(
        "code in YAML",
        code("runs: !!python/object/apply:os.mkdir [executed]"),
        b"runs: !!python/object/apply:os.mkdir [executed]",
        "config.yaml: line 1, column 7: invalid YAML: could not determine a constructor for the "
        "tag 'tag:yaml.org,2002:python/object/apply:os.mkdir'",
    ),
]
