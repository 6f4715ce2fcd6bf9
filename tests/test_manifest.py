"""A version changes with what was asked for, and with nothing else; a changed file is named."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from nanogpt import manifest
from nanogpt.files import write_json
from nanogpt.manifest import code_digest, digests, environment, find_manifests, version

ROOT = Path(__file__).resolve().parent.parent
ADAPTERS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))
BEFORE_ANY_EDIT = {adapter.stem: code_digest(adapter) for adapter in ADAPTERS}


def verify(path):
    """What is wrong with a manifest's files, as the command line prints it."""
    return list(map(str, manifest.verify(path)))


# --- The code digest ------------------------------------------------------------------------

PACKAGE = {
    "first": '''
        """First."""
        from nanogpt.second import double

        LIMIT = 10


        def run(text: str) -> int:
            """Run."""
            return min(double(len(text)), LIMIT)
        ''',
    "second": """
        import nanogpt.third


        def double(n):
            return nanogpt.third.TWO * n
        """,
    "third": """
        from nanogpt import config

        TWO = 2
        """,
    "lazy": """
        NUMBER = 1
        """,
    "unused": """
        NUMBER = 1
        """,
    "config": """
        SETTING = 1
        """,
}
ADAPTER = """
    from nanogpt.first import run
    from nanogpt.stage import stage

    def later():
        from nanogpt import lazy
        return lazy.NUMBER

    run("text")
    """


def dedent(source):
    lines = source.strip("\n").splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip())
    return "".join(line[margin:] + "\n" for line in lines)


class Code:
    """A small package, and an adapter that imports it."""

    def __init__(self, directory):
        self.package = directory / "nanogpt"
        self.package.mkdir()
        self.adapter = directory / "adapter.py"
        self.adapter.write_text(dedent(ADAPTER))
        (self.package / "__init__.py").write_text("")
        for name, source in PACKAGE.items():
            (self.package / f"{name}.py").write_text(dedent(source))
        for name in ("stage", "manifest", "cli"):
            (self.package / f"{name}.py").write_text("SETTING = 1\n")

    def edit(self, name, old, new):
        path = self.adapter if name == "adapter" else self.package / f"{name}.py"
        source = path.read_text()
        assert old in source
        path.write_text(source.replace(old, new))

    def digest(self, command=""):
        return code_digest(self.adapter, command)


@pytest.fixture
def code(tmp_path, monkeypatch):
    made = Code(tmp_path)
    monkeypatch.setattr(manifest, "PACKAGE", made.package)
    return made


INVISIBLE = {
    "a comment": ("first", "LIMIT = 10", "LIMIT = 10  # at most\n# another line"),
    "a module's docstring": ("first", '"""First."""', '"""Another."""'),
    "a new module docstring": ("third", "from nanogpt", '"""New."""\nfrom nanogpt'),
    "a function's docstring": ("first", '"""Run."""', '"""Run it."""'),
    "no docstring": ("first", '    """Run."""\n', ""),
    "blank lines": ("second", "\n\n\n", "\n"),
    "spaces": ("second", "nanogpt.third.TWO * n", "nanogpt.third.TWO*n"),
    "a broken line": ("second", "nanogpt.third.TWO * n", "(\n        nanogpt.third.TWO\n * n)"),
    "another way to write a number": ("first", "LIMIT = 10", "LIMIT = 0xA"),
    "the adapter's comment": ("adapter", 'run("text")', 'run("text")  # now'),
    "other quotes": ("adapter", '"text"', "'text'"),
}


@pytest.mark.parametrize(("name", "old", "new"), INVISIBLE.values(), ids=INVISIBLE.keys())
def test_what_no_run_can_see_is_not_in_the_digest(code, name, old, new):
    before = code.digest()
    code.edit(name, old, new)
    assert code.digest() == before


