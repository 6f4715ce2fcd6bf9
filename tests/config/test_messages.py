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
    "preset in a preset": ("models: {m: {preset: tiny}}", ["models.m.preset", "to `model`"]),
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
def test_mistake_gets_one_line(text, words):
    assert_one_line(text, words)


def test_first_of_several_mistakes_is_reported_with_the_number_of_others():
    message = message_of("{train: {max_iter: 1, beta3: 1}, eval: {sead: 1}}")
    assert message.startswith("train.max_iter: ")
    assert message.endswith("(and 2 more mistakes)")


# A setting of another place, and the place that is named.
MISPLACED = {
    "of a group, on top": ("max_iters: 500", "max_iters: not a setting here", "`train`"),
    "of several groups": (
        "device: cpu",
        "device: not a setting here",
        "`train` or `eval` or `sample`",
    ),
    "of a group, in a run": (
        "runs: {first: {max_iters: 5}}",
        "runs.first.max_iters: ",
        "`runs.first.train`",
    ),
    "of another group, in a group": ("train: {top_k: 5}", "train.top_k: ", "`sample`"),
    "of another group, in a run's": (
        "runs: {first: {train: {n_layer: 5}}}",
        "runs.first.train.n_layer: ",
        "`runs.first.model`",
    ),
    "in the defaults": ("defaults: {n_layer: 2}", "defaults.n_layer: ", "`defaults.model`"),
    "of a corpus, in a dataset": (
        "datasets: {letters: {corpus: text, encoding: utf-8}}",
        "datasets.letters.encoding: ",
        "`corpora.<name>`",
    ),
    "of a dataset, in a corpus": (
        "corpora: {text: {files: text.txt, tokenizer: bpe}}",
        "corpora.text.tokenizer: ",
        "`datasets.<name>`",
    ),
    "of a dataset, on top": ("val_ratio: 0.2", "val_ratio: ", "`datasets.<name>`"),
}


@pytest.mark.parametrize(("text", "begins", "place"), MISPLACED.values(), ids=MISPLACED.keys())
def test_misplaced_setting_gets_its_right_place(text, begins, place):
    message = message_of(text)
    assert message.startswith(begins)
    assert message.endswith(f"; move it to {place}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("report: {runs: 5}", "report.runs: should be a list (found `5`)"),
        ("mirrors: 5", "mirrors: should be a list (found `5`)"),
        (
            "runs: {first: {dataset: 2024-01-01}}",
            "should be text; put it in quotes (found `2024-01-01`)",
        ),
        ("runs: {2024-01-01: {}}", "runs.2024-01-01: should be text; put it in quotes"),
        (
            "runs: {first: {train: {milestones: [5, ten]}}}",
            "runs.first.train.milestones: should be a number, such as 10000, 10_000 or 1e4 "
            "(found `ten`)",
        ),
        (
            "corpora: {a: {files: [a.txt, {b: c.txt}]}}",
            "corpora.a.files.1: should be a valid string",
        ),
        ("ngram: 1", "ngram: should be a mapping of settings (found `1`)"),
        ("2024: {}", "config: keys should be strings (found `2024`)"),
        ("runs: {2024: {}}", "runs.2024: should be text; put it in quotes (found `2024`)"),
        ("runs: {on: {}}", "runs.yes: should be text; put it in quotes (found `yes`)"),
        (
            "train: {max_iters: 10k}",
            "should be a number, such as 10000, 10_000 or 1e4 (found `10k`)",
        ),
        ("train: {max_iters: '1,000'}", "should be a number, such as"),
        ("train: {max_iters: 1.5}", "train.max_iters: should be a whole number (found `1.5`)"),
        ("train: {max_iters: '1.5'}", "train.max_iters: should be a whole number (found `1.5`)"),
        ("train: {learning_rate: 1/1000}", "should be a number, such as 0.1 or 1e-3 (found"),
        ("train: {learning_rate: 5%}", "should be a number, such as"),
    ],
)
def test_wrong_value_is_quoted_as_written(text, words):
    assert words in message_of(text)


def test_long_value_is_cut():
    assert len(message_of(f"sample: {{temperature: {'x' * 5000}}}")) < 300
