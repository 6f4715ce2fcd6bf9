"""The next token is drawn with the probability that the settings imply."""

import pytest
import torch

from nanogpt.inference.choosing import Uniforms, choose
from tests.inference.models import with_settings

N_ROWS = 5_000
LOGITS = torch.tensor([2.0, -1.0, 0.5, 1.5, 0.0, -3.0, 1.0])


def shares(settings, logits=LOGITS, seen=None):
    """Return how often each token is chosen with these logits."""
    rows = logits.expand(N_ROWS, -1)
    marks = None if seen is None else seen.expand(N_ROWS, -1)
    tokens = choose(rows, settings, [Uniforms(seed) for seed in range(N_ROWS)], marks)
    return torch.bincount(tokens, minlength=len(logits)) / N_ROWS


def assert_shares(found, expected):
    error = (expected * (1 - expected) / N_ROWS).sqrt()
    assert ((found - expected).abs() <= 5 * error + 1e-6).all(), (found, expected)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_draws_follow_the_softmax_at_that_temperature(temperature):
    found = shares(with_settings(temperature=temperature))
    assert_shares(found, torch.softmax(LOGITS / temperature, -1))


@pytest.mark.parametrize("temperature", [0, 1e-320, 1e-46, 1e-7])
def test_the_lowest_temperatures_choose_the_likeliest_token(temperature):
    assert shares(with_settings(temperature=temperature)).tolist() == [1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("top_k", [1, 3, 6])
def test_top_k_keeps_the_likeliest_tokens_in_proportion(top_k):
    kept = LOGITS.argsort(descending=True)[:top_k]
    expected = torch.zeros(7).scatter(0, kept, torch.softmax(LOGITS[kept], -1))
    assert_shares(shares(with_settings(top_k=top_k)), expected)


@pytest.mark.parametrize("top_k", [7, 100])
def test_a_top_k_as_large_as_the_vocabulary_keeps_everything(top_k):
    assert torch.equal(shares(with_settings(top_k=top_k)), shares(with_settings(top_k=0)))


@pytest.mark.parametrize(("top_p", "n_kept"), [(0.01, 1), (0.43, 2), (0.9, 4), (1.0, 7)])
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p, n_kept):
    p = torch.softmax(LOGITS, -1)
    ranked = p.sort(descending=True)
    assert ranked.values[:n_kept].sum() >= top_p - 1e-6
    assert n_kept == 1 or ranked.values[: n_kept - 1].sum() < top_p
    kept = torch.zeros(7).scatter(0, ranked.indices[:n_kept], ranked.values[:n_kept])
    assert_shares(shares(with_settings(top_p=top_p)), kept / kept.sum())


@pytest.mark.parametrize("min_p", [0.0, 0.2, 0.5, 1.0])
def test_min_p_keeps_tokens_relative_to_the_likeliest(min_p):
    p = torch.softmax(LOGITS, -1)
    kept = torch.where(p >= min_p * p.max(), p, 0)
    assert_shares(shares(with_settings(min_p=min_p)), kept / kept.sum())


def test_the_repetition_penalty_lowers_seen_tokens_before_the_temperature():
    seen = torch.tensor([True, True, False, False, False, False, False])
    lowered = LOGITS.clone()
    lowered[:2] = torch.tensor([2.0 / 1.5, -1.0 * 1.5])
    found = shares(with_settings(repetition_penalty=1.5, temperature=0.7), seen=seen)
    assert_shares(found, torch.softmax(lowered / 0.7, -1))


def test_all_sampling_settings_work_together():
    p = torch.softmax(LOGITS / 2, -1)
    for kept in (p >= p.sort().values[-5], p >= 0.35 * p.max()):
        p = torch.where(kept, p, 0) / p[kept].sum()
    found = shares(with_settings(temperature=2.0, top_k=5, top_p=1.0, min_p=0.35))
    assert_shares(found, p)


def test_a_token_with_zero_probability_is_never_drawn():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf])
    assert shares(with_settings(), logits)[[0, 2, 4]].tolist() == [0, 0, 0]


def test_random_numbers_depend_only_on_the_seed():
    first, again, other = Uniforms(3), Uniforms(3), Uniforms(4)
    numbers = [first.next() for _ in range(200)]
    torch.rand(5)
    assert [again.next() for _ in range(200)] == numbers
    assert other.next() != numbers[0]
    assert len(set(numbers)) == 200
    assert all(0 <= number < 1 for number in numbers)
