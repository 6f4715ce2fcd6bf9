"""Normalize a command line for tyro.

Handles `--a_b` and `--a-b`, `--x`, `--no-x` and `--x=True`, nanoGPT's names, and settings from a
JSON file."""

import contextlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanogpt.cli.app import app
from nanogpt.cli.flags import FALSE, TRUE
from nanogpt.cli.parameters import (
    check_places,
    check_required,
    check_value,
    missing_value,
    parameters_of,
    places_of,
    switches_of,
    takes_many,
    values_of,
)
from nanogpt.cli.peers import NO_COUNTERPART, SWITCHES, model_in, translate
from nanogpt.config.flags import FLAT, Flag, flags_of
from nanogpt.config.messages import did_you_mean, nearest
from nanogpt.config.values import TRUE_OR_FALSE
from nanogpt.errors import UserError

HELP = ("-h", "--help")
# Other programs' names for settings, used for suggestions.
OTHER_WORDS = {
    "lr": "learning_rate",
    "steps": "max_iters",
    "iters": "max_iters",
    "iterations": "max_iters",
    "epochs": "max_iters",
    "layers": "n_layer",
    "heads": "n_head",
    "context": "block_size",
    "context_length": "block_size",
    "prompt": "start",
    "temp": "temperature",
    "length": "max_new_tokens",
    "tokens": "max_new_tokens",
    "output": "name",
    "out": "name",
    "name": "output",
}
TRANSLATED = ("always_save_checkpoint", "real_data", "init_from")


def normalise(words: Sequence[str]) -> list[str]:
    """Convert a command line to the form that tyro understands.

    Errors: UserError for an unknown command or flag, an unexpected, missing or invalid argument or
    value, and a JSON file that can't be read or has an unknown setting.
    """
    if list(words) == ["--version"]:
        return ["version"]
    if words and words[0] == "help":
        words = [*words[1:], "--help"]
    if words and (words[0] in HELP or words[0].startswith("--tyro")):
        return list(words)
    if not words or words[0].startswith("-"):
        raise UserError(
            "no command given; for example, run `nanogpt train`, and see `nanogpt --help`"
        )
    command, *rest = words
    if command not in app._subcommands:
        raise UserError(f"no command `{command}`{did_you_mean(command, app._subcommands)}")
    line = _Line(command, flags_of(command), switches_of(command))
    line.read(rest)
    return [command, *line.words()]


