"""The simulator of failures and saves agrees with what is known in closed form."""

import math

import numpy as np
import pytest

from benchmarks.goodput import (
    HOUR,
    MINUTE,
    Cluster,
    daly_interval,
    expected_seconds,
    measure_saves,
    simulate,
    young_interval,
)
from nanogpt.config.schema import ModelSettings

WORK = 100 * HOUR
SAVE = 2 * MINUTE


def test_without_failures_only_saves_are_added():
    reliable = Cluster(math.inf, SAVE)
    # 9 saves between 10 hours of steps each; none after the last step.
    assert set(simulate(reliable, 10 * HOUR, WORK, 50)) == {WORK + 9 * SAVE}
    assert expected_seconds(reliable, 10 * HOUR, WORK) == WORK + 9 * SAVE
    assert set(simulate(reliable, 2 * WORK, WORK, 50)) == {WORK}


def test_without_saves_each_failure_starts_from_the_beginning():
    """The mean is then M exp(R / M) (exp(W / M) - 1)."""
    cluster = Cluster(60 * HOUR, SAVE, restart=2 * HOUR)
    known = 60 * HOUR * math.exp(2 / 60) * math.expm1(100 / 60)
    assert expected_seconds(cluster, 1000 * HOUR, WORK) == pytest.approx(known)
    assert _is_mean(known, simulate(cluster, 1000 * HOUR, WORK, 20_000))


@pytest.mark.parametrize("between_failures", [3 * HOUR, 50 * HOUR, 5000 * HOUR])
@pytest.mark.parametrize("interval", [5 * MINUTE, HOUR, 7 * HOUR])
def test_simulated_mean_is_the_expected_time(between_failures, interval):
    cluster = Cluster(between_failures, SAVE, restart=20 * MINUTE)
    expected = expected_seconds(cluster, interval, WORK)
    assert _is_mean(expected, simulate(cluster, interval, WORK, 4000))


@pytest.mark.parametrize(
    ("between_failures", "minutes", "rounded"),
    [(24 * HOUR, 117, 0), (6 * HOUR, 57, 0), (15 * MINUTE, 9.1, 1)],
)
def test_best_interval_is_that_of_dalys_paper(between_failures, minutes, rounded):
    """Its figures 3 to 5 have these, for saves of 5 minutes and restarts of 10."""
    cluster = Cluster(between_failures, 5 * MINUTE, 10 * MINUTE)
    assert round(daly_interval(cluster) / MINUTE, rounded) == minutes


@pytest.mark.parametrize("between_failures", [3 * HOUR, 50 * HOUR])
def test_simulated_goodput_is_best_at_dalys_interval(between_failures):
    cluster, random_seed = Cluster(between_failures, SAVE), 1
    best = daly_interval(cluster)
    intervals = best * np.geomspace(1 / 8, 8, 31)
    means = [simulate(cluster, tau, WORK, 3000, random_seed).mean() for tau in intervals]
    at_best = simulate(cluster, best, WORK, 3000, random_seed).mean()
    assert at_best <= 1.002 * min(means)
    # The mean is flat around the best interval, and clearly higher far from it.
    assert 1 / 1.7 < intervals[np.argmin(means)] / best < 1.7
    assert min(means[0], means[-1]) > 1.02 * at_best


def test_young_and_daly_agree_if_failures_are_rare():
    rare, often = Cluster(5000 * HOUR, SAVE), Cluster(SAVE, SAVE)
    assert daly_interval(rare) == pytest.approx(young_interval(rare), rel=0.01)
    assert daly_interval(often) < 0.8 * young_interval(often)
    assert daly_interval(Cluster(SAVE / 2, SAVE)) == SAVE / 2


def test_same_seed_gives_the_same_times():
    cluster = Cluster(10 * HOUR, SAVE)
    times = [simulate(cluster, HOUR, WORK, 100, seed) for seed in (0, 0, 1)]
    assert (times[0] == times[1]).all()
    assert (times[0] != times[2]).any()


def test_saved_state_has_16_bytes_per_parameter():
    """float32 weights, the best weights and AdamW's two moments."""
    model = ModelSettings(n_layer=1, n_head=1, n_embd=16, block_size=8, dropout=0.0)
    saves = measure_saves(model, rounds=1)
    assert saves.kept == 8
    assert saves.moments == pytest.approx(8, rel=0.01)
    assert saves.seconds_per_byte > 0
    # Rank 0 writes the weights alone, after the others have written their moments.
    alone, of_8 = saves.by_rank_0(10**9, 1), saves.by_rank_0(10**9, 8)
    assert of_8 / alone == pytest.approx((8 + 8 / 8 + 8 / 8) / 16, rel=0.01)


def _is_mean(expected: float, times: np.ndarray) -> bool:
    """Whether a sample's mean is within four standard errors of the expected one."""
    error = times.std() / math.sqrt(len(times))
    return bool(abs(times.mean() - expected) <= 4 * error)
