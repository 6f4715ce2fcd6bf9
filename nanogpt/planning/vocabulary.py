"""Estimate the vocabulary size of a dataset from its settings alone."""

from nanogpt.config.corpora import TOKENIZERS
from nanogpt.config.schema import Config

# Assumed for a dataset that isn't made yet. A text in one language has 60 to 200 characters.
CHARACTERS = 100
GPT2_TOKENS = 50_257
BYTES = 256


def find_vocabulary(config: Config, name: str) -> tuple[int, bool]:
    """Return a dataset's vocabulary size, and whether that's certain before it's made."""
    dataset = config.datasets[name]
    if dataset.tokenizer not in TOKENIZERS:
        return find_vocabulary(config, dataset.tokenizer)
    if dataset.tokenizer == "bpe":
        return dataset.vocab_size, True
    if dataset.tokenizer == "gpt2":
        return GPT2_TOKENS, True
    if dataset.tokenizer == "byte":
        return BYTES, True
    return CHARACTERS, False
