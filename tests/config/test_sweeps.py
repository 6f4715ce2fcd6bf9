"""A sweep is a run of each combination, named after its values."""

import itertools
import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.config.loading import load
from nanogpt.config.patterns import NAME
from nanogpt.config.resolving import expand, resolve_run, run_names
from nanogpt.config.schema import ModelSettings
from nanogpt.errors import UserError
from tests.config.examples import (
    SWEEPING,
    load_sweep,
    message_of,
)

ROOT = Path(__file__).resolve().parents[2]


SWEPT = {
    "a seed": ("{seed: [1, 2]}", ["r.seed-1", "r.seed-2"]),
    "the first key varies slowest": (
        "{seed: [2, 1], model: [tiny, small]}",
        [
            "r.seed-2.model-tiny",
            "r.seed-2.model-small",
            "r.seed-1.model-tiny",
            "r.seed-1.model-small",
        ],
    ),
    "keys as they are written": (
        "{model: [tiny, small], seed: [2]}",
        ["r.model-tiny.seed-2", "r.model-small.seed-2"],
    ),
    "datasets": ("{dataset: [words, letters]}", ["r.dataset-words", "r.dataset-letters"]),
    "the last part of a key": (
        "{train.learning_rate: [1e-3], model.n_layer: [3], sample.temperature: [0.5]}",
        ["r.learning_rate-1e-3.n_layer-3.temperature-0.5"],
    ),
    "all groups": (
        "{eval.eval_iters: [5], bench.steps: [6], train.keep: [last]}",
        ["r.eval_iters-5.steps-6.keep-last"],
    ),
    "strings as they are written": (
        "{train.learning_rate: [1e-3, '0.0020', '3']}",
        ["r.learning_rate-1e-3", "r.learning_rate-0.0020", "r.learning_rate-3"],
    ),
    "numbers as YAML writes them": (
        "{train.beta1: [0.50, .25, 0, 1.0e-5]}",
        ["r.beta1-0.5", "r.beta1-0.25", "r.beta1-0", "r.beta1-1.0e-05"],
    ),
    "yes and no": ("{model.bias: [yes, no]}", ["r.bias-true", "r.bias-false"]),
    "yes and no in quotes": ("{model.bias: ['yes', 'no']}", ["r.bias-yes", "r.bias-no"]),
    "nothing": (
        "{train.lr_decay_iters: [null, 300]}",
        ["r.lr_decay_iters-none", "r.lr_decay_iters-300"],
    ),
    "the same last part twice": (
        "{eval.seed: [1, 2], sample.seed: [1, 2]}",
        ["r.seed-1.seed-1", "r.seed-1.seed-2", "r.seed-2.seed-1", "r.seed-2.seed-2"],
    ),
    "long forms": ("{model.preset: [tiny], train.seed: [1]}", ["r.preset-tiny.seed-1"]),
}


@pytest.mark.parametrize(("sweep", "names"), SWEPT.values(), ids=SWEPT.keys())
def test_sweep_makes_a_run_for_each_combination_named_after_its_values(sweep, names):
    config = load_sweep(sweep)
    assert list(config.runs) == names
    assert run_names(config) == [*names, "letters", "words"]
    assert expand(config, ["letters", "r"]) == ["letters", *names]


def test_run_of_a_sweep_equals_one_written_by_hand():
    swept = load_sweep(
        "{dataset: [letters, words], model: [tiny, small], seed: [1, 2], train.beta1: [0.5, 6e-1]}",
        "train: {max_iters: 400, seed: 9}, model: {n_embd: 12}, sample: {seed: 5}",
        "{defaults: {model: {n_head: 1}}, eval: {eval_iters: 3}}",
    )
    assert len(swept.runs) == 16
    combinations = itertools.product(["letters", "words"], ["tiny", "small"], [1, 2], [0.5, 0.6])
    for name, (dataset, preset, seed, beta1) in zip(swept.runs, combinations, strict=True):
        by_hand = {
            "dataset": dataset,
            "model": {"preset": preset, "n_embd": 12},
            "train": {"max_iters": 400, "seed": seed, "beta1": beta1},
            "sample": {"seed": 5},
        }
        written = load(
            {
                **yaml.safe_load(SWEEPING),
                "defaults": {"model": {"n_head": 1}},
                "eval": {"eval_iters": 3},
                "runs": {name: by_hand},
            }
        )
        assert resolve_run(swept, name) == resolve_run(written, name)


