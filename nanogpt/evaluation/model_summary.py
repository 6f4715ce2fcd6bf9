"""The model that eval.json and bench.json are about."""

from nanogpt.artifacts.records.evaluations import ModelSummary
from nanogpt.config.parameters import as_parameters
from nanogpt.model.gpt import GPT


def summarize_model(model: GPT) -> ModelSummary:
    """A model's size and settings."""
    return ModelSummary(
        n_parameters=model.n_parameters(),
        vocab_size=model.vocab_size,
        **as_parameters(model.settings),
    )
