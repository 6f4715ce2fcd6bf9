"""eval.json names the model and the dataset, and has exact numbers."""

import json
import math

import numpy as np
import pytest
import torch

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.evaluations import Evaluation
from nanogpt.config.parameters import as_parameters
from nanogpt.config.schema import ModelSettings, NgramSettings
from nanogpt.data import play as playwright
from nanogpt.data.batches import load
from nanogpt.data.tokenizers import char_tokenizer
from nanogpt.errors import UserError
from nanogpt.evaluation.evaluate import evaluate, nanogpt_estimate, summary
from nanogpt.evaluation.symbols import KINDS
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.model.losses import windows_loss
from nanogpt.ngram.counts import count_split
from nanogpt.ngram.mixing import load_ngrams
from tests.checkouts import PROJECT
from tests.model.slow_losses import (
    BLOCK,
    MODEL,
    SETTINGS,
    make_model,
    make_tokens,
    slow_loss,
    slow_nats,
)


def make_alphabet(n_letters):
    """A model that always predicts the next letter, and the first after the last."""
    one = {"n_layer": 1, "n_head": 1, "n_embd": n_letters, "dropout": 0.0, "bias": False}
    model = GPT(ModelSettings(**one, block_size=BLOCK), n_letters)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln" in name else 0.0)
        letters = torch.eye(n_letters)
        model.wte.weight.copy_(20 * letters)
        model.h[0].mlp.c_fc.weight[:n_letters] = letters
        model.h[0].mlp.c_proj.weight[:, :n_letters] = 1000 * letters.roll(1, 0)
    return model


def evaluated_alphabet(write_dataset, tmp_path, text):
    dataset = write_dataset(text)
    tokenizer = load(dataset).tokenizer
    model = make_alphabet(tokenizer.vocab_size)
    save_model(tmp_path / "model", model.state_dict(), model.settings, tokenizer)
    return evaluate("abc", dataset, tmp_path / "model", SETTINGS, tmp_path / "eval.json")


def test_a_model_that_repeats_the_training_text_copies_everything(write_dataset, tmp_path):
    result = evaluated_alphabet(write_dataset, tmp_path, "abcdefghij" * 200)
    assert result.val.loss < 1e-6
    copying = result.copying
    assert [copying.of_8, copying.of_16, copying.of_32] == [1.0, 1.0, 1.0]
    reference = copying.reference
    assert [reference.of_8, reference.of_16, reference.of_32] == [1.0, 1.0, 1.0]
    assert result.calibration.accuracy == 1.0
    assert result.calibration.expected_calibration_error == pytest.approx(0, abs=1e-6)


def test_a_model_that_writes_new_text_copies_nothing(write_dataset, tmp_path):
    result = evaluated_alphabet(write_dataset, tmp_path, "jihgfedcba" * 200)
    copying = result.copying
    assert [copying.of_8, copying.of_16, copying.of_32] == [0.0, 0.0, 0.0]


