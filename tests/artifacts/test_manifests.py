"""A version changes only with the request, and a changed file is named."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nanogpt.artifacts import manifests
from nanogpt.artifacts.manifests import (
    digests,
    environment,
    find_manifests,
    version,
    version_of,
)
from nanogpt.artifacts.records.base import read_record, write_record
from nanogpt.artifacts.records.manifests import Layout, Manifest
from nanogpt.files.atomic import write_json
from nanogpt.project import HERE, Project

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures/format_1"
REMEDY = "delete the file and run the workflow again"


def verify(path):
    """The problems of a manifest's files, as printed on the command line."""
    return list(map(str, manifests.verify(HERE, path)))


# --- The version ----------------------------------------------------------------------------

REQUEST = ("train", {"train": {"seed": 1}}, {"results/a/train.bin": "1" * 64}, "c" * 64)


def test_a_version_is_twelve_hex_digits_and_always_the_same():
    assert version(*REQUEST) == version(*REQUEST)
    assert len(version(*REQUEST)) == 12
    assert int(version(*REQUEST), 16) >= 0


def test_a_version_ignores_directories_and_the_order_of_settings():
    parameters = {"a": 1, "b": {"c": 2, "d": 3}}
    turned = {"b": {"d": 3, "c": 2}, "a": 1}
    inputs = {"results/datasets/one/train.bin": "1" * 64, "results/datasets/one/val.bin": "2" * 64}
    moved = {"/far/away/train.bin": "1" * 64, "/far/away/val.bin": "2" * 64}
    assert version("train", parameters, inputs, "c") == version("train", turned, moved, "c")


@pytest.mark.parametrize(
    "other",
    [
        ("eval", *REQUEST[1:]),
        ("train", {"train": {"seed": 2}}, *REQUEST[2:]),
        ("train", {"train": {"seed": 1.5}}, *REQUEST[2:]),
        ("train", {"train": {}}, *REQUEST[2:]),
        (*REQUEST[:2], {"results/a/val.bin": "1" * 64}, REQUEST[3]),
        (*REQUEST[:2], {"results/a/train.bin": "2" * 64}, REQUEST[3]),
        (*REQUEST[:2], {}, REQUEST[3]),
        (*REQUEST[:3], "d" * 64),
    ],
    ids=["stage", "value", "type", "setting", "file name", "content", "no input", "code"],
)
def test_a_version_changes_with_the_request(other):
    assert version(*other) != version(*REQUEST)


# --- Digests, environment, verification -----------------------------------------------------


def test_digests_are_sha256_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        (tmp_path / name).write_text(name)
    found = digests(HERE, ["b", "a"])
    assert list(found) == ["b", "a"]
    assert found["a"] == hashlib.sha256(b"a").hexdigest()


def test_the_environment_is_json_with_all_that_affects_the_last_bits():
    content = environment(threads=3).content()
    assert json.loads(json.dumps(content)) == content
    assert content["threads"] == 3
    assert content["ranks"] == 1
    assert content["python"] == ".".join(map(str, sys.version_info[:3]))
    for name in ("nanogpt", "platform", "cpu"):
        assert content[name]
    assert "layouts" not in content


def test_the_environment_of_a_training_has_its_layouts():
    layout = Layout(
        first_step=0, device="cpu", threads=1, torch="2.13.0", cpu_capability="AVX2", gpu=None
    )
    assert environment(threads=1, layouts=[layout]).content()["layouts"] == [layout.content()]


def test_the_environment_has_torch_only_if_it_was_imported():
    program = (
        "import sys\n"
        "from nanogpt.artifacts.manifests import environment\n"
        "assert 'torch' not in environment(1).content()\n"
        "assert 'torch' not in sys.modules\n"
        "import torch\n"
        "content = environment(1).content()\n"
        "assert content['torch'] == torch.__version__\n"
        "assert {'cpu_capability', 'gpu'} < content.keys()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A manifest with an input and two outputs that all exist."""
    monkeypatch.chdir(tmp_path)
    inputs, outputs = ["data/text.txt"], ["results/a/train.bin", "results/a/val.bin"]
    for path in [*inputs, *outputs]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"the content of {path}")
    parameters, code = {"val_ratio": 0.1}, "c" * 64
    manifest = Manifest(
        stage="prepare",
        version=version("prepare", parameters, digests(HERE, inputs), code),
        inputs=digests(HERE, inputs),
        parameters=parameters,
        code=code,
        outputs=digests(HERE, outputs),
        environment=environment(threads=1),
        wall_seconds=0.5,
    )
    path = Path("results/a/prepare.manifest.json")
    write_record(path, manifest)
    return path


def test_unchanged_files_have_no_problem(made):
    assert verify(made) == []


@pytest.mark.parametrize(
    ("name", "kind"), [("results/a/val.bin", "output"), ("data/text.txt", "input")]
)
def test_a_changed_file_is_named_with_both_digests(made, name, kind):
    before = hashlib.sha256(Path(name).read_bytes()).hexdigest()
    Path(name).write_text("changed")
    after = hashlib.sha256(b"changed").hexdigest()
    wrong = f"wrong sha256: expected {before[:12]}, found {after[:12]}"
    assert verify(made) == [f"{name}: {wrong} ({kind} recorded in {made})"]


