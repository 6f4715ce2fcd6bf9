"""A version changes with what was asked for, and with nothing else; a changed file is named."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from nanogpt.artifacts import manifests as manifest
from nanogpt.artifacts.manifests import digests, environment, find_manifests, version
from nanogpt.files.atomic import write_json


def verify(path):
    """What is wrong with a manifest's files, as the command line prints it."""
    return list(map(str, manifest.verify(path)))


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
