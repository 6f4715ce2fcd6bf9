"""Bad files and unwritable destinations are one-line errors that leave nothing half written."""

import json
import os
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanogpt.errors import UserError, user_message
from nanogpt.interchange.gguf_files import export_gguf
from nanogpt.interchange.hugging_face_export import export_hugging_face
from nanogpt.interchange.imports import import_hugging_face, import_nanogpt
from nanogpt.interchange.nanogpt_checkpoints import export_nanogpt
from tests.faults.attacks import small_disk
from tests.interchange.models import GPT2, MODERN, tokenizer, write_model

CONFIG, WEIGHTS = Path("theirs/config.json"), Path("theirs/model.safetensors")
TOKENIZER, CHECKPOINT = Path("theirs/tokenizer.json"), Path("out/ckpt.pt")
DESTINATION = Path("new/model")
EXPORTS = {
    "huggingface": export_hugging_face,
    "nanogpt": export_nanogpt,
    "gguf": export_gguf,
}


@pytest.fixture(autouse=True)
def ours(tmp_path, monkeypatch):
    """Our model in ours/model, in the current directory."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return write_model(Path("ours/model"))


@pytest.fixture
def checkpoint():
    """Its checkpoint for nanoGPT, to be edited."""
    export_nanogpt(Path("ours/model"), Path("out"))
    return torch.load(CHECKPOINT, weights_only=True)


def to_hugging_face(settings=GPT2):
    export_hugging_face(write_model(Path("ours/model"), settings), Path("theirs"))


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def list_files():
    return sorted(Path().rglob("*"))


def refuse(work):
    """The one-line error of a failure, which must change no files."""
    before = list_files()
    with pytest.raises((UserError, OSError)) as error:
        work()
    line = user_message(error.value)
    assert line is not None, error.getrepr()
    assert len(line.splitlines()) == 1
    assert list_files() == before
    return line


def refuse_import():
    return refuse(lambda: import_hugging_face("theirs", DESTINATION))


def refuse_checkpoint():
    return refuse(lambda: import_nanogpt(Path("out"), DESTINATION))


# --- Models of transformers -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        (GPT2, {"n_head": 0}, "n_head: should be greater than 0"),
        (GPT2, {"n_embd": -16}, "n_embd: should be greater than 0"),
        (GPT2, {"n_layer": "many"}, "n_layer: should be a whole number (found `many`)"),
        (GPT2, {"n_layer": "1"}, "n_layer: should be a whole number (found `1`)"),
        (GPT2, {"n_layer": True}, "n_layer: should be a whole number (found `yes`)"),
        (GPT2, {"tie_word_embeddings": 1}, "tie_word_embeddings: should be true or false"),
        (MODERN, {"num_hidden_layers": "1"}, "num_hidden_layers: should be a whole number"),
        (GPT2, {"n_layer": 10**30}, "n_layer: should be less than or equal to"),
        (GPT2, {"vocab_size": 10**30}, "vocab_size: should be less than or equal to"),
        (GPT2, {"nanogpt": {"start": [-1]}}, "nanogpt.start: should be greater than or equal"),
        (MODERN, {"vocab_size": 10**30}, "vocab_size: should be less than or equal to"),
        (MODERN, {"num_attention_heads": 0}, "num_attention_heads: should be greater than 0"),
        (MODERN, {"rope_theta": 5.0}, "rope_theta should be 10000"),
        (MODERN, {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling: should be"),
    ],
)
def test_impossible_values_of_a_config_are_rejected_by_name(settings, changes, words):
    to_hugging_face(settings)
    edit_json(CONFIG, **changes)
    line = refuse_import()
    assert line.startswith("theirs/config.json: not a ")
    assert words in line


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.ones(16, dtype=torch.float8_e4m3fn), "is float8_e4m3fn, not one of float32, "),
        (torch.full((16,), 1e300, dtype=torch.float64), "has NaN or infinity"),
    ],
)
def test_numbers_too_large_for_float32_are_rejected(tensor, words):
    to_hugging_face()
    save_file({**load_file(WEIGHTS), "transformer.ln_f.weight": tensor}, WEIGHTS)
    assert f"{WEIGHTS}: tensor `ln_f.weight` {words}" in refuse_import()


@pytest.mark.parametrize("size", [0, 4, 2000])
def test_truncated_weights_are_damaged(size):
    to_hugging_face()
    os.truncate(WEIGHTS, size)
    assert f"{WEIGHTS}: damaged, or not safetensors (" in refuse_import()


@pytest.mark.parametrize("name", ["", "..", "../ours/model/model.safetensors"])
def test_an_index_can_only_refer_to_files_in_its_directory(name):
    to_hugging_face()
    WEIGHTS.unlink()
    index = WEIGHTS.with_name("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"wte.weight": name}}))
    assert f"{index}: `{name}` isn't in its directory" in refuse_import()


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        ({}, "has no tokens"),
        ({"a": 0, "\ud800": 1}, "has a token that isn't Unicode text"),
    ],
)
def test_an_invalid_vocabulary_is_rejected(vocabulary, words):
    to_hugging_face()
    model = json.loads(TOKENIZER.read_text())["model"]
    edit_json(TOKENIZER, model={**model, "vocab": vocabulary})
    assert words in refuse_import()


def test_a_tokenizer_with_more_tokens_than_the_model_is_rejected():
    to_hugging_face()
    model = json.loads(TOKENIZER.read_text())["model"]
    more = {"☃": tokenizer("char").vocab_size}
    edit_json(TOKENIZER, model={**model, "vocab": model["vocab"] | more})
    assert "the model has 25 tokens, but the tokenizer has 26" in refuse_import()


@pytest.mark.parametrize("path", [CONFIG, TOKENIZER])
def test_a_directory_instead_of_a_file_is_named(path):
    to_hugging_face()
    path.unlink()
    path.mkdir()
    assert f"{path}: a directory, not a file" in refuse_import()


# --- Checkpoints of nanoGPT -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_head": 0}, "n_head: should be greater than 0"),
        ({"n_layer": 10**30}, "n_layer: should be less than or equal to"),
        ({"vocab_size": 10**30}, "vocab_size: should be less than or equal to"),
        ({"dropout": 7.0}, "dropout: should be less than 1"),
        ({"n_embd": "wide"}, "n_embd: should be a whole number (found `wide`)"),
        ({"n_layer": "1"}, "n_layer: should be a whole number (found `1`)"),
        ({"n_layer": True}, "n_layer: should be a whole number (found `yes`)"),
    ],
)
def test_impossible_model_args_are_rejected_with_their_file(checkpoint, changes, words):
    checkpoint["model_args"].update(changes)
    torch.save(checkpoint, CHECKPOINT)
    line = refuse_checkpoint()
    assert line.startswith(f"{CHECKPOINT}: model_args: {words}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "is float8_e4m3fn, not one of float32, "),
        (lambda tensor: tensor.to_sparse(), "isn't a plain tensor"),
        (lambda tensor: tensor.to("meta"), "isn't a plain tensor"),
    ],
    ids=["float8", "sparse", "meta"],
)
def test_tensors_of_another_kind_are_rejected(checkpoint, change, words):
    checkpoint["model"]["lm_head.weight"] = change(checkpoint["model"]["lm_head.weight"])
    torch.save(checkpoint, CHECKPOINT)
    assert f"tensor `lm_head.weight` {words}" in refuse_checkpoint()


# --- Permissions ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CONFIG, TOKENIZER, WEIGHTS])
def test_an_unreadable_file_of_transformers_is_not_called_damaged(path, request):
    to_hugging_face()
    path.chmod(0)
    request.getfixturevalue("plain_user")
    assert refuse_import() == f"{path}: permission denied; make it readable and writable"


@pytest.mark.usefixtures("checkpoint")
def test_an_unreadable_checkpoint_is_not_called_damaged(request):
    CHECKPOINT.chmod(0)
    request.getfixturevalue("plain_user")
    assert refuse_checkpoint() == (
        f"{CHECKPOINT}: permission denied; make it readable and writable"
    )


@pytest.mark.parametrize("destination", ["locked/out", "locked/below/out", "locked/out.gguf"])
@pytest.mark.parametrize("form", EXPORTS)
def test_an_export_to_a_read_only_directory_is_rejected(form, destination, request):
    Path("locked").mkdir(mode=0o555)
    EXPORTS[form](Path("ours/model"), Path("warm"))  # modules imported later may not be readable
    request.getfixturevalue("plain_user")
    line = refuse(lambda: EXPORTS[form](Path("ours/model"), Path(destination)))
    assert line == (f"{destination}: can't be created: Permission denied; name another destination")


# --- Destinations ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", EXPORTS)
def test_a_model_is_not_exported_over_itself(form, ours):
    line = refuse(lambda: EXPORTS[form](ours, ours))
    assert "not empty, and `config.json` isn't from an earlier export" in line


def test_a_model_is_not_imported_over_itself():
    to_hugging_face()
    line = refuse(lambda: import_hugging_face("theirs", Path("theirs")))
    assert "not empty, and `README.md` isn't from an earlier import" in line


@pytest.mark.parametrize("form", EXPORTS)
def test_a_model_of_transformers_is_not_exported(form):
    to_hugging_face()
    line = refuse(lambda: EXPORTS[form](Path("theirs"), Path("new")))
    assert line.startswith(
        "theirs: a model of transformers, not of nanogpt; run `nanogpt import theirs "
    )


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("file/below", "file/below: can't be created: "),
        ("file/below.gguf", "file/below.gguf: can't be created: "),
        ("loop", "loop: "),
        ("n" * 300, "name too long"),
    ],
)
@pytest.mark.parametrize("form", EXPORTS)
def test_a_destination_that_cannot_be_created_is_named(form, destination, words):
    Path("file").write_text("mine")
    Path("loop").symlink_to("loop")
    line = refuse(lambda: EXPORTS[form](Path("ours/model"), Path(destination)))
    assert words in line


@pytest.mark.parametrize("form", EXPORTS)
def test_the_longest_name_that_the_file_system_allows_can_be_written(form):
    destination = Path("n" * 250 + ".gguf")
    EXPORTS[form](Path("ours/model"), destination)
    assert destination.exists()


@pytest.mark.parametrize("form", EXPORTS)
def test_a_full_disk_is_a_one_line_error_and_keeps_the_earlier_export(form):
    disk = Path("disk")
    with small_disk(disk.absolute()) as leave:
        EXPORTS[form](Path("ours/model"), disk / "out")
        for free in (0, 8192, 20480):
            leave(free)
            for name in ("new/out", "out"):
                line = refuse(partial(EXPORTS[form], Path("ours/model"), disk / name))
                assert re.match("disk full while writing |.*: No space left on device;", line)
