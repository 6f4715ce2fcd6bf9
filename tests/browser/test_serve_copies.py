"""Links and commands of the playground say what the form says, whatever is in the prompt.

Shells and Python read them, with stand-ins for curl and nanogpt.
"""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page

from nanogpt.data.formats import read_text

SETTINGS = {
    "model": "novel",
    "other": "",
    "prompt": "ROMEO:",
    "max_tokens": 200,
    "temperature": 0.8,
    "top_k": 200,
    "top_p": 0.95,
    "min_p": 0,
    "repetition_penalty": 1.1,
    "seed": 9007199254740991,
    "unknown": "skip",
    "stop": [],
}
TEXTS = [
    "",
    "ROMEO:",
    "two\nlines\n",
    'it\'s "quoted" `twice`',
    "'",
    "$HOME $(touch x) ${x} !! \\",
    "\\n \\' \\\\ \\",
    "a\ttab, \r, \x1b[31m and \x07",
    "\x01\x7f1",
    "é 日本 🎭 👩‍👩‍👧",
    "\u2028\u2029\u202e\ufeff\u0085",
    "\ufeffmark",
    "END\nEND",
    '"""',
    "#",
    "~",
    "*",
    "-x",
    "--stop=x",
    "null",
    "[1]",
    "FILE:/etc/passwd",
    "LINES:it's\n\\n",
    "a\0b\\0001",
    "\ufeff\0",
    "%s %b",
    "x" * 150_000,
    "<script>alert(1)</script>",
    "a&b=c#d+e%20f",
]
SHELLS = [shell for shell in ("sh", "bash", "zsh") if shutil.which(shell)]

# Writes its arguments, and its standard input or the file of a prompt, to a file.
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, sys
words = [os.fsencode(word).decode() for word in sys.argv[1:]]
read = sys.stdin.buffer.read()
if words[-1].startswith("--start=FILE:/"):
    read = pathlib.Path(words[-1].removeprefix("--start=FILE:")).read_bytes()
