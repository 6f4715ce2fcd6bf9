"""The pages made from the settings: descriptions of runs, docs/SETTINGS.md, the JSON schema."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.config.loading import load
from nanogpt.config.reference import describe_run, json_schema, settings_page
from nanogpt.config.resolving import resolve_run
from nanogpt.config.schema import (
    BenchSettings,
    EvalSettings,
    ModelSettings,
    RunDefaults,
    SampleSettings,
    TrainSettings,
)
from tests.config.examples import (
    LAYERS,
    load_sweep,
    load_yaml,
)


def line_of(description, setting):
    """The lines of a description that give a setting."""
    lines = [line for line in description.splitlines() if line.startswith(f"  {setting}: ")]
    return " ".join(lines)


def test_description_has_the_source_of_each_value():
    description = describe_run(load_yaml(LAYERS), "first")
    for setting, value, source in [
        ("beta1", "0.5", "command line"),
        ("max_iters", "300", "defaults"),
        ("beta2", "0.99", "built in"),
        ("n_embd", "8", "runs.first"),
        ("n_layer", "9", "models.deep"),
        ("n_head", "2", "models.shallow"),
        ("block_size", "16", "defaults"),
        ("dropout", "0.5", "command line"),
        ("lr_decay_iters", "300", "from train.max_iters"),
    ]:
        found, _, origin = line_of(description, setting).partition("#")
        assert found.split() == [f"{setting}:", value]
        assert origin.strip() == source
    assert description.startswith("dataset: letters\n")


def test_description_has_the_sweeps_entry_as_source():
    config = load_sweep("{model: [tiny], seed: [1]}", "dataset: letters, train: {max_iters: 400}")
    description = describe_run(config, "r.model-tiny.seed-1")
    for setting, source in [("max_iters", "runs.r"), ("n_layer", "models.tiny")]:
        assert line_of(description, setting).endswith(f"# {source}")
    assert "  seed: 1                              # runs.r\n" in description


def test_description_has_the_source_of_a_derived_setting():
    given = describe_run(load_yaml("{train: {batch_size: 3}, bench: {batch_size: 4}}"), "first")
    assert given.count("batch_size: 4                        # command line") == 1
    derived = describe_run(
        load_yaml("{train: {batch_size: 3}, bench: {batch_size: null}}"), "first"
    )
    assert derived.count("batch_size: 3                        # from train.batch_size") == 1
    assert derived.count("lr_decay_iters: 5000                 # from train.max_iters") == 1


def test_description_has_every_setting():
    config = load_yaml(LAYERS + "ngram: on\n")
    described = yaml.safe_load(describe_run(config, "first"))
    run = resolve_run(config, "first").model_dump()
    assert {group: set(described[group]) for group in RunDefaults.GROUPS} == {
        group: set(run[group]) for group in RunDefaults.GROUPS
    }


def test_description_shows_that_ngrams_are_off():
    assert describe_run(load_yaml(""), "first").endswith("\nngram: off\n")


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.floats(1e-6, 1e300))
def test_description_is_yaml_of_the_same_run(start, temperature):
    config = load(
        {
            "corpora": {"text": {"files": "f"}},
            "datasets": {"text": {}},
            "sample": {"start": start, "temperature": temperature},
        }
    )
    described = yaml.safe_load(describe_run(config, "text"))
    again = load(
        {**config.model_dump(include={"corpora", "datasets"}), "runs": {"again": described}}
    )
    assert resolve_run(again, "again").model_copy(update={"name": "text"}) == resolve_run(
        config, "text"
    )


def test_settings_page_has_every_setting_with_its_default():
    page = settings_page()
    for group in (ModelSettings, TrainSettings, EvalSettings, SampleSettings, BenchSettings):
        for name, field in group.model_fields.items():
            assert f"| `{name}` |" in page
            assert field.description in page
    assert "| `learning_rate` | `0.001` |" in page
    assert "| `dropout` | `0.2` |" in page


def test_every_row_of_the_settings_page_has_three_cells():
    rows = [line for line in settings_page().splitlines() if line.startswith("| `")]
    assert rows
    assert all(row.count("|") == 4 for row in rows)


def test_schema_has_sweeps_and_their_settings():
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(json_schema())

    def is_valid(sweep):
        return check.is_valid({"runs": {"r": {"sweep": yaml.safe_load(sweep)}}})

    for good in ["{seed: [1], model: [tiny]}", "{train.learning_rate: [1e-3, 0.1]}"]:
        assert is_valid(good)
    for bad in ["{}", "{sead: [1]}", "{seed: 1}", "{seed: []}", "{seed: [[1]]}", "[seed]"]:
        assert not is_valid(bad)
