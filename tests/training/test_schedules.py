"""Learning rates match nanoGPT's, and each group of parameters has its own."""

import math

import pytest
import torch

from nanogpt.config.schema import TrainSettings
from nanogpt.training.schedules import learning_rate_at, set_learning_rates

SCHEDULE = TrainSettings(
    learning_rate=6e-4, min_lr=6e-5, warmup_iters=100, lr_decay_iters=1100, max_iters=2000
)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 6e-4 / 101),  # never zero
        (49, 6e-4 * 50 / 101),
        (99, 6e-4 * 100 / 101),
        (100, 6e-4),  # the peak
        (350, 6e-5 + (6e-4 - 6e-5) * (2 + math.sqrt(2)) / 4),  # a quarter of the decay
        (600, (6e-4 + 6e-5) / 2),  # half of it
        (1100, 6e-5),
        (1101, 6e-5),
        (1999, 6e-5),
    ],
)
def test_learning_rates_match_nanogpts(step, expected):
    assert learning_rate_at(step, SCHEDULE) == pytest.approx(expected, rel=1e-12)


def test_the_learning_rate_rises_only_during_warm_up():
    rates = [learning_rate_at(step, SCHEDULE) for step in range(1200)]
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)


def test_without_lr_decay_iters_the_decay_ends_with_the_training():
    settings = TrainSettings(learning_rate=1e-3, min_lr=1e-4, warmup_iters=0, max_iters=100)
    assert learning_rate_at(0, settings) == pytest.approx(1e-3)
    assert learning_rate_at(50, settings) == pytest.approx((1e-3 + 1e-4) / 2)
    assert learning_rate_at(100, settings) == pytest.approx(1e-4)


@pytest.mark.parametrize("step", [0, 50, 100, 1000, 5000])
def test_without_decay_the_learning_rate_is_constant(step):
    settings = SCHEDULE.model_copy(update={"decay_lr": False})
    assert learning_rate_at(step, settings) == 6e-4


WSD = SCHEDULE.model_copy(update={"lr_schedule": "wsd", "warmdown_ratio": 0.5, "min_lr": 0.0})


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (49, 6e-4 * 50 / 101),
        (100, 6e-4),
        (550, 6e-4),  # the last stable step
        (825, 3e-4),
        (1100, 0.0),
        (1500, 0.0),
    ],
)
def test_wsd_is_constant_and_then_falls_linearly(step, expected):
    assert learning_rate_at(step, WSD) == pytest.approx(expected, rel=1e-12)


def test_a_long_warmdown_starts_at_the_end_of_the_warm_up():
    settings = WSD.model_copy(update={"warmdown_ratio": 1.0})
    assert learning_rate_at(100, settings) == pytest.approx(6e-4)
    assert learning_rate_at(600, settings) == pytest.approx(3e-4)


# --- Groups of parameters -------------------------------------------------------------------


def rates(step, settings, *initial_rates):
    """Return the rates in a step, for groups with these initial rates."""
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "initial_lr": rate}
        for rate in initial_rates
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    set_learning_rates(optimizer, learning_rate_at(step, settings), settings)
    return [group["lr"] for group in optimizer.param_groups]


def independent_rate(step, peak, floor, warmup, decay, last, decays):
    """nanoGPT's get_lr, written independently of the module under test."""
    if not decays:
        return peak
    end = decay if decay else last
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if step > end:
        return floor
    ratio = (step - warmup) / (end - warmup)
    return floor + 0.5 * (1 + math.cos(math.pi * ratio)) * (peak - floor)


@pytest.mark.parametrize("peak", [6e-4, 1e-3, 3e-3, 0.1, 1 / 3])
@pytest.mark.parametrize("floor_share", [0.1, 1 / 7, 1.0, 0.0])
@pytest.mark.parametrize(("warmup", "decay"), [(0, None), (5, None), (100, 390), (7, 1000)])
@pytest.mark.parametrize("decays", [True, False])
def test_a_group_with_the_peak_rate_gets_exactly_the_schedule(
    peak, floor_share, warmup, decay, decays
):
    settings = TrainSettings(
        learning_rate=peak,
        min_lr=floor_share * peak,
        warmup_iters=warmup,
        lr_decay_iters=decay,
        max_iters=400,
        decay_lr=decays,
    )
    for step in range(500):
        wanted = independent_rate(step, peak, settings.min_lr, warmup, decay, 400, decays)
        assert learning_rate_at(step, settings) == wanted
        assert rates(step, settings, peak) == [wanted]


@pytest.mark.parametrize("step", [0, 50, 100, 600, 1100, 1999])
def test_a_groups_schedule_scales_with_its_initial_rate(step):
    first, second = rates(step, SCHEDULE, 6e-4, 0.02)
    larger = SCHEDULE.model_copy(update={"learning_rate": 0.02, "min_lr": 6e-5 * 0.02 / 6e-4})
    assert first == learning_rate_at(step, SCHEDULE)
    assert second == pytest.approx(learning_rate_at(step, larger), rel=1e-12)
