"""The loss of a GPT mixed with n-grams, computed from one pass of the GPT over a split."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nanogpt.artifacts.records.evaluations import MixtureEvaluation, SplitEvaluation
from nanogpt.data.shards import SplitTokens
from nanogpt.evaluation.statistics import summarize_split
from nanogpt.evaluation.survey import Survey
from nanogpt.ngram.mixing import Ngrams


def evaluate_mixture(survey: Survey, tokens: SplitTokens, ngrams: Ngrams) -> MixtureEvaluation:
    """Return the loss of the mixture on a split. survey: the GPT's, of all tokens but the first.

    At a window's first prediction, the GPT and the n-grams see one token.
    """
    block_size = len(survey.positions)
    gpt = np.exp(-survey.token_nats.astype(np.float64))
    n_before = np.arange(len(gpt)) % block_size + 1

    def evaluate(n_before: NDArray[np.int64] | None) -> SplitEvaluation:
        predictions = ngrams.trie.probabilities(tokens, n_before)
        weights = ngrams.weights(predictions)
        mixed = (1 - weights) * gpt + weights * predictions.p
        return _summarize(survey, -np.log(mixed), block_size)

    return MixtureEvaluation(
        max_order=ngrams.header.max_order,
        weight=ngrams.header.weight,
        caution=ngrams.header.caution,
        n_counted_tokens=ngrams.header.n_tokens,
        across_windows=evaluate(None),
        within_windows=evaluate(n_before),
    )


def _summarize(survey: Survey, nats: NDArray[np.float64], block_size: int) -> SplitEvaluation:
    """Summarize a split with different nats per token than the survey's."""
    windows = survey.windows.copy()
    windows[:, 0] = np.add.reduceat(nats, np.arange(0, len(nats), block_size))
    return summarize_split(replace(survey, nats=float(nats.sum()), windows=windows))
