"""ngram.json: how well n-gram models predict a dataset's validation split."""

from pydantic import Field

from nanogpt.artifacts.records.base import Number, Record


class NgramOrder(Record):
    """The n-gram model of one order. loss: nats per token."""

    order: int
    loss: float
    perplexity: float
    bits_per_byte: Number
    bits_per_character: Number
    n_tokens: int
    n_bytes: int
    n_characters: int


class NgramEvaluation(Record):
    """ngram.json of a dataset."""

    dataset: str
    method: str
    n_train_tokens: int
    orders: tuple[NgramOrder, ...] = Field(min_length=1)

    @property
    def best(self) -> NgramOrder:
        """The order with the lowest loss."""
        return min(self.orders, key=lambda order: order.loss)