VISIBLE = {
    "a constant": ("first", "LIMIT = 10", "LIMIT = 11"),
    "a constant's type": ("first", "LIMIT = 10", "LIMIT = 10.0"),
    "an operator": ("second", "TWO * n", "TWO + n"),
    "a module two imports away": ("third", "TWO = 2", "TWO = 3"),
    "a module imported in a function": ("lazy", "NUMBER = 1", "NUMBER = 2"),
    "an import two modules away": ("third", "config", "config, unused"),
    "another module's name": ("adapter", "import lazy", "import unused as lazy"),
    "the adapter": ("adapter", '"text"', '"texts"'),
    "a string that is no docstring": ("third", "TWO = 2", "TWO = 2\n'a statement'"),
    "a default": ("second", "double(n)", "double(n=None)"),
    "a keyword-only argument": ("second", "double(n)", "double(*, n)"),
    "a return of nothing": ("first", "return min", "return None\n    min"),
}


@pytest.mark.parametrize(("name", "old", "new"), VISIBLE.values(), ids=VISIBLE.keys())
def test_what_changes_the_code_changes_the_digest(code, name, old, new):
    before = code.digest()
    code.edit(name, old, new)
    assert code.digest() != before


def test_a_changed_command_changes_the_digest(code):
    assert len({code.digest(), code.digest("python train.py"), code.digest("srun train.py")}) == 3


@pytest.mark.parametrize("name", ["config", "manifest", "cli", "stage"])
def test_modules_whose_effect_arrives_as_parameters_are_not_in_the_digest(code, name):
    code.edit("first", "LIMIT = 10", f"from nanogpt import {name}\nLIMIT = 10")
    before = code.digest()
    code.edit(name, "SETTING = 1", "SETTING = 2\nimport nanogpt.unused")
    assert code.digest() == before


def test_a_module_that_nobody_imports_is_not_in_the_digest(code):
    before = code.digest()
    code.edit("unused", "1", "2")
    assert code.digest() == before


def test_modules_that_import_each_other_have_a_digest(code):
    code.edit("third", "TWO", "import nanogpt.first\nTWO")
    before = code.digest()
    code.edit("second", "TWO * n", "n * TWO".replace("TWO", "nanogpt.third.TWO and 2"))
    assert code.digest() != before


def test_where_the_code_lies_is_not_in_the_digest(code, tmp_path, monkeypatch):
    before = code.digest()
    shutil.copytree(tmp_path, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("elsewhere"))
    monkeypatch.setattr(manifest, "PACKAGE", tmp_path / "elsewhere" / "nanogpt")
    assert code_digest(tmp_path / "elsewhere" / "adapter.py") == before


# What differs between the syntax trees of Python 3.11, 3.12 and 3.13: type parameters, empty lists,
# fields that are left out; and what a parser may read in two ways: f-strings.
SAME_EVERYWHERE = '''
from __future__ import annotations
import dataclasses as d
from collections.abc import Callable


@d.dataclass(frozen=True)
class Point(tuple, metaclass=type):
    """A point."""

    x: int = 0
    y: "float | None" = None


def f(a, /, b: int = 1, *args: str, c=None, d: list[int] | None = None, **more) -> dict[str, int]:
    """Docstring."""
    text = f"{a!r:>{b}} and {c=} {{x}} {a:.2f}" "tail" f'{more["x"]}'
    if (n := len(args)) > 1 and not d:
        return {**more, "n": n}
    match more:
        case {"x": 1 | 2, **rest} if rest:
            pass
        case [1, *_, None] | Point(x=0):
            return None
        case _:
            return
    try:
        del text[1:2, ::3], text[:]
    except* (ValueError, OSError) as error:
        raise KeyError from error
    with open(a) as file, open(b):
        print(*file, sep="")
    return [x async for x in a] if n else (lambda x=None, *, y=2: x + y)(1)


async def g():
    async with f as h:
        yield await h, 1_000, 1e-3, 2j, b"bytes", "é\\n", ..., True, -1


def empty(): ...
'''
SAME_EVERYWHERE_DIGEST = "bcc16480c787ec9c0be967641afe94c7a4e6623b742524889be6bd1ff06f902b"


