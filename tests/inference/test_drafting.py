"""Drafted tokens have the model's distribution and need fewer passes."""

import itertools

import numpy as np
import pytest
import torch

from nanogpt.errors import UserError
from nanogpt.inference import drafting as module
from nanogpt.inference.choosing import Uniforms, choose, distributions
from nanogpt.inference.decoder import decoder_of
from nanogpt.inference.drafting import engine_of, keep
from nanogpt.inference.engine import Engine, Prompt, continuations
from nanogpt.model.ensemble import Ensemble
from tests.inference.models import (
    ARCHITECTURES,
    TOKENIZER,
    VOCAB,
    make_model,
    make_ngrams,
    prompts_of,
    random_prompts,
    with_settings,
)

PROMPT = TOKENIZER.encode("once upon ").tolist()
N_TEXTS = 2_000
LENGTH = 4  # tokens per text: one after the prompt, two drafted ones, and one more


def double(**changes):
    """Settings in float64, so that rounding changes no choice."""
    return with_settings(**changes).model_copy(update={"dtype": "float64"})


# --- The distribution of texts ---------------------------------------------------------------


@torch.no_grad()
def exact_probabilities(model, ngrams, sampling):
    """Return the probability of each text with LENGTH tokens after PROMPT, by its tokens."""
    texts = {(): 1.0}
    for _ in range(LENGTH):
        rows = torch.tensor([[*PROMPT, *text] for text in texts])
        contexts = np.concatenate([ngrams.contexts(row) for row in rows.tolist()])
        logits = ngrams.mix(model(rows)[:, -1], contexts)
        seen = torch.zeros(len(rows), VOCAB, dtype=torch.bool).scatter(-1, rows, True)
        p = distributions(logits, sampling, seen)
        texts = {
            (*text, token): probability * p[row, token].item()
            for row, (text, probability) in enumerate(texts.items())
            for token in p[row].nonzero()[:, 0].tolist()
        }
    return texts


def p_value(counts, expected):
    """Return the p-value of a chi-square test of counts against expected ones.

    Texts with an expected count below five are counted together.
    """
    rare = expected < 5
    n = np.append(counts[~rare], counts[rare].sum())
    e = np.append(expected[~rare], expected[rare].sum())
    n, e = n[e > 0], e[e > 0]
    statistic, freedom = ((n - e) ** 2 / e).sum(), float(len(e) - 1)
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return torch.special.gammaincc(half[0], half[1]).item()


def p_value_of_drafted_texts(**changes):
    """Compare N_TEXTS texts with their exact probabilities."""
    sampling = with_settings(max_new_tokens=LENGTH, draft=2, **changes)
    model, ngrams = make_model(n_layer=1), make_ngrams(0.5)
    texts = continuations(
        engine_of(model, sampling, ngrams=ngrams), prompts_of([PROMPT] * N_TEXTS, sampling)
    )
    exact = exact_probabilities(model, ngrams, sampling)
    places = {text: place for place, text in enumerate(exact)}
    counts = np.bincount([places[tuple(text)] for text in texts], minlength=len(exact))
    return p_value(counts, N_TEXTS * np.array(list(exact.values())))


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 1.0, "top_k": 4},
        {"temperature": 0.7, "top_k": 5, "top_p": 0.9},
        {"temperature": 1.5, "top_k": 4, "min_p": 0.05, "repetition_penalty": 1.5},
    ],
    ids=str,
)
def test_drafting_does_not_change_the_distribution_of_texts(changes):
    assert p_value_of_drafted_texts(**changes) > 1e-4


def keep_too_many(drafted, q, p, uniforms):
    """A wrong rule: replace a rejected token by a draw from p itself."""
    for n_kept, (token, drafted_from) in enumerate(zip(drafted, q, strict=True)):
        if uniforms.next() * drafted_from[token] >= p[n_kept][token]:
            return [*drafted[:n_kept], module._draw(p[n_kept], uniforms)]
    return [*drafted, module._draw(p[-1], uniforms)]


def test_the_chi_square_test_notices_a_wrong_rule(monkeypatch):
    monkeypatch.setattr(module, "keep", keep_too_many)
    assert p_value_of_drafted_texts(temperature=1.0, top_k=4) < 1e-4


@pytest.mark.parametrize("seed", range(5))
def test_a_token_has_the_models_distribution_whatever_the_draft(seed):
    random = np.random.default_rng(seed)
    p, q = random.dirichlet(np.ones(6) * 0.5, 2), random.dirichlet(np.ones(6) * 0.5)
    uniforms = Uniforms(seed)
    tokens = [keep([module._draw(q, uniforms)], [q], p, uniforms) for _ in range(20_000)]
    firsts = np.bincount([first for first, *_ in tokens], minlength=6)
    assert p_value(firsts, 20_000 * p[0]) > 1e-4
    n_kept = sum(len(both) == 2 for both in tokens)
    share = np.minimum(p[0], q).sum()
    assert abs(n_kept / 20_000 - share) < 5 * (share * (1 - share) / 20_000) ** 0.5


def test_a_draft_from_the_models_distribution_is_always_kept():
    p = np.full((4, VOCAB), 1 / VOCAB)
    assert keep([3, 1, 2], list(p[:3]), p, Uniforms(0))[:3] == [3, 1, 2]


