"""Saved states load unchanged. Older formats are read, and unknown ones are refused."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from nanogpt.artifacts.records.manifests import Layout
from nanogpt.artifacts.records.metrics import MetricsLine
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.errors import UserError
from nanogpt.files.atomic import read_json, sha256_file
from nanogpt.model.gpt import GPT
from nanogpt.training import saved_state, state_files
from nanogpt.training.distributed import Ranks
from nanogpt.training.optimizers import configure_adamw
from nanogpt.training.saved_state import Progress, find_state, read_state, save_state
from nanogpt.training.state_files import (
    digest_in,
    find_states,
    part_name,
    remove_states,
    saved_steps,
    state_name,
)

ROOT = Path(__file__).resolve().parents[2]
FORMAT_1 = ROOT / "tests/fixtures/format_1/state"
LAYOUT = Layout(
    first_step=0, device="cpu", threads=1, torch="2.13.0", cpu_capability="AVX2", gpu=None
)
LINE = MetricsLine(step=3, tokens=384, loss=2.5, learning_rate=1e-3, grad_norm=math.inf)

UNSCALED = torch.amp.GradScaler("cpu", enabled=False)


def make_trained(tiny, seed=0):
    """A model and its optimizer after one step."""
    torch.manual_seed(seed)
    model = GPT(tiny, 65)
    optimizer = configure_adamw(model, TrainSettings())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer


def make_progress(model, **changes):
    values = {"version": "v", "step": 3, "line": LINE, "best_val_loss": 2.25, "seconds": 1.5}
    values |= {"kept": {k: w + 1 for k, w in model.state_dict().items()}, "layouts": [LAYOUT]}
    return Progress(**values | {"metrics": bytearray(b'{"step": 0}\n')} | changes)


def load_state(directory, version, *into):
    """Find a state and read it into a model, an optimizer and a scaler."""
    path = find_state(directory, version)
    return read_state(path, *into) if path else None


def edit_header(path, **changes):
    """Change a state's JSON, rename the file to match its bytes, and return it."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["progress"])
    header = {k: v for k, v in (header | changes).items() if v is not ...}
    tensors = load_file(path)
    path.unlink()
    save_file(tensors, path, metadata={"progress": json.dumps(header)})
    return path.rename(path.with_name(state_name(3, sha256_file(path))))


def header_of(path):
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["progress"], parse_constant=lambda name: name)


# --- Content --------------------------------------------------------------------------------


