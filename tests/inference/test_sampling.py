"""Samples are what the model's probabilities say, token by token, whatever the cache does."""

import re
from pathlib import Path

import pytest
import torch

from nanogpt.artifacts.records.ngram_counts import NgramHeader
from nanogpt.config.parameters import as_parameters
from nanogpt.config.schema import ModelSettings, SampleSettings
from nanogpt.data.tokenizers import char_tokenizer
from nanogpt.errors import UserError
from nanogpt.inference.sampling import generate, sample, stream
from nanogpt.model.checkpoints import load_model
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.ngram.counts import count, vocabulary_digest
from nanogpt.ngram.mixing import MixedSequences, Ngrams
from nanogpt.ngram.trie import build_trie

TOKENIZER = char_tokenizer("abcdefghijklmnopqrstuvwxyz .,\nÉ日🎭")
VOCAB = TOKENIZER.vocab_size
BASE = SampleSettings(
    start="once",
    num_samples=1,
    max_new_tokens=12,
    temperature=1.0,
    top_k=0,
    seed=1337,
    device="cpu",
    dtype="float32",
)


def with_settings(**changes):
    return SampleSettings.model_validate(BASE.model_dump() | changes)


def make_model(block_size=16, scale=5.0):
    """A model whose choices depend on all that it has read."""
    torch.manual_seed(0)
    small = {"n_layer": 2, "n_head": 2, "n_embd": 32, "dropout": 0.0}
    model = GPT(ModelSettings(block_size=block_size, **small), VOCAB)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(scale)
    return model


def draw(model, prompt, settings):
    """All tokens that are drawn, (B, T)."""
    return torch.stack(list(generate(model, prompt, settings)), dim=1)


