"""Sequences join, decode together and leave, without affecting each other."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.errors import UserError
from nanogpt.inference import engine as module
from nanogpt.inference.choosing import Uniforms, choose
from nanogpt.inference.engine import Engine, Prompt, continuations, generate
from nanogpt.model.ensemble import Ensemble
from tests.inference.models import (
    ARCHITECTURES,
    BASE,
    TOKENIZER,
    VOCAB,
    draw,
    make_model,
    make_ngrams,
    prompts_of,
    random_prompts,
    with_settings,
)

DOUBLE = {"dtype": "float64"}


def double(**changes):
    """Settings in float64 (not possible in config.yaml), so that rounding changes no draw."""
    return with_settings(**changes).model_copy(update=DOUBLE)


@torch.no_grad()
def reference(model, prompt, sampling):
    """Compute a sequence from the whole context for each token, with the setting `window`."""
    block_size, uniforms = model.settings.block_size, Uniforms(sampling.seed)
    context, drawn = list(prompt[-block_size:]), []
    for _ in range(sampling.max_new_tokens):
        if len(context) > block_size:
            halved = sampling.window == "half"
            context = context[-max(1, block_size // 2) if halved else -block_size :]
        logits = model(torch.tensor([context]))[:, -1]
        seen = None
        if sampling.repetition_penalty != 1:
            seen = torch.zeros(1, VOCAB, dtype=torch.bool)
            seen[0, [*prompt, *drawn]] = True
        drawn.append(int(choose(logits, sampling, [uniforms], seen)))
        context.append(drawn[-1])
    return drawn


# --- One sequence ----------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["half", "crop"])
@pytest.mark.parametrize("block_size", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("length", [1, 7, 16, 40])
def test_the_cache_gives_the_same_tokens_as_rereading_the_whole_context(window, block_size, length):
    model = make_model(block_size, dtype=torch.float64)
    (prompt,) = random_prompts(1, length).tolist()
    sampling = double(max_new_tokens=50, window=window)
    assert continuations(Engine(model, sampling), [Prompt(prompt, sampling)]) == [
        reference(model, prompt, sampling)
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architecture_draws_from_its_models_distribution(architecture):
    model = make_model(12, dtype=torch.float64, **ARCHITECTURES[architecture])
    sampling = double(max_new_tokens=40)
    rows = random_prompts(3, 5).tolist()
    prompts = prompts_of(rows, sampling)
    expected = [reference(model, row, p.settings) for row, p in zip(rows, prompts, strict=True)]
    assert continuations(Engine(model, sampling), prompts) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0},
        {"top_k": 3},
        {"top_p": 0.5},
        {"min_p": 0.3},
        {"repetition_penalty": 1.8},
        {"temperature": 2.0, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1},
    ],
)
def test_each_sampling_setting_is_used(changes):
    model, sampling = make_model(dtype=torch.float64), double(max_new_tokens=30, **changes)
    (row,) = random_prompts(1, 4).tolist()
    drawn = continuations(Engine(model, sampling), [Prompt(row, sampling)])
    assert drawn == [reference(model, row, sampling)]
    assert drawn != [reference(model, row, double(max_new_tokens=30))]


@pytest.mark.parametrize("length", [16, 17, 24, 100])
def test_only_the_end_of_a_prompt_longer_than_the_window_is_read(length):
    model, rows = make_model(), random_prompts(3, length)
    assert torch.equal(draw(model, rows, BASE), draw(model, rows[:, -16:], BASE))


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others():
    model, rows = make_model(), random_prompts(3, 4)
    first = draw(model, rows, BASE)
    torch.manual_seed(99)
    assert torch.equal(draw(model, rows, BASE), first)
    assert not torch.equal(draw(model, rows, with_settings(seed=1)), first)


def test_generation_uses_no_dropout():
    model = make_model()
    dropping = make_model(dropout=0.9)
    dropping.load_state_dict(model.state_dict())
    rows = random_prompts(3, 4)
    assert torch.equal(draw(dropping.train(), rows, BASE), draw(model, rows, BASE))


def test_a_sliding_window_continues_forever_without_rereading(monkeypatch):
    model = make_model(8, **ARCHITECTURES["modern"])
    sampling = with_settings(window="slide", max_new_tokens=60)
    engine = Engine(model, sampling)
    n_read, read = [], engine.decoder.read_together
    monkeypatch.setattr(engine.decoder, "read_together", lambda *a: n_read.extend(a[0]) or read(*a))
    (new,) = continuations(engine, [Prompt([1, 2, 3], sampling)])
    assert len(new) == 60
    assert n_read == [(1, 2, 3)]


@pytest.mark.parametrize("n_sequences", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_sliding_window_uses_constant_memory(n_sequences):
    model = make_model(8, **ARCHITECTURES["modern"])
    sampling = with_settings(window="slide", max_new_tokens=5000)
    engine = Engine(model, sampling)
    before = engine.decoder.turns.nbytes
    new = continuations(engine, prompts_of([[1, 2, 3]] * n_sequences, sampling))
    assert [len(tokens) for tokens in new] == [5000] * n_sequences
    assert engine.decoder.turns.nbytes == before
    grown = Engine(model, sampling)  # what a table for all positions would take
    grown.decoder.turns = grown.decoder._make_turns(torch.arange(5004))
    assert continuations(grown, prompts_of([[1, 2, 3]] * n_sequences, sampling)) == new


def test_rotations_have_the_same_bits_within_and_past_the_table():
    decoder = Engine(make_model(8, **ARCHITECTURES["modern"]), BASE).decoder
    table = decoder._make_turns(torch.arange(5000))
    for first in range(8, 4997, 3):
        assert torch.equal(decoder._turns(slice(first, first + 1)), table[first : first + 1])
        places = torch.tensor([4999 - first, first, 2, first + 2])
        assert torch.equal(decoder._turns(places), table[places])


def test_a_sliding_window_needs_rotary_positions():
    with pytest.raises(UserError, match=r"sample\.window: `slide` needs rotary positions"):
        Engine(make_model(), with_settings(window="slide"))


# --- Many sequences ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    architecture=st.sampled_from(["gpt2", "modern"]),
    window=st.sampled_from(["half", "crop"]),
    seed=st.integers(0, 10_000),
)
def test_a_sequence_is_the_same_alone_and_among_others(architecture, window, seed):
    chance = random.Random(seed)
    model = make_model(10, dtype=torch.float64, seed=seed, **ARCHITECTURES[architecture])
    engine = Engine(model, double(window=window))
    waiting = [
        Prompt(
            [chance.randrange(VOCAB) for _ in range(chance.randint(1, 14))],
            double(
                window=window,
                seed=chance.randrange(1000),
                max_new_tokens=chance.randint(1, 30),
                temperature=chance.choice([0, 0.7, 1.3]),
                top_k=chance.choice([0, 5]),
                repetition_penalty=chance.choice([1.0, 1.3]),
            ),
        )
        for _ in range(8)
    ]
    joined, cancelled = [], []
    while waiting or engine.sequences:
        if waiting and chance.random() < 0.4:
            joined.append(engine.join(waiting.pop()))
        if engine.sequences and chance.random() < 0.05:
            cancelled.append(chance.choice(engine.sequences))
            engine.leave(cancelled[-1])
        engine.step()
    assert len(joined) == 8
    for sequence in joined:
        alone = reference(model, sequence.prompt.tokens, sequence.prompt.settings)
        assert sequence.new_tokens == alone[: len(sequence.new_tokens)]
        assert sequence in cancelled or len(sequence.new_tokens) == len(alone)


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_in_float32_probabilities_among_others_are_within_1e_5(architecture):
    """Compare the distribution of each token, by total variation."""
    model = make_model(24, 3.0, n_layer=3, n_embd=64, **ARCHITECTURES[architecture])
    rows = [row[: 1 + n].tolist() for n, row in enumerate(random_prompts(9, 9))]
    sampling = with_settings(max_new_tokens=60)

    def distributions(engine, prompts):
        found = {tuple(prompt.tokens): [] for prompt in prompts}
        for step in generate(engine, prompts):
            p = torch.zeros(VOCAB, dtype=torch.float64)
            for token, score in step.best:
                p[token] = score
            found[tuple(step.sequence.prompt.tokens)].append((step.token, p.exp()))
        return found

    prompts = prompts_of(rows, sampling, n_best=VOCAB)
    together = distributions(Engine(model, sampling), prompts)
    for prompt in prompts:
        alone = distributions(Engine(model, sampling), [prompt])[tuple(prompt.tokens)]
        for (own, p), (other, q) in zip(alone, together[tuple(prompt.tokens)], strict=True):
            assert (p - q).abs().sum() / 2 < 1e-5
            assert own == other


def test_equal_prompts_are_read_once_and_get_different_samples(monkeypatch):
    model = make_model()
    engine = Engine(model, BASE)
    slots, read = [], engine.decoder.read_together
    monkeypatch.setattr(engine.decoder, "read_together", lambda *a: slots.extend(a[1]) or read(*a))
    new = continuations(engine, prompts_of([[1, 2, 3]] * 8, with_settings(max_new_tokens=10)))
    assert len({tuple(tokens) for tokens in new}) == 8
    assert slots == [0]


def test_short_prompts_are_read_in_few_passes(monkeypatch):
    engine = Engine(make_model(64), BASE)
    passes, read = [], engine.decoder.read_together
    monkeypatch.setattr(
        engine.decoder, "read_together", lambda *a: passes.append(list(map(len, a[0]))) or read(*a)
    )
    lengths = [60] * 5 + [1] * 2 + [3]
    for n, length in enumerate(lengths):
        engine.join(Prompt([n] * length, BASE))
    engine.step()
    assert sorted(passes) == [[1], [1], [60, 3], [60] * 4]


def test_more_sequences_than_fit_wait_until_others_leave(monkeypatch):
    monkeypatch.setattr(module, "MOST_SEQUENCES", 3)
    model, sampling = make_model(dtype=torch.float64), double(max_new_tokens=9)
    engine = Engine(model, sampling)
    prompts = prompts_of(random_prompts(8, 3).tolist(), sampling)
    most = 0
    for step in generate(engine, prompts):
        most = max(most, len(engine.sequences))
        assert step.sequence.prompt in prompts
    assert most == 3
    expected = [reference(model, prompt.tokens, prompt.settings) for prompt in prompts]
    assert continuations(Engine(model, sampling), prompts) == expected


def test_the_cache_of_all_sequences_stays_within_a_limit(monkeypatch):
    monkeypatch.setattr(module, "CACHE_BYTES", 100_000)
    engine = Engine(make_model(), BASE)  # 2 layers x 2 x 16 tokens x 32 x 4 bytes: 8 KiB each
    assert engine.capacity == 100_000 // 8192
    assert Engine(make_model(1024), BASE).capacity == 1


def test_an_engine_has_room_for_as_many_sequences_as_its_caller_says():
    assert Engine(make_model(), BASE).capacity == module.MOST_SEQUENCES
    assert Engine(make_model(), BASE, most=200).capacity == 200


@pytest.mark.parametrize("most_read", [1, 8, 20])
@pytest.mark.parametrize("weight", [None, 0.5])
def test_a_bound_on_what_a_step_reads_changes_no_token(most_read, weight):
    model, sampling = make_model(dtype=torch.float64), double(max_new_tokens=40)
    prompts = [*prompts_of(random_prompts(6, 9).tolist(), sampling)]
    prompts += prompts_of(random_prompts(4, 3).tolist(), double(max_new_tokens=23, top_k=5))
    ngrams = weight and make_ngrams(weight)
    expected = continuations(Engine(model, sampling, ngrams=ngrams), prompts)
    engine = Engine(model, sampling, ngrams=ngrams, most_read=most_read)
    assert continuations(engine, prompts) == expected


def test_a_step_reads_no_more_than_its_bound_and_new_prompts_first(monkeypatch):
    engine = Engine(make_model(), BASE, most_read=20)
    n_read, read = [], engine.decoder.read_together
    monkeypatch.setattr(
        engine.decoder, "read_together", lambda *a: n_read.extend(map(len, a[0])) or read(*a)
    )
    old = [engine.join(prompt) for prompt in prompts_of(random_prompts(5, 16).tolist(), BASE)]
    steps = [engine.step()]
    assert n_read == [16]
    new = [
        engine.join(prompt) for prompt in prompts_of(random_prompts(3, 5, seed=6).tolist(), BASE)
    ]
    del n_read[:]
    while 8 not in n_read:
        n_before = len(n_read)
        steps.append(engine.step())
        assert sum(n_read[n_before:]) <= 20
    # A full window is read again, but after all new prompts.
    assert sorted(n_read[: n_read.index(8)]) == [5, 5, 5, 16, 16, 16, 16]
    assert all(sequence.new_tokens for sequence in old + new)
    assert all(len({id(step.sequence) for step in each}) == len(each) for each in steps)


def test_a_full_window_is_read_in_time_however_many_new_prompts_come():
    engine = Engine(make_model(), BASE, most_read=16)
    sampling = BASE.model_copy(update={"max_new_tokens": 1000})
    first = engine.join(Prompt([1] * 10, sampling))
    short = BASE.model_copy(update={"max_new_tokens": 1})
    engine.step()
    since_last = longest = 0
    for seed in range(200):
        engine.join(Prompt([seed % 5] * 16, short))  # as much as a step reads
        has_first = any(step.sequence is first for step in engine.step())
        since_last = 0 if has_first else since_last + 1
        longest = max(longest, since_last)
    assert longest <= module.PATIENCE + 2


def test_an_engine_without_sequences_does_nothing():
    assert Engine(make_model(), BASE).step() == []


def test_small_models_use_one_thread_and_restore_torchs_settings(monkeypatch):
    engine = Engine(make_model(), BASE)
    seen, step = [], engine.decoder.read_together
    monkeypatch.setattr(
        engine.decoder, "read_together", lambda *a: seen.append(torch.get_num_threads()) or step(*a)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    continuations(engine, [Prompt([1], BASE)])
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert (set(seen), after) == ({1}, 2)


# --- What a step says -------------------------------------------------------------------------


@torch.no_grad()
def test_a_step_reports_its_tokens_probability_and_the_likeliest_tokens():
    model = make_model()
    sampling = with_settings(temperature=2.0, top_k=4, max_new_tokens=1)
    prompt = Prompt([5, 6, 7], sampling, n_best=3)
    (step,) = generate(Engine(model, sampling), [prompt])
    expected = torch.log_softmax(model(torch.tensor([[5, 6, 7]]))[0, -1], -1)
    assert step.log_probability == pytest.approx(expected[step.token].item(), abs=1e-5)
    values, tokens = expected.topk(3)
    assert [token for token, _ in step.best] == tokens.tolist()
    assert [score for _, score in step.best] == pytest.approx(values.tolist(), abs=1e-5)


@pytest.mark.parametrize("length", [1, 2, 9, 16, 20])
@torch.no_grad()
def test_prompt_tokens_in_the_window_are_scored(length):
    model, (row,) = make_model(), random_prompts(1, length).tolist()
    sampling = with_settings(max_new_tokens=30)
    engine = Engine(model, sampling)
    sequence = engine.join(Prompt(row, sampling, n_best=2, scored=True))
    while engine.sequences:
        engine.step()
    seen = row[-16:]
    scores = torch.log_softmax(model(torch.tensor([seen]))[0], -1)
    assert len(sequence.prompt_scores) == len(seen) - 1
    for place, (own, *best) in enumerate(sequence.prompt_scores):
        assert own.token == seen[place + 1]
        assert own.log_probability == pytest.approx(scores[place, own.token].item(), abs=1e-5)
        assert [one.token for one in best] == scores[place].topk(2).indices.tolist()


def test_a_step_has_text_only_with_a_tokenizer():
    sampling = with_settings(max_new_tokens=5)
    steps = list(generate(Engine(make_model(), sampling), [Prompt([1], sampling)]))
    assert [step.text for step in steps] == [""] * 5
    assert [step.finish for step in steps] == [None] * 4 + ["length"]
    engine = Engine(make_model(), sampling, TOKENIZER)
    steps = list(generate(engine, [Prompt([1], sampling)]))
    assert "".join(step.text for step in steps) == TOKENIZER.decode([s.token for s in steps])


def test_a_stop_string_ends_only_its_own_sequence():
    model, free = make_model(), with_settings(max_new_tokens=40)
    prompts = prompts_of([[1], [1], [1]], free)
    texts = [TOKENIZER.decode(tokens) for tokens in continuations(Engine(model, free), prompts)]
    stop = texts[1][20:23]
    stopping = with_settings(max_new_tokens=40, stop=[stop])
    shown = ["", "", ""]
    finish = {}
    prompts = prompts_of([[1], [1], [1]], stopping)
    for step in generate(Engine(model, stopping, TOKENIZER), prompts):
        number = prompts.index(step.sequence.prompt)
        shown[number] += step.text
        finish[number] = step.finish
    for number, text in enumerate(texts):
        assert shown[number] == text.partition(stop)[0]
        assert finish[number] == ("stop" if stop in text else "length")
    assert finish[1] == "stop"


# --- N-grams ----------------------------------------------------------------------------------


def encoded(text):
    return TOKENIZER.encode(text).tolist()


@torch.no_grad()
def test_with_ngrams_tokens_are_drawn_from_the_tempered_mixture():
    model, ngrams = make_model(scale=4.0), make_ngrams(0.6)
    sampling = with_settings(temperature=1.5, max_new_tokens=1)
    prompts = prompts_of([encoded("was ")] * 3000, sampling)
    drawn = torch.tensor(continuations(Engine(model, sampling, ngrams=ngrams), prompts))[:, 0]
    share = torch.bincount(drawn, minlength=VOCAB) / 3000
    logits = model(torch.tensor([encoded("was ")]))[:, -1]
    mixed = ngrams.mix(logits, ngrams.contexts(encoded("was ")))[0]
    expected = torch.softmax(mixed / 1.5, -1)
    error = (expected * (1 - expected) / 3000).sqrt()
    assert ((share - expected).abs() < 5 * error + 1 / 3000).all()


def test_ngrams_alone_repeat_the_text_at_any_length():
    sampling = with_settings(temperature=0, max_new_tokens=24)
    engine = Engine(make_model(8), sampling, ngrams=make_ngrams(1.0))
    starts = [Prompt(encoded(text), sampling) for text in ("once", "was a f")]
    texts = continuations(engine, starts)
    assert "once" + TOKENIZER.decode(texts[0]) == "once upon a time there was a"
    assert TOKENIZER.decode(texts[1]).startswith("ox. once upon a time")


def test_ngrams_with_weight_0_change_no_token():
    model, rows = make_model(), random_prompts(3, 4)
    assert torch.equal(draw(model, rows, BASE, make_ngrams(0.0)), draw(model, rows, BASE))


def test_a_scored_prompt_is_scored_by_the_mixture():
    ngrams, sampling = make_ngrams(1.0), with_settings(max_new_tokens=1)
    engine = Engine(make_model(), sampling, ngrams=ngrams)
    sequence = engine.join(Prompt(encoded("once upon"), sampling, scored=True))
    engine.step()
    scores = [own.log_probability for own, *_ in sequence.prompt_scores]
    p = ngrams.trie.probabilities(TOKENIZER.encode("once upon")).p
    share = ngrams.weights(ngrams.trie.probabilities(TOKENIZER.encode("once upon")))
    assert torch.tensor(scores[4:]).exp().tolist() == pytest.approx(
        p[4:].tolist(), abs=1.2 * float((1 - share[4:]).max())
    )


def test_an_ensemble_generates_from_its_members_average():
    members = [make_model(12, seed=n, **ARCHITECTURES["modern"]) for n in (1, 2)]
    ensemble = Ensemble([m.settings for m in members], VOCAB).eval()
    for own, member in zip(ensemble.members, members, strict=True):
        own.load_state_dict(member.state_dict())
    ensemble = ensemble.double()
    sampling = double(max_new_tokens=40)
    (row,) = random_prompts(1, 3).tolist()
    assert continuations(Engine(ensemble, sampling), [Prompt(row, sampling)]) == [
        reference(ensemble, row, sampling)
    ]


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.5, "min_p": 0.1}]
)
@pytest.mark.parametrize(
    ("dtype", "scale", "message"),
    [
        ("float16", 1e5, "overflow float16; set `dtype: float32`"),
        ("float32", 1e38, "train the run again"),
    ],
)
def test_nan_logits_are_an_error(dtype, scale, message, changes):
    model = make_model(scale=scale)
    engine = Engine(model, with_settings(dtype=dtype))
    prompts = prompts_of([[1, 2, 3], [4]], with_settings(**changes))
    with pytest.raises(UserError, match=message):
        continuations(engine, prompts)
