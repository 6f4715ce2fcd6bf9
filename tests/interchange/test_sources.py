"""A model is read from a directory of nanogpt or transformers, or by the name of a GPT-2."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanogpt.errors import UserError
from nanogpt.interchange import gpt2_downloads
from nanogpt.interchange.hugging_face_export import export_hugging_face
from nanogpt.interchange.sources import read_source
from nanogpt.model.checkpoints import load_model
from nanogpt.project import Project
from tests.interchange.models import (
    GPT2,
    MODERN,
    assert_equal,
    merges_file,
    needs_mirror,
    tokenizer,
    write_model,
)


def exported(directory, settings=GPT2, kind="char"):
    """An export and its model."""
    ours = write_model(directory / "ours/model", settings, kind)
    export_hugging_face(ours, directory / "theirs")
    return ours, directory / "theirs"


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(directory, **changes):
    """Change tensors of a directory; None removes one."""
    path = directory / "model.safetensors"
    weights = {**load_file(path), **changes}
    save_file({name: t for name, t in weights.items() if t is not None}, path)


def test_a_nanogpt_model_directory_is_read(tmp_path):
    ours = write_model(tmp_path / "model")
    assert_equal(read_source(str(ours)), load_model(ours))


def test_half_precision_is_read_as_float32(tmp_path):
    ours, theirs = exported(tmp_path, MODERN)
    weights = load_file(theirs / "model.safetensors")
    save_file({name: w.bfloat16() for name, w in weights.items()}, theirs / "model.safetensors")
    weights = read_source(theirs).model.state_dict()
    for name, weight in load_model(ours).model.state_dict().items():
        assert torch.equal(weights[name], weight.bfloat16().float())


def test_weights_in_several_files_are_read(tmp_path):
    ours, theirs = exported(tmp_path)
    weights = load_file(theirs / "model.safetensors")
    names = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(weights)}
    for file in set(names.values()):
        save_file({n: weights[n] for n, of in names.items() if of == file}, theirs / file)
    (theirs / "model.safetensors").unlink()
    index = theirs / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert_equal(read_source(theirs), load_model(ours))
    index.write_text(json.dumps({"weight_map": {"a": "../ours/model/model.safetensors"}}))
    with pytest.raises(UserError, match="isn't in its directory"):
        read_source(theirs)


def test_old_masks_and_a_tied_head_are_ignored(tmp_path):
    ours, theirs = exported(tmp_path)
    head = torch.ones(tokenizer("char").vocab_size, 16)
    edit_weights(
        theirs, **{"transformer.h.0.attn.bias": torch.ones(1, 1, 32, 32), "lm_head.weight": head}
    )
    assert_equal(read_source(theirs), load_model(ours))


@pytest.mark.parametrize("settings", [GPT2, MODERN])
def test_padding_of_the_vocabulary_is_removed(settings, tmp_path):
    ours, theirs = exported(tmp_path, settings)
    n_rows = tokenizer("char").vocab_size + 7
    edit_config(theirs, vocab_size=n_rows)
    rows = {
        name: torch.cat([weight, torch.ones(7, 16)])
        for name, weight in load_file(theirs / "model.safetensors").items()
        if len(weight) == n_rows - 7
    }
    edit_weights(theirs, **rows)
    assert_equal(read_source(theirs), load_model(ours))


def test_an_imported_model_keeps_its_biases(tmp_path):
    _, theirs = exported(tmp_path)
    assert not read_source(theirs).model.settings.bias
    edit_weights(theirs, **{"transformer.ln_f.bias": torch.ones(16)})
    model = read_source(theirs).model
    assert model.settings.bias
    assert torch.equal(model.state_dict()["ln_f.bias"], torch.ones(16))


@pytest.mark.parametrize(
    ("settings", "change", "words"),
    [
        (GPT2, {"transformer.ln_f.weight": None}, "tensor `ln_f.weight` is missing"),
        (GPT2, {"transformer.h.2.ln_1.weight": torch.ones(16)}, "isn't part of this architecture"),
        (GPT2, {"transformer.ln_f.weight": torch.ones(17)}, "has shape (17,), but the model's is"),
        (GPT2, {"transformer.ln_f.weight": torch.full((16,), torch.inf)}, "has NaN or infinity"),
        (MODERN, {"model.layers.0.mlp.fc1.weight": None}, "fc1.weight` is missing"),
        (
            MODERN,
            {"model.layers.0.mlp.fc3.weight": torch.ones(2)},
            "isn't part of this architecture",
        ),
        (MODERN, {"lm_head.weight": torch.ones(3, 16)}, "has shape (3, 16)"),
    ],
)
def test_mismatched_tensors_are_named(settings, change, words, tmp_path):
    _, theirs = exported(tmp_path, settings)
    edit_weights(theirs, **change)
    with pytest.raises(UserError) as error:
        read_source(theirs)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("settings", "change", "words"),
    [
        (GPT2, {"model_type": "llama"}, "model_type"),
        (GPT2, {"activation_function": "relu"}, "activation_function"),
        (GPT2, {"n_head": 3}, "n_embd 16 is not divisible by n_head 3"),
        (MODERN, {"num_key_value_heads": 1}, "num_key_value_heads should be num_attention_heads"),
        (MODERN, {"rms_norm_eps": 1e-5}, "rms_norm_eps should be 1e-06"),
        (MODERN, {"rope_parameters": {"rope_theta": 5.0}}, "rope_theta should be 10000"),
        (MODERN, {"intermediate_size": 65}, "intermediate_size should be 4 * hidden_size"),
        (MODERN, {"head_dim": 3}, "head_dim should be hidden_size / num_attention_heads"),
        (MODERN, {"attention_bias": True}, "attention_bias"),
        (MODERN, {"nanogpt": {"start": "x"}}, "nanogpt"),
    ],
)
def test_an_unsupported_config_is_rejected_by_name(settings, change, words, tmp_path):
    _, theirs = exported(tmp_path, settings)
    edit_config(theirs, **change)
    with pytest.raises(UserError) as error:
        read_source(theirs)
    assert words in str(error.value)


def test_a_directory_with_only_a_pickle_is_rejected(tmp_path):
    _, theirs = exported(tmp_path)
    (theirs / "model.safetensors").rename(theirs / "pytorch_model.bin")
    with pytest.raises(UserError, match="only reads safetensors"):
        read_source(theirs)


# --- GPT-2 by name --------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror with a tiny model instead of gpt2-medium, and GPT-2's merges."""
    root = tmp_path / "mirror"
    ours = write_model(tmp_path / "ours/model", GPT2.model_copy(update={"bias": True}), "gpt2")
    there = root / "huggingface.co/openai-community/gpt2-medium/resolve/main"
    export_hugging_face(ours, there)
    weights = load_file(there / "model.safetensors")
    # Like OpenAI's published weights: without a prefix, and with masks.
    published = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    published["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
    save_file(published, there / "model.safetensors")
    edit_config(there, nanogpt={})
    merges = root / gpt2_downloads.GPT2_MERGES_URL.removeprefix("https://")
    merges.parent.mkdir(parents=True)
    shutil.copy(merges_file(), merges)
    monkeypatch.setenv("NANOGPT_MIRROR", str(root))
    return there


@needs_mirror
@pytest.mark.usefixtures("mirror")
def test_gpt2_by_name_is_downloaded_once_from_a_mirror(tmp_path):
    project = Project(tmp_path / "project")
    checkpoint = read_source("gpt2-medium", project)
    assert checkpoint.tokenizer == tokenizer("gpt2")
    ours = load_model(tmp_path / "ours/model").model
    assert torch.equal(checkpoint.model.state_dict()["wte.weight"], ours.state_dict()["wte.weight"])
    shutil.rmtree(tmp_path / "mirror")
    again = read_source("gpt2-medium", project)
    assert_equal(again, checkpoint)
    known = json.loads((tmp_path / "project/resources/models/gpt2-medium/digests.json").read_text())
    assert set(known["sha256"]) == {"config.json", "model.safetensors"}


@needs_mirror
def test_a_download_must_match_the_digest_of_the_first_one(mirror, tmp_path):
    project = Project(tmp_path / "project")
    read_source("gpt2-medium", project)
    weights = project.downloaded_models / "gpt2-medium/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(
        UserError, match=r"changed since its download: .*; delete it to download it again"
    ):
        read_source("gpt2-medium", project)
    weights.unlink()
    (mirror / "model.safetensors").write_bytes(content)  # the server has another file now
    with pytest.raises(UserError, match="wrong sha256"):
        read_source("gpt2-medium", project)


def test_a_directory_with_a_gpt2_name_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(Path("gpt2"))
    assert_equal(read_source("gpt2"), load_model(Path("gpt2")))


def test_an_unknown_source_is_an_error_with_the_known_names(tmp_path):
    with pytest.raises(UserError, match=r"not a model directory: .* one of gpt2, gpt2-medium"):
        read_source(tmp_path)
    with pytest.raises(UserError, match=r"gpt3: not a model directory"):
        read_source("gpt3")
