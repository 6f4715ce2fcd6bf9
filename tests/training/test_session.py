"""A training that stops at any moment resumes to the same bytes; what is written, and by whom."""

import json
import logging
import os
import signal
import time
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from nanogpt.artifacts.signals import Signals, Stopped
from nanogpt.artifacts.states import TrainingState
from nanogpt.errors import ClaimedError, DivergedError, UserError
from nanogpt.model import kernels
from nanogpt.model.checkpoints import load_model
from nanogpt.training import loop
from nanogpt.training import session as session_module
from nanogpt.training.distributed import Ranks
from nanogpt.training.optimizers import configure_optimizer
from nanogpt.training.state_files import find_states
from tests.recipes import MODERN
from tests.training.trainings import BASE, DIVERGES, assert_same, kill, read_metrics

LONG = {"max_iters": 12, "log_interval": 3, "eval_interval": 4}


@pytest.fixture
def uninterrupted(another_training, play, tiny):
    """What a training comes to that nobody stops, with dropout and both kinds of `keep`."""

    def run(**changes):
        with_dropout = tiny.model_copy(update={"dropout": 0.2})
        return another_training.run(play, with_dropout, **LONG, **changes)

    return run


def steps_of(path):
    return [line["step"] for line in read_metrics(path)]


def test_metrics_grow_in_the_state_directory_and_results_come_at_the_end(training, play, tiny, at):
    seen = []

    def look():
        seen.append((steps_of(training.state / "metrics.jsonl"), training.results.exists()))

    for step in (0, 3, 6):
        at(step, look)
    training.run(play, tiny, max_iters=6, log_interval=3)
    assert seen == [([0], False), ([0, 3], False), ([0, 3, 6], False)]
    assert steps_of(training.results / "metrics.jsonl") == [0, 3, 6]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_training_in_float16_goes_on_to_the_same_bytes_and_the_same_scale(
    training, another_training, play, tiny, at, monkeypatch, optimizer
):
    """The first steps are left out, as the scale is far too large; it's halved until it fits."""
    too_large = partial(torch.amp.GradScaler, init_scale=2.0**26)
    monkeypatch.setattr(torch.amp, "GradScaler", too_large)
    settings = {**LONG, "dtype": "float16", "log_interval": 1, "optimizer": optimizer}
    for step in (3, 10):
        at(step, kill(signal.SIGTERM))
        with pytest.raises(SystemExit):
            training.run(play, tiny, **settings)
    training.run(play, tiny, **settings)
    assert_same(training, another_training.run(play, tiny, **settings))
    norms = [line.get("grad_norm") for line in training.metrics[1:]]
    assert norms[0] is None
    assert all(norms[-2:])


def test_a_training_in_float16_that_makes_no_step_ends_with_one_line(
    training, play, tiny, monkeypatch
):
    def configure(model, settings):
        for parameter in model.parameters():
            parameter.register_hook(lambda gradient: gradient + torch.inf)
        return configure_optimizer(model, settings)

    monkeypatch.setattr(loop, "configure_optimizer", configure)
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=8.0))
    with pytest.raises(DivergedError, match="beyond float16's range at step 4; lower"):
        training.run(play, tiny, **LONG, dtype="float16")


def test_a_training_by_the_modern_recipe_goes_on_to_the_same_bytes(
    training, another_training, play, tiny, at
):
    modern = tiny.model_copy(update={**MODERN, "init": "zero_proj"})
    settings = {**LONG, "optimizer": "muon", "lr_schedule": "wsd", "weight_decay": 0.01}
    for step in (3, 4):
        at(step, kill(signal.SIGTERM))
        with pytest.raises(SystemExit):
            training.run(play, modern, **settings)
        assert len(find_states(training.state)) in (1, 2)
    training.run(play, modern, **settings)
    assert_same(training, another_training.run(play, modern, **settings))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_training_that_is_stopped_goes_on_to_the_same_bytes(
    training, uninterrupted, play, tiny, at, number, keep
):
    with_dropout = tiny.model_copy(update={"dropout": 0.2})
    # Step 4 is logged after its evaluation, step 3 without one.
    for step in (3, 4):
        at(step, kill(number))
        with pytest.raises(SystemExit) as stopped:
            training.run(play, with_dropout, **LONG, keep=keep)
        assert stopped.value.code == 128 + number
        assert not training.results.exists()
        assert len(find_states(training.state)) in (1, 2)
    training.run(play, with_dropout, **LONG, keep=keep)
    assert_same(training, uninterrupted(keep=keep))


