"""A model directory loads unchanged, or the error names the bad file and the reason in one line."""

import errno
import json
import pickle
import resource
import shutil
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanogpt.config.parameters import neutral_values
from nanogpt.config.schema import ModelSettings
from nanogpt.data.tokenizers import CharTokenizer, char_tokenizer
from nanogpt.errors import UserError
from nanogpt.model.checkpoints import load_model
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.model.weights import load_weights

# Files written by nanogpt 1.0.0.dev0. logits.json has its logits for the tokens 0 to 15.
FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "format_1"

FIRST_SETTINGS = sorted(ModelSettings.model_fields.keys() - neutral_values(ModelSettings))

TOKENIZER = char_tokenizer("the quick brown fox, où est-il?\n")


def make_model(settings, tokenizer=TOKENIZER, seed=0):
    torch.manual_seed(seed)
    return GPT(settings, tokenizer.vocab_size)


@pytest.fixture
def model(tiny):
    return make_model(tiny.model_copy(update={"bias": True, "dropout": 0.25}))


@pytest.fixture
def directory(model, tmp_path):
    save_model(tmp_path / "model", model.state_dict(), model.settings, TOKENIZER)
    return tmp_path / "model"


def refusal(directory):
    """Return the one-line error of load_model."""
    with pytest.raises(UserError) as error:
        load_model(directory)
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_model_loads_unchanged(directory, model):
    loaded = load_model(directory)
    assert loaded.tokenizer == TOKENIZER
    assert loaded.model.settings == model.settings
    assert loaded.model.vocab_size == model.vocab_size
    saved = model.state_dict()
    found = loaded.model.state_dict()
    assert found.keys() == saved.keys()
    for name in saved:
        assert torch.equal(found[name], saved[name])
        assert found[name].dtype == saved[name].dtype
    tokens = torch.arange(10)[None]
    assert torch.equal(loaded.model.eval()(tokens), model.eval()(tokens))


def test_a_model_directory_has_exactly_three_files(directory):
    names = {path.name for path in directory.iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer.json"}


def test_the_same_model_gives_the_same_bytes(directory, model, tmp_path):
    save_model(tmp_path / "again", model.state_dict(), model.settings, TOKENIZER)
    for path in directory.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_transposed_weights_are_saved_in_their_logical_order(model, tmp_path):
    weights = {
        name: t.t().contiguous().t() for name, t in model.state_dict().items() if t.dim() > 1
    }
    weights = model.state_dict() | weights
    save_model(tmp_path, weights, model.settings, TOKENIZER)
    found = load_model(tmp_path).model.state_dict()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_missing_file_of_a_model_is_named(directory, name):
    (directory / name).unlink()
    message = refusal(directory)
    assert name in message
    assert str(directory) in message


def test_a_missing_directory_is_named(tmp_path):
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 0.5, -1])
def test_truncated_weights_are_refused(directory, keep):
    path = directory / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    message = refusal(directory)
    assert str(path) in message
    assert "delete the file and run the workflow again" in message


def test_weights_with_trailing_bytes_are_refused(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0\0\0\0")
    assert str(path) in refusal(directory)


def refuse_to_open(path):
    """Make a file unreadable, even for root."""

    def refuse(opened, *_arguments):
        assert opened == path
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    return refuse


def test_unreadable_weights_are_not_called_damaged(model, directory, monkeypatch):
    path = directory / "model.safetensors"
    monkeypatch.setattr(Path, "open", refuse_to_open(path))
    with pytest.raises(UserError) as error:
        load_weights(model, path)
    reason = "can't read this file (Permission denied); change its permissions"
    assert str(error.value) == f"{path}: {reason}"


def test_a_flipped_bit_anywhere_in_the_header_is_found(model, directory):
    path = directory / "model.safetensors"
    data = path.read_bytes()
    (header,) = struct.unpack("<Q", data[:8])
    text_end = 8 + len(data[8 : 8 + header].rstrip(b" "))
    for at in range(0, text_end, 3):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"model\.safetensors") as error:
            load_weights(model, path)
        assert "\n" not in str(error.value)


def test_a_tensor_with_the_wrong_shape_is_named(directory, model):
    path = directory / "model.safetensors"
    wider = {"h.1.mlp.c_fc.weight": torch.zeros(128, 33)}
    save_file(model.state_dict() | wider, path)
    message = refusal(directory)
    for part in (str(path), "h.1.mlp.c_fc.weight", "(128, 33)", "(128, 32)"):
        assert part in message


def test_a_reshaped_tensor_is_named(directory, model):
    path = directory / "model.safetensors"
    turned = {"h.1.mlp.c_fc.weight": model.state_dict()["h.1.mlp.c_fc.weight"].t().contiguous()}
    save_file(model.state_dict() | turned, path)
    assert "h.1.mlp.c_fc.weight" in refusal(directory)


def test_a_missing_tensor_is_named(directory, model):
    path = directory / "model.safetensors"
    weights = dict(model.state_dict())
    del weights["h.0.ln_2.weight"]
    save_file(weights, path)
    message = refusal(directory)
    assert str(path) in message
    assert "`h.0.ln_2.weight` is missing" in message


def test_an_extra_tensor_is_named(directory, model):
    save_file(
        model.state_dict() | {"h.2.ln_1.weight": torch.ones(32)}, directory / "model.safetensors"
    )
    message = refusal(directory)
    assert str(directory / "model.safetensors") in message
    assert "h.2.ln_1.weight" in message


def test_weights_of_another_architecture_do_not_fit(directory, tiny):
    other = make_model(tiny.model_copy(update={"n_layer": 3}))
    save_file(other.state_dict(), directory / "model.safetensors")
    assert str(directory / "model.safetensors") in refusal(directory)


