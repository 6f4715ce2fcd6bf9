"""Fragments add entries to config.yaml's, and never change one."""

import pytest
import yaml

from nanogpt.config.fragments import write_fragment
from nanogpt.config.loading import read
from nanogpt.errors import UserError

CONFIG = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}}
runs: {first: {dataset: letters}}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "resources/config").mkdir(parents=True)
    return tmp_path


def add(project, name, text):
    (project / f"resources/config/{name}.yaml").write_text(text)


def test_fragments_are_read_after_the_config(project):
    add(project, "a", "runs: {second: {dataset: letters, train: {max_iters: 7}}}")
    add(project, "b", "models: {tiny: {n_layer: 1}}\nruns:\nx-note: mine")
    (project / "resources/config/.hidden.yaml").write_text("not: read")
    config = read(project / "config.yaml")
    assert list(config.runs) == ["first", "second"]
    assert config.models["tiny"].n_layer == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {first: {}}", "runs: `first` is also in config.yaml"),
        ("runs: {other: {}}", "b.yaml: runs: `other` is also in .*a.yaml"),
        ("defaults: {train: {max_iters: 5}}", "`defaults` isn't allowed here"),
        ("runs: [first]", "runs: should be a mapping from names"),
        ("runs: {", "b.yaml: line 1"),
    ],
)
def test_error_in_a_fragment_names_the_file(project, text, message):
    add(project, "a", "runs: {other: {dataset: letters}}")
    add(project, "b", text)
    with pytest.raises(UserError, match=message) as error:
        read(project / "config.yaml")
    assert "b.yaml" in str(error.value)


def test_fragment_survives_a_round_trip(project):
    entries = {"runs": {"größer": {"dataset": "letters", "sample": {"start": "a: 'b'\n"}}}}
    path = project / "resources/config/x.yaml"
    write_fragment(path, entries, "nanogpt train first")
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == entries
    assert path.read_text(encoding="utf-8").startswith('# Made by "nanogpt train first"')


@pytest.mark.parametrize("character", ["\n", "\r", "\x85", "\u2028", "\x07", "😀"])
def test_fragment_is_readable_with_any_character_in_the_command(project, character):
    entries = {"runs": {"other": {"dataset": "letters", "sample": {"start": f"a{character}"}}}}
    command = f"nanogpt train letters --sample.start=a{character}b"
    write_fragment(project / "resources/config/x.yaml", entries, command)
    assert read(project / "config.yaml").runs["other"].sample.start == f"a{character}"