@dataclass
class _Line:
    """The parsed arguments of a command.

    values: the values of each setting; several only for a list. given: the names of the command's
    own parameters that were given as flags.
    """

    command: str
    flags: Mapping[str, Flag]
    switches: set[str]
    others: list[str] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    from_file: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)
    out_dir: str = ""

    def words(self) -> list[str]:
        """Return the arguments for tyro.

        Errors: UserError for a missing or invalid argument or flag, and an unexpected argument.
        """
        if not set(HELP) & set(self.others):
            self._check_positionals()
            check_required(self.command, self.given)
        settings = []
        for name, values in self.values.items():
            is_list = self.flags[name].is_list
            value = json.dumps(values, ensure_ascii=False) if is_list else values[-1]
            settings.append(f"--{name}={value}")
        return [*settings, *self.others]

    def read(self, words: Sequence[str]) -> None:
        """Parse the words of a command line."""
        waiting = self._read_files(words)
        while waiting:
            word = waiting.pop(0)
            if word == "--":
                self.others += [word, *waiting]
                return
            if word[:1] == "-" and word[:2] != "--" and word not in ("-", *HELP):
                raise UserError(
                    f"{self.command}: no flag `{word}`; write two dashes for a flag, or put ` -- ` "
                    "before arguments that start with a dash"
                )
            if not word.startswith("--") or word.startswith("--tyro"):
                self.others.append(word)
                continue
            key, equals, value = word[2:].partition("=")
            self._take(key.replace("-", "_"), [value] if equals else None, word, waiting)
        if self.out_dir:
            self._take_out_dir()

    def _take(self, key: str, values: list[str] | None, word: str, waiting: list[str]) -> None:
        """Parse one flag. values: None if it has no `=`; its value may be the next word."""
        group, _, setting = key.rpartition(".")
        if group in FLAT.get(self.command, ()) and key not in self.flags and setting in self.flags:
            key = setting
        negated = key.removeprefix("no_")
        if key != negated and values is None and self._is_switch(negated):
            self._set(negated, ["False"])
        elif key != negated and values is None and negated in self.switches:
            self.others.append(f"--no-{negated}")
        elif key in self.switches:
            is_on = self._switch_value(key, values, waiting) in TRUE
            self.others.append(f"--{'' if is_on else 'no-'}{key}")
        elif key in self.flags or key in NO_COUNTERPART or key in TRANSLATED:
            if values is None:
                value = self._value_among(key, waiting)
                values = None if value is None else [value]
            if values is None:
                raise missing_value(self.command, key)
            self._set(key, values)
        else:
            self._take_parameter(key, values, word, waiting)

    def _take_parameter(
        self, key: str, values: list[str] | None, word: str, waiting: list[str]
    ) -> None:
        """Parse a flag that isn't a setting. UserError if the command has no such flag."""
        if key == "help":
            self.others.append("--help")
            return
        names = values_of(self.command)
        if key not in names or key == "flags":
            known = sorted({*names, *self.flags} - {"flags"})
            other = OTHER_WORDS.get(key)
            near = other if other in known else nearest(key, known)
            hint = f"did you mean `--{near}`?" if near else f"see `nanogpt {self.command} --help`"
            raise UserError(f"{self.command}: no flag `--{key}`; {hint}")
        if values is None:
            if not waiting or waiting[0].startswith("--"):
                raise missing_value(self.command, key)
            values = [waiting.pop(0)]
            word = f"{word}={values[-1]}"
        check_value(self.command, key, values[-1] if values else "")
        self.given.add(key)
        self.others.append(word)

    def _take_out_dir(self) -> None:
        """Use nanoGPT's out_dir as the model, unless another one is given."""
        if self._positionals() or any(word.startswith("--dataset") for word in self.others):
            print(f"out_dir: ignored: {NO_COUNTERPART['out_dir']}", file=sys.stderr)
            return
        model = model_in(self.command, self.out_dir)
        print(f"out_dir: using `{model}`", file=sys.stderr)
        self.others.append(model)

    def _positionals(self) -> list[str]:
        end = self.others.index("--") if "--" in self.others else len(self.others)
        plain = [word for word in self.others[:end] if word == "-" or not word.startswith("-")]
        return plain + self.others[end + 1 :]

    def _check_positionals(self) -> None:
        """UserError for a word more than the command takes, one too few, or a wrong one."""
        n_places, words = len(places_of(self.command)), self._positionals()
        check_places(self.command, words)
        if takes_many(self.command) or len(words) <= n_places:
            return
        hint = f"see `nanogpt {self.command} --help`"
        if self.command == "sample":
            hint = f"for a prompt, use `--start={shlex.quote(words[-1])}`"
        raise UserError(f"{self.command}: unexpected argument `{words[n_places]}`; {hint}")

    def _is_switch(self, key: str) -> bool:
        boolean = key in self.flags and self.flags[key].is_boolean
        return boolean or (key in (*SWITCHES, *TRANSLATED) and key != "init_from")

    def _switch_value(self, key: str, values: list[str] | None, waiting: list[str]) -> str:
        if values:
            return _check_switch(key, values[-1])
        if waiting and waiting[0].lower() in (TRUE[0], FALSE[0]):
            return waiting.pop(0).lower()
        return TRUE[0]

    def _value_among(self, key: str, waiting: list[str]) -> str | None:
        """Return the value of a flag if it's the next word; None if there isn't one."""
        if self._is_switch(key):
            return self._switch_value(key, None, waiting).capitalize()
        return waiting.pop(0) if waiting and not waiting[0].startswith("--") else None

    def _set(self, key: str, values: list[str]) -> None:
        if key in TRANSLATED and (key not in self.flags or values[-1] in ("scratch", "resume")):
            if self._is_switch(key):
                _check_switch(key, values[-1])
            translated, note = translate(self.command, key, values[-1])
            if note:
                print(f"{key}: {note}", file=sys.stderr)
            if translated is None:
                return
            key, values = translated[0], [translated[1]]
        if key == "out_dir" and self.command in ("sample", "eval"):
            self.out_dir = values[-1]
        elif key not in self.flags and key in NO_COUNTERPART:
            print(f"{key}: ignored: {NO_COUNTERPART[key]}", file=sys.stderr)
        elif key not in self.flags:
            self.others.append(f"--{key}={values[-1]}")
        elif self.flags[key].is_list and key not in self.from_file:
            known = self.values.setdefault(key, [])
            known += _items(self.flags[key], values)
        else:
            self.values[key] = _items(self.flags[key], values)
            self.from_file.discard(key)

    def _read_files(self, words: Sequence[str]) -> list[str]:
        """Read the files of `--config`, whose settings flags override. Returns the other words."""
        rest = list(words)
        end = rest.index("--") if "--" in rest else len(rest)
        places = [i for i in range(end) if rest[i].partition("=")[0] == "--config"]
        if self.command not in FLAT:
            return rest
        for place in reversed(places):
            _, equals, name = rest.pop(place).partition("=")
            self._read_file(name if equals else rest.pop(place) if place < len(rest) else "")
        return rest

    def _read_file(self, name: str) -> None:
        """Read the settings of a JSON file."""
        for key, value in _read_json(name).items():
            plain = key.replace("-", "_")
            known = (*self.flags, *NO_COUNTERPART, *TRANSLATED, *self.switches)
            group, _, setting = plain.rpartition(".")
            is_dotted = group in FLAT[self.command] and setting in known
            if not (is_dotted or plain in known or plain in parameters_of(self.command)):
                near = did_you_mean(plain, self.flags)
                raise UserError(f"{name}: unknown setting `{key}`{near}")
            texts = [_as_text(item) for item in (value if isinstance(value, list) else [value])]
            self._take(plain, texts, f"--{plain}={texts[-1] if texts else ''}", [])
        self.from_file = set(self.values)