def test_an_unknown_architecture_is_named(directory):
    edit_config(directory, architecture="llama")
    assert refusal(directory) == (
        f"{directory / 'config.json'}: unknown architecture `llama` (this version of nanogpt reads "
        "only `gpt2`); use the version that wrote it, or delete the file and run the workflow again"
    )


def test_an_unknown_format_is_named(directory):
    edit_config(directory, format=3)
    assert refusal(directory) == (
        f"{directory / 'config.json'}: format 3, but this version of nanogpt reads formats up to "
        "2; upgrade nanogpt, or delete the file and run the workflow again"
    )


def test_a_config_lists_its_format_architecture_and_every_setting(directory, model):
    config = json.loads((directory / "config.json").read_text())
    assert list(config)[:3] == ["format", "architecture", "vocab_size"]
    assert config == {
        "format": 2,
        "architecture": "gpt2",
        "vocab_size": TOKENIZER.vocab_size,
        "start": [],
        **model.settings.model_dump(),
    }


@pytest.mark.parametrize("name", FIRST_SETTINGS)
def test_a_missing_setting_is_named_and_gets_no_default(directory, name):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    del config[name]
    path.write_text(json.dumps(config))
    assert f"`{name}` is missing" in refusal(directory)


@torch.no_grad()
def test_a_model_in_format_1_still_gives_the_same_logits():
    loaded = load_model(FORMAT_1 / "model")
    logits = loaded.model.eval()(torch.arange(16)[None])[0]
    expected = torch.tensor(json.loads((FORMAT_1 / "logits.json").read_text()))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_a_model_in_format_1_without_position_has_learned_positions(tmp_path):
    shutil.copytree(FORMAT_1 / "model", tmp_path / "model")
    path = tmp_path / "model/config.json"
    config = json.loads(path.read_text())
    del config["position"]
    path.write_text(json.dumps(config))
    assert load_model(tmp_path / "model").model.settings.position == "learned"


def test_another_vocabulary_is_refused(directory):
    CharTokenizer("abc").save(directory / "tokenizer.json")
    message = refusal(directory)
    assert str(directory) in message
    assert "tokenizer.json" in message
    assert "3" in message
    assert str(TOKENIZER.vocab_size) in message


CONFIG_FILES = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "5",
    "nothing": "null",
    "an empty map": "{}",
    "no text": b"\xff\xfe\x00",
    "a pickle": pickle.dumps({"architecture": "gpt2"}),
}


@pytest.mark.parametrize("content", CONFIG_FILES.values(), ids=CONFIG_FILES)
def test_a_damaged_config_is_named(directory, content):
    content = content if isinstance(content, bytes) else content.encode()
    (directory / "config.json").write_bytes(content)
    message = refusal(directory)
    assert str(directory / "config.json") in message
    assert "delete the file and run the workflow again" in message


CONFIG_VALUES = {
    "n_layer is a word": {"n_layer": "many"},
    "n_layer is zero": {"n_layer": 0},
    "an unknown setting": {"n_experts": 8},
    "vocab_size is a word": {"vocab_size": "many"},
    "vocab_size is null": {"vocab_size": None},
}
UNCAUGHT = {
    "vocab_size is negative": {"vocab_size": -1},
    "vocab_size is beyond memory": {"vocab_size": 10**15},
    "n_head does not divide n_embd": {"n_head": 5},
}


@pytest.mark.parametrize("changes", CONFIG_VALUES.values(), ids=CONFIG_VALUES)
def test_a_config_with_a_wrong_value_is_named(directory, changes):
    edit_config(directory, **changes)
    assert str(directory / "config.json") in refusal(directory)


@pytest.mark.parametrize("changes", UNCAUGHT.values(), ids=UNCAUGHT)
def test_a_config_with_impossible_values_is_named(directory, changes):
    edit_config(directory, **changes)
    assert str(directory / "config.json") in refusal(directory)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"type": "bpe"}', '{"type": "char"}'])
def test_a_damaged_tokenizer_is_named(directory, content):
    (directory / "tokenizer.json").write_text(content)
    assert str(directory / "tokenizer.json") in refusal(directory)


class Bomb:
    """An object whose pickle creates a file when it's loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("dump", [lambda o, f: f.write(pickle.dumps(o)), torch.save])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_loading_a_pickle_runs_no_code(directory, tmp_path, name, dump):
    crater = tmp_path / "crater"
    with open(directory / name, "wb") as file:
        dump(Bomb(crater), file)
    assert str(directory / name) in refusal(directory)
    assert not crater.exists()


def test_unpickling_that_file_would_run_code(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "crater")))
    assert (tmp_path / "crater").exists()


@contextmanager
def small_files_only():
    """Limit the files that this process can write to 16 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_write_keeps_the_old_weights_and_leaves_no_temporary_file(directory, tiny):
    before = (directory / "model.safetensors").read_bytes()
    assert len(before) > 16 * 1024
    other = make_model(tiny, seed=1)
    with pytest.raises(OSError, match="File too large"), small_files_only():
        save_model(directory, other.state_dict(), tiny, TOKENIZER)
    assert (directory / "model.safetensors").read_bytes() == before
    assert len(list(directory.iterdir())) == 3


def test_weights_are_written_last_so_they_always_have_a_config(model, tmp_path):
    with pytest.raises(OSError, match="File too large"), small_files_only():
        save_model(tmp_path, model.state_dict(), model.settings, TOKENIZER)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "tokenizer.json"}


def test_tied_weights_are_stored_once(directory, model):
    assert load_file(directory / "model.safetensors").keys() == model.state_dict().keys()
