"""The header of ngrams.safetensors: what was counted, and how it's mixed with a GPT."""

from typing import Annotated

from pydantic import Field

from nanogpt.artifacts.records.base import Record


class NgramHeader(Record):
    """What n-grams were counted, and their share of a mixture.

    vocabulary: the digest of the tokens' texts. train_sha256: of the training split that was
    counted, of which its last n_tokens were. weight, caution: the n-grams' share of a mixture, as
    ngram/mixing.py has it.
    """

    max_order: Annotated[int, Field(ge=1)]
    weight: Annotated[float, Field(ge=0, le=1)]
    caution: Annotated[float, Field(ge=0)]
    vocab_size: Annotated[int, Field(ge=1)]
    vocabulary: str
    train_sha256: str
    n_tokens: Annotated[int, Field(ge=1)]