def test_what_is_loaded_is_what_was_saved(tiny, tmp_path):
    model, optimizer = make_trained(tiny)
    saved = make_progress(model)
    save_state(tmp_path, saved, model, optimizer, UNSCALED)
    other, its_optimizer = make_trained(tiny, seed=1)
    loaded = load_state(tmp_path, "v", other, its_optimizer, UNSCALED)
    for name in ("version", "step", "best_val_loss", "seconds", "metrics", "layouts"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert loaded.line.loss == LINE.loss
    assert loaded.line.model_fields_set == LINE.model_fields_set
    assert loaded.line.diverged() == "grad_norm"
    assert loaded.kept.keys() == saved.kept.keys()
    assert all(torch.equal(loaded.kept[name], saved.kept[name]) for name in saved.kept)
    pairs = zip(model.named_parameters(), other.parameters(), strict=True)
    for (name, mine), theirs in pairs:
        assert torch.equal(mine, theirs), name
        for key, moment in optimizer.state[mine].items():
            assert torch.equal(moment, its_optimizer.state[theirs][key]), (name, key)


def test_a_state_includes_float16s_loss_scale(tiny, tmp_path):
    model, optimizer = make_trained(tiny)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    parameter = next(model.parameters())
    scaler.scale(parameter.sum()).backward()
    parameter.grad[:] = math.inf
    scaler.step(optimizer)
    scaler.update()
    save_state(tmp_path, make_progress(model), model, optimizer, scaler)
    other = torch.amp.GradScaler("cpu")
    load_state(tmp_path, "v", model, optimizer, other)
    assert other.get_scale() == 512.0
    assert other.state_dict() == scaler.state_dict()


def test_a_state_before_any_evaluation_has_no_loss_and_no_line(tiny, tmp_path):
    model, optimizer = make_trained(tiny)
    save_state(
        tmp_path,
        make_progress(model, line=None, best_val_loss=math.inf),
        model,
        optimizer,
        UNSCALED,
    )
    header = header_of(find_states(tmp_path)[0])
    assert header["format"] == 2
    assert header["line"] is None
    assert header["best_val_loss"] is None
    loaded = load_state(tmp_path, "v", model, optimizer, UNSCALED)
    assert loaded.line is None
    assert loaded.best_val_loss == math.inf


def test_without_states_none_is_found(tiny, tmp_path):
    assert load_state(tmp_path, "v", *make_trained(tiny), UNSCALED) is None


def test_a_state_of_another_version_is_logged_and_kept(tiny, tmp_path, caplog):
    model, optimizer = make_trained(tiny)
    save_state(tmp_path, make_progress(model, version="other"), model, optimizer, UNSCALED)
    assert load_state(tmp_path, "v", model, optimizer, UNSCALED) is None
    assert f"{find_states(tmp_path)[0]}: ignored, because it's from version other" in caplog.text


# --- Formats --------------------------------------------------------------------------------


def test_a_state_in_format_1_is_read(tmp_path):
    directory = Path(shutil.copytree(FORMAT_1, tmp_path / "state"))
    request = read_json(directory / "run.json")
    settings = TrainSettings.model_validate(request["parameters"]["train"])
    vocab_size = load_tokenizer(FORMAT_1.parent / "dataset/tokenizer.json").vocab_size
    model = GPT(ModelSettings.model_validate(request["parameters"]["model"]), vocab_size)
    progress = load_state(
        directory, request["version"], model, configure_adamw(model, settings), UNSCALED
    )
    assert (progress.version, progress.step) == ("3cf8e8fd8c9a", 1991)
    assert progress.line is None
    assert progress.best_val_loss == 4.057026632130146
    assert progress.seconds == 10.517464849000135
    assert [layout.content() for layout in progress.layouts] == [
        {
            "first_step": 0,
            "device": "cpu",
            "threads": 1,
            "torch": "2.13.0+cpu",
            "cpu_capability": "AVX512",
            "gpu": None,
        }
    ]
    lines = [json.loads(line) for line in progress.metrics.decode().splitlines()]
    assert [line["step"] for line in lines] == [0, 1000]
    wte = load_file(next(FORMAT_1.glob("step-*")))["model.wte.weight"]
    assert torch.equal(model.wte.weight, wte)


def test_a_line_in_format_1_gets_its_step_and_infinity_means_no_loss(tiny, tmp_path):
    model, optimizer = make_trained(tiny)
    save_state(tmp_path, make_progress(model), model, optimizer, UNSCALED)
    measures = {"loss": 2.5, "learning_rate": 1e-3, "grad_norm": math.nan}
    changes = {"format": ..., "line": measures, "best_val_loss": math.inf}
    edit_header(find_states(tmp_path)[0], **changes)
    progress = load_state(tmp_path, "v", model, optimizer, UNSCALED)
    assert progress.best_val_loss == math.inf
    assert (progress.line.step, progress.line.loss, progress.line.learning_rate) == (3, 2.5, 1e-3)
    assert progress.line.diverged() == "grad_norm"


@pytest.mark.parametrize("number", [3, 0, "2"])
def test_an_unknown_format_of_a_state_is_refused_in_one_line(tiny, tmp_path, number):
    model, optimizer = make_trained(tiny)
    save_state(tmp_path, make_progress(model), model, optimizer, UNSCALED)
    path = edit_header(find_states(tmp_path)[0], format=number)
    with pytest.raises(UserError) as error:
        load_state(tmp_path, "v", model, optimizer, UNSCALED)
    message = str(error.value)
    assert message.startswith(f"{path}: format {json.dumps(number)}, but")
    assert f"remove {tmp_path}" in message
    assert "\n" not in message
    assert path.exists()


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [({"step": "many"}, "`step`"), ({"layouts": [{}]}, "layouts.0"), ({"seconds": ...}, "seconds")],
)
def test_an_invalid_field_is_named(tiny, tmp_path, changes, flaw):
    model, optimizer = make_trained(tiny)
    save_state(tmp_path, make_progress(model), model, optimizer, UNSCALED)
    edit_header(find_states(tmp_path)[0], **changes)
    with pytest.raises(UserError, match=flaw):
        load_state(tmp_path, "v", model, optimizer, UNSCALED)


# --- Files ----------------------------------------------------------------------------------


