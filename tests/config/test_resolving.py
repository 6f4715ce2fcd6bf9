"""A run resolves from its layers in the documented order, with derived settings filled in."""

import json

import pytest

from nanogpt.config.parameters import as_parameters
from nanogpt.config.resolving import (
    DERIVED,
    bench_runs,
    corpus_of,
    find_dataset,
    resolve_run,
    run_names,
    run_parameters,
)
from nanogpt.config.schema import (
    BenchSettings,
    EvalSettings,
    ModelSettings,
    RunDefaults,
    SampleSettings,
    TrainSettings,
)
from nanogpt.errors import UserError
from tests.config.examples import (
    LAYERS,
    assert_one_line,
    load_sweep,
    load_yaml,
    message_of,
)

WRONG = {
    "heads that do not divide": (
        "runs: {r: {dataset: letters, model: {n_embd: 10, n_head: 3}}}",
        ["runs.r.model", "n_embd 10", "n_head 3"],
    ),
    "milestone after the last step": (
        "runs: {r: {dataset: letters, train: {max_iters: 500, milestones: [500, 501]}}}",
        ["runs.r.train.milestones: step 501", "max_iters 500"],
    ),
    "milestone of the defaults after a run's last step": (
        "{defaults: {train: {milestones: [200]}}, "
        "runs: {r: {dataset: letters, train: {max_iters: 150}}}}",
        ["runs.r.train.milestones: step 200", "max_iters 150"],
    ),
    "heads of preset and run": (
        "runs: {r: {dataset: letters, model: {preset: tiny, n_head: 3}}}",
        ["runs.r.model", "n_embd 4", "n_head 3"],
    ),
    "heads of a dataset's run": ("model: {n_embd: 10, n_head: 4}", ["n_embd 10", "n_head 4"]),
    "min_lr": (
        "runs: {r: {dataset: letters, train: {min_lr: 0.1, learning_rate: 0.01}}}",
        ["runs.r.train", "min_lr 0.1", "learning_rate 0.01"],
    ),
    "min_lr of another layer": ("train: {learning_rate: 1e-5}", ["min_lr 0.0001", "1e-05"]),
    "warm-up of all steps": (
        "runs: {r: {dataset: letters, train: {warmup_iters: 50, max_iters: 50}}}",
        ["runs.r.train", "warmup_iters 50", "ends at step 50"],
    ),
    "the same anywhere, on a GPU": (
        "runs: {r: {dataset: letters, eval: {reproducible: anywhere, device: cuda}}}",
        ["runs.r.eval: `reproducible: anywhere`", "set `device: auto`"],
    ),
    "the same anywhere, in bfloat16": (
        "{defaults: {sample: {dtype: bfloat16}}, "
        "runs: {r: {dataset: letters, sample: {reproducible: anywhere}}}}",
        ["runs.r.sample: `reproducible: anywhere`", "`dtype: auto`"],
    ),
    "the same anywhere, compiled": (
        "runs: {r: {dataset: letters, train: {reproducible: anywhere, compile: true}}}",
        ["runs.r.train: `reproducible: anywhere`", "`compile: false`"],
    ),
    "warm-up beyond the decay": (
        "train: {warmup_iters: 200, lr_decay_iters: 150, max_iters: 1000}",
        ["warmup_iters 200", "ends at step 150"],
    ),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_mistake_gets_one_line(text, words):
    assert_one_line(text, words)


def test_command_line_overrides_run_preset_and_defaults():
    run = resolve_run(load_yaml(LAYERS), "first")
    assert run.train.beta1 == 0.5  # command line over run over defaults
    assert run.train.batch_size == 4  # run over defaults
    assert run.train.max_iters == 300  # defaults over built in
    assert run.train.beta2 == TrainSettings().beta2  # built in
    assert run.model.dropout == 0.5  # command line over built in
    assert run.model.n_embd == 8  # the run's own over its preset and that of the defaults
    assert run.model.n_layer == 9  # the run's preset over that of the defaults
    assert run.model.n_head == 2  # the defaults' preset over built in
    assert run.model.block_size == 16  # defaults beside their preset over built in
    assert (run.eval, run.sample) == (EvalSettings(), SampleSettings())


def test_preset_overrides_settings_of_the_defaults():
    run = resolve_run(
        load_yaml(
            "{defaults: {model: {n_layer: 7}}, runs: {first: {dataset: letters, model: tiny}}}"
        ),
        "first",
    )
    assert run.model.n_layer == 1


def test_preset_on_the_command_line_overrides_the_run():
    run = resolve_run(
        load_yaml("{model: tiny, runs: {first: {dataset: letters, model: {n_layer: 7}}}}"), "first"
    )
    assert run.model.n_layer == 1


def test_value_equal_to_the_default_still_overrides_weaker_sources():
    run = resolve_run(
        load_yaml(
            "{defaults: {train: {seed: 1}}, runs: {first: {dataset: letters, train: {seed: 1337}}}}"
        ),
        "first",
    )
    assert run.train.seed == 1337


def test_model_name_is_short_for_its_preset():
    short = load_yaml("runs: {first: {dataset: letters, model: tiny}}")
    long = load_yaml("runs: {first: {dataset: letters, model: {preset: tiny}}}")
    assert resolve_run(short, "first") == resolve_run(long, "first")
    assert resolve_run(short, "first").model.n_embd == 4


def test_settings_of_a_run_do_not_affect_others():
    config = load_yaml("runs: {a: {dataset: letters, train: {seed: 1}}, b: {dataset: letters}}")
    assert resolve_run(config, "b").train.seed == TrainSettings().seed


def test_run_can_have_just_a_dataset():
    run = resolve_run(load_yaml("runs: {only: {dataset: letters}}"), "only")
    assert run.name == "only"
    assert run.dataset == "letters"
    assert (run.model, run.eval, run.sample) == (ModelSettings(), EvalSettings(), SampleSettings())
    assert run.train == TrainSettings(lr_decay_iters=TrainSettings().max_iters)
    assert run.bench == BenchSettings(batch_size=TrainSettings().batch_size)


def test_a_dataset_is_a_run_with_the_defaults():
    config = load_yaml("defaults: {train: {max_iters: 300}}")
    run = resolve_run(config, "letters")
    assert (run.name, run.dataset, run.train.max_iters) == ("letters", "letters", 300)
    assert run_names(config) == ["first", "letters"]


def test_run_without_a_dataset_uses_the_one_with_its_name():
    config = load_yaml("runs: {letters: {train: {max_iters: 300}}}")
    run = resolve_run(config, "letters")
    assert (run.dataset, run.train.max_iters) == ("letters", 300)
    assert run_names(config) == ["letters"]


def test_an_empty_entry_is_a_run_or_dataset_with_the_defaults():
    config = load_yaml("{datasets: {text: }, runs: {text: }}")
    assert resolve_run(config, "text").dataset == "text"
    assert corpus_of(config, "text") == "text"


def test_unknown_run_is_an_error_with_a_suggestion():
    with pytest.raises(UserError, match=r"no run `fist`; did you mean `first`\?"):
        resolve_run(load_yaml(""), "fist")


def test_min_lr_and_warm_up_do_not_matter_without_decay():
    config = load_yaml("train: {decay_lr: no, min_lr: 9, warmup_iters: 9999999}")
    assert resolve_run(config, "first").train.min_lr == 9


def test_a_decay_longer_than_the_training_leaves_room_for_the_warm_up():
    config = load_yaml("train: {warmup_iters: 50, max_iters: 50, lr_decay_iters: 51}")
    assert resolve_run(config, "first").train.lr_decay_iters == 51


# --- Derived settings, and parameters -------------------------------------------------------

DERIVATIONS = {
    "built in": ("", 5000, 64),
    "from the defaults": ("defaults: {train: {max_iters: 300, batch_size: 4}}", 300, 4),
    "from the command line": ("train: {max_iters: 400, batch_size: 8}", 400, 8),
    "given": ("{train: {lr_decay_iters: 700}, bench: {batch_size: 3}}", 700, 3),
    "given by the defaults": (
        "{defaults: {train: {lr_decay_iters: 700}, bench: {batch_size: 3}}, "
        "train: {max_iters: 400, batch_size: 8}}",
        700,
        3,
    ),
    "given as nothing": (
        "{defaults: {train: {lr_decay_iters: 700}, bench: {batch_size: 3}}, "
        "train: {lr_decay_iters: null, max_iters: 400, batch_size: 8}, bench: {batch_size: null}}",
        400,
        8,
    ),
}


@pytest.mark.parametrize(
    ("text", "lr_decay_iters", "batch_size"), DERIVATIONS.values(), ids=DERIVATIONS.keys()
)
def test_derived_setting_follows_another_unless_given(text, lr_decay_iters, batch_size):
    run = resolve_run(load_yaml(text), "first")
    assert run.train.lr_decay_iters == lr_decay_iters
    assert run.bench.batch_size == batch_size


def test_derived_settings_are_those_without_a_default():
    run = resolve_run(load_yaml("ngram: on"), "first")
    without_value = {
        (group, setting)
        for group in RunDefaults.GROUPS
        for setting, value in type(getattr(run, group))()
        if value is None
    }
    assert without_value == {*DERIVED, ("train", "init_from")}
    none = [
        name for group in RunDefaults.GROUPS for name, value in getattr(run, group) if value is None
    ]
    assert none == ["init_from"]


def test_derived_and_given_settings_have_the_same_parameters():
    derived = resolve_run(load_yaml("train: {max_iters: 300}"), "first")
    given = resolve_run(load_yaml("train: {max_iters: 300, lr_decay_iters: 300}"), "first")
    assert run_parameters(derived, ["train"]) == run_parameters(given, ["train"])
    assert run_parameters(derived, ["train"])["train"]["lr_decay_iters"] == 300


def test_parameters_are_the_requested_groups_and_names():
    run = resolve_run(load_yaml("sample: {seed: 5}"), "first")
    only = {"train": {"batch_size", "dtype"}}
    assert run_parameters(run, ["name", "dataset", "sample", "train"], only) == {
        "name": "first",
        "dataset": "letters",
        "sample": as_parameters(SampleSettings(seed=5)),
        "train": {"batch_size": 64, "dtype": "auto"},
    }


def test_a_dataset_is_found_with_its_corpus():
    config = load_yaml("datasets: {letters: {corpus: text}, text: {val_ratio: 0.2}}")
    assert find_dataset(config, "letters") == (config.corpora["text"], config.datasets["letters"])
    assert find_dataset(config, "text") == (config.corpora["text"], config.datasets["text"])


# --- Benchmarks that runs share -------------------------------------------------------------


def test_runs_share_a_benchmark_if_differences_do_not_affect_it():
    sweep = "{model: [tiny, small], seed: [1, 2], train.learning_rate: [1e-3, 2e-3]}"
    config = load_sweep(sweep, more="runs: {other: {dataset: letters, model: small}}")
    runs = [*config.runs]
    assert bench_runs(config, runs) == {
        run: "r.model-tiny.seed-1.learning_rate-1e-3"
        if "tiny" in run
        else "r.model-small.seed-1.learning_rate-1e-3"
        for run in runs
    }
    backwards = bench_runs(config, runs[::-1])
    assert backwards["r.model-small.seed-1.learning_rate-1e-3"] == "other"


@pytest.mark.parametrize(
    "sweep",
    [
        "{dataset: [letters, words]}",
        "{model.dropout: [0, 0.1]}",
        "{train.batch_size: [4, 8]}",
        "{train.device: [cpu, cuda]}",
        "{train.dtype: [float32, bfloat16]}",
        "{train.compile: [yes, no]}",
        "{train.deterministic: [yes, no]}",
        "{bench.batch_size: [4, 8]}",
        "{bench.data: [real, random]}",
        "{bench.steps: [4, 8]}",
        "{bench.seed: [4, 8]}",
    ],
)
def test_runs_with_relevant_differences_have_their_own_benchmarks(sweep):
    config = load_sweep(sweep)
    assert bench_runs(config, [*config.runs]) == {run: run for run in config.runs}


def test_benchmark_with_its_own_batch_size_ignores_that_of_training():
    config = load_sweep("{train.batch_size: [4, 8]}", "dataset: letters, bench: {batch_size: 4}")
    assert set(bench_runs(config, [*config.runs]).values()) == {"r.batch_size-4"}
    config = load_sweep("{bench.batch_size: [null, 4]}", "dataset: letters, train: {batch_size: 4}")
    assert set(bench_runs(config, [*config.runs]).values()) == {"r.batch_size-none"}


NGRAMS = {
    "not asked for": ("", None),
    "on": ("ngram: on", (8, 0.9)),
    "on from the command line": ("ngram: 'on'", (8, 0.9)),
    "a setting says on": ("runs: {first: {dataset: letters, ngram: {weight: 5e-1}}}", (8, 0.5)),
    "off for a run": (
        "{defaults: {ngram: on}, runs: {first: {dataset: letters, ngram: off}}}",
        None,
    ),
    "nothing said in a run": (
        "{defaults: {ngram: {max_order: 5}}, runs: {first: {dataset: letters, ngram: }}}",
        (5, 0.9),
    ),
    "off from the command line": (
        "{ngram: off, runs: {first: {dataset: letters, ngram: {weight: 0.5}}}}",
        None,
    ),
}


@pytest.mark.parametrize(("text", "expected"), NGRAMS.values(), ids=NGRAMS.keys())
def test_ngrams_are_mixed_in_on_request(text, expected):
    ngram = resolve_run(load_yaml(text), "first").ngram
    assert (ngram and (ngram.max_order, ngram.weight)) == expected


def test_sweep_over_an_ngram_setting_turns_ngrams_on():
    swept = "runs: {first: {dataset: letters, sweep: {ngram.weight: [0, 0.5]}}}"
    config = load_yaml(swept)
    weights = [resolve_run(config, name).ngram.weight for name in config.runs]
    assert weights == [0, 0.5]


@pytest.mark.parametrize(
    ("text", "warm_up"),
    [
        # Fewer steps than the warm-up of a weaker source: it follows them.
        ("{defaults: {train: {warmup_iters: 100}}, train: {max_iters: 50}}", 5),
        (
            "{runs: {first: {dataset: letters, train: {warmup_iters: 20}}}, train: {max_iters: 8}}",
            0,
        ),
        ("{runs: {first: {dataset: letters, train: {max_iters: 60}}}}", 6),
        # More: it stays.
        ("{defaults: {train: {warmup_iters: 20}}, train: {max_iters: 50}}", 20),
        ("{}", 100),
        # The decay ends elsewhere, and leaves room.
        ("{defaults: {train: {lr_decay_iters: 500}}, train: {max_iters: 50}}", 100),
    ],
)
def test_warm_up_is_shortened_for_fewer_steps_from_a_stronger_source(text, warm_up):
    assert resolve_run(load_yaml(text), "first").train.warmup_iters == warm_up


def test_error_for_a_corpus_without_a_dataset_says_what_to_add():
    with pytest.raises(
        UserError, match=r"no run `text`, only a corpus; add an entry `text: {}` to `dat"
    ):
        resolve_run(load_yaml("{}"), "text")


def test_warm_up_longer_than_the_steps_of_the_same_source_is_an_error():
    message = message_of("train: {warmup_iters: 100, max_iters: 50}")
    assert "warmup_iters 100 leaves no step" in message


def test_run_is_resolved_once_for_each_config():
    config = load_yaml("{}")
    run = resolve_run(config, "first")
    assert resolve_run(config, "first") is run
    changed = config.model_copy(update={"train": TrainSettings(seed=7)})
    assert resolve_run(changed, "first").train.seed == 7
    assert resolve_run(config, "first") is run


def test_a_changed_copy_of_a_config_has_its_own_runs():
    config = load_yaml("{}")
    assert resolve_run(config, "first").train.max_iters == 5000
    changed = config.model_copy(update={"train": TrainSettings(max_iters=2000)})
    assert resolve_run(changed, "first").train.max_iters == 2000
    assert resolve_run(config, "first").train.max_iters == 5000


def test_run_from_a_model_directory_is_resolved_again_as_its_files_can_change(tmp_path):
    text = f"runs: {{r: {{dataset: letters, train: {{init_from: {tmp_path}}}}}}}"
    config = load_yaml(text)
    for n_layer in (2, 3):
        source = {"architecture": "gpt2", **ModelSettings(n_layer=n_layer).model_dump()}
        (tmp_path / "config.json").write_text(json.dumps(source))
        assert resolve_run(config, "r").model.n_layer == n_layer


@pytest.mark.parametrize("value", ["null", "none"])
def test_null_on_the_command_line_means_none(value):
    defaults = "defaults: {train: {lr_decay_iters: 9}}"
    config = load_yaml(f"{{{defaults}, train: {{lr_decay_iters: '{value}'}}}}")
    assert resolve_run(config, "first").train.lr_decay_iters == 5000
    assert "should be a number" in message_of(f"train: {{max_iters: '{value}'}}")


@pytest.mark.parametrize("ngram", ["on", "{weight: 0}"])
def test_run_with_ngrams_can_draft(ngram):
    text = f"{{sample: {{draft: 4}}, ngram: {ngram}}}"
    assert resolve_run(load_yaml(text), "first").sample.draft == 4


def test_draft_without_ngrams_is_an_error_before_training():
    with pytest.raises(
        UserError, match=r"runs\.first\.sample\.draft: this run doesn't use n-grams"
    ):
        resolve_run(load_yaml("sample: {draft: 4}"), "first")
