"""`from nanogpt import load`: a trained model in a notebook."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nanogpt
from nanogpt import load
from nanogpt.errors import UserError
from nanogpt.inference.sampling import stream
from nanogpt.model.directories import save_model
from nanogpt.ngram.counts import FILE_NAME
from tests.inference.models import TOKENIZER, make_model, with_settings


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    model = make_model()
    path = tmp_path_factory.mktemp("library") / "model"
    save_model(path, model.state_dict(), model.settings, TOKENIZER, TOKENIZER.encode("日").tolist())
    return path


def test_it_generates_what_the_command_draws(directory):
    model = load(directory, device="cpu")
    text = model.generate("once", max_new_tokens=30, temperature=0.7, top_k=5, seed=3)
    settings = with_settings(max_new_tokens=30, temperature=0.7, top_k=5, seed=3)
    assert text + "\n" == "".join(stream(model.checkpoint, settings))


def test_a_run_of_the_working_directory_goes_by_its_name(directory, tmp_path, monkeypatch):
    (tmp_path / "results/demo").mkdir(parents=True)
    (tmp_path / "results/demo/model").symlink_to(directory)
    config = tmp_path / "config.yaml"
    datasets = "datasets: {demo: {}, new: {corpus: demo}}"
    config.write_text(f"{{corpora: {{demo: {{files: text.txt}}}}, {datasets}}}")
    monkeypatch.chdir(tmp_path)
    expected = load(directory).generate("once", max_new_tokens=9)
    assert load("demo").generate("once", max_new_tokens=9) == expected
    with pytest.raises(UserError, match="no model yet; train it: `nanogpt train new`"):
        load("new")
    (tmp_path / "mine").symlink_to(directory)
    config.write_text("of: another program")
    assert load("mine").generate("once", max_new_tokens=9) == expected


def test_it_streams_what_it_generates(directory):
    model = load(str(directory))
    pieces = model.stream("once", max_new_tokens=20)
    assert inspect.isgenerator(pieces)
    assert "once" + "".join(pieces) == model.generate("once", max_new_tokens=20)


def test_streams_can_be_read_in_turn_or_left(directory):
    model = load(directory)
    expected = [model.generate("once", seed=seed, max_new_tokens=20)[4:] for seed in (1, 2)]
    first, second = (model.stream("once", seed=seed, max_new_tokens=20) for seed in (1, 2))
    pieces = list(zip(first, second, strict=True))
    assert ["".join(texts) for texts in zip(*pieces, strict=True)] == expected
    left = model.stream("once", seed=1, max_new_tokens=20)
    next(left)
    left.close()
    assert model.generate("once", seed=2, max_new_tokens=20)[4:] == expected[1]


def test_without_a_prompt_it_begins_where_a_text_does(directory):
    assert load(directory).generate(max_new_tokens=3).startswith("日")


def test_a_prompt_is_never_a_file(directory):
    model = load(directory)
    with pytest.raises(UserError, match=r"^prompt: .*'F'"):
        model.generate("FILE:x")


@torch.no_grad()
def test_the_loss_is_the_mean_surprise_of_the_tokens_but_the_first(directory):
    model = load(directory)
    text = "once upon a time there was a fox, and it was red."  # more than three windows of 16
    ids = torch.from_numpy(TOKENIZER.encode(text).astype("int64"))
    nats = []
    for place in range(1, len(ids)):
        first = (place - 1) // 16 * 16
        logits = model.model(ids[None, first:place])[0, -1]
        nats.append(-torch.log_softmax(logits, -1)[ids[place]].item())
    assert model.loss(text) == pytest.approx(sum(nats) / len(nats), abs=1e-5)


def test_the_module_and_the_tokenizer_are_there(directory):
    model = load(directory)
    assert isinstance(model.model, torch.nn.Module)
    assert model.tokenizer.decode(model.tokenizer.encode("a fox")) == "a fox"
    assert model.ngrams is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate("a", top_kk=3), r"^top_kk: unknown setting; did you mean `top_k`"),
        (
            lambda m: m.generate("a", temperature=-1),
            r"temperature: should be greater",
        ),
        (lambda m: m.generate("a", start="b"), r"start: not a setting of a single text"),
        (lambda m: m.stream("Z"), r"prompt: .*'Z'"),
        (lambda m: m.loss("a"), r"loss: a text of two tokens or more is needed"),
        (lambda m: m.generate("a", window="slide"), r"window: slide is for rotary positions"),
    ],
)
def test_a_mistake_is_one_line(directory, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(load(directory))
    assert "\n" not in str(error.value)


def test_a_directory_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="no model here"):
        load(tmp_path)


def test_damaged_ngrams_are_not_passed_over(directory, tmp_path):
    copy = tmp_path / "model"
    copy.mkdir()
    for file in directory.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / FILE_NAME).write_bytes(b"no counts")
    with pytest.raises(UserError, match=FILE_NAME):
        load(copy)


def test_the_package_alone_imports_neither_torch_nor_the_library():
    code = (
        "import nanogpt, sys; assert not {'torch', 'numpy', 'nanogpt.library'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(nanogpt.__path__[0]).parent)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        _ = nanogpt.laod
