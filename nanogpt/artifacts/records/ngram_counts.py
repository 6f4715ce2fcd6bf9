"""The header of ngrams.safetensors: the counted text, and how to mix n-grams with a GPT."""

from typing import Annotated

from pydantic import Field

from nanogpt.artifacts.records.base import Record


class NgramHeader(Record):
    """A description of the counted n-grams, and their share of a mixture.

    vocabulary: the digest of the tokens' texts. train_sha256: of the training split, of which the
    last n_tokens were counted. weight, caution: determine the n-grams' share of a mixture; see
    ngram/mixing.py.
    """

    max_order: Annotated[int, Field(ge=1)]
    weight: Annotated[float, Field(ge=0, le=1)]
    caution: Annotated[float, Field(ge=0)]
    vocab_size: Annotated[int, Field(ge=1)]
    vocabulary: str
    train_sha256: str
    n_tokens: Annotated[int, Field(ge=1)]
