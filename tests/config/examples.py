"""Configs that the tests of settings share, and how they load them."""

import pytest
import yaml

from nanogpt.config.loading import load
from nanogpt.errors import UserError

BASE = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}}
models: {tiny: {n_layer: 1, n_head: 2, n_embd: 4, block_size: 8}}
runs: {first: {dataset: letters}}
"""

LAYERS = """
models:
  shallow: {n_layer: 2, n_head: 2, n_embd: 4}
  deep: {n_layer: 9}
defaults:
  model: {preset: shallow, block_size: 16}
  train: {max_iters: 300, batch_size: 3, beta1: 0.3}
runs:
  first:
    dataset: letters
    model: {preset: deep, n_embd: 8}
    train: {batch_size: 4, beta1: 0.4}
train: {beta1: 0.5}
model: {dropout: 0.5}
"""

SWEEPING = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}, words: {corpus: text}}
models:
  tiny: {n_layer: 1, n_head: 2, n_embd: 4}
  small: {n_layer: 2, n_head: 2, n_embd: 8, dropout: 0.3}
"""


def load_yaml(text, texts=()):
    """Check BASE with the top-level keys of `text` put in or replaced."""
    return load({**yaml.safe_load(BASE), **(yaml.safe_load(text) or {})}, texts)


def message_of(text, texts=()):
    """The message that a wrong config gets."""
    with pytest.raises(UserError) as error:
        load_yaml(text, texts)
    return str(error.value)


def load_sweep(sweep, entry="dataset: letters", more="", texts=()):
    """A config whose run `r` has this sweep beside `entry`; `more`: other top-level keys."""
    config = {**yaml.safe_load(SWEEPING), **(yaml.safe_load(more) or {})}
    run = {**yaml.safe_load(f"{{{entry}}}"), "sweep": yaml.safe_load(sweep)}
    return load({**config, "runs": {"r": run, **config.get("runs", {})}}, texts)


def assert_one_line(text, words):
    """A wrong config gets one line that has all these words."""
    message = message_of(text)
    for word in words:
        assert word in message
    assert len(message.splitlines()) == 1