@torch.no_grad()
def likeliest(model, prompt, n_tokens):
    """The likeliest continuation of a row, all of the context read anew for every token.

    A context longer than block_size is cut to half of block_size, and grows again.
    """
    block_size = model.settings.block_size
    context, drawn = prompt[-block_size:].tolist(), []
    for _ in range(n_tokens):
        if len(context) > block_size:
            context = context[-max(1, block_size // 2) :]
        drawn.append(model.eval()(torch.tensor([context]))[0, -1].argmax().item())
        context.append(drawn[-1])
    return drawn


def random_prompts(n_rows, length):
    return torch.randint(VOCAB, (n_rows, length), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("length", [1, 4, 15])
def test_with_a_cache_come_the_same_tokens_as_without(length):
    model = make_model()
    prompts = random_prompts(4, length)
    n_tokens = 16 - length
    drawn = draw(model, prompts, with_settings(top_k=1, max_new_tokens=n_tokens))
    assert drawn.shape == (4, n_tokens)
    assert drawn.tolist() == [likeliest(model, prompt, n_tokens) for prompt in prompts]


@pytest.mark.parametrize("block_size", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("length", [1, 7, 16])
def test_beyond_block_size_the_last_half_is_the_new_context(block_size, length):
    model = make_model(block_size)
    prompts = random_prompts(3, length)
    drawn = draw(model, prompts, with_settings(top_k=1, max_new_tokens=60))
    assert drawn.tolist() == [likeliest(model, prompt, 60) for prompt in prompts]


@pytest.mark.parametrize("length", [16, 17, 24, 100])
def test_of_a_prompt_longer_than_block_size_the_end_is_read(length):
    model = make_model()
    prompts = random_prompts(3, length)
    drawn = draw(model, prompts, with_settings(top_k=1))
    assert drawn.tolist() == [likeliest(model, prompt, 12) for prompt in prompts]
    assert drawn.tolist() == draw(model, prompts[:, -16:], with_settings(top_k=1)).tolist()


def test_the_tokens_of_bfloat16_are_tokens():
    drawn = draw(make_model(), random_prompts(3, 4), with_settings(dtype="bfloat16"))
    assert drawn.shape == (3, 12)
    assert ((drawn >= 0) & (drawn < VOCAB)).all()


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others():
    model, prompts = make_model(), random_prompts(3, 4)
    first = draw(model, prompts, BASE)
    torch.manual_seed(99)
    assert torch.equal(draw(model, prompts, BASE), first)
    assert not torch.equal(draw(model, prompts, with_settings(seed=1)), first)


def test_equal_prompts_get_samples_of_their_own():
    drawn = draw(make_model(), random_prompts(1, 4).expand(8, -1), BASE)
    assert len({tuple(row) for row in drawn.tolist()}) == 8


def test_sampling_is_without_dropout():
    model = make_model()
    dropping = GPT(model.settings.model_copy(update={"dropout": 0.9}), VOCAB)
    dropping.load_state_dict(model.state_dict())
    prompts = random_prompts(3, 4)
    assert torch.equal(draw(dropping.train(), prompts, BASE), draw(model, prompts, BASE))


N_ROWS = 5_000


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@torch.no_grad()
def test_tokens_are_drawn_with_the_models_probabilities_at_that_temperature(temperature):
    model, prompt = make_model(scale=4.0), random_prompts(1, 4)
    settings = with_settings(temperature=temperature, max_new_tokens=1)
    drawn = draw(model, prompt.expand(N_ROWS, -1), settings)[:, 0]
    share = torch.bincount(drawn, minlength=VOCAB) / N_ROWS
    expected = torch.softmax(model(prompt)[0, -1] / temperature, -1)
    error = (expected * (1 - expected) / N_ROWS).sqrt()
    assert ((share - expected).abs() < 5 * error + 1 / N_ROWS).all()


@pytest.mark.parametrize("top_k", [1, 3, VOCAB - 1])
@torch.no_grad()
def test_top_k_leaves_the_likeliest_tokens_and_their_proportions(top_k):
    model, prompt = make_model(scale=2.0), random_prompts(1, 4)
    settings = with_settings(top_k=top_k, max_new_tokens=1, temperature=2.0)
    drawn = draw(model, prompt.expand(N_ROWS, -1), settings)[:, 0]
    logits = model(prompt)[0, -1] / 2.0
    kept = logits.sort(descending=True).indices[:top_k]
    assert set(drawn.tolist()) == set(kept.tolist())
    share = torch.bincount(drawn, minlength=VOCAB)[kept] / N_ROWS
    expected = torch.softmax(logits[kept], -1)
    assert ((share - expected).abs() < 5 * (expected * (1 - expected) / N_ROWS).sqrt() + 1e-6).all()


@pytest.mark.parametrize("top_k", [0, VOCAB, 10 * VOCAB])
def test_top_k_of_none_or_all_leaves_every_token(top_k):
    model, prompts = make_model(), random_prompts(3, 4)
    assert torch.equal(draw(model, prompts, with_settings(top_k=top_k)), draw(model, prompts, BASE))


@pytest.mark.parametrize("temperature", [0, 1e-320, 1e-46, 1e-6])
def test_the_lowest_temperatures_choose_the_likeliest(temperature):
    model, prompts = make_model(), random_prompts(3, 4)
    drawn = draw(model, prompts, with_settings(temperature=temperature))
    assert drawn.tolist() == [likeliest(model, prompt, 12) for prompt in prompts]


# --- Prompts --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    model = make_model()
    path = tmp_path_factory.mktemp("sampled") / "model"
    save_model(path, model.state_dict(), model.settings, TOKENIZER)
    return path


@pytest.fixture
def checkpoint(directory):
    return load_model(directory)


def test_without_a_prompt_a_sample_begins_where_a_text_does(tmp_path):
    model = make_model()
    start = TOKENIZER.encode("日").tolist()
    save_model(tmp_path / "model", model.state_dict(), model.settings, TOKENIZER, start)
    text = write_samples(tmp_path / "model", tmp_path / "samples.txt", start="")
    head, samples = split_samples(text)
    assert "# start: '日'" in head
    assert all(sample.startswith("日") for sample in samples)
    streamed = "".join(stream(load_model(tmp_path / "model"), with_settings(start="")))
    assert streamed.startswith("日")


def test_a_start_outside_the_vocabulary_is_damage(tmp_path):
    model = make_model()
    save_model(tmp_path / "model", model.state_dict(), model.settings, TOKENIZER, [VOCAB])
    with pytest.raises(UserError, match=r"config\.json: `start` is outside the vocabulary"):
        load_model(tmp_path / "model")


# --- samples.txt and the stream -------------------------------------------------------------


def write_samples(directory, path, **changes):
    sample("fable", directory, with_settings(**changes), path)
    return path.read_text(encoding="utf-8")


def split_samples(text):
    """What stands below each heading, without the line end that closes it."""
    parts = re.split(r"\n--- sample (\d+) of (\d+) -+\n", text)
    assert parts[1::3] == [str(n + 1) for n in range(len(parts) // 3)]
    assert set(parts[2::3]) == {str(len(parts) // 3)}
    bodies = parts[3::3]
    assert all(body.endswith("\n") for body in bodies)
    return parts[0], [body[:-1] for body in bodies]


def test_samples_are_headed_by_the_run_and_its_settings(directory, tmp_path):
    text = write_samples(directory, tmp_path / "samples.txt", num_samples=2, start="a\nb")
    head, _ = split_samples(text)
    lines = head.splitlines()
    assert lines[0] == "# 2 samples of fable"
    settings = as_parameters(with_settings(num_samples=2, start="a\nb"))
    assert lines[1:] == [f"# {name}: {value!r}" for name, value in settings.items()]
    assert "# start: 'a\\nb'" in lines
    assert "# temperature: 1.0" in lines


def test_samples_are_the_prompt_and_the_tokens_that_were_drawn(directory, checkpoint, tmp_path):
    text = write_samples(directory, tmp_path / "samples.txt", num_samples=3, max_new_tokens=40)
    _, samples = split_samples(text)
    prompts = torch.from_numpy(TOKENIZER.encode("once").astype("int64")).expand(3, -1)
    drawn = draw(checkpoint.model, prompts, with_settings(max_new_tokens=40))
    assert samples == ["once" + TOKENIZER.decode(row) for row in drawn]
    assert len(set(samples)) == 3
    assert all(len(one) == 4 + 40 for one in samples)


def test_the_same_settings_give_the_same_bytes(directory, tmp_path):
    for name in ("first.txt", "second.txt"):
        torch.rand(3)
        write_samples(directory, tmp_path / name, num_samples=3)
    assert (tmp_path / "first.txt").read_bytes() == (tmp_path / "second.txt").read_bytes()
    other = write_samples(directory, tmp_path / "other.txt", num_samples=3, seed=1)
    assert split_samples(other)[1] != split_samples((tmp_path / "first.txt").read_text())[1]


def test_samples_that_cannot_be_drawn_leave_no_file(directory, tmp_path):
    with pytest.raises(UserError):
        write_samples(directory, tmp_path / "samples.txt", start="Z")
    assert not (tmp_path / "samples.txt").exists()


def test_a_stream_yields_the_text_that_a_samples_tokens_decode_to(directory, checkpoint, tmp_path):
    for number in range(3):
        changes = {"seed": 1337 + number, "max_new_tokens": 30}
        text = write_samples(directory, tmp_path / "samples.txt", **changes)
        _, (one,) = split_samples(text)
        assert "".join(stream(checkpoint, with_settings(**changes))) == one + "\n"


def test_a_stream_of_many_has_one_seed_after_another(checkpoint):
    together = "".join(stream(checkpoint, with_settings(num_samples=3)))
    alone = ["".join(stream(checkpoint, with_settings(seed=seed))) for seed in (1337, 1338, 1339)]
    assert together == "".join(alone)
    assert len(set(alone)) == 3


def test_a_stream_comes_token_by_token(checkpoint):
    pieces = stream(checkpoint, BASE)
    assert next(pieces) == "once"
    assert [len(piece) for piece in pieces] == [1] * 12 + [1]


# --- N-grams --------------------------------------------------------------------------------


def make_ngrams(weight, text="once upon a time there was a fox. " * 9):
    tokens = TOKENIZER.encode(text)
    header = NgramHeader(
        max_order=4,
        weight=weight,
        caution=0.5,
        vocab_size=VOCAB,
        vocabulary=vocabulary_digest(TOKENIZER),
        train_sha256="0" * 64,
        n_tokens=len(tokens),
    )
    return Ngrams(build_trie(count(tokens, VOCAB, 4)), header, Path("ngrams.safetensors"))


def draw_mixed(model, prompt, settings, ngrams):
    return torch.stack(list(generate(model, prompt, settings, ngrams)), dim=1)


@torch.no_grad()
def test_tokens_are_drawn_from_the_mixture_at_that_temperature():
    model, ngrams = make_model(scale=4.0), make_ngrams(0.6)
    prompt = torch.from_numpy(TOKENIZER.encode("was ").astype("int64"))[None]
    settings = with_settings(temperature=1.5, max_new_tokens=1)
    drawn = draw_mixed(model, prompt.expand(N_ROWS, -1), settings, ngrams)[:, 0]
    share = torch.bincount(drawn, minlength=VOCAB) / N_ROWS
    mixed = MixedSequences(ngrams, prompt).mix(model(prompt)[:, -1])[0]
    expected = torch.softmax(mixed / 1.5, -1)
    error = (expected * (1 - expected) / N_ROWS).sqrt()
    assert ((share - expected).abs() < 5 * error + 1 / N_ROWS).all()


def test_ngrams_alone_go_on_as_the_text_did_however_long_it_gets():
    model, ngrams = make_model(block_size=8), make_ngrams(1.0)
    prompt = torch.from_numpy(TOKENIZER.encode("once").astype("int64"))[None]
    settings = with_settings(top_k=1, max_new_tokens=24)
    drawn = draw_mixed(model, prompt, settings, ngrams)[0]
    assert TOKENIZER.decode(drawn) == " upon a time there was a"


def test_a_weight_of_0_draws_what_the_gpt_draws():
    model, ngrams = make_model(), make_ngrams(0.0)
    prompts = random_prompts(3, 4)
    assert torch.equal(draw_mixed(model, prompts, BASE, ngrams), draw(model, prompts, BASE))


def test_samples_with_ngrams_say_so_and_the_stream_has_the_same(directory, checkpoint, tmp_path):
    ngrams = make_ngrams(0.6)
    settings, path = with_settings(max_new_tokens=30), tmp_path / "samples.txt"
    sample("fable", directory, settings, path, ngrams)
    head, (one,) = split_samples(path.read_text(encoding="utf-8"))
    last = head.splitlines()[-1]
    assert last == "# mixed with n-grams: max_order 4, weight 0.6, caution 0.5"
    assert "".join(stream(checkpoint, settings, ngrams)) == one + "\n"
    assert "".join(stream(checkpoint, settings)) != one + "\n"