def test_a_stop_need_not_wait_for_an_evaluation(training, uninterrupted, play, tiny, monkeypatch):
    """The signal comes between two batches of the evaluation at step 8."""
    with_dropout = tiny.model_copy(update={"dropout": 0.2})
    whole, calls = session_module.windows_loss, []

    def interrupted(*arguments, **named):
        calls.append(arguments)
        if len(calls) == 6:  # of both splits, at steps 0, 4 and 8
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal did not stop the evaluation")
        return whole(*arguments, **named)

    monkeypatch.setattr(session_module, "windows_loss", interrupted)
    with pytest.raises(SystemExit):
        training.run(play, with_dropout, **LONG)
    assert steps_of(training.state / "metrics.jsonl")[-1] == 6
    assert find_states(training.state)[0].name.startswith("step-8.")
    training.run(play, with_dropout, **LONG)
    assert_same(training, uninterrupted())


def test_sigusr1_saves_and_goes_on(training, uninterrupted, play, tiny, at):
    with_dropout = tiny.model_copy(update={"dropout": 0.2})
    saved = []
    at(3, kill(signal.SIGUSR1))
    at(6, lambda: saved.extend(path.name.split(".")[0] for path in find_states(training.state)))
    training.run(play, with_dropout, **LONG)
    assert saved == ["step-4"]
    assert_same(training, uninterrupted())


def test_signals_mean_again_what_they_meant_before(training, play, tiny):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    training.run(play, tiny, max_iters=1)
    assert before == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]


class Died(BaseException):
    """Ends a training as a SIGKILL would: nothing of ours runs after it."""


def die():
    raise Died


@pytest.fixture
def saving_always(monkeypatch):
    monkeypatch.setenv("NANOGPT_SAVE_INTERVAL", "0")


