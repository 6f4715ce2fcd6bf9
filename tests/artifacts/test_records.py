"""Every JSON file has a typed record that survives a round trip; damage is a one-line error."""

import copy
import json
import math
from pathlib import Path

import pytest

from nanogpt.artifacts.records.base import (
    FormatError,
    Number,
    OptionalNumber,
    Record,
    read_record,
    write_record,
)
from nanogpt.artifacts.records.benchmarks import Benchmark
from nanogpt.artifacts.records.datasets import DatasetMeta, SourceMeta
from nanogpt.artifacts.records.evaluations import Evaluation, ModelSummary
from nanogpt.artifacts.records.groups import GroupCounts, GroupTotals, Plan
from nanogpt.artifacts.records.manifests import CacheEntry, Manifest, TrainingRequest
from nanogpt.artifacts.records.metrics import MetricsLine, read_metrics
from nanogpt.artifacts.records.models import ModelConfig
from nanogpt.artifacts.records.ngrams import NgramEvaluation
from nanogpt.errors import UserError

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures/format_1"

# Files written by the first version, which this version writes in the same way.
KINDS: dict[str, type[Record]] = {
    "train.manifest.json": Manifest,
    "eval.manifest.json": Manifest,
    "sample.manifest.json": Manifest,
    "dataset/prepare.manifest.json": Manifest,
    "cache_1cd00bc310e8/manifest.json": CacheEntry,
    "cache_1cd00bc310e8/eval.json": Evaluation,
    "eval.json": Evaluation,
    "bench.json": Benchmark,
    "dataset/ngram.json": NgramEvaluation,
    "dataset/meta.json": DatasetMeta,
}
# One file of each kind.
EACH_KIND = {
    **{kind: name for name, kind in KINDS.items()},
    Manifest: "train.manifest.json",  # it has layouts
    TrainingRequest: "state/run.json",
    ModelConfig: "model/config.json",
}
FILE_META = {
    "path": "corpus/a.txt",
    "sha256": "a" * 64,
    "encoding": "utf-8",
    "n_documents": 1,
    "n_characters": 10,
    "n_bytes": 11,
    "hash": None,
}
SPLIT = {"n_tokens": 5, "n_characters": 6, "n_bytes": 7, "n_documents": 0, "sha256": "b" * 64}
# Files that jobs pass to each other. They're temporary, so no fixture has them.
TEMPORARY = {
    GroupCounts: {"files": [FILE_META], "n_documents": 1, "n_characters": 10, "characters": "ab"},
    Plan: {"split": "document", "n_documents": 120, "n_train": 9, "starts": [0, 10]},
    GroupTotals: {"train": dict(SPLIT), "val": dict(SPLIT)},
}


def with_contents(*left_out):
    """Parametrize a test by all kinds of records except some, each with the JSON of a file."""
    contents = {
        **{kind: json.loads((FIXTURES / name).read_text()) for kind, name in EACH_KIND.items()},
        **TEMPORARY,
        MetricsLine: json.loads((FIXTURES / "metrics.jsonl").read_text().splitlines()[-1]),
    }
    return pytest.mark.parametrize(
        ("kind", "content"),
        [
            pytest.param(kind, content, id=kind.__name__)
            for kind, content in contents.items()
            if kind not in left_out
        ],
    )


# Objects with arbitrary keys: a record accepts any, or any with values of one type.
FREE = {"parameters", "settings", "model", "adopted"}
OPEN = {"inputs", "outputs", "by_kind"}
# Optional fields: those of only some stages or runs, and those added later.
OF_TORCH = {"environment.torch", "environment.cpu_capability", "environment.gpu"}
OPTIONAL = {
    Manifest: {"summary", "environment.layouts", *OF_TORCH},
    CacheEntry: {"summary", *OF_TORCH},
    Evaluation: {
        *("by_position", "by_kind", "calibration", "copying", "source", "train.n_windows"),
        *("train.bits_per_character", "train.n_characters", "train.interval"),
        *("val.bits_per_character", "val.n_characters", "val.interval"),
    },
    DatasetMeta: {"source", "tokenizer_sha256"},
    MetricsLine: {
        *("loss", "learning_rate", "grad_norm", "train_loss", "val_loss"),
        *("tokens_per_second", "seconds"),
    },
}


# --- Round trips ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_the_first_version_is_read_and_written_byte_for_byte(name, tmp_path):
    record = read_record(FIXTURES / name, KINDS[name])
    assert record.content() == json.loads((FIXTURES / name).read_text())
    write_record(tmp_path / "again.json", record)
    assert (tmp_path / "again.json").read_bytes() == (FIXTURES / name).read_bytes()