@pytest.mark.parametrize("changes", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.3}, {}], ids=str)
def test_distributions_agree_with_choose(changes):
    settings = with_settings(temperature=0.8, repetition_penalty=1.3, **changes)
    logits = torch.tensor([[2.0, -1.0, 0.5, 1.5, 0.0, -3.0, 1.0]])
    seen = torch.tensor([[True, False, True, False, False, False, True]])
    p = distributions(logits, settings, seen)[0]
    rows = logits.expand(5_000, -1), settings, [Uniforms(n) for n in range(5_000)]
    drawn = torch.bincount(choose(*rows, seen.expand(5_000, -1)), minlength=7)
    assert p.sum().item() == pytest.approx(1)
    assert p_value(drawn.numpy(), 5_000 * p.numpy()) > 1e-4


# --- Greedy text -----------------------------------------------------------------------------


@pytest.mark.parametrize("draft", [1, 4, 30])
@pytest.mark.parametrize("window", ["half", "crop", "slide"])
@pytest.mark.parametrize("weight", [0.0, 0.6])
def test_greedy_text_is_the_same_with_drafts_up_to_and_past_the_window(draft, window, weight):
    model = make_model(12, dtype=torch.float64, position="rotary")
    sampling = double(temperature=0, max_new_tokens=50, window=window, repetition_penalty=1.2)
    ngrams = make_ngrams(weight)
    prompts = prompts_of(random_prompts(3, 4).tolist(), sampling)
    drafting = engine_of(model, sampling.model_copy(update={"draft": draft}), ngrams=ngrams)
    assert continuations(drafting, prompts) == continuations(
        Engine(model, sampling, ngrams=ngrams), prompts
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("n", [1, 2, 7])
@torch.inference_mode()
def test_logits_of_one_pass_agree_with_single_steps(architecture, n):
    model = make_model(12, **ARCHITECTURES[architecture])
    tokens = random_prompts(1, 5 + n)[0].tolist()
    decoders = [decoder_of(model, torch.float32, 12) for _ in range(2)]
    for decoder in decoders:
        decoder.reserve(1)
        decoder.read(tokens[:5], 0, 1)
    stepwise = [decoders[0].step([token], [5 + i]) for i, token in enumerate(tokens[5:])]
    together = decoders[1].read_on(tokens[5:], 5)
    torch.testing.assert_close(together, torch.cat(stepwise), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_an_ensembles_read_on_agrees_with_its_steps():
    members = [make_model(12), make_model(20, seed=1)]
    model = Ensemble([one.settings for one in members], VOCAB).eval()
    for member, one in zip(model.members, members, strict=True):
        member.load_state_dict(one.state_dict())
    decoder = decoder_of(model, torch.float32, 12)
    decoder.reserve(1)
    decoder.read([1, 2, 3], 0, 1)
    stepwise = torch.cat([decoder.step([token], [3 + i]) for i, token in enumerate([4, 5])])
    torch.testing.assert_close(decoder.read_on([4, 5], 3), stepwise, atol=1e-4, rtol=0)


def test_scores_and_best_tokens_agree_with_single_steps():
    sampling = double(temperature=0, max_new_tokens=20)
    model, ngrams = make_model(32, dtype=torch.float64), make_ngrams(0.8)
    found = []
    for draft in (0, 3):
        engine = engine_of(model, sampling.model_copy(update={"draft": draft}), ngrams=ngrams)
        engine.join(Prompt(PROMPT, sampling, n_best=2, scored=True))
        steps = []
        while engine.sequences:
            steps += engine.step()
        found.append([s.log_probability for s in steps] + [b.token for s in steps for b in s.best])
    assert found[1] == pytest.approx(found[0], abs=1e-6)


# --- The engine ------------------------------------------------------------------------------


def n_calls(engine, sampling):
    engine.join(Prompt(PROMPT, sampling))
    return sum(1 for _ in itertools.takewhile(bool, iter(engine.step, None)))


def test_a_step_gives_several_tokens():
    """With n-grams alone, all drafts are kept: five tokens in each step except the first."""
    sampling = with_settings(temperature=0, max_new_tokens=21, draft=4)
    engine = engine_of(make_model(64), sampling, ngrams=make_ngrams(1.0))
    assert n_calls(engine, sampling) == 5


def test_a_sample_ends_at_a_stop_string_inside_a_draft():
    sampling = with_settings(temperature=0, max_new_tokens=60, draft=8, stop=["was"])
    engine = engine_of(make_model(64), sampling, TOKENIZER, make_ngrams(1.0))
    engine.join(Prompt(TOKENIZER.encode("a fox. once upon a time").tolist(), sampling))
    steps = []
    while engine.sequences:
        steps += engine.step()
    assert steps[-1].finish == "stop"
    assert "".join(step.text for step in steps) == " there "


def test_samples_are_the_same_alone_as_after_others():
    sampling = with_settings(max_new_tokens=30, draft=3)
    model, ngrams = make_model(), make_ngrams(0.5)
    prompts = prompts_of([PROMPT] * 3, sampling)
    alone = [continuations(engine_of(model, sampling, ngrams=ngrams), [one])[0] for one in prompts]
    assert continuations(engine_of(model, sampling, ngrams=ngrams), prompts) == alone


def test_a_draft_without_ngrams_is_an_error():
    with pytest.raises(UserError, match=r"sample\.draft: this model has no n-grams"):
        engine_of(make_model(), with_settings(draft=2))
