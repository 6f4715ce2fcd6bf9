"""Runs and datasets with settings changed by flags: their names and entries."""

import pytest

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.loading import load
from nanogpt.config.resolving import resolve_run
from nanogpt.config.schema import TrainSettings
from nanogpt.config.sweeps import LONGEST_NAME
from nanogpt.config.variants import Given, new_dataset, parse, resolve_with, vary_dataset, vary_run
from nanogpt.errors import UserError

MAPPING = {
    "corpora": {"text": {"files": "text.txt"}, "other": {"files": "other.txt"}},
    "datasets": {"letters": {"corpus": "text"}, "other": {}},
    "models": {"tiny": {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 8}},
    "runs": {
        "first": {"dataset": "letters", "model": "tiny", "train": {"max_iters": 300}},
        "grid": {"dataset": "letters", "sweep": {"seed": [1, 2]}, "model": "tiny"},
        "both": {"ensemble": ["grid.seed-1", "grid.seed-2"]},
    },
}
CONFIG = load(MAPPING)


def given(*pairs):
    return [
        Given(*(name.split(".") if "." in name else ("", name)), value) for name, value in pairs
    ]


def vary(base, *pairs, name=""):
    return vary_run(CONFIG, base, given(*pairs), name)


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        ([("train.max_iters", "50")], "first.max_iters-50"),
        ([("train.learning_rate", "1e-4")], "first.learning_rate-0.0001"),
        ([("train.max_iters", "2e3")], "first.max_iters-2000"),
        ([("train.seed", "2"), ("model.n_layer", "2")], "first.n_layer-2.seed-2"),
        ([("model.n_layer", "2"), ("train.seed", "2")], "first.n_layer-2.seed-2"),
        ([("sample.seed", "2")], "first.sample.seed-2"),
        ([("model.bias", "True")], "first.bias-true"),
        ([("dataset", "other")], "first.dataset-other"),
        ([("train.device", "cuda:0")], "first.device-f1b59a36"),
        ([("train.max_iters", "300"), ("train.seed", "2")], "first.seed-2"),
        ([("train.seed", "3"), ("train.seed", "2")], "first.seed-2"),
    ],
)
def test_variant_is_named_after_the_changed_settings(pairs, name):
    variant = vary("first", *pairs)
    if "device" in name:
        assert variant.name.startswith("first.device-")
        assert len(variant.name) == len(name)
    else:
        assert variant.name == name


@pytest.mark.parametrize("base", ["first", "letters", "grid.seed-2"])
def test_entry_resolves_to_the_run_with_changed_settings(base):
    pairs = [("train.max_iters", "50"), ("ngram.weight", "0.5"), ("eval.seed", "3")]
    variant = vary(base, *pairs)
    added = load({**MAPPING, "runs": {**MAPPING["runs"], **variant.entries["runs"]}})
    wanted = resolve_with(CONFIG, base, given(*pairs))
    assert resolve_run(added, variant.name) == wanted.model_copy(update={"name": variant.name})


def test_given_setting_is_kept_if_it_would_be_derived_otherwise():
    assert resolve_run(CONFIG, "first").train.lr_decay_iters == 300
    variant = vary("first", ("train.max_iters", "200"), ("train.lr_decay_iters", "300"))
    assert variant.entries["runs"][variant.name]["train"] == {
        "max_iters": 200,
        "lr_decay_iters": 300,
    }


def test_settings_that_change_nothing_give_the_run_itself():
    variant = vary(
        "first", ("train.max_iters", "300"), ("model.n_layer", "1"), ("dataset", "letters")
    )
    assert (variant.name, variant.entries) == ("first", {})


def test_settings_that_need_each_other_are_kept_together():
    muon = {"optimizer": "muon", "embedding_lr": 0.1}
    config = load(
        {**MAPPING, "defaults": {"model": {"position": "rotary", "norm": "rmsnorm"}, "train": muon}}
    )
    pairs = given(("train.optimizer", "adamw"), ("train.learning_rate", "5e-4"))
    variant = vary_run(config, "other", pairs)
    assert variant.name == "other.optimizer-adamw.learning_rate-0.0005"


