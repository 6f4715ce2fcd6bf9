"""An ensemble predicts the mean of its models' probabilities and works wherever a model does."""

import pytest
import torch

from nanogpt.config.schema import EvalSettings, SampleSettings
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import ByteTokenizer, char_tokenizer
from nanogpt.errors import UserError
from nanogpt.inference.engine import Engine, Prompt, continuations
from nanogpt.model.checkpoints import load_model, save_ensemble
from nanogpt.model.directories import save_model
from nanogpt.model.ensemble import Ensemble
from nanogpt.model.gpt import GPT
from nanogpt.model.losses import windows_loss

VOCAB = 11


@pytest.fixture
def members(tiny):
    """Settings of two models with different width, depth and context."""
    other = {"n_layer": 1, "n_embd": 16, "block_size": 12, "position": "rotary", "norm": "rmsnorm"}
    return [tiny, tiny.model_copy(update=other)]


@pytest.fixture
def ensemble(members):
    torch.manual_seed(0)
    ensemble = Ensemble(members, VOCAB)
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.mul_(4)  # so that the models predict different things
    return ensemble.eval()


@torch.no_grad()
def test_an_ensembles_probabilities_are_the_mean_of_its_models(ensemble):
    tokens = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(1))
    probabilities = [gpt(tokens).softmax(-1) for gpt in ensemble.members]
    assert (probabilities[0] - probabilities[1]).abs().max() > 0.05
    torch.testing.assert_close(ensemble(tokens).exp(), sum(probabilities) / 2)


def test_an_ensemble_sees_as_many_tokens_as_its_shortest_context(ensemble):
    assert ensemble.settings.block_size == 12
    settings = SampleSettings(max_new_tokens=40, device="cpu", dtype="float32")
    assert [
        len(new) for new in continuations(Engine(ensemble, settings), [Prompt([0], settings)])
    ] == [40]


def test_an_ensembles_loss_is_at_most_the_mean_of_its_models(ensemble):
    """The logarithm is concave, so averaging probabilities beats averaging losses."""
    tokens = torch.randint(VOCAB, (500,), generator=torch.Generator().manual_seed(1)).numpy()
    starts = 12 * torch.arange(40).numpy()
    settings = EvalSettings(device="cpu", batch_size=8)
    rows = [torch.from_numpy(tokens[s : s + 13]) for s in starts]
    losses = []
    for gpt in ensemble.members:
        with torch.no_grad():
            logits = torch.cat([gpt(row[None, :-1])[0] for row in rows])
        targets = torch.cat([row[1:] for row in rows])
        losses.append(torch.nn.functional.cross_entropy(logits, targets).item())
    assert windows_loss(ensemble, tokens, starts, settings).mean < sum(losses) / 2


def test_an_ensemble_can_be_saved_and_loaded(tmp_path, members, play):
    tokenizer = load_tokenizer(play / "tokenizer.json")
    models = [GPT(settings, tokenizer.vocab_size) for settings in members]
    for number, model in enumerate(models):
        save_model(tmp_path / str(number), model.state_dict(), model.settings, tokenizer)
    directories = [tmp_path / "0", tmp_path / "1"]
    assert save_ensemble(tmp_path / "both", directories).endswith("of 2 models")
    both = load_model(tmp_path / "both").model
    assert isinstance(both, Ensemble)
    assert both.n_parameters() == sum(model.n_parameters() for model in models)
    tokens = torch.zeros(1, 12, dtype=torch.int64)
    expected = sum(model.eval()(tokens).softmax(-1) for model in models) / 2
    torch.testing.assert_close(both.eval()(tokens).exp(), expected)


def test_models_of_different_vocabularies_are_refused(tmp_path, tiny):
    for name, tokenizer in (("a", char_tokenizer("abc")), ("b", ByteTokenizer())):
        model = GPT(tiny, tokenizer.vocab_size)
        save_model(tmp_path / name, model.state_dict(), tiny, tokenizer)
    with pytest.raises(UserError, match="a different vocabulary"):
        save_ensemble(tmp_path / "both", [tmp_path / "a", tmp_path / "b"])
