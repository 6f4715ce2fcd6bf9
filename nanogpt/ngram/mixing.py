"""Mix the predictions of a GPT and n-grams.

    p(w | h) = (1 - m(h)) p_gpt(w | h) + m(h) p_ngrams(w | h)    m(h) = weight (1 - g(h))^caution

g(h) is the probability that the longest known context reserves for tokens never seen after it
(probabilities.py). The more certain the counts are, the closer m(h) is to the full weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanogpt.artifacts.records.ngram_counts import NgramHeader
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import REMAKE, UserError
from nanogpt.model.kernels import log, softmax
from nanogpt.ngram.counts import load_table, vocabulary_digest
from nanogpt.ngram.trie import NgramTrie, Predictions, build_trie
from nanogpt.project import NGRAMS_FILE


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of a model, which are mixed with its predictions. path: of their file."""

    trie: NgramTrie
    header: NgramHeader
    path: Path

    def summary(self) -> str:
        """Describe the mixture in one line."""
        header = self.header
        if header.weight == 0:
            return f"n-grams, not mixed: max_order {header.max_order}, weight 0"
        return (
            f"mixed with n-grams: max_order {header.max_order}, weight {header.weight:g}, "
            f"caution {header.caution:g}"
        )

    def contexts(self, tokens: Sequence[int]) -> NDArray[np.int64]:
        """The contexts after a text's tokens, (1, max_order)."""
        contexts = self.trie.empty_contexts(1)
        # No longer n-gram can include earlier tokens.
        for token in tokens[-self.header.max_order :]:
            contexts = self.read(contexts, np.array([token]))
        return contexts

    def read(self, contexts: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The contexts after one more token of each text, (B,)."""
        return self.trie.read(contexts, tokens)

    def mix(self, logits: Tensor, contexts: NDArray[np.int64]) -> Tensor:
        """The logarithms of the mixed probabilities, (B, V), from the GPT's logits (B, V).

        With a weight of 0 the logits are unchanged, as the n-grams are only used for drafts.
        """
        if self.header.weight == 0:
            return logits
        predictions = self.trie.distributions(contexts)
        weights = torch.from_numpy(self.weights(predictions)).to(logits.device)
        p = torch.from_numpy(predictions.p).to(logits.device)
        return log(softmax(logits.float()).lerp(p, weights[:, None]))

    def weights(self, predictions: Predictions) -> NDArray[np.floating]:
        """The n-grams' share in each prediction of a mixture, (n,)."""
        weights: NDArray[np.floating] = (1 - predictions.held_back) ** self.header.caution
        return self.header.weight * weights


def load_ngrams(path: Path, tokenizer: Tokenizer) -> Ngrams:
    """Read the n-grams to mix with a model. tokenizer: the model's.

    Errors: UserError for a file that's missing, damaged or from another vocabulary.
    """
    table, header = load_table(path)
    if header.vocabulary != vocabulary_digest(tokenizer):
        raise UserError(f"{path}: its vocabulary isn't the model's; {REMAKE}")
    return Ngrams(build_trie(table), header, path)


def find_ngrams(model_directory: Path) -> Ngrams | None:
    """Load the n-grams from a model's directory; None if it doesn't have any.

    Errors: UserError for a file that's damaged or from another vocabulary.
    """
    path = model_directory / NGRAMS_FILE
    if not path.exists():
        return None
    return load_ngrams(path, load_tokenizer(model_directory / "tokenizer.json"))