def test_a_short_validation_split_reuses_its_prompts(write_dataset, tmp_path):
    dataset = write_dataset("so foul and fair a day I have not seen. " * 10)
    save(tmp_path / "model", dataset)
    result = evaluate("short", dataset, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    assert result.copying.n_tokens == 32 * 128
    assert result.copying.reference.n_tokens == 39 - 16
    assert result.copying.reference.of_16 == 1.0
    assert math.isnan(result.copying.reference.of_32)


# --- nanoGPT's estimate ---------------------------------------------------------------------


def test_nanogpts_estimate_depends_only_on_its_seed():
    tokens = make_tokens(400, 11)
    first = nanogpt_estimate(MODEL, tokens, SETTINGS)
    torch.rand(3)
    assert nanogpt_estimate(MODEL, tokens, SETTINGS) == first
    assert nanogpt_estimate(MODEL, tokens, SETTINGS.model_copy(update={"seed": 1})) != first


def test_nanogpts_estimate_is_close_to_the_exact_mean():
    tokens = make_tokens(60, 11)
    every = windows_loss(MODEL, tokens, np.arange(60 - BLOCK), SETTINGS).mean
    many = SETTINGS.model_copy(update={"eval_iters": 500, "batch_size": 8})
    assert nanogpt_estimate(MODEL, tokens, many) == pytest.approx(every, rel=0.02)


def test_nanogpts_estimate_works_with_a_single_window():
    tokens = make_tokens(BLOCK + 1, 11)
    expected = slow_loss(MODEL, tokens) / BLOCK
    assert nanogpt_estimate(MODEL, tokens, SETTINGS) == pytest.approx(expected, rel=1e-5)


# --- eval.json ------------------------------------------------------------------------------


def save(directory, dataset, seed=0, **changes):
    """Write a model directory with random weights for a dataset; return the model."""
    tokenizer = load(dataset).tokenizer
    model = make_model(tokenizer.vocab_size, seed, **changes)
    save_model(directory, model.state_dict(), model.settings, tokenizer)
    return model


@pytest.fixture(scope="module")
def scene(write_dataset):
    """A dataset with the first 12,000 characters of a play."""
    return write_dataset(playwright.write(12_000, seed=1), builtin=True)


@pytest.fixture(scope="module")
def evaluated(scene, tmp_path_factory):
    """A random model of the scene, its evaluation, and the path of eval.json."""
    root = tmp_path_factory.mktemp("evaluated")
    model = save(root / "model", scene)
    path = root / "results" / "eval.json"
    return model, evaluate("someone", scene, root / "model", SETTINGS, path), path


def test_eval_json_has_the_documented_keys_and_equals_the_result(evaluated, scene):
    _, evaluation, path = evaluated
    result = json.loads(path.read_text())
    assert result == evaluation.content()
    keys = {"run", "dataset", "val", "train", "nanogpt_estimate", "model", "source"}
    assert result.keys() == keys | {"by_position", "by_kind", "calibration", "copying"}
    split = {"loss", "perplexity", "bits_per_byte", "bits_per_character", "interval"}
    split |= {"n_tokens", "n_bytes", "n_characters"}
    assert result["val"].keys() == split
    assert result["train"].keys() == split | {"n_windows"}
    units = {"loss", "bits_per_byte", "bits_per_character"}
    assert result["val"]["interval"].keys() == units | {"level", "n_resamples"}
    assert result["by_position"][0].keys() == {"first", "last", "loss", "n_tokens"}
    assert result["by_kind"]["letters"].keys() == {"loss", "n_tokens", "share_of_loss"}
    assert result["calibration"].keys() == {"accuracy", "expected_calibration_error", "bins"}
    line = {"low", "high", "confidence", "accuracy", "n_tokens"}
    assert result["calibration"]["bins"][0].keys() == line
    shares = {"n_tokens", "8", "16", "32"}
    assert result["copying"].keys() == shares | {"settings", "reference"}
    assert result["copying"]["reference"].keys() == shares
    assert result["nanogpt_estimate"].keys() == {"train", "val", "eval_iters", "batch_size"}
    assert result["run"] == "someone"
    assert result["dataset"] == scene.name


def keys_of(value):
    """Return all keys of nested mappings."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    return set(value).union(*map(keys_of, value.values())) if isinstance(value, dict) else set()


def test_every_key_of_eval_json_is_documented(evaluated):
    explained = (PROJECT / "docs" / "EVALUATION.md").read_text(encoding="utf-8")
    result = {name: value for name, value in evaluated[1].content().items() if name != "model"}
    for key in (keys_of(result) | set(KINDS)) - {"model"}:
        assert f"`{key}`" in explained, key


def test_eval_json_names_the_run_dataset_and_model(evaluated):
    model, result, _ = evaluated
    assert result.model.content() == {
        "n_parameters": model.n_parameters(),
        "vocab_size": model.vocab_size,
        **as_parameters(model.settings),
    }
    assert result.nanogpt_estimate.eval_iters == 3
    assert result.nanogpt_estimate.batch_size == 4


def test_copying_uses_fixed_settings(evaluated):
    _, result, _ = evaluated
    assert result.copying.settings.content() == {
        "prompt_tokens": 16,
        "num_samples": 32,
        "max_new_tokens": 128,
        "temperature": 1.0,
        "top_k": 0,
        "seed": 1337,
    }


def test_the_whole_validation_split_is_evaluated(evaluated, scene):
    model, result, _ = evaluated
    tokens = load(scene).val
    val = result.val
    assert val.n_tokens == len(tokens) - 1 == 1199
    assert val.n_bytes == val.n_characters == 1199  # the play is ASCII
    assert val.loss == pytest.approx(slow_loss(model, tokens) / 1199, rel=1e-5)
    assert val.perplexity == pytest.approx(math.exp(val.loss), rel=1e-12)
    assert val.bits_per_byte == pytest.approx(val.loss / math.log(2), rel=1e-12)
    assert val.bits_per_character == val.bits_per_byte
    low, high = val.interval.loss
    assert low < val.loss < high


def test_positions_kinds_and_calibration_cover_the_validation_split(evaluated):
    _, result, _ = evaluated
    for lines in (
        result.by_position,
        result.by_kind.values(),
        result.calibration.bins,
    ):
        assert sum(line.n_tokens for line in lines) == 1199
    for lines in (result.by_position, result.by_kind.values()):
        nats = sum(line.loss * line.n_tokens for line in lines)
        assert nats / 1199 == pytest.approx(result.val.loss, rel=1e-9)


def test_as_many_training_windows_are_read_as_validation_windows(evaluated, scene):
    model, result, _ = evaluated
    files = load(scene)
    n_windows = (len(files.val) - 1) // BLOCK
    assert result.train.n_windows == n_windows
    assert result.train.n_tokens == n_windows * BLOCK
    n_train = (len(files.train) - 1) // BLOCK
    chosen = [round(i * (n_train - 1) / (n_windows - 1)) for i in range(n_windows)]
    nats = [slow_loss(model, files.train[BLOCK * w : BLOCK * (w + 1) + 1]) for w in chosen[:40]]
    starts = np.array(chosen[:40]) * BLOCK
    assert windows_loss(model, files.train, starts, SETTINGS).nats == pytest.approx(sum(nats))
    every = windows_loss(model, files.train, np.array(chosen) * BLOCK, SETTINGS)
    assert result.train.loss == pytest.approx(every.mean, rel=1e-9)


def test_nanogpts_estimates_are_separate_from_the_exact_losses(evaluated, scene):
    model, result, _ = evaluated
    files = load(scene)
    for split, tokens in (("train", files.train), ("val", files.val)):
        expected = nanogpt_estimate(model, tokens, SETTINGS)
        assert getattr(result.nanogpt_estimate, split) == expected
        assert expected != getattr(result, split).loss
        assert expected == pytest.approx(getattr(result, split).loss, rel=0.2)


def test_the_excess_over_the_source_is_the_loss_above_the_plays_entropy(
    evaluated,
):
    _, result, _ = evaluated
    bits = playwright.surprisal(playwright.write(12_000, seed=1))
    entropy = bits[10_801:].sum() / 1199
    source = result.source
    assert source.bits_per_byte == pytest.approx(entropy, rel=1e-9)
    excess = result.val.bits_per_byte - entropy
    assert source.excess_bits_per_byte == pytest.approx(excess, rel=1e-9)
    assert source.excess_percent == pytest.approx(100 * excess / entropy, rel=1e-9)


def test_a_text_of_unknown_source_has_no_excess(write_dataset, tmp_path):
    dataset = write_dataset("so foul and fair a day I have not seen. " * 10)
    save(tmp_path / "model", dataset)
    result = evaluate("someone", dataset, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    assert result.source is None
    assert "source" not in json.loads((tmp_path / "eval.json").read_text())


def test_bits_per_byte_count_the_bytes_of_the_predicted_characters(write_dataset, tmp_path):
    text = "añb日c🎭d" * 60  # characters of 1, 2, 3 and 4 bytes
    dataset = write_dataset(text)
    model = save(tmp_path / "model", dataset)
    result = evaluate("someone", dataset, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    predicted = text[int(len(text) * 0.9) :][1:]
    val = result.val
    assert val.n_tokens == val.n_characters == len(predicted)
    assert val.n_bytes == len(predicted.encode("utf-8")) > len(predicted)
    nats = slow_loss(model, load(dataset).val)
    bits = nats / math.log(2)
    assert val.bits_per_byte == pytest.approx(bits / val.n_bytes, rel=1e-5)
    assert val.bits_per_character == pytest.approx(bits / len(predicted), rel=1e-5)


def test_the_same_evaluation_gives_the_same_bytes(evaluated, scene, tmp_path):
    _, _, path = evaluated
    save(tmp_path / "model", scene)
    evaluate("someone", scene, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    assert (tmp_path / "eval.json").read_bytes() == path.read_bytes()


def test_the_summary_is_one_line_with_both_losses(evaluated):
    _, result, _ = evaluated
    loss, bits = result.val.loss, result.val.bits_per_byte
    expected = f"validation loss {loss:.4f} nats per token, {bits:.4f} bits per byte"
    assert summary(result) == expected


# --- Errors ---------------------------------------------------------------------------------


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_a_model_with_overflowing_logits_gets_nulls(scene, tmp_path):
    save(tmp_path / "model", scene, scale=1e30)
    result = evaluate("ruined", scene, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    content = json.loads((tmp_path / "eval.json").read_text(), parse_constant=refuse)
    assert content == result.content()
    val = content["val"]
    assert [val[unit] for unit in ("loss", "perplexity", "bits_per_byte")] == [None, None, None]
    assert val["interval"]["loss"] == [None, None]
    assert val["n_tokens"] == 1199
    assert content["copying"] is None
    assert content["by_position"][0]["loss"] is None
    assert content["source"]["excess_percent"] is None
    assert math.isnan(read_record(tmp_path / "eval.json", Evaluation).val.loss)
    assert summary(result) == "validation loss is not a number"


def test_a_loss_too_large_for_a_perplexity_is_reported_without_perplexity(scene, tmp_path):
    save(tmp_path / "model", scene, scale=1e6)
    result = evaluate("wild", scene, tmp_path / "model", SETTINGS, tmp_path / "eval.json")
    assert result.val.loss > 710
    assert math.isinf(result.val.perplexity)
    assert json.loads((tmp_path / "eval.json").read_text())["val"]["perplexity"] is None
    assert result.copying.n_tokens == 32 * 128


def refusal(dataset, model_directory, tmp_path):
    with pytest.raises(UserError) as error:
        evaluate("someone", dataset, model_directory, SETTINGS, tmp_path / "eval.json")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "eval.json").exists()
    return str(error.value)


def test_a_model_of_another_vocabulary_is_refused(play, tmp_path):
    letters = "".join(map(chr, range(256, 256 + load(play).tokenizer.vocab_size)))
    model = make_model(len(letters))
    save_model(tmp_path / "model", model.state_dict(), model.settings, char_tokenizer(letters))
    message = refusal(play, tmp_path / "model", tmp_path)
    assert "a different vocabulary" in message
    assert str(tmp_path / "model") in message
    assert str(play) in message


def test_a_split_shorter_than_a_window_is_refused(write_dataset, tmp_path):
    dataset = write_dataset("so foul and fair a day " * 5)
    save(tmp_path / "model", dataset)
    message = refusal(dataset, tmp_path / "model", tmp_path)
    assert dataset.name in message
    assert "block_size 16" in message


def test_a_missing_model_is_named(play, tmp_path):
    assert str(tmp_path / "nowhere") in refusal(play, tmp_path / "nowhere", tmp_path)


# --- N-grams --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(scene, tmp_path_factory):
    """A random model of the scene, its n-grams, and its evaluation with them."""
    root = tmp_path_factory.mktemp("mixed")
    model = save(root / "model", scene)
    path = root / "model" / "ngrams.safetensors"
    count_split(scene, NgramSettings(max_order=5), path)
    result = evaluate("someone", scene, root / "model", SETTINGS, root / "eval.json", path)
    return model, load_ngrams(path, load(scene).tokenizer), result


def test_ngrams_do_not_change_the_gpts_own_figures(evaluated, mixed):
    _, alone, _ = evaluated
    _, _, evaluation = mixed
    assert evaluation.mixture
    assert evaluation.content().keys() - alone.content().keys() == {"mixture"}
    for name, value in alone.content().items():
        assert evaluation.content()[name] == value, name


@pytest.mark.parametrize("reaches_back", [True, False])
def test_the_loss_of_a_mixture_is_the_mean_over_tokens(mixed, scene, reaches_back):
    model, ngrams, evaluation = mixed
    val = load(scene).val
    nats = np.array(slow_nats(model, val))
    expected = []
    for i in range(1, len(val)):
        start = 0 if reaches_back else (i - 1) // BLOCK * BLOCK
        one = ngrams.trie.probabilities(val[start : i + 1])
        share = 0.9 * (1 - one.held_back[-1]) ** 0.5
        expected.append(-math.log((1 - share) * math.exp(-nats[i - 1]) + share * one.p[-1]))
    mixture = evaluation.mixture
    found = mixture.across_windows if reaches_back else mixture.within_windows
    assert found.loss == pytest.approx(np.mean(expected), rel=1e-5)
    assert found.n_tokens == len(val) - 1
    assert found.n_bytes == evaluation.val.n_bytes
    low, high = found.interval.loss
    assert low < found.loss < high


def test_a_mixture_with_weight_0_equals_the_gpt_alone(scene, tmp_path):
    save(tmp_path / "model", scene)
    path = tmp_path / "ngrams.safetensors"
    count_split(scene, NgramSettings(weight=0), path)
    result = evaluate("x", scene, tmp_path / "model", SETTINGS, tmp_path / "eval.json", path)
    assert result.mixture.across_windows.loss == pytest.approx(result.val.loss, rel=1e-6)


def test_the_summary_names_both_losses(mixed):
    _, _, evaluation = mixed
    text = summary(evaluation)
    assert text.startswith(f"validation loss {evaluation.val.loss:.4f} nats per token")
    assert text.endswith(
        f"; with n-grams {evaluation.mixture.across_windows.loss:.4f} nats per token"
    )
