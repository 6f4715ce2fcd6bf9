"""A mistake in settings gets one line that names it, and the nearest name."""

import pytest

from tests.config.examples import (
    assert_one_line,
    message_of,
)

WRONG = {
    # An unknown key at every level, with the nearest name.
    "top level": ("run: {}", ["run: unknown setting", "mean `runs`"]),
    "a group": ("defaults: {trian: {}}", ["defaults.trian", "mean `train`"]),
    "group at top": ("train: {max_iter: 3}", ["train.max_iter:", "mean `max_iters`"]),
    "defaults": ("defaults: {train: {leaning_rate: 1}}", ["leaning_rate", "mean `learning_rate`"]),
    "defaults' model": ("defaults: {model: {n_layr: 1}}", ["model.n_layr", "mean `n_layer`"]),
    "model": ("models: {m: {n_embed: 1}}", ["models.m.n_embed", "mean `n_embd`"]),
    "corpus": ("corpora: {c: {urll: x}}", ["corpora.c.urll", "mean `url`"]),
    "dataset": ("datasets: {d: {tokeniser: char}}", ["d.tokeniser", "mean `tokenizer`"]),
    "run": ("runs: {r: {datset: letters}}", ["runs.r.datset", "mean `dataset`"]),
    "run's train": ("runs: {r: {train: {beta3: 1}}}", ["r.train.beta3", "mean `beta"]),
    "run's eval": ("runs: {r: {eval: {eval_iter: 1}}}", ["eval_iter:", "mean `eval_iters`"]),
    "run's sample": ("runs: {r: {sample: {topk: 1}}}", ["r.sample.topk", "mean `top_k`"]),
    "run's model": ("runs: {r: {model: {preseet: x}}}", ["r.model.preseet", "mean `preset`"]),
    "report": ("report: {run: [first]}", ["report.run", "mean `runs`"]),
    "preset in a preset": ("models: {m: {preset: tiny}}", ["models.m.preset", "`n_layer`"]),
    "nothing near": ("zzz: 1", ["zzz: unknown setting", "`corpora`", "`runs`"]),
    # Users' names that are settings' names as well.
    "a run called train": ("runs: {train: {modle: {}}}", ["runs.train.modle", "mean `model`"]),
    "a model called activation": (
        "models: {activation: {n_layr: 1}}",
        ["models.activation.n_layr", "mean `n_layer`"],
    ),
    "a corpus called builtin": ("corpora: {builtin: {urll: x}}", ["builtin.urll", "mean `url`"]),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_named_in_one_line(text, words):
    assert_one_line(text, words)


def test_of_several_mistakes_the_first_is_named_and_the_rest_are_a_number():
    message = message_of("{train: {max_iter: 1, beta3: 1}, eval: {sead: 1}}")
    assert message.startswith("train.max_iter: ")
    assert message.endswith("(and 2 more)")