def test_the_last_two_states_are_kept(tiny, tmp_path):
    model, optimizer = make_trained(tiny)
    for step in (9, 10, 100):
        save_state(tmp_path, make_progress(model, step=step), model, optimizer, UNSCALED)
    assert saved_steps(tmp_path) == [10, 100]


def test_parts_go_with_their_states_and_what_is_only_named_alike_stays(tiny, tmp_path):
    names = [part_name(step, "a" * 64) for step in (8, 9, 10)] + ["part-two.safetensors"]
    for name in names:
        (tmp_path / name).touch()
    model, optimizer = make_trained(tiny)
    for step in (8, 9, 10):
        save_state(tmp_path, make_progress(model, step=step), model, optimizer, UNSCALED)
    assert sorted(path.name for path in tmp_path.glob("part-*")) == sorted(names[1:])
    remove_states(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["part-two.safetensors"]


@pytest.fixture
def state_of_two(tiny, tmp_path, monkeypatch):
    """A state of two ranks, and the second of them, which is on another node."""
    model, optimizer = make_trained(tiny)
    part = tmp_path / part_name(3, "0123456789abcdef")
    part.touch()
    with monkeypatch.context() as patch:
        patch.setattr(saved_state, "_write_parts", lambda *_: [part.name])
        save_state(tmp_path, make_progress(model), model, optimizer, UNSCALED)
    (path,) = find_states(tmp_path)
    found = [3, saved_state._as_number(digest_in(path.name))]
    monkeypatch.setattr(Ranks, "gather", lambda *_: [found, [-1, 0]])
    return path, part, Ranks(1, 2)


def test_a_rank_waits_for_a_state_and_for_its_parts(state_of_two, tmp_path, monkeypatch):
    path, part, rank = state_of_two
    waited = []

    def wait(path):
        waited.append(path)
        return path.exists()

    monkeypatch.setattr(state_files, "wait_for_file", wait)
    assert find_state(tmp_path, "v", rank) == path
    assert waited == [path, part]


@pytest.mark.parametrize("missing", ["state", "part"])
def test_a_rank_that_never_sees_one_of_them_names_it(state_of_two, tmp_path, monkeypatch, missing):
    path, part, rank = state_of_two
    monkeypatch.setattr(state_files, "LATE", 0.0)
    gone = path if missing == "state" else part
    gone.unlink()
    late = f"rank 1: .*{gone.name}: rank 0 has this file, but it hasn't appeared here within"
    with pytest.raises(UserError, match=late):
        find_state(tmp_path, "v", rank)


def test_a_state_that_vanishes_while_states_are_listed_is_left_out(tmp_path, monkeypatch):
    """As where a directory over the network is listed as it was."""
    there = tmp_path / state_name(3, "0123456789abcdef")
    there.touch()
    gone = tmp_path / state_name(4, "0123456789abcdef")
    monkeypatch.setattr(state_files, "_state_files", lambda _: [there, gone])
    assert find_states(tmp_path) == [there]


def test_states_are_sorted_by_step_number(tmp_path):
    for step in (10, 9, 100):
        (tmp_path / state_name(step, "0123456789abcdef")).touch()
    (tmp_path / ".step-7.tmp").touch()
    (tmp_path / "step-last.safetensors").touch()
    assert saved_steps(tmp_path) == [9, 10, 100]
    assert [path.name.split(".")[0] for path in find_states(tmp_path)] == [
        "step-100",
        "step-10",
        "step-9",
    ]


def test_removing_states_keeps_the_metrics(tmp_path):
    for name in (state_name(1, "a" * 64), state_name(2, "b" * 64), "metrics.jsonl", "run.json"):
        (tmp_path / name).touch()
    remove_states(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "run.json"]


def test_listing_saved_steps_does_not_import_torch():
    code = "import sys, nanogpt.training.state_files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("content", [b"junk", b'\x1b\0\0\0\0\0\0\0{"__metadata__":{"a":"b"}} '])
def test_a_file_with_the_name_of_a_state_but_other_content_is_refused(tiny, tmp_path, content):
    path = tmp_path / state_name(3, hashlib.sha256(content).hexdigest())
    path.write_bytes(content)
    model, optimizer = make_trained(tiny)
    with pytest.raises(UserError, match="from a different model or version of nanogpt"):
        load_state(tmp_path, "v", model, optimizer, UNSCALED)
