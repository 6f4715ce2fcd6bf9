"""The description of a model in eval.json and bench.json."""

from pydantic import JsonValue

from nanogpt.artifacts.records.evaluations import ModelSummary
from nanogpt.config.parameters import as_parameters
from nanogpt.model.ensemble import Ensemble, Model


def summarize_model(model: Model) -> ModelSummary:
    """Return a model's size and settings."""
    settings: dict[str, JsonValue]
    if isinstance(model, Ensemble):
        settings = {"ensemble": [as_parameters(s) for s in model.settings_of_members]}
    else:
        settings = as_parameters(model.settings)
    return ModelSummary(n_parameters=model.n_parameters(), vocab_size=model.vocab_size, **settings)