def test_each_line_of_metrics_of_the_first_version_is_read():
    texts = (FIXTURES / "metrics.jsonl").read_text().splitlines()
    lines = read_metrics(FIXTURES / "metrics.jsonl")
    assert [json.dumps(line.content()) for line in lines] == texts


def test_a_request_of_the_first_version_is_read_without_its_adopted_states():
    content = json.loads((FIXTURES / "state/run.json").read_text())
    assert content.pop("adopted") == []
    assert read_record(FIXTURES / "state/run.json", TrainingRequest).content() == content


def test_a_model_of_the_first_version_is_written_with_its_format():
    content = json.loads((FIXTURES / "model/config.json").read_text())
    config = read_record(FIXTURES / "model/config.json", ModelConfig)
    assert config.content() == {"format": 2, **content}


def test_every_json_file_of_the_first_version_has_a_record():
    # Tokenizers belong to other packages; the logits are a test's expected values.
    others = {"model/tokenizer.json", "dataset/tokenizer.json", "logits.json"}
    files = {str(path.relative_to(FIXTURES)) for path in FIXTURES.rglob("*.json")}
    assert files - others == {*KINDS, *EACH_KIND.values()}


@with_contents()
def test_a_record_that_was_written_is_read_back(kind, content, tmp_path):
    record = kind.parse(content, "file.json", "make it again")
    write_record(tmp_path / "file.json", record)
    assert read_record(tmp_path / "file.json", kind).content() == record.content()


@with_contents()
def test_unknown_keys_are_ignored(kind, content):
    record = kind.parse({**content, "later": [1]}, "file.json", "make it again")
    assert ("later" in record.content()) == (kind is ModelConfig)


def test_the_model_of_an_evaluation_keeps_all_of_its_settings():
    content = json.loads((FIXTURES / "eval.json").read_text())
    content["model"]["later"] = "kept"
    evaluation = Evaluation.parse(content, "eval.json", "make it again")
    assert evaluation.content() == content


# --- NaN and infinity -----------------------------------------------------------------------


class Measured(Record):
    plain: float
    loss: Number
    bounds: tuple[Number, Number] = (0.0, 0.0)
    rate: OptionalNumber = None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_non_finite_number_is_null_in_the_file_and_nan_when_read(value, tmp_path):
    record = Measured(plain=1.0, loss=value, bounds=(0.5, value), rate=value)
    assert record.content() == {"plain": 1.0, "loss": None, "bounds": [0.5, None], "rate": None}
    write_record(tmp_path / "file.json", record)
    again = read_record(tmp_path / "file.json", Measured)
    for number in (again.loss, again.bounds[1], again.rate):
        assert math.isnan(number)
    assert again.bounds[0] == 0.5
    assert again.content() == record.content()


def test_a_missing_optional_number_is_none_and_stays_missing():
    line = MetricsLine.parse({"step": 1, "tokens": 2, "loss": None}, "metrics", "train again")
    assert math.isnan(line.loss)
    assert line.grad_norm is None
    assert line.content() == {"step": 1, "tokens": 2, "loss": None}


def test_losses_of_an_evaluation_can_be_null():
    content = json.loads((FIXTURES / "eval.json").read_text())
    content["val"]["loss"] = content["by_position"][0]["loss"] = None
    content["val"]["interval"]["loss"] = [None, None]
    content["calibration"]["accuracy"] = content["nanogpt_estimate"]["val"] = None
    evaluation = Evaluation.parse(content, "eval.json", "make it again")
    assert math.isnan(evaluation.val.loss)
    assert all(map(math.isnan, evaluation.val.interval.loss))
    assert evaluation.content() == content


# --- Rejected files -------------------------------------------------------------------------


def message_of(path, kind):
    """The one-line error for a file that can't be read."""
    with pytest.raises(UserError) as error:
        read_record(path, kind, "do something")
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("; do something")
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{path}: ").removesuffix("; do something")


DAMAGE = {
    "empty": (b"", "damaged: not JSON"),
    "cut off": (b'{"stage": "tr', "damaged: not JSON"),
    "not text": (b"\xff\xfe", "damaged: not JSON"),
    "deep": (b"[" * 100_000, "damaged: not JSON"),
    "a list": (b"[]", "damaged: not a JSON object"),
    "a number": (b"3", "damaged: not a JSON object"),
    "null": (b"null", "damaged: not a JSON object"),
}