def test_same_settings_give_the_existing_variant():
    variant = vary("first", ("train.max_iters", "50"), name="mine")
    added = load({**MAPPING, "runs": {**MAPPING["runs"], **variant.entries["runs"]}})
    again = vary_run(added, "first", given(("train.max_iters", "50")), "mine")
    assert (again.name, again.entries) == ("mine", {})
    with pytest.raises(
        UserError, match=r"`mine` already exists with other settings \(train.max_iters is `50`"
    ):
        vary_run(added, "first", given(("train.max_iters", "60")), "mine")


@pytest.mark.parametrize("name", ["letters", "other", "grid.seed-1", "both"])
def test_other_runs_are_never_overwritten(name):
    with pytest.raises(UserError, match="exists with other settings"):
        vary("first", ("train.max_iters", "50"), name=name)


def test_long_name_is_replaced_by_a_digest():
    pairs = [
        (f"train.{setting}", "0.001")
        for setting in (
            "learning_rate",
            "matrix_lr",
            "embedding_lr",
            "unembedding_lr",
            "momentum",
            "weight_decay",
            "beta1",
            "beta2",
            "grad_clip",
            "warmdown_ratio",
            "min_lr",
        )
    ]
    assert len(vary("first", *pairs).name) < LONGEST_NAME


@pytest.mark.parametrize(
    ("base", "pairs", "message"),
    [
        ("first", [("train.max_iters", "many")], "train.max_iters: should be a number"),
        (
            "first",
            [("dataset", "lettres")],
            "no dataset `lettres`; did you mean `letters`",
        ),
        ("first", [("model.preset", "tyni")], "no model `tyni`; did you mean `tiny`"),
        ("fist", [], "no run `fist`; did you mean `first`"),
        ("grid", [("train.seed", "2")], "`grid` is a sweep"),
        ("both", [("train.seed", "2")], "an ensemble isn't trained"),
    ],
)
def test_mistake_gets_one_line(base, pairs, message):
    with pytest.raises(UserError, match=message):
        vary(base, *pairs)


# --- Datasets -------------------------------------------------------------------------------


def test_other_tokenizer_makes_a_new_dataset_of_the_same_corpus():
    variant = vary_dataset(CONFIG, "letters", given(("dataset.tokenizer", "byte")))
    assert variant.entries == {
        "datasets": {"letters.tokenizer-byte": {"corpus": "text", "tokenizer": "byte"}}
    }


def test_other_corpus_settings_make_a_new_corpus():
    variant = vary_dataset(CONFIG, "letters", given(("corpus.newlines", "lf")), "plain")
    assert variant.entries == {
        "corpora": {"plain": {"files": ["text.txt"], "newlines": "lf"}},
        "datasets": {"plain": {"corpus": "plain"}},
    }


def test_text_becomes_a_dataset_with_the_given_name():
    corpus, dataset = Corpus(files=["/far/novel.txt"]), Dataset(val_ratio=0.2)
    variant = new_dataset(CONFIG, "novel", dataset, corpus)
    maps = {kind: {**MAPPING[kind], **variant.entries[kind]} for kind in variant.entries}
    added = load({**MAPPING, **maps})
    assert new_dataset(added, "novel", dataset, corpus).entries == {}
    with pytest.raises(
        UserError, match=r"already exists with other settings \(dataset.val_ratio is `0.2`"
    ):
        new_dataset(added, "novel", Dataset(val_ratio=0.3), corpus)
    with pytest.raises(UserError, match="`text` already exists"):
        new_dataset(CONFIG, "text", dataset, corpus)


def test_deep_brackets_in_a_list_are_a_mistake():
    given = [Given("train", "milestones", "[" * 100_000)]
    with pytest.raises(UserError, match=r"train\.milestones: should be a list"):
        parse(given, {"train": TrainSettings()})