def test_swept_preset_replaces_the_preset_but_not_the_settings_of_the_entry():
    config = load_sweep(
        "{model: [tiny, small]}", "dataset: letters, model: {preset: small, bias: yes}"
    )
    tiny = resolve_run(config, "r.model-tiny").model
    assert (tiny.n_layer, tiny.dropout, tiny.bias) == (1, ModelSettings().dropout, True)
    small = resolve_run(config, "r.model-small").model
    assert (small.n_layer, small.dropout, small.bias) == (2, 0.3, True)


def test_swept_setting_overrides_the_preset_and_the_entry():
    config = load_sweep(
        "{model.dropout: [0.1, 0.2]}", "dataset: letters, model: {preset: small, dropout: 0}"
    )
    assert [resolve_run(config, name).model.dropout for name in config.runs] == [0.1, 0.2]
    assert resolve_run(config, "r.dropout-0.1").model.n_layer == 2


def test_command_line_overrides_swept_settings():
    config = load_sweep("{seed: [1, 2]}", more="train: {seed: 7}")
    assert [resolve_run(config, name).train.seed for name in config.runs] == [7, 7]


def test_sweep_with_the_name_of_a_dataset_replaces_its_run():
    config = load({**yaml.safe_load(SWEEPING), "runs": {"letters": {"sweep": {"seed": [1, 2]}}}})
    assert [resolve_run(config, name).dataset for name in config.runs] == ["letters", "letters"]
    assert run_names(config) == ["letters.seed-1", "letters.seed-2", "words"]


def test_texts_can_be_swept():
    config = load_sweep("{dataset: [mine, yours]}", texts=["mine.txt", "yours.txt"])
    assert resolve_run(config, "r.dataset-yours").dataset == "yours"


def test_sweep_instead_of_a_run_is_an_error_that_lists_some_runs():
    seeds = "runs: `r` is a sweep; use one of its runs: `r.seed-1`, `r.seed-2`, `r.seed-3`"
    for last, more in [(3, ""), (4, " and 1 more"), (2000, " and 1,997 more")]:
        with pytest.raises(UserError) as error:
            resolve_run(load_sweep(f"{{seed: {[*range(1, last + 1)]}}}"), "r")
        assert str(error.value) == seeds + more
    with pytest.raises(UserError, match="`words` is a sweep"):
        resolve_run(load_sweep("{seed: [1]}", more="runs: {words: {sweep: {seed: [1]}}}"), "words")


def test_misspelled_run_of_a_sweep_gets_a_suggestion():
    with pytest.raises(UserError, match=r"no run `r\.seed_12`; did you mean `r\.seed-12`\?"):
        resolve_run(load_sweep(f"{{seed: {[*range(30)]}}}"), "r.seed_12")


def test_sweep_in_the_report_means_its_runs():
    more = "{{runs: {{last: {{dataset: words, sweep: {{seed: [7]}}}}}}, report: {{runs: {}}}}}"
    config = load_sweep("{seed: [2, 1]}", more=more.format("[words, r, last.seed-7]"))
    assert config.report.runs == ["words", "r.seed-2", "r.seed-1", "last.seed-7"]
    for runs, message in [
        ("[r, last, r]", "report.runs: `r` is listed twice; remove one"),
        ("[r.seed-1, r.seed-1]", "report.runs: `r.seed-1` is listed twice; remove one"),
        (
            "[r.seed-1, words, r]",
            "report.runs: `r.seed-1` is also a run of the sweep `r`; remove one of them",
        ),
        ("[lasd]", "report.runs: no run `lasd`; did you mean `last`?"),
    ]:
        with pytest.raises(UserError) as error:
            load_sweep("{seed: [2, 1]}", more=more.format(runs))
        assert str(error.value) == message


