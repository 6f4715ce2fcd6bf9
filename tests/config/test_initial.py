"""What a run begins with, as its settings say, and what follows for its model."""

import json
from pathlib import Path

import pytest

from nanogpt.config import foreign
from nanogpt.config.initial import SourceError, find_source
from nanogpt.config.loading import read
from nanogpt.config.reference import describe_run
from nanogpt.config.resolving import resolve_run, run_names, run_parameters
from nanogpt.config.schema import ModelSettings
from nanogpt.config.variants import Given, resolve_with
from nanogpt.errors import UserError
from nanogpt.model import gpt
from nanogpt.planning.stages import imported_files
from nanogpt.project import Project
from tests.config.examples import load_yaml

START = """
corpora: {text: {files: text.txt}}
models: {tiny: {n_layer: 1, n_head: 2, n_embd: 4, block_size: 8}}
"""
DATASETS = "datasets: {letters: {corpus: text}, others: {corpus: text, tokenizer: letters}}"
RUNS = """
defaults: {{model: {{preset: tiny, n_layer: 3}}}}
runs:
  base: {{dataset: letters, model: {{dropout: 0.3}}}}
  fine: {{dataset: others, train: {{init_from: {init_from}}}{more}}}
"""
TINY = ModelSettings(n_layer=1, n_head=2, n_embd=4, block_size=8, dropout=0.1)
FOREIGN = {
    **{"n_layer": 1, "n_head": 2, "n_embd": 4, "n_positions": 8},
    **{"resid_pdrop": 0.1, "activation_function": "gelu_new"},
}


def load(init_from="base", more="", datasets=DATASETS):
    return load_yaml(datasets + RUNS.format(init_from=init_from, more=more))


def write_model(directory, **changes):
    directory.mkdir(parents=True)
    content = {"architecture": "gpt2", "vocab_size": 3, **TINY.model_dump(), **changes}
    (directory / "config.json").write_text(json.dumps(content))


def test_model_is_that_of_the_initial_run_unless_set():
    config = load(more=", model: {block_size: 4}")
    base, fine = resolve_run(config, "base").model, resolve_run(config, "fine").model
    assert fine == base.model_copy(update={"block_size": 4})
    assert (fine.n_layer, fine.dropout) == (3, 0.3)


def test_sources_of_settings_are_shown():
    lines = describe_run(load(more=", model: {block_size: 4}"), "fine").splitlines()
    sources = {
        line.split(":")[0].strip(): line.rpartition("# ")[2] for line in lines if "#" in line
    }
    assert (sources["n_layer"], sources["block_size"]) == ("from base", "runs.fine")
    assert sources["init_from"] == "runs.fine"


def test_initial_model_overrides_the_preset_of_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "mine")
    assert resolve_run(load("./mine"), "fine").model == TINY


@pytest.mark.parametrize("content", [TINY.model_dump() | {"architecture": "gpt2"}, FOREIGN])
@pytest.mark.parametrize("name", ["./mine", "../beside/mine", "~/mine"])
def test_directory_is_relative_to_the_project(name, content, tmp_path, monkeypatch):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    project.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = Path(name).expanduser() if name.startswith("~") else project / name
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"vocab_size": 3, **content}))
    runs = RUNS.format(init_from=name, more="")
    (project / "config.yaml").write_text(f"{START}{DATASETS}{runs}")
    monkeypatch.chdir(elsewhere)
    config = read(project / "config.yaml")
    assert resolve_run(config, "fine").model.n_layer == 1
    varied = resolve_with(config, "fine", [Given("train", "seed", "2")])
    assert varied.model.n_layer == 1
    source = find_source(config, "fine")
    assert source.is_imported == (content is FOREIGN)
    if source.is_imported:
        files = imported_files(source.name, Project(project))
        assert [Path(project, file).resolve() for file in files] == [
            place.resolve() / "config.json"
        ]
    else:
        assert (project / source.directory).resolve() == place.resolve()