def test_the_digest_of_a_source_is_the_same_on_every_python(tmp_path, code):
    assert code.package.is_dir()
    (tmp_path / "source.py").write_text(SAME_EVERYWHERE, encoding="utf-8")
    assert code_digest(tmp_path / "source.py", "command") == SAME_EVERYWHERE_DIGEST


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of this package, whose modules a test may edit."""
    made = tmp_path / "nanogpt"
    shutil.copytree(ROOT / "nanogpt", made, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(manifest, "PACKAGE", made)
    return made


def stages_changed(package, module, addition):
    """The stages whose digest changes when `addition` is put at the end of a module."""
    path = package / f"{module}.py"
    path.write_text(path.read_text(encoding="utf-8") + addition, encoding="utf-8")
    return {
        adapter.stem
        for adapter in ADAPTERS
        if code_digest(adapter) != BEFORE_ANY_EDIT[adapter.stem]
    }


def test_an_edit_of_the_model_is_one_of_training_but_not_of_the_report(copy):
    changed = stages_changed(copy, "model", "\nNEW = 1\n")
    assert {"train", "eval", "sample"} <= changed
    assert not {"download", "generate", "prepare", "bench_report", "tensorboard"} & changed


def test_an_edit_of_the_report_is_one_of_the_report_only(copy):
    changed = stages_changed(copy, "report", "\nNEW = 1\n")
    assert "bench_report" in changed
    assert changed <= {"bench_report", "tensorboard"}


def test_an_edit_of_sampling_is_no_edit_of_training(copy):
    changed = stages_changed(copy, "generate", "\nNEW = 1\n")
    assert "sample" in changed
    assert not {"download", "generate", "prepare", "train", "bench_report"} & changed


def test_comments_in_all_modules_change_nothing(copy):
    for path in copy.glob("*.py"):
        path.write_text("# A comment.\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert {adapter.stem: code_digest(adapter) for adapter in ADAPTERS} == BEFORE_ANY_EDIT


# --- The version ----------------------------------------------------------------------------

ASKED = ("train", {"train": {"seed": 1}}, {"results/a/train.bin": "1" * 64}, "c" * 64)


def test_a_version_is_twelve_hex_digits_and_always_the_same():
    assert version(*ASKED) == version(*ASKED)
    assert len(version(*ASKED)) == 12
    assert int(version(*ASKED), 16) >= 0


def test_a_version_is_blind_to_directories_and_the_order_of_settings():
    parameters = {"a": 1, "b": {"c": 2, "d": 3}}
    turned = {"b": {"d": 3, "c": 2}, "a": 1}
    inputs = {"results/datasets/one/train.bin": "1" * 64, "results/datasets/one/val.bin": "2" * 64}
    moved = {"/far/away/train.bin": "1" * 64, "/far/away/val.bin": "2" * 64}
    assert version("train", parameters, inputs, "c") == version("train", turned, moved, "c")


@pytest.mark.parametrize(
    "other",
    [
        ("eval", *ASKED[1:]),
        ("train", {"train": {"seed": 2}}, *ASKED[2:]),
        ("train", {"train": {"seed": 1.5}}, *ASKED[2:]),
        ("train", {"train": {}}, *ASKED[2:]),
        (*ASKED[:2], {"results/a/val.bin": "1" * 64}, ASKED[3]),
        (*ASKED[:2], {"results/a/train.bin": "2" * 64}, ASKED[3]),
        (*ASKED[:2], {}, ASKED[3]),
        (*ASKED[:3], "d" * 64),
    ],
    ids=["stage", "value", "type", "setting", "file name", "content", "no input", "code"],
)
def test_a_version_sees_what_was_asked_for(other):
    assert version(*other) != version(*ASKED)


# --- Digests, environment, verification -----------------------------------------------------


def test_digests_are_sha256_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        (tmp_path / name).write_text(name)
    found = digests(["b", "a"])
    assert list(found) == ["b", "a"]
    assert found["a"] == hashlib.sha256(b"a").hexdigest()


def test_the_environment_is_json_and_says_what_touches_the_last_bits():
    described = environment(threads=3)
    assert json.loads(json.dumps(described)) == described
    assert described["threads"] == 3
    assert described["ranks"] == 1
    assert described["python"] == ".".join(map(str, sys.version_info[:3]))
    for name in ("nanogpt", "platform", "cpu"):
        assert described[name]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A manifest with an input and two outputs, all of them there."""
    monkeypatch.chdir(tmp_path)
    inputs, outputs = ["data/text.txt"], ["results/a/train.bin", "results/a/val.bin"]
    for path in [*inputs, *outputs]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"the content of {path}")
    asked = {"stage": "prepare", "parameters": {"val_ratio": 0.1}, "code": "c" * 64}
    content = {
        **asked,
        "version": version("prepare", asked["parameters"], digests(inputs), asked["code"]),
        "inputs": digests(inputs),
        "outputs": digests(outputs),
    }
    path = Path("results/a/prepare.manifest.json")
    write_json(path, content)
    return path