# The line of each begins with `runs.r.sweep`.
WRONG_SWEEPS = {
    "nothing": (
        "",
        ": the sweep is empty; list settings with their values, or remove it (found nothing)",
    ),
    "an empty one": (
        "{}",
        ": the sweep is empty; list settings with their values, or remove it",
    ),
    "a list": ("[seed]", ": should be a mapping of settings (found `[seed]`)"),
    "a number for a key": ("{1: [2]}", ".1: should be text; put it in quotes (found `1`)"),
    "an unknown key": ("{sead: [1]}", ".sead: unknown setting; did you mean `seed`?"),
    "an unknown setting": (
        "{train.batchsize: [1]}",
        ".train.batchsize: unknown setting; did you mean `train.batch_size`?",
    ),
    "a setting without its group": (
        "{n_layer: [1]}",
        ".n_layer: unknown setting; did you mean `model.n_layer`?",
    ),
    "a setting of several groups": (
        "{eval_iters: [1]}",
        ".eval_iters: unknown setting; did you mean `train.eval_iters` or `eval.eval_iters`?",
    ),
    "nothing near": (
        "{zzz: [1]}",
        ".zzz: unknown setting; write its group too, as in `train.max_iters`",
    ),
    "a group": (
        "{train: [1]}",
        ".train: unknown setting; did you mean `train.seed`?",
    ),
    "no list": ("{seed: 3}", ".seed: should be a list (found `3`)"),
    "no values": ("{seed: }", ".seed: should be a list (found nothing)"),
    "an empty list": ("{seed: []}", ".seed: the list is empty; list some values, or remove it"),
    "a list of lists": (
        "{train.milestones: [[5], [6]]}",
        ".train.milestones: a list or mapping can't be swept (found `[5]`); "
        "write these runs one by one",
    ),
    "a mapping": (
        "{model: [{preset: tiny}]}",
        ".model: a list or mapping can't be swept (found `{'preset': 'tiny'}`); "
        "write these runs one by one",
    ),
    "a word for a number": (
        "{seed: [1, two]}",
        ".seed: should be a number, such as 10000, 10_000 or 1e4 (found `two`)",
    ),
    "yes for a number": (
        "{train.max_iters: [yes]}",
        ".train.max_iters: should be a number, not yes or no (found `yes`)",
    ),
    "a seed below zero": (
        "{seed: [-1]}",
        ".seed: should be greater than or equal to 0 (found `-1`)",
    ),
    "an unknown choice": (
        "{train.dtype: [float64]}",
        ".train.dtype: should be `auto`, `float32`, `bfloat16` or `float16` (found `float64`)",
    ),
    "an unknown model": (
        "{model: [tiny, smal]}",
        ".model: no model `smal`; did you mean `small`?",
    ),
    "an unknown dataset": (
        "{dataset: [leters]}",
        ".dataset: no dataset `leters`; did you mean `letters`?",
    ),
    "no model": ("{model: [null]}", ".model: no model `none`; choose from `tiny`, `small`"),
    "a number for a model": (
        "{model: [2024]}",
        ".model: should be text; put it in quotes (found `2024`)",
    ),
    "a value twice": ("{seed: [1, 2, 1]}", ".seed: `1` is listed twice; remove one"),
    "a value twice in two ways": (
        "{train.learning_rate: [1e-3, 0.001]}",
        ".train.learning_rate: `0.001` equals `1e-3`; remove one",
    ),
    "yes twice in two ways": (
        "{model.bias: [yes, 'on']}",
        ".model.bias: `on` equals `true`; remove one",
    ),
    "a setting twice": (
        "{seed: [1], train.seed: [2]}",
        ".train.seed: same setting as `seed`; remove one of them",
    ),
    "a space": (
        "{sample.start: [Once upon]}",
        ".sample.start: `Once upon` can't be part of a run's name, which has only letters, "
        "digits, `.`, `-` and `_`; write these runs one by one",
    ),
    "a slash": (
        "{sample.start: [a/../b]}",
        ".sample.start: `a/../b` can't be part of a run's name, which has only letters, "
        "digits, `.`, `-` and `_`; write these runs one by one",
    ),
    "a colon": (
        "{train.device: ['cuda:0']}",
        ".train.device: `cuda:0` can't be part of a run's name, which has only letters, "
        "digits, `.`, `-` and `_`; write these runs one by one",
    ),
    "a line break": (
        '{sample.start: ["\\n"]}',
        ".sample.start: `\\n` can't be part of a run's name, which has only letters, "
        "digits, `.`, `-` and `_`; write these runs one by one",
    ),
}


