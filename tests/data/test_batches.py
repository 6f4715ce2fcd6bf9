"""Token files are checked when opened; the batch of a step is a function of the step."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.artifacts.records.base import write_record
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.schema import EvalSettings, ModelSettings
from nanogpt.data.batches import batch, check_block_size, load, start_tokens, windows
from nanogpt.data.preparing import prepare
from nanogpt.data.tokenizers import ByteTokenizer
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT
from nanogpt.model.losses import windows_loss

ROOT = Path(__file__).resolve().parents[2]

TEXT = "Ein Märchen: »€ 5« 😀.\n" * 10
MANY_SYMBOLS = "".join(map(chr, range(0x10000, 0x10000 + 70_000)))


def prepare_text(directory, text, **dataset):
    """Write a text to a file in `directory` and prepare it; return the dataset's directory."""
    corpus_file = directory / "text.txt"
    corpus_file.write_bytes(text.encode())
    made = directory / "dataset"
    prepare([corpus_file], Corpus(files=[str(corpus_file)]), Dataset(**dataset), made)
    return made


@pytest.fixture
def dataset(tmp_path):
    return prepare_text(tmp_path, TEXT)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A dataset with more symbols than two bytes can represent."""
    return prepare_text(tmp_path_factory.mktemp("large"), MANY_SYMBOLS, val_ratio=0.5)


# --- Loading --------------------------------------------------------------------------------


def test_loading_maps_the_files_instead_of_reading_them(dataset):
    files = load(dataset)
    assert isinstance(files.train, np.memmap)
    assert isinstance(files.val, np.memmap)
    assert not files.train.flags.writeable


def test_a_directory_without_a_dataset_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no dataset here \(meta\.json is missing\)"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "{", '{"dtype"', "\udcff", "{}", "[]", "3", "null"])
def test_a_damaged_meta_json_is_named(dataset, content):
    (dataset / "meta.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"meta\.json"):
        load(dataset)


@pytest.mark.parametrize(
    ("damage", "flaw"),
    [
        ({"dtype": "int8"}, r"`dtype` should be `uint16` or `uint32`"),
        ({"vocab_size": 0}, "`vocab_size` should be greater than 0"),
        ({"train": {}}, r"`train\.n_tokens` is missing"),
        ({"val": 3}, "`val` "),
        ({"vocab_size": "24"}, "`vocab_size` should be a whole number"),
        ({"files": [{"path": "text.txt"}]}, r"`files\.0\.sha256` is missing"),
    ],
    ids=str,
)
def test_a_wrong_field_of_meta_json_is_named_in_one_line(dataset, damage, flaw):
    path = dataset / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(
        UserError, match=rf"meta\.json: damaged: {flaw}.*; delete the file and run"
    ) as error:
        load(dataset)
    assert len(str(error.value).splitlines()) == 1


def test_a_dataset_of_the_first_format_is_read():
    files = load(ROOT / "tests/fixtures/format_1/dataset")
    assert files.meta.train.n_tokens == len(files.train) == 5400
    assert files.meta.source.val_bits_per_byte == pytest.approx(1.021, abs=1e-3)


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
def test_a_missing_token_file_is_named(dataset, name):
    (dataset / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: no such file; run the workflow again"):
        load(dataset)


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
@pytest.mark.parametrize("damage", ["empty", "one byte short", "one token more"])
def test_a_token_file_of_another_size_is_named(dataset, name, damage):
    path = dataset / name
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "one byte short": whole[:-1], "one token more": whole + b"\0\0"}[damage]
    )
    with pytest.raises(UserError, match=rf"{name}: .*{len(whole) // 2} tokens.*again") as error:
        load(dataset)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
def test_a_token_outside_the_vocabulary_is_named(dataset, name):
    n_symbols = len(set(TEXT))
    tokens = np.fromfile(dataset / name, dtype="<u2")
    tokens[-1] = n_symbols - 1
    tokens.tofile(dataset / name)
    load(dataset)
    tokens[-1] = n_symbols
    tokens.tofile(dataset / name)
    with pytest.raises(
        UserError, match=rf"{name}: token id {n_symbols} is outside the vocabulary of {n_symbols}"
    ) as error:
        load(dataset)
    assert len(str(error.value).splitlines()) == 1


def test_more_than_65535_symbols_are_read_as_four_bytes_each(large):
    files = load(large)
    assert files.train.dtype == files.val.dtype == np.uint32
    assert len(files.train) == len(files.val) == 35_000
    assert files.tokenizer.decode(files.train[:3]) == MANY_SYMBOLS[:3]
    assert files.val[-1] == 69_999


@pytest.mark.parametrize("damage", ["one byte short", "two bytes short", "a token outside"])
def test_four_byte_tokens_are_checked_like_two_byte_ones(tmp_path, large, damage):
    for path in large.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / "val.bin").read_bytes()
    damaged = {
        "one byte short": whole[:-1],
        "two bytes short": whole[:-2],
        "a token outside": whole[:-4] + (70_000).to_bytes(4, "little"),
    }[damage]
    (tmp_path / "val.bin").write_bytes(damaged)
    named = "token id 70000 " if damage == "a token outside" else "35,000 tokens as uint32"
    with pytest.raises(UserError, match=rf"val\.bin: .*{named}.*again"):
        load(tmp_path)


def test_a_missing_tokenizer_is_named(dataset):
    (dataset / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        load(dataset)


def test_a_block_size_longer_than_a_split_is_rejected(tmp_path):
    files = load(prepare_text(tmp_path, "ab" * 50))  # 90 and 10 tokens
    check_block_size(files, 9, "letters")
    with pytest.raises(UserError, match=r"letters`: the val split has 10 tokens.*block_size 10"):
        check_block_size(files, 10, "letters")
    with pytest.raises(UserError, match=r"letters`: the train split has 90 tokens.*block_size 90"):
        check_block_size(files, 90, "letters")


# --- Batches --------------------------------------------------------------------------------


@st.composite
def cuts(draw, max_tokens=200):
    """(tokens, block_size). Each token is its own position, so a window shows its start."""
    n_tokens = draw(st.integers(2, max_tokens))
    block_size = draw(st.integers(1, n_tokens - 1))
    return np.arange(n_tokens, dtype=np.uint16), block_size


def n_windows(tokens, block_size):
    """The number of windows per epoch: those that fit at any offset, but at least one."""
    return max(1, (len(tokens) - block_size) // block_size)


def epoch_starts(tokens, block_size, seed, epoch):
    """The starts of an epoch's windows, in order."""
    count = n_windows(tokens, block_size)
    return batch(tokens, block_size, count, seed, epoch)[:, 0]