@pytest.mark.usefixtures("saving_always")
@pytest.mark.parametrize("step", [0, 3, 4, 9, 12])
def test_a_training_that_dies_goes_on_from_its_last_state(
    training, uninterrupted, play, tiny, at, step
):
    with_dropout = tiny.model_copy(update={"dropout": 0.2})
    wanted = uninterrupted()
    at(step, die)
    with pytest.raises(Died):
        training.run(play, with_dropout, **LONG)
    training.run(play, with_dropout, **LONG)
    assert_same(training, wanted)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "truncated":
        del data[len(data) // 2 :]
    elif how == "zeroed":
        data[:] = bytes(len(data))
    elif how == "a flipped bit":
        data[len(data) // 2] ^= 1
    else:
        data.clear()
    path.write_bytes(data)


@pytest.mark.usefixtures("saving_always")
@pytest.mark.parametrize("how", ["truncated", "zeroed", "a flipped bit", "empty"])
@pytest.mark.parametrize("n_damaged", [1, 2])
def test_a_damaged_state_is_told_and_the_one_before_it_is_taken(
    training, uninterrupted, play, tiny, at, caplog, how, n_damaged
):
    with_dropout = tiny.model_copy(update={"dropout": 0.2})
    wanted = uninterrupted()
    at(9, kill(signal.SIGTERM))
    with pytest.raises(SystemExit):
        training.run(play, with_dropout, **LONG)
    states = find_states(training.state)
    assert [path.name.split(".")[0] for path in states] == ["step-10", "step-9"]
    for path in states[:n_damaged]:
        damage(path, how)
    caplog.clear()
    training.run(play, with_dropout, **LONG)
    assert_same(training, wanted)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [str(path) in warning for path, warning in zip(states, warnings, strict=False)]
    assert len(warnings) == n_damaged
    assert ("resuming from step 9" in caplog.text) == (n_damaged == 1)


def test_a_state_of_another_model_is_refused(training, play, tiny, at):
    at(3, kill(signal.SIGTERM))
    with pytest.raises(SystemExit):
        training.run(play, tiny, **LONG)
    with pytest.raises(UserError, match="from a different model or version of nanogpt"):
        training.run(play, tiny.model_copy(update={"n_embd": 16}), **LONG)


def test_a_state_of_another_version_is_told_and_not_taken(
    training, uninterrupted, play, tiny, at, caplog
):
    with_dropout = tiny.model_copy(update={"dropout": 0.2})
    at(3, kill(signal.SIGTERM))
    with pytest.raises(SystemExit):
        training.run(play, with_dropout, **LONG, version="other", learning_rate=0.1)
    training.run(play, with_dropout, **LONG)
    assert "ignored, because it's from version other" in caplog.text
    assert_same(training, uninterrupted())


def test_another_number_of_threads_is_told_and_noted(training, play, tiny, at, caplog):
    at(3, kill(signal.SIGTERM))
    with pytest.raises(SystemExit):
        training.run(play, tiny, **LONG)
    torch.set_num_threads(2)
    try:
        training.run(play, tiny, **LONG)
    finally:
        torch.set_num_threads(1)
    assert "threads: 1 before, 2 now" in caplog.text
    assert [(layout.first_step, layout.threads) for layout in training.layouts] == [(0, 1), (4, 2)]


def test_a_training_goes_on_with_what_multiplied_its_matrices(
    training, play, tiny, at, monkeypatch
):
    used = kernels.matmul_in_use()
    at(3, kill(signal.SIGTERM))
    with pytest.raises(SystemExit):
        training.run(play, tiny, **LONG)
    monkeypatch.setattr(kernels, "_matmul", next(n for n in kernels.matmuls() if n != used))
    training.run(play, tiny, **LONG)
    assert [layout.matmul for layout in training.layouts] == [used]


@pytest.mark.parametrize(("share", "told"), [(0.5, 1), (0.9, 0)])
def test_a_training_that_others_keep_waiting_says_so_once(
    training, play, tiny, monkeypatch, caplog, share, told
):
    monkeypatch.setattr(session_module, "NOTICE_AFTER", 1e-6)
    clock = time.monotonic
    monkeypatch.setattr(session_module.time, "thread_time", lambda: share * clock())
    training.run(play, tiny, max_iters=5)
    assert caplog.text.count("this training waits") == told
    assert caplog.text.count("--cores 1") == told


def test_the_seconds_of_a_training_that_was_stopped_go_on(training, play, tiny, at):
    at(3, lambda: time.sleep(0.3))
    at(6, kill(signal.SIGTERM))
    with pytest.raises(SystemExit):
        training.run(play, tiny, **LONG)
    training.run(play, tiny, **LONG)
    seconds = [line["seconds"] for line in training.metrics]
    assert seconds == sorted(seconds)
    assert seconds[-1] > 0.3


@pytest.mark.usefixtures("saving_always")
def test_who_is_no_longer_the_owner_writes_nothing(training, play, tiny):
    def check():
        raise UserError("taken over")

    with pytest.raises(UserError, match="taken over"):
        training.run(play, tiny, **LONG, check_lock=check)
    assert not find_states(training.state)
    assert not training.results.exists()


def test_whose_run_was_claimed_saves_for_a_return_and_writes_no_results(
    training, uninterrupted, play, tiny, monkeypatch
):
    with_dropout = tiny.model_copy(update={"dropout": 0.2})
    monkeypatch.setattr(session_module, "CHECK_INTERVAL", 0.0)
    calls = []

    def check():
        calls.append("check")
        if len(calls) == 5:
            raise ClaimedError("another process trains this run")

    with pytest.raises(ClaimedError):
        training.run(play, with_dropout, **LONG, check_owner=check)
    assert len(find_states(training.state)) == 1
    assert not training.results.exists()
    training.run(play, with_dropout, **LONG)
    assert_same(training, uninterrupted())


@pytest.mark.parametrize("interval", ["often", "-1", ""])
def test_an_interval_that_is_no_number_of_seconds_is_told(
    training, play, tiny, monkeypatch, interval
):
    monkeypatch.setenv("NANOGPT_SAVE_INTERVAL", interval)
    with pytest.raises(UserError, match="NANOGPT_SAVE_INTERVAL"):
        training.run(play, tiny, max_iters=1)


def test_states_are_saved_rarely_if_saving_takes_long():
    assert session_module.interval_between_saves(0.1) == session_module.SAVE_INTERVAL
    assert session_module.interval_between_saves(10.0) == 10.0 / session_module.SAVE_SHARE


def test_milestones_are_models_and_the_same_after_a_stop(training, uninterrupted, play, tiny, at):
    with_dropout = tiny.model_copy(update={"dropout": 0.2})
    wanted = uninterrupted(milestones=[2, 6], keep="last")
    at(6, kill(signal.SIGTERM))
    with pytest.raises(SystemExit):
        training.run(play, with_dropout, **LONG, milestones=[2, 6], keep="last")
    training.run(play, with_dropout, **LONG, milestones=[2, 6], keep="last")
    assert_same(training, wanted)
    kept = [training.results / "milestones" / step for step in ("2", "6")]
    weights = [load_file(directory / "model.safetensors") for directory in kept]
    assert not torch.equal(weights[0]["wte.weight"], weights[1]["wte.weight"])
    assert load_model(kept[0]).model.settings == with_dropout


# --- Several ranks; see test_distributed.py, too --------------------------------------------


class SecondOfTwo(Ranks):
    """Rank 1 of two, with a rank 0 that asks for nothing."""

    meanwhile = None  # what happens here while numbers are exchanged

    def largest(self, *numbers):
        if self.meanwhile:
            self.meanwhile()
        return list(numbers)


@pytest.fixture
def second(play, tiny, tmp_path):
    """The session of a rank 1."""
    session = loop._prepare("tiny", play, tiny, BASE, TrainingState(tmp_path / "state", "v"))
    session.ranks = SecondOfTwo(1, 2)
    return session


def test_a_rank_that_is_asked_to_save_asks_all(second):
    second._saved -= 1e6  # by its clock alone, a save is due
    signals = Signals()
    assert not second.agree(signals)
    signals.save = True
    assert second.agree(signals)
    assert not second.agree(signals)


def test_signals_that_come_while_ranks_agree_are_for_the_next_step(second, monkeypatch):
    signals = Signals()
    monkeypatch.setattr(
        SecondOfTwo,
        "meanwhile",
        lambda _: [signals._receive(n, None) for n in (signal.SIGUSR1, signal.SIGTERM)],
    )
    assert not second.agree(signals)
    with pytest.raises(Stopped):
        second.agree(signals)
    assert signals.save
    assert signals.stop == signal.SIGTERM


def test_ranks_that_wait_for_each_other_say_nothing(second, monkeypatch, caplog):
    monkeypatch.setattr(session_module, "NOTICE_AFTER", 1e-6)
    second._notice_disturbance(1.0, 0.5)
    assert "this training waits" not in caplog.text


# --- Who writes -----------------------------------------------------------------------------


def test_only_rank_0_writes(play, tiny, tmp_path, monkeypatch, capsys):
    """But for its part of a state; see test_distributed.py."""
    monkeypatch.setenv("NANOGPT_SAVE_INTERVAL", "3600")
    settings = BASE.model_copy(update={"max_iters": 4, "milestones": [2], "log_interval": 1})

    def refuse():
        raise AssertionError("this process doesn't own the state")

    state = TrainingState(tmp_path / "state", "v", refuse, refuse)
    session = loop._prepare("tiny", play, tiny, settings, state)
    monkeypatch.setattr(Ranks, "is_main", False)
    loop._make_steps(session, Signals())
    session.write_results(tmp_path / "results")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""
    assert [json.loads(line)["step"] for line in session.progress.metrics.splitlines()] == [
        *range(5)
    ]


@pytest.mark.usefixtures("saving_always")
def test_the_states_of_a_training_that_diverged_are_removed_and_its_metrics_stay(
    training, play, tiny
):
    with pytest.raises(DivergedError):
        training.run(play, tiny, **DIVERGES)
    assert [path.name for path in training.state.iterdir()] == ["metrics.jsonl"]


def test_who_is_no_longer_the_owner_removes_no_states(training, play, tiny, at):
    at(3, kill(signal.SIGTERM))
    settings = {**DIVERGES, "learning_rate": 1e-3, "max_iters": 8}
    with pytest.raises(SystemExit):
        training.run(play, tiny, **settings)
    before = find_states(training.state)
    assert before

    def check():
        raise UserError("taken over")

    with pytest.raises(UserError, match="taken over"):
        training.run(play, tiny, **settings | {"learning_rate": 1e6}, check_lock=check)
    assert find_states(training.state) == before
