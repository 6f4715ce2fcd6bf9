"""What settings are as parameters: neutral values are left out, and gaps filled with them."""

import json
from pathlib import Path

import pytest

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.parameters import as_parameters, complete, neutral_values, new_setting
from nanogpt.config.schema import (
    BenchSettings,
    EvalSettings,
    ModelSettings,
    NgramSettings,
    SampleSettings,
    TrainSettings,
)
from nanogpt.errors import UserError

GROUPS = (
    ModelSettings,
    TrainSettings,
    EvalSettings,
    SampleSettings,
    BenchSettings,
    NgramSettings,
    Corpus,
    Dataset,
)
HERE = Path(__file__).parent
FIRST = json.loads((HERE / "first_settings.json").read_text())
NEUTRAL = json.loads((HERE / "neutral_values.json").read_text())


class LaterModel(ModelSettings):
    """Model settings of a later version."""

    normed: bool = new_setting(True, neutral=False, description="normalised queries and keys")
    window: int | None = new_setting(None, neutral=None, ge=1, description="tokens attended to")


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_later_setting_declares_its_neutral_value(group) -> None:
    """A new setting needs `new_setting(..., neutral=...)`, and its value in neutral_values.json."""
    later = set(group.model_fields) - set(FIRST[group.__name__])
    assert later == set(neutral_values(group))


def test_neutral_values_match_the_committed_table() -> None:
    """A neutral value means "as before the setting existed", so it can never change."""
    declared = {
        f"{group.__name__}.{name}": value
        for group in GROUPS
        for name, value in neutral_values(group).items()
    }
    assert declared == NEUTRAL


def test_neutral_values_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        neutral_values(ModelSettings)["norm"] = "rmsnorm"  # type: ignore[index]


def test_setting_at_its_neutral_value_is_not_a_parameter() -> None:
    first = as_parameters(ModelSettings())
    assert as_parameters(LaterModel(normed=False)) == first
    assert as_parameters(LaterModel()) == {**first, "normed": True}
    assert as_parameters(LaterModel(normed=False, window=8)) == {**first, "window": 8}


def test_only_selected_settings_are_parameters() -> None:
    assert as_parameters(LaterModel(), {"n_layer", "normed"}) == {
        "n_layer": 6,
        "normed": True,
    }


def test_missing_parameters_get_neutral_values_not_defaults() -> None:
    first = as_parameters(ModelSettings(n_layer=2))
    read = complete(LaterModel, first)
    assert (read.n_layer, read.normed, read.window) == (2, False, None)


def test_parameters_survive_a_round_trip() -> None:
    for settings in (LaterModel(), LaterModel(normed=False), LaterModel(window=3)):
        assert complete(LaterModel, as_parameters(settings)) == settings


def test_a_missing_setting_of_the_first_version_is_an_error() -> None:
    given = as_parameters(ModelSettings())
    del given["n_layer"]
    with pytest.raises(UserError, match="`n_layer` is missing"):
        complete(ModelSettings, given)
    assert complete(ModelSettings, given, partial=True).n_layer == 6


def test_wrong_setting_is_an_error_that_names_it() -> None:
    with pytest.raises(UserError, match="n_layer: "):
        complete(ModelSettings, {**as_parameters(ModelSettings()), "n_layer": 0})
    with pytest.raises(UserError, match="n_layers: unknown setting"):
        complete(ModelSettings, {**as_parameters(ModelSettings()), "n_layers": 1})