@settings(deadline=None)
@given(cuts(), st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 10_000))
def test_a_window_is_neighbouring_tokens_and_never_reads_past_the_end(cut, n_rows, seed, step):
    tokens, block_size = cut
    rows = batch(tokens, block_size, n_rows, seed, step)
    assert rows.shape == (n_rows, block_size + 1)
    assert rows.dtype == np.int64
    assert (np.diff(rows, axis=1) == 1).all()
    assert rows.min() >= 0
    assert rows.max() < len(tokens)


@settings(deadline=None)
@given(cuts(), st.integers(1, 20), st.integers(0, 100), st.lists(st.integers(0, 500), min_size=1))
def test_a_batch_depends_on_the_step_only(cut, n_rows, seed, steps):
    tokens, block_size = cut
    wanted = batch(tokens, block_size, n_rows, seed, steps[-1])
    for step in steps:
        last = batch(tokens, block_size, n_rows, seed, step)
    assert (last == wanted).all()


@settings(deadline=None)
@given(cuts(), st.integers(0, 100), st.integers(0, 20))
def test_within_an_epoch_no_two_windows_overlap(cut, seed, epoch):
    tokens, block_size = cut
    starts = np.sort(epoch_starts(tokens, block_size, seed, epoch))
    assert len(set(starts.tolist())) == n_windows(tokens, block_size)
    assert (np.diff(starts) == block_size).all()


@settings(deadline=None)
@given(cuts(), st.integers(1, 30), st.integers(0, 100), st.integers(1, 5))
def test_batches_of_any_size_walk_through_the_same_windows(cut, n_rows, seed, n_steps):
    tokens, block_size = cut
    batches = [batch(tokens, block_size, n_rows, seed, step) for step in range(n_steps)]
    one_by_one = [batch(tokens, block_size, 1, seed, step)[0] for step in range(n_rows * n_steps)]
    assert (np.concatenate(batches) == np.array(one_by_one)).all()


def test_ranks_that_slice_the_rows_never_see_the_same_token():
    tokens = np.arange(1000, dtype=np.uint16)
    rows = batch(tokens, 10, 24, 1337, 2)  # rows 48 to 72 of the 99 of the first epoch
    for ranks in (2, 3, 4):
        inputs = [set(rows[rank::ranks, :-1].ravel().tolist()) for rank in range(ranks)]
        assert sum(map(len, inputs)) == len(set().union(*inputs)) == 24 * 10


def test_a_step_can_span_many_epochs():
    tokens = np.arange(45, dtype=np.uint16)
    many = batch(tokens, 10, 30, 1337, 1)  # rows 30 to 60 of epochs of three
    one_by_one = [batch(tokens, 10, 1, 1337, step) for step in range(30, 60)]
    assert np.array_equal(many, np.concatenate(one_by_one))