pathlib.Path(os.environ["SEEN"]).write_text(json.dumps([words, read.decode()]))
"""


def call(modules: Page, function: str, *arguments: object) -> object:
    """Call a function of share.js."""
    script = "async ([name, list]) => (await import('/static/share.js'))[name](...list)"
    return modules.evaluate(script, [function, list(arguments)])


@pytest.fixture
def execute(tmp_path: Path):
    """A function that runs a command with a shell; returns the arguments and the file or input."""
    temporary = tmp_path / "temporary files"
    temporary.mkdir()
    for program in ("curl", "nanogpt"):
        (tmp_path / program).write_text(STAND_IN)
        (tmp_path / program).chmod(0o755)

    def run(command: str, shell: str) -> tuple[list[str], str]:
        seen = tmp_path / "seen.json"
        environ = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "SEEN": str(seen),
            "NANOGPT_TOKEN": "a b",
            "TMPDIR": str(temporary),
        }
        (tmp_path / "command").write_text(command)
        process = subprocess.run(
            [shell, tmp_path / "command"],
            env=environ,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
        assert (process.stdout, process.stderr) == (b"", b"")
        assert not (tmp_path / "x").exists()
        assert list(temporary.iterdir()) == []
        words, stdin = json.loads(seen.read_text())
        return words, stdin

    return run


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:20]))
def test_a_link_keeps_everything(modules, text) -> None:
    settings = {**SETTINGS, "prompt": text, "other": "b", "stop": [text, "\n"] if text else []}
    fragment = call(modules, "fragmentOf", settings)
    assert fragment.startswith("#")
    assert fragment.isascii()
    assert call(modules, "settingsIn", fragment) == settings


def test_a_link_of_someone_else_sets_only_what_it_has(modules) -> None:
    found = call(modules, "settingsIn", "#prompt=a&seed=x&top_k=&temperature=0.5&unknown=x&huh=1")
    assert found == {"prompt": "a", "temperature": 0.5, "stop": []}
    assert call(modules, "settingsIn", "") == {}


@pytest.mark.parametrize("text", [text for text in TEXTS if text], ids=lambda text: repr(text[:20]))
def test_stop_strings_can_be_written_in_lines(modules, text) -> None:
    written = call(modules, "writeStops", [text, "\\", "a"])
    assert len(written.split("\n")) == 3
    assert call(modules, "readStops", written) == [text, "\\", "a"]


def test_a_backslash_needs_no_escape(modules) -> None:
    assert call(modules, "readStops", "\\d\n\\n\n\n") == ["\\d", "\n"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:20]))
def test_curl_sends_the_settings(modules, execute, text, shell) -> None:
    settings = {**SETTINGS, "prompt": text, "stop": [text] if text else []}
    command = call(modules, "curlOf", settings, "http://127.0.0.1:8000", False)
    assert_safe_to_paste(command)
    words, stdin = execute(command, shell)
    assert words == [
        "-s",
        "http://127.0.0.1:8000/v1/completions",
        "-H",
        "Content-Type: application/json",
        "-d",
        "@-",
    ]
    wanted = {name: value for name, value in settings.items() if name != "other"}
    if not text:
        del wanted["stop"]
    assert json.loads(stdin) == wanted


def test_curl_reads_the_token_from_the_environment(modules, execute) -> None:
    command = call(modules, "curlOf", SETTINGS, "http://10.0.0.1:8000", True)
    words, _ = execute(command, "sh")
    assert "Authorization: Bearer a b" in words


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:20]))
def test_python_sends_the_settings(modules, text) -> None:
    settings = {**SETTINGS, "prompt": text, "stop": [text] if text else []}
    code = call(modules, "pythonOf", settings, "http://127.0.0.1:8000", False)
    assert_safe_to_paste(code)
    calls = {
        node.func.attr: node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    given = {one.arg: ast.literal_eval(one.value) for one in calls["create"].keywords}
    wanted = {name: value for name, value in settings.items() if name != "other"}
    ours = ("top_k", "min_p", "repetition_penalty", "unknown")
    extra = {name: wanted.pop(name) for name in ours}
    if not text:
        del wanted["stop"]
    assert given == {**wanted, "extra_body": extra}


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shell != "sh"])
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:20]))
def test_the_command_line_has_the_settings(modules, execute, tmp_path, text, shell) -> None:
    is_stop = text and "\0" not in text and len(text) < 1000
    settings = {**SETTINGS, "prompt": text, "stop": [text, "b"] if is_stop else []}
    command = call(modules, "sampleOf", settings)
    words, content = execute(command, shell)
    flags = [tuple(word.removeprefix("--").split("=", 1)) for word in words[2:]]
    values = dict(flags)
    assert words[:2] == ["sample", "novel"]
    assert [value for name, value in flags if name == "stop"] == settings["stop"]
    assert values["num_samples"] == "1"
    assert values["max_new_tokens"] == "200"
    assert values["seed"] == str(SETTINGS["seed"])
    assert values["unknown"] == "skip"
    for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty"):
        assert float(values[name]) == settings[name]
    if text.startswith(("FILE:", "LINES:")) or "\0" in text or len(text) > 100_000:
        assert values["start"].startswith("FILE:/")
        (tmp_path / "prompt").write_text(content, encoding="utf-8", newline="")
        assert read_text(tmp_path / "prompt") == text  # as the command reads it
    else:
        assert values["start"] == text
        assert_safe_to_paste(command)


def test_a_command_names_the_model_of_other_results(modules, execute) -> None:
    words, _ = execute(call(modules, "sampleOf", SETTINGS, "/tmp/it's here", False), "bash")
    assert words[:2] == ["sample", "/tmp/it's here/novel/model"]


def test_a_command_turns_drafts_off(modules, execute) -> None:
    """The server generates without them, and the texts of drafts differ."""
    words, _ = execute(call(modules, "sampleOf", SETTINGS, "", True), "bash")
    assert "--draft=0" in words


def assert_safe_to_paste(command: str) -> None:
    """A terminal would act on control characters."""
    assert {character for character in command if character < " " or character == "\x7f"} <= {"\n"}