def test_files_as_they_were_made_have_no_problem(made):
    assert verify(made) == []


@pytest.mark.parametrize(
    ("name", "kind"), [("results/a/val.bin", "output"), ("data/text.txt", "input")]
)
def test_a_changed_file_is_named_with_both_digests(made, name, kind):
    before = hashlib.sha256(Path(name).read_bytes()).hexdigest()
    Path(name).write_text("changed")
    after = hashlib.sha256(b"changed").hexdigest()
    assert verify(made) == [f"{name}: sha256 {after[:12]}, not {before[:12]}, {kind} of {made}"]


@pytest.mark.parametrize(
    ("name", "kind"), [("results/a/val.bin", "output"), ("data/text.txt", "input")]
)
def test_a_missing_file_is_named(made, name, kind):
    Path(name).unlink()
    assert verify(made) == [f"{name}: missing, {kind} of {made}"]


def test_each_file_that_differs_is_named(made):
    for name in ("results/a/val.bin", "results/a/train.bin", "data/text.txt"):
        Path(name).write_text("changed")
    assert len(verify(made)) == 3


def test_a_directory_where_a_file_should_be_is_named(made):
    Path("results/a/val.bin").unlink()
    Path("results/a/val.bin").mkdir()
    assert ["results/a/val.bin" in problem for problem in verify(made)] == [True]


@pytest.mark.parametrize(
    "altered",
    [
        {"stage": "train"},
        {"parameters": {"val_ratio": 0.2}},
        {"code": "d" * 64},
        {"inputs": {}},
        {"version": "0" * 12},
    ],
    ids=lambda altered: next(iter(altered)),
)
def test_an_altered_manifest_is_named(made, altered):
    write_json(made, {**json.loads(made.read_text()), **altered})
    (problem,) = verify(made)
    assert problem.startswith(f"{made}: version ")


def test_an_altered_output_digest_is_named(made):
    content = json.loads(made.read_text())
    content["outputs"]["results/a/val.bin"] = "0" * 64
    write_json(made, content)
    (problem,) = verify(made)
    assert problem.startswith("results/a/val.bin: sha256 ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"{}",
        b"\xff",
        b'{"stage": "x", "parameters": {}, "inputs": [], "code": "c", "outputs": {}}',
        b'{"stage": "x", "parameters": {}, "inputs": {}, "code": "c", "version": "1"}',
    ],
)
def test_a_damaged_manifest_is_named(made, content):
    made.write_bytes(content)
    assert verify(made) == [f"{made}: cannot be read as a manifest"]


def test_outputs_that_are_no_mapping_are_a_damaged_manifest(made):
    write_json(made, {**json.loads(made.read_text()), "outputs": ["results/a/val.bin"]})
    assert verify(made) == [f"{made}: cannot be read as a manifest"]


def test_an_absent_manifest_is_named(made):
    made.unlink()
    assert verify(made) == [f"{made}: cannot be read as a manifest"]


def test_manifests_are_found_below_directories_and_by_name(made):
    other = Path("resources/corpora/text/generate.manifest.json")
    write_json(other, {})
    assert find_manifests([Path("results"), Path("resources")]) == [made, other]
    assert find_manifests([other]) == [other]
    assert find_manifests([Path("data")]) == []
