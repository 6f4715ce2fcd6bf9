"""A training that starts from another model's weights."""

import signal

import pytest
import torch

from nanogpt.data.tokenizers import char_tokenizer
from nanogpt.errors import UserError
from nanogpt.model.checkpoints import load_model, save_ensemble
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.training.initial import load_initial
from tests.recipes import MODERN
from tests.training.trainings import CONSTANT, Training, assert_same, kill

SHORT = {"max_iters": 12, "log_interval": 3, "eval_interval": 4}


@pytest.fixture(scope="module")
def base(tmp_path_factory, play, tiny):
    """A finished training to start from."""
    root = tmp_path_factory.mktemp("base")
    return Training(root).run(play, tiny, **SHORT, keep="last")


@pytest.mark.parametrize("changes", [{}, {"block_size": 5}], ids=["the whole window", "a cut one"])
def test_the_initial_weights_are_the_other_models(base, tiny, changes):
    model = GPT(
        tiny.model_copy(update=changes), load_model(base.model_directory).tokenizer.vocab_size
    )
    load_initial(model, load_model(base.model_directory).tokenizer, base.model_directory, "fine")
    expected = base.weights
    expected["wpe.weight"] = expected["wpe.weight"][: model.settings.block_size]
    assert model.state_dict().keys() == expected.keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("architecture", [{}, MODERN], ids=["gpt2", "modern"])
def test_with_a_shorter_window_it_agrees_with_the_other_model(tmp_path, tiny, architecture):
    settings = tiny.model_copy(update=architecture)
    tokenizer = char_tokenizer("abcdefgh")
    theirs = GPT(settings, tokenizer.vocab_size)
    save_model(tmp_path, theirs.state_dict(), settings, tokenizer)
    model = GPT(settings.model_copy(update={"block_size": 7}), tokenizer.vocab_size)
    load_initial(model, tokenizer, tmp_path, "fine")
    tokens = torch.randint(8, (3, 7))
    assert torch.equal(model.eval()(tokens), theirs.eval()(tokens))


def test_the_losses_before_the_first_step_are_the_other_models(training, base, play, tiny):
    training.run(play, tiny, max_iters=1, initial=base.model_directory)
    first, last = training.metrics[0], base.metrics[-1]
    assert (first["train_loss"], first["val_loss"]) == (last["train_loss"], last["val_loss"])


def test_if_no_step_helps_the_best_weights_are_the_initial_ones(training, base, play, tiny):
    ruin = {**CONSTANT, "learning_rate": 1.0, "max_iters": 4, "eval_interval": 2}
    training.run(play, tiny, **ruin, initial=base.model_directory)
    assert training.weight_bytes == base.weight_bytes


def test_dropout_is_not_inherited(training, another_training, base, play, tiny):
    with_dropout = tiny.model_copy(update={"dropout": 0.5})
    training.run(play, with_dropout, max_iters=2, initial=base.model_directory)
    another_training.run(play, tiny, max_iters=2, initial=base.model_directory)
    assert training.metrics[0]["val_loss"] == another_training.metrics[0]["val_loss"]
    assert training.weight_bytes != another_training.weight_bytes
    assert load_model(training.model_directory).model.settings == with_dropout


def test_a_finetuned_model_can_be_finetuned_again(training, another_training, base, play, tiny):
    training.run(play, tiny, max_iters=3, keep="last", initial=base.model_directory)
    another_training.run(play, tiny, max_iters=1, initial=training.model_directory)
    before, after = training.metrics[-1], another_training.metrics[0]
    assert before["val_loss"] == after["val_loss"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("steps", [(3,), (3, 4, 9)], ids=["once", "three times"])
def test_a_stopped_finetuning_resumes_to_the_same_bytes(
    training, another_training, base, play, tiny, at, optimizer, steps
):
    shorter = tiny.model_copy(update={"dropout": 0.2, "block_size": 9})
    settings = {**SHORT, "optimizer": optimizer, "initial": base.model_directory}
    for step in steps:
        at(step, kill(signal.SIGTERM))
        with pytest.raises(SystemExit):
            training.run(play, shorter, **settings)
    training.run(play, shorter, **settings)
    assert_same(training, another_training.run(play, shorter, **settings))


def test_another_vocabulary_of_the_same_size_is_refused(tmp_path, tiny):
    save_model(tmp_path, GPT(tiny, 3).state_dict(), tiny, char_tokenizer("abc"))
    with pytest.raises(UserError, match=r"runs\.fine\.train\.init_from: .*vocabulary"):
        load_initial(GPT(tiny, 3), char_tokenizer("abd"), tmp_path, "fine")


def test_an_ensemble_is_refused(tmp_path, base, tiny):
    save_ensemble(tmp_path, [base.model_directory, base.model_directory])
    tokenizer = load_model(base.model_directory).tokenizer
    with pytest.raises(UserError, match="can't train from architecture `ensemble`"):
        load_initial(GPT(tiny, tokenizer.vocab_size), tokenizer, tmp_path, "fine")


@pytest.mark.parametrize("changes", [{"activation": "relu2"}, {"n_head": 1}, {"block_size": 1000}])
def test_a_different_architecture_with_fitting_weights_is_refused(base, tiny, changes):
    tokenizer = load_model(base.model_directory).tokenizer
    model = GPT(tiny.model_copy(update=changes), tokenizer.vocab_size)
    with pytest.raises(UserError, match=f"runs.fine.model: `{next(iter(changes))}` "):
        load_initial(model, tokenizer, base.model_directory, "fine")