def test_unknown_run_with_the_name_of_a_directory_gets_a_hint(tmp_path, monkeypatch):
    (tmp_path / "project/mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project/config.yaml").write_text(
        START + DATASETS + RUNS.format(init_from="mine", more="")
    )
    with pytest.raises(UserError, match=r"no run `mine`; write `\./mine` to use the directory"):
        read(tmp_path / "project/config.yaml")


def test_name_of_the_initial_model_is_not_a_parameter():
    fine, from_scratch = load(more=", model: {n_layer: 3}"), load("null")
    groups = ("train",)
    assert run_parameters(resolve_run(fine, "fine"), groups) == run_parameters(
        resolve_run(from_scratch, "fine"), groups
    )


def test_initial_model_can_be_swept():
    entry = "{dataset: others, sweep: {train.init_from: [base, fine, null], seed: [1, 2]}}"
    config = load_yaml(DATASETS + RUNS.format(init_from="base", more="") + f"  both: {entry}")
    swept = [name for name in run_names(config) if name.startswith("both")]
    sources = {name: find_source(config, name) for name in swept}
    assert {name: source and source.run for name, source in sources.items()} == {
        "both.init_from-base.seed-1": "base",
        "both.init_from-base.seed-2": "base",
        "both.init_from-fine.seed-1": "fine",
        "both.init_from-fine.seed-2": "fine",
        "both.init_from-none.seed-1": None,
        "both.init_from-none.seed-2": None,
    }


def test_chain_of_runs_has_the_first_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = ["r0: {dataset: letters, model: {n_embd: 8}}"]
    runs += [f"r{n}: {{dataset: letters, train: {{init_from: r{n - 1}}}}}" for n in range(1, 20)]
    config = load_yaml("defaults: {model: tiny}\nruns: {" + ", ".join(runs) + "}")
    assert resolve_run(config, "r19").model == resolve_run(config, "r0").model


def test_model_directory_of_a_run_depends_on_that_run():
    source = find_source(load("results/base/model"), "fine")
    assert source is not None
    assert source.run == "base"


@pytest.mark.parametrize("tokenizer", ["gpt2", "byte"])
def test_fixed_tokenizers_match_across_datasets(tokenizer):
    pair = f"{{corpus: text, tokenizer: {tokenizer}}}"
    load(datasets=f"datasets: {{letters: {pair}, others: {pair}}}")


def test_shared_tokenizer_is_found_through_other_datasets():
    more = "letters: {corpus: text, tokenizer: third}, others: {corpus: text, tokenizer: letters}"
    load(datasets=f"datasets: {{third: {{corpus: text}}, {more}}}")


def test_transformers_directory_is_imported_to_its_own_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16, "vocab_size": 3}
    content |= {"resid_pdrop": 0.1, "activation_function": "gelu_new"}
    for name in ("one/model", "two/model"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps(content))
    one, two = load("one/model"), load("two/model")
    model = resolve_run(one, "fine").model
    assert (model.n_layer, model.block_size, model.bias) == (2, 16, True)
    places = {find_source(config, "fine").directory for config in (one, two)}
    assert len(places) == 2


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"architecture": "gpt2"}', "\\u0000", "[" * 9999]
)
def test_directory_without_a_model_only_stops_its_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text(content)
    config = load("./mine")
    assert resolve_run(config, "base").model.n_layer == 3
    with pytest.raises(SourceError, match=r"runs\.fine\.train\.init_from: \./mine: config\.json"):
        resolve_run(config, "fine")


def test_unknown_initial_model_is_an_error_for_the_whole_config():
    with pytest.raises(UserError, match="no run `bse`; did you mean `base`"):
        load("bse")


@pytest.mark.parametrize("name", ["NORM_EPSILON", "RMS_EPSILON", "ROTARY_BASE"])
def test_constants_match_our_model(name):
    assert getattr(foreign, name) == getattr(gpt, name)
