"""`from nanogpt import load`: trained models in notebooks and programs."""

import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest
import torch

import nanogpt
from nanogpt import load
from nanogpt.errors import UserError
from nanogpt.inference import sampling
from nanogpt.inference.sampling import stream
from nanogpt.inference.torch_state import small_operations
from nanogpt.model.directories import save_model
from nanogpt.project import NGRAMS_FILE
from tests.inference.models import TOKENIZER, make_model, with_settings


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    model = make_model()
    path = tmp_path_factory.mktemp("library") / "model"
    save_model(path, model.state_dict(), model.settings, TOKENIZER, TOKENIZER.encode("日").tolist())
    return path


def test_generate_matches_the_sample_command(directory):
    model = load(directory, device="cpu")
    text = model.generate("once", max_new_tokens=30, temperature=0.7, top_k=5, seed=3)
    settings = with_settings(max_new_tokens=30, temperature=0.7, top_k=5, seed=3)
    assert text + "\n" == "".join(stream(model.checkpoint, settings))


def test_load_accepts_the_name_of_a_run(directory, tmp_path, monkeypatch):
    (tmp_path / "results/demo").mkdir(parents=True)
    (tmp_path / "results/demo/model").symlink_to(directory)
    config = tmp_path / "config.yaml"
    datasets = "datasets: {demo: {}, new: {corpus: demo}}"
    config.write_text(f"{{corpora: {{demo: {{files: text.txt}}}}, {datasets}}}")
    monkeypatch.chdir(tmp_path)
    expected = load(directory).generate("once", max_new_tokens=9)
    assert load("demo").generate("once", max_new_tokens=9) == expected
    with pytest.raises(UserError, match="no model yet; train it with `nanogpt train new`"):
        load("new")
    (tmp_path / "mine").symlink_to(directory)
    config.write_text("of: another program")
    assert load("mine").generate("once", max_new_tokens=9) == expected


def test_stream_matches_generate(directory):
    model = load(str(directory))
    pieces = model.stream("once", max_new_tokens=20)
    assert inspect.isgenerator(pieces)
    assert "once" + "".join(pieces) == model.generate("once", max_new_tokens=20)


def test_streams_can_be_interleaved_or_abandoned(directory):
    model = load(directory)
    expected = [model.generate("once", seed=seed, max_new_tokens=20)[4:] for seed in (1, 2)]
    first, second = (model.stream("once", seed=seed, max_new_tokens=20) for seed in (1, 2))
    pieces = list(zip(first, second, strict=True))
    assert ["".join(texts) for texts in zip(*pieces, strict=True)] == expected
    left = model.stream("once", seed=1, max_new_tokens=20)
    next(left)
    left.close()
    assert model.generate("once", seed=2, max_new_tokens=20)[4:] == expected[1]


def test_parallel_threads_get_their_own_texts(directory, monkeypatch):
    model = load(directory)
    expected = [model.generate("once", seed=seed, max_new_tokens=20) for seed in (1, 2)]
    both_begin = Barrier(2)

    def stream_prompt(engine, prompt):
        both_begin.wait(60)
        pieces = sampling.stream_prompt(engine, prompt)
        both_begin.wait(60)
        return pieces

    monkeypatch.setattr("nanogpt.library.stream_prompt", stream_prompt)
    with ThreadPoolExecutor(2) as threads:
        calls = [
            threads.submit(model.generate, "once", seed=seed, max_new_tokens=20) for seed in (1, 2)
        ]
        assert [call.result() for call in calls] == expected


def test_empty_prompt_is_the_start_of_a_text(directory):
    assert load(directory).generate(max_new_tokens=3).startswith("日")


def test_prompt_is_never_read_as_a_file(directory):
    model = load(directory)
    with pytest.raises(UserError, match=r"^prompt: .*'F'"):
        model.generate("FILE:x")


@torch.no_grad()
def test_loss_is_the_mean_over_all_tokens_but_the_first(directory):
    model = load(directory)
    text = "once upon a time there was a fox, and it was red."  # more than three windows of 16
    ids = torch.from_numpy(TOKENIZER.encode(text).astype("int64"))
    nats = []
    for place in range(1, len(ids)):
        first = (place - 1) // 16 * 16
        logits = model.model(ids[None, first:place])[0, -1]
        nats.append(-torch.log_softmax(logits, -1)[ids[place]].item())
    assert model.loss(text) == pytest.approx(sum(nats) / len(nats), abs=1e-5)