@pytest.mark.parametrize(("sweep", "message"), WRONG_SWEEPS.values(), ids=WRONG_SWEEPS.keys())
def test_mistake_in_a_sweep_gets_one_line(sweep, message):
    with pytest.raises(UserError) as error:
        load_sweep(sweep)
    assert str(error.value) == f"runs.r.sweep{message}"


def test_invalid_combination_is_reported_with_its_run():
    with pytest.raises(UserError, match=r"^runs\.r\.n_embd-8\.n_head-3\.model: n_embd 8 is not"):
        load_sweep("{model.n_embd: [8], model.n_head: [2, 3]}")
    with pytest.raises(UserError, match=r"^runs\.r\.model: no model `smal`; did you mean `small`"):
        load_sweep("{seed: [1]}", "dataset: letters, model: smal")
    with pytest.raises(UserError, match=r"^runs\.r\.dataset: no dataset `leters`; did you mean"):
        load_sweep("{seed: [1]}", "dataset: leters")


@pytest.mark.parametrize(
    ("more", "texts"),
    [
        ("runs: {r.seed-2: {dataset: letters}}", []),
        ("runs: {r.seed-2: {dataset: letters, sweep: {seed: [1]}}}", []),
        ("datasets: {letters: {corpus: text}, r.seed-2: {corpus: text}}", []),
        ("", ["r.seed-2.txt"]),
    ],
)
def test_run_of_a_sweep_cannot_have_a_taken_name(more, texts):
    with pytest.raises(UserError) as error:
        load_sweep("{seed: [1, 2]}", more=more, texts=texts)
    assert str(error.value) == (
        "runs.r.sweep: would create a run `r.seed-2`, but a run, dataset or text already has that "
        "name; rename it, or rename the sweep"
    )


def test_runs_of_two_sweeps_cannot_share_a_name():
    more = "runs: {r.seed-1: {dataset: letters, sweep: {model: [tiny]}}}"
    with pytest.raises(
        UserError, match=r"^runs\.r\.seed-1\.sweep: .* `r\.seed-1\.model-tiny`, but"
    ):
        load_sweep("{seed: [1], model: [tiny]}", more=more)


def test_two_combinations_with_the_same_name_are_an_error():
    datasets = "datasets: {a: {corpus: text}, a.model-tiny: {corpus: text}}"
    models = "models: {tiny.model-small: {}, small: {}, tiny: {}}"
    sweep = "{dataset: [a, a.model-tiny], model: [tiny.model-small, small]}"
    with pytest.raises(UserError) as error:
        load_sweep(sweep, more=f"{datasets}\n{models}")
    assert str(error.value) == (
        "runs.r.sweep: two of its runs would have the name `r.dataset-a.model-tiny.model-small`; "
        "reorder its settings, or rename a value"
    )