@pytest.mark.parametrize("kind", [*EACH_KIND, *TEMPORARY], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("content", "problem"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_file_that_is_not_a_json_object_is_named(kind, content, problem, tmp_path):
    (tmp_path / "file.json").write_bytes(content)
    assert message_of(tmp_path / "file.json", kind) == problem


@pytest.mark.parametrize("kind", [*EACH_KIND, *TEMPORARY], ids=lambda kind: kind.__name__)
def test_a_missing_or_unreadable_file_is_named(kind, tmp_path):
    assert message_of(tmp_path / "absent.json", kind) == "no such file"
    assert message_of(tmp_path, kind) == "can't be read: Is a directory"


@pytest.mark.parametrize("found", [99, 0, -1, "1", None, 1.0, True, [1]], ids=repr)
@pytest.mark.parametrize("kind", [Manifest, ModelConfig, MetricsLine])
def test_an_unknown_format_is_named(kind, found, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"format": found}))
    with pytest.raises(FormatError) as error:
        read_record(path, kind, "do something")
    assert str(error.value) == (
        f"{path}: format {json.dumps(found)}, but this version of nanogpt reads formats up to "
        f"{kind.FORMAT}; upgrade nanogpt, or do something"
    )


@with_contents()
def test_every_record_rejects_a_later_format(kind, content):
    with pytest.raises(FormatError, match=f"format {kind.FORMAT + 1}, but"):
        kind.parse({**content, "format": kind.FORMAT + 1}, "file.json", "make it again")


def places(value, path=()):
    """The locations of all keys and items in a JSON value, except those with arbitrary keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list) and key not in FREE:
            yield from places(item, (*path, key))


def at(content, place):
    """The item at a location in a JSON value."""
    for key in place:
        content = content[key]
    return content


def changed(content, place, value):
    """A copy of a JSON value with another value at a location."""
    content = copy.deepcopy(content)
    at(content, place[:-1])[place[-1]] = value
    return content


def without(content, place):
    """A copy of a JSON value without a key."""
    content = copy.deepcopy(content)
    del at(content, place[:-1])[place[-1]]
    return content


def problem_of(kind, content):
    """The error for parsed JSON; "" if it's valid."""
    try:
        kind.parse(content, "file.json", "make it again")
    except UserError as error:
        message = str(error)
        assert message.startswith("file.json: damaged: ")
        assert message.endswith("; make it again")
        assert len(message.splitlines()) == 1
        return message.removeprefix("file.json: damaged: ").removesuffix("; make it again")
    return ""


def name_of(place):
    return ".".join(map(str, place))


@with_contents(ModelConfig)
def test_a_missing_field_is_named_unless_it_is_optional(kind, content):
    content.pop("adopted", None)
    optional = set()
    for place in places(content):
        if isinstance(at(content, place[:-1]), list) or (OPEN | FREE).intersection(place[:-1]):
            continue
        problem = problem_of(kind, without(content, place))
        if problem:
            assert problem == f"`{name_of(place)}` is missing"
        else:
            optional.add(name_of(place))
    assert optional == OPTIONAL.get(kind, set())


@pytest.mark.parametrize("name", ["architecture", "vocab_size"])
def test_a_missing_field_of_a_models_config_is_named(name):
    content = json.loads((FIXTURES / "model/config.json").read_text())
    assert problem_of(ModelConfig, without(content, (name,))) == f"`{name}` is missing"


@with_contents(ModelConfig)
def test_a_field_of_the_wrong_type_is_named(kind, content):
    content.pop("adopted", None)
    for place in places(content):
        wrong = [] if isinstance(at(content, place), dict) else {"another": "type"}
        problem = problem_of(kind, changed(content, place, wrong))
        assert problem.startswith(f"`{name_of(place)}` should be "), name_of(place)


@with_contents(ModelConfig)
def test_null_for_a_number_is_rejected_or_stays_null(kind, content):
    numbers = [place for place in places(content) if type(at(content, place)) in (int, float)]
    assert numbers or kind is TrainingRequest
    for place in numbers:
        null = changed(content, place, None)
        problem = problem_of(kind, null)
        if problem:
            assert problem.startswith(f"`{name_of(place)}` should be "), name_of(place)
        else:
            assert at(kind.parse(null, "", "").content(), place) is None, name_of(place)