def _check_switch(key: str, value: str) -> str:
    """Return a boolean flag's value in lowercase. UserError if it isn't true or false."""
    if value.lower() not in (*TRUE, *FALSE):
        raise UserError(f"--{key}: {TRUE_OR_FALSE} (found `{value}`)")
    return value.lower()


def _items(flag: Flag, values: list[str]) -> list[str]:
    """Split the values of a flag. For a list of numbers, a value may be a list such as `[5, 10]`.

    Strings are never split.
    """
    if not flag.is_list or flag.has_texts:
        return values
    items: list[str] = []
    for value in values:
        parsed: Any = None
        if value.startswith("["):
            with contextlib.suppress(ValueError):
                parsed = json.loads(value)
        items += map(_as_text, parsed) if isinstance(parsed, list) else [value]
    return items


def _as_text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else str(value)


def _read_json(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix == ".py":
        raise UserError(f"{name}: Python config files aren't executed; write the settings as JSON")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--config {name}: no such file; name a JSON file with settings") from None
    except OSError as error:
        raise UserError(f"--config {name}: can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f'{name}: invalid JSON; write settings like {{"max_iters": 500}}') from None
    if not isinstance(content, dict) or any(isinstance(v, dict) for v in content.values()):
        raise UserError(
            f'{name}: should be an object of settings without groups, like {{"max_iters": 500}}'
        )
    return content