def test_run_name_too_long_for_a_file_is_an_error():
    word = ("x" + "".join(map(str, range(100, 200))))[:192]  # beside `r.start-`, 200 bytes
    assert len(next(iter(load_sweep(f"{{sample.start: [{word}]}}").runs))) == 200
    with pytest.raises(UserError) as error:
        load_sweep(f"{{sample.start: [{word}a]}}")
    assert str(error.value) == (
        f"runs.r.sweep: the run name `r.start-{word[:72]}…` would have 201 characters, but the "
        "limit is 200; shorten the run's name or the swept values"
    )


@pytest.mark.parametrize("where", ["defaults: {sweep: {seed: [1]}}", "sweep: {seed: [1]}"])
def test_only_runs_can_have_a_sweep(where):
    assert "sweep: not a setting here" in message_of(where)


# Values that look like more of a name: two combinations can give the same one.
PARTS = ["a", "a.model-a", "a.start-a", "b"]


AXES = {
    "dataset": st.sampled_from(PARTS),
    "model": st.sampled_from(PARTS),
    "seed": st.integers(0, 3),
    "eval.seed": st.integers(0, 3),
    "sample.start": st.sampled_from(PARTS),
    "sample.unknown": st.sampled_from(["error", "skip"]),
    "train.beta1": st.sampled_from([0.5, "0.5", "5e-1", 0, "0.0", 0.25]),
}


@st.composite
def sweeps(draw):
    keys = draw(st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=3, unique=True))
    return {key: draw(st.lists(AXES[key], min_size=1, max_size=3, unique=True)) for key in keys}


@settings(deadline=None, max_examples=300)
@given(st.lists(sweeps(), min_size=1, max_size=2))
def test_combinations_have_unique_names_or_there_is_an_error(swept):
    names = ["r", "r.seed-1"][: len(swept)]
    try:
        config = load(
            {
                "corpora": {"text": {"files": "f"}},
                "datasets": {name: {"corpus": "text"} for name in PARTS},
                "models": {name: {"n_layer": number} for number, name in enumerate(PARTS, start=1)},
                "runs": {
                    name: {"dataset": "a", "sweep": sweep}
                    for name, sweep in zip(names, swept, strict=True)
                },
            }
        )
    except UserError:
        return
    expanded = [expand(config, [name]) for name in names]
    assert list(config.runs) == [run for runs in expanded for run in runs]
    assert all(NAME.fullmatch(run) for run in config.runs)
    assert not config.runs.keys() & config.datasets.keys()
    for sweep, runs in zip(swept, expanded, strict=True):
        assert len(runs) == math.prod(map(len, sweep.values()))
        for name, combination in zip(runs, itertools.product(*sweep.values()), strict=True):
            run = resolve_run(config, name)
            found = {
                "dataset": run.dataset,
                "model": PARTS[run.model.n_layer - 1] if "model" in sweep else None,
                "seed": run.train.seed,
                "eval.seed": run.eval.seed,
                "sample.start": run.sample.start,
                "sample.unknown": run.sample.unknown,
                "train.beta1": run.train.beta1,
            }
            for key, value in zip(sweep, combination, strict=True):
                assert found[key] == (float(value) if key == "train.beta1" else value)


def test_examples_in_docs_sweeps_work_with_the_shipped_config():
    page = (ROOT / "docs/SWEEPS.md").read_text(encoding="utf-8")
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert len(examples) == 2
    sizes, heads = (
        load({**shipped, **example, "runs": {**shipped["runs"], **example["runs"]}})
        for example in examples
    )
    assert len(expand(heads, ["heads"])) == 15
    names = expand(sizes, ["sizes"])
    assert sizes.report.runs == ["demo", *names]
    shown = re.findall(r"^    (sizes\..*)$", page, re.MULTILINE)
    assert shown == [*names[:3], names[-1]]