@pytest.mark.parametrize("value", [None, "many", {}, 0, -1], ids=repr)
def test_a_wrong_vocabulary_of_a_model_is_named(value):
    content = json.loads((FIXTURES / "model/config.json").read_text())
    problem = problem_of(ModelConfig, {**content, "vocab_size": value})
    assert problem.startswith("`vocab_size` should be ")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("eval.json", ("val", "n_tokens")),
        ("eval.json", ("by_position", 0, "first")),
        ("bench.json", ("mfu",)),
        ("bench.json", ("seconds", "step", "median")),
        ("dataset/meta.json", ("vocab_size",)),
        ("dataset/meta.json", ("train", "n_bytes")),
        ("dataset/ngram.json", ("orders", 0, "loss")),
        ("train.manifest.json", ("wall_seconds",)),
        ("train.manifest.json", ("environment", "threads")),
    ],
    ids=str,
)
def test_null_for_a_required_number_is_rejected(name, place):
    content = json.loads((FIXTURES / name).read_text())
    problem = problem_of(KINDS[name], changed(content, place, None))
    assert problem.startswith(f"`{name_of(place)}` should be ")


# --- metrics.jsonl --------------------------------------------------------------------------

METRICS = {
    "not JSON": ("{\n{}\n", "line 1: not JSON; delete the file and run the workflow again"),
    "a list": (
        "[1]\n",
        "line 1: damaged: not a JSON object; delete the file and run the workflow again",
    ),
    "no step": (
        '{"tokens": 1}\n',
        "line 1: damaged: `step` is missing; delete the file and run the workflow again",
    ),
    "null for a step": (
        '{"step": 0, "tokens": 0}\n{"step": null, "tokens": 1}\n',
        "line 2: damaged: `step` should be a whole number; delete the file and run the workflow "
        "again",
    ),
    "text for a loss": (
        '{"step": 0, "tokens": 0, "loss": "low"}\n',
        "line 1: damaged: `loss` should be a number; delete the file and run the workflow again",
    ),
    "a later format": (
        '{"step": 0, "tokens": 0, "format": 2}\n',
        "line 1: format 2, but this version of nanogpt reads formats up to 1; upgrade nanogpt, or "
        "delete the file and run the workflow again",
    ),
    "empty": ("", "no metrics in it; train the run first"),
    "cut off in its first line": ('{"step": 0, "tok', "no metrics in it; train the run first"),
}


@pytest.mark.parametrize(("text", "problem"), METRICS.values(), ids=METRICS.keys())
def test_an_invalid_line_is_named(text, problem, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_metrics(path)
    assert str(error.value) == f"{path}: {problem}"


def test_missing_metrics_are_named(tmp_path):
    with pytest.raises(UserError) as error:
        read_metrics(tmp_path / "metrics.jsonl")
    assert str(error.value) == f"{tmp_path / 'metrics.jsonl'}: no such file; train the run first"


@pytest.mark.parametrize("rest", [b'{"step": 20, "tok', b"\xff", b'{"step": 20}x'])
def test_an_incomplete_last_line_is_ignored(rest, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 10, "tokens": 640, "loss": 4.5}\n' + rest)
    (line,) = read_metrics(path)
    assert (line.step, line.tokens, line.loss, line.val_loss) == (10, 640, 4.5, None)


def test_a_line_has_the_first_diverged_measure():
    def diverged(**measures):
        return MetricsLine(step=1, tokens=2, **measures).diverged()

    assert diverged() is None
    assert diverged(loss=1.0, tokens_per_second=math.inf) is None
    assert diverged(loss=1.0, grad_norm=math.nan, val_loss=math.inf) == "grad_norm"
    assert diverged(val_loss=math.inf) == "val_loss"


REQUEST = {
    "stage": "train",
    "version": "0123456789ab",
    "inputs": {},
    "parameters": {},
    "code": "0" * 64,
    "settings": {},
}
HALF_A_CHARACTER = '{"dataset": "\\ud800"}'


@pytest.mark.parametrize(
    ("kind", "content", "flaw"),
    [
        (MetricsLine, '{"step": -5, "tokens": 1}', "step"),
        (MetricsLine, '{"step": 5, "tokens": 1e400}', "tokens"),
        (ModelSummary, '{"n_parameters": 1, "vocab_size": -1}', "vocab_size"),
        (SourceMeta, '{"val_bits_per_byte": 0}', "val_bits_per_byte"),
        (TrainingRequest, json.dumps({**REQUEST, "run": "../x"}), "run"),
        (NgramEvaluation, HALF_A_CHARACTER, "not JSON"),
    ],
)
def test_impossible_values_are_rejected(tmp_path, kind, content, flaw):
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"record.json: damaged: .*{flaw}") as error:
        read_record(path, kind)
    assert "\n" not in str(error.value)