def test_repr_is_one_short_line(directory):
    shown = repr(load(directory, device="cpu"))
    assert shown.startswith("<TrainedModel of ")
    assert shown.endswith(" tokens, on cpu>")
    assert len(shown) < 80
    assert "\n" not in shown


def test_model_and_tokenizer_are_accessible(directory):
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
        (lambda m: m.generate("a", start="b"), r"start: can't be set for a single text"),
        (lambda m: m.stream("Z"), r"prompt: .*'Z'"),
        (lambda m: m.loss("a"), r"loss: fewer than two tokens"),
        (lambda m: m.generate("a", window="slide"), r"window: `slide` needs rotary positions"),
    ],
)
def test_mistake_gets_one_line(directory, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(load(directory))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["generate", "stream", "loss"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"once", "should be a string \\(found bytes\\)"),
        (Path("once"), "should be a string"),
        (None, "should be a string"),
        (0, "should be a string"),
        ("a\ud800", "a lone surrogate"),
    ],
)
def test_invalid_text_is_an_error(directory, method, text, message):
    with pytest.raises(UserError, match=message):
        getattr(load(directory), method)(text)


def test_directory_without_a_model_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load(tmp_path)


def test_error_for_a_runs_directory_names_its_model_directory(directory, tmp_path):
    (tmp_path / "model").symlink_to(directory)
    with pytest.raises(UserError, match=f"not a model directory; use {tmp_path}/model"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "format"),
    [
        ("config.json", '{"architectures": ["GPT2LMHeadModel"]}', "huggingface"),
        ("ckpt.pt", "", "nanogpt"),
    ],
)
def test_error_for_another_programs_model_names_the_import(tmp_path, file, content, format):
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=f"import {tmp_path} DESTINATION --from {format}"):
        load(tmp_path)


def test_damaged_ngrams_are_an_error(directory, tmp_path):
    copy = tmp_path / "model"
    copy.mkdir()
    for file in directory.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / NGRAMS_FILE).write_bytes(b"no counts")
    with pytest.raises(UserError, match=NGRAMS_FILE):
        load(copy)


def test_importing_the_package_imports_neither_torch_nor_the_library():
    code = (
        "import nanogpt, sys; assert not {'torch', 'numpy', 'nanogpt.library'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(nanogpt.__path__[0]).parent)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        _ = nanogpt.laod


@pytest.fixture
def torch_as_it_was():
    threads, onednn = torch.get_num_threads(), torch.backends.mkldnn.enabled
    yield
    torch.set_num_threads(threads)
    torch.backends.mkldnn.enabled = onednn


def test_callers_random_numbers_do_not_change(directory):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = load(directory)
    model.generate("once", max_new_tokens=5)
    next(model.stream("once", max_new_tokens=5))
    model.loss("once upon")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_callers_default_dtype_has_no_effect(directory, dtype):
    model = load(directory, dtype=dtype)
    expected = model.generate("once", max_new_tokens=30), model.loss("once upon")
    torch.set_default_dtype(torch.float64)
    try:
        model = load(directory, dtype=dtype)
        assert (model.generate("once", max_new_tokens=30), model.loss("once upon")) == expected
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "surrounding",
    [lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.device("meta")],
    ids=["autocast", "device"],
)
@pytest.mark.parametrize("options", [{}, {"top_p": 0.9, "repetition_penalty": 1.2}])
def test_callers_torch_settings_have_no_effect(directory, surrounding, options):
    def results(model):
        # Longer than the window of 16 tokens, so the context is read again.
        text = model.generate("once", max_new_tokens=30, **options)
        return text, list(model.stream("on", max_new_tokens=9)), model.loss("once upon")

    before = load(directory, device="cpu")
    expected = results(before)
    with surrounding():
        assert results(before) == expected
        model = load(directory, device="cpu")
        assert results(model) == expected
    assert results(model) == expected


@pytest.mark.usefixtures("torch_as_it_was")
def test_threads_leave_torch_settings_unchanged():
    torch.set_num_threads(2)
    torch.backends.mkldnn.enabled = True
    first_is_inside, second_is_inside, first_is_done = Event(), Event(), Event()

    def first():
        with small_operations():
            first_is_inside.set()
            assert second_is_inside.wait(60)
        first_is_done.set()

    def second():
        assert first_is_inside.wait(60)
        with small_operations():
            second_is_inside.set()
            assert first_is_done.wait(60)

    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(first), threads.submit(second)]:
            future.result()
        assert torch.backends.mkldnn.enabled
        assert threads.submit(torch.get_num_threads).result() == 2
    assert torch.get_num_threads() == 2