def test_epochs_differ_in_offset_and_order():
    tokens = np.arange(1000, dtype=np.uint16)
    epochs = [epoch_starts(tokens, 10, 1337, epoch) for epoch in range(20)]
    offsets = {int(starts.min()) for starts in epochs}
    orders = {tuple(((starts - starts.min()) // 10).tolist()) for starts in epochs}
    assert len(offsets) > 5
    assert len(orders) == 20


def test_an_epoch_is_not_in_text_order():
    starts = epoch_starts(np.arange(1000, dtype=np.uint16), 10, 1337, 0)
    assert (np.diff(starts) != 10).mean() > 0.8


def test_seeds_give_different_batches():
    tokens = np.arange(1000, dtype=np.uint16)
    drawn = {batch(tokens, 10, 8, seed, 0).tobytes() for seed in range(20)}
    assert len(drawn) == 20


@pytest.mark.parametrize(("n_tokens", "block_size"), [(9, 8), (12, 8), (17, 8), (20, 8), (31, 4)])
def test_every_token_is_predicted_in_some_epoch(n_tokens, block_size):
    tokens = np.arange(n_tokens, dtype=np.uint16)
    count = n_windows(tokens, block_size)
    targets = [batch(tokens, block_size, count, 1337, epoch)[:, 1:] for epoch in range(300)]
    assert set(np.concatenate(targets).ravel().tolist()) == set(range(1, n_tokens))


def test_a_batch_can_be_larger_than_an_epoch():
    rows = batch(np.arange(25, dtype=np.uint16), 10, 7, 1337, 3)  # an epoch is one window
    assert rows.shape == (7, 11)


def test_another_process_draws_the_same_batch():
    script = (
        "import numpy as np\n"
        "from nanogpt.data.batches import batch\n"
        "print(batch(np.arange(1000, dtype=np.uint16), 10, 8, 1337, 40)[:, 0].tolist())\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    here = batch(np.arange(1000, dtype=np.uint16), 10, 8, 1337, 40)[:, 0]
    assert json.loads(there.stdout) == here.tolist()


def test_windows_include_the_token_after_them():
    tokens = np.arange(100, 120, dtype=np.uint16)
    rows = windows(tokens, np.array([0, 16]), 3)
    assert rows.tolist() == [[100, 101, 102, 103], [116, 117, 118, 119]]
    assert rows.dtype == np.int64


def test_four_byte_tokens_give_batches_and_losses(large):
    tokens = load(large).val
    whole = np.fromfile(large / "val.bin", dtype="<u4").astype(np.int64)
    assert whole.tolist() == list(range(35_000, 70_000))
    drawn = batch(tokens, 8, 4, 1337, 2)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == batch(whole, 8, 4, 1337, 2).tolist()

    torch.manual_seed(0)
    small = ModelSettings(n_layer=1, n_head=1, n_embd=4, block_size=8, dropout=0.0)
    model = GPT(small, 70_000)
    settings = EvalSettings(batch_size=2, device="cpu", dtype="float32")
    starts = np.array([0, 30_600, 34_984])
    loss = windows_loss(model, tokens, starts, settings)
    assert loss == windows_loss(model, whole, starts, settings)
    assert loss.n_tokens == 24
    assert loss.mean == pytest.approx(np.log(70_000), rel=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous memory apart")
def test_batches_of_a_large_file_use_no_process_memory(tmp_path):
    n_tokens = 1 << 27
    for name, count in (("train", n_tokens), ("val", 1024)):
        with open(tmp_path / f"{name}.bin", "wb") as file:
            file.truncate(2 * count)  # zeros that take no disk space
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    meta = load(prepare_text(tmp_path, "ab\n" * 20, tokenizer="byte")).meta
    splits = {
        name: getattr(meta, name).model_copy(update={"n_tokens": count})
        for name, count in (("train", n_tokens), ("val", 1024))
    }
    write_record(tmp_path / "meta.json", meta.model_copy(update=splits))
    # In a separate process, because memory freed by other tests would hide allocations.
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from nanogpt.data.batches import batch, load\n"
        "def anonymous():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('RssAnon'))\n"
        "before = anonymous()\n"
        "tokens = load(Path(sys.argv[1])).train\n"
        "for step in range(512):\n"
        "    assert not batch(tokens, 1024, 256, 1337, step).any()\n"
        "print(anonymous() - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # All 256 MiB of the file were read.
    assert int(run.stdout) < 32 * 1024


@pytest.mark.parametrize(
    ("texts", "dataset", "start"),
    [
        (["ACGT" * 50 + "A"], {}, "A"),  # the most frequent token, as no token ends a line
        (["a b\nb b b\n" * 20], {}, "\n"),
        (["a b\r\nb b b\r\n" * 20], {}, "\n"),
        (["b b\rb b b\r" * 20], {}, "\r"),
        (["to be or not\n" * 20], {"tokenizer": "bpe", "vocab_size": 280}, "\n"),
        (["b" * 99], {}, "b"),
        (["one two ", "three ", "four five "], {"separator": "|"}, "|"),
        (["one two ", "three ", "four five "], {"separator": " // "}, " // "),
        (["one ", "two ", "three "], {"tokenizer": "bpe", "vocab_size": 257}, "<|endoftext|>"),
        (["one ", "two ", "three "], {"tokenizer": "byte"}, "\n"),
    ],
)
def test_a_text_begins_after_a_separator_or_a_line_or_what_is_frequent(
    tmp_path, texts, dataset, start
):
    files = []
    for number, text in enumerate(texts):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_bytes(text.encode())
    corpus = Corpus(files=list(map(str, files)))
    prepare(files, corpus, Dataset(**dataset), tmp_path / "dataset")
    made = load(tmp_path / "dataset")
    assert made.tokenizer.decode(start_tokens(made)) == start
