"""How many symbols a dataset has, by its settings alone, as far as they tell."""

from nanogpt.config.corpora import TOKENIZERS
from nanogpt.config.schema import Config

# Where a dataset isn't made yet. A text of one language has 60 to 200 characters.
CHARACTERS = 100
GPT2_TOKENS = 50_257
BYTES = 256


def find_vocabulary(config: Config, name: str) -> tuple[int, bool]:
    """The size of a dataset's vocabulary, and whether it's certain before the dataset is made."""
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