@pytest.mark.parametrize(
    ("name", "kind"), [("results/a/val.bin", "output"), ("data/text.txt", "input")]
)
def test_a_missing_file_is_named(made, name, kind):
    Path(name).unlink()
    assert verify(made) == [f"{name}: missing ({kind} recorded in {made})"]


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
    assert problem.startswith(f"{made}: edited: it's for version ")


def test_an_altered_output_digest_is_named(made):
    content = json.loads(made.read_text())
    content["outputs"]["results/a/val.bin"] = "0" * 64
    write_json(made, content)
    (problem,) = verify(made)
    assert problem.startswith("results/a/val.bin: wrong sha256: ")


DAMAGE = {
    b"": "not JSON",
    b"{": "not JSON",
    b"\xff": "not JSON",
    b"[" * 100_000: "not JSON",
    b"[]": "not a JSON object",
    b"3": "not a JSON object",
    b"{}": "`stage` is missing",
}


@pytest.mark.parametrize(("content", "problem"), DAMAGE.items(), ids=DAMAGE.values())
def test_a_damaged_manifest_is_named_with_its_flaw(made, content, problem):
    made.write_bytes(content)
    assert verify(made) == [f"{made}: damaged: {problem}; {REMEDY}"]


FLAWS = {
    "inputs": ([], "`inputs` should be a JSON object"),
    "outputs": (["results/a/val.bin"], "`outputs` should be a JSON object"),
    "version": (5, "`version` should be text"),
    "environment": ({}, "`environment.nanogpt` is missing"),
    "wall_seconds": ("long", "`wall_seconds` should be a number"),
}


@pytest.mark.parametrize("field", FLAWS)
def test_a_damaged_field_of_a_manifest_is_named(made, field):
    value, problem = FLAWS[field]
    write_json(made, {**json.loads(made.read_text()), field: value})
    (found,) = verify(made)
    assert found.startswith(f"{made}: damaged: {problem}")
    assert found.endswith(f"; {REMEDY}")


def test_a_digest_that_is_not_text_is_named_by_its_path(made):
    content = json.loads(made.read_text())
    content["outputs"]["results/a/val.bin"] = None
    write_json(made, content)
    assert verify(made) == [
        f"{made}: damaged: `outputs.results/a/val.bin` should be text; {REMEDY}"
    ]


def test_a_manifest_of_a_later_format_is_named(made):
    write_json(made, {**json.loads(made.read_text()), "format": 99})
    assert verify(made) == [
        f"{made}: format 99, but this version of nanogpt reads formats up to 1; "
        "upgrade nanogpt, or delete the file and run the workflow again"
    ]


def test_a_missing_manifest_is_named(made):
    made.unlink()
    assert verify(made) == [f"{made}: no such file; {REMEDY}"]


def test_known_digests_are_not_computed_again(made):
    known = {}
    assert manifests.verify(HERE, made, known) == []
    assert known.keys() == {"results/a/val.bin", "results/a/train.bin", "data/text.txt"}
    Path("results/a/val.bin").write_text("changed")
    assert manifests.verify(HERE, made, known) == []
    assert len(manifests.verify(HERE, made)) == 1


@pytest.mark.parametrize("name", ["\0", "x" * 5000])
def test_an_output_with_an_impossible_name_is_named(made, name):
    content = json.loads(made.read_text())
    content["outputs"][name] = "0" * 64
    write_json(made, content)
    (problem,) = verify(made)
    assert problem.startswith(f"{name}: ")
    assert problem.endswith(f" (output recorded in {made})")


# --- Manifests of the first format, and other roots -----------------------------------------


@pytest.mark.parametrize(
    "path",
    sorted(FIXTURES.rglob("*manifest.json")),
    ids=lambda path: str(path.relative_to(FIXTURES)),
)
def test_a_manifest_of_the_first_format_gives_its_own_version(path):
    manifest = read_record(path, Manifest)
    assert version_of(manifest) == manifest.version


def test_manifests_are_found_below_directories_and_by_name(made):
    other = Path("resources/corpora/text/generate.manifest.json")
    write_json(other, {})
    assert list(find_manifests(HERE, [Path("results"), Path("resources")])) == [made, other]
    assert find_manifests(HERE, [other]) == {other: None}
    assert find_manifests(HERE, [Path("data")]) == {}


@pytest.mark.parametrize("beside", ["data", "."], ids=["beside its output", "a directory up"])
def test_the_manifests_of_inputs_are_found_too(made, beside):
    manifest = read_record(made, Manifest)
    upstream = Path(beside) / "download.manifest.json"
    write_record(upstream, manifest.model_copy(update={"inputs": {}, "outputs": manifest.inputs}))
    write_json(Path(beside) / "broken.manifest.json", {"outputs": ["data/text.txt"]})
    assert list(find_manifests(HERE, [Path("results")])) == [made, upstream]


def test_paths_in_manifests_are_relative_to_the_projects_root(made, monkeypatch, tmp_path):
    manifest = read_record(made, Manifest)
    write_record(
        Path("data/download.manifest.json"),
        manifest.model_copy(update={"inputs": {}, "outputs": manifest.inputs}),
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    project = Project(tmp_path)
    found = find_manifests(project, [project.results])
    assert list(found) == [tmp_path / made, tmp_path / "data/download.manifest.json"]
    assert manifests.verify(project, tmp_path / made) == []
    assert len(manifests.verify(HERE, tmp_path / made)) == 3
