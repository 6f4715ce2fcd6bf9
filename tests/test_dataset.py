"""Token files are nanoGPT's, and the batch of a step is a pure function of the step."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt import playwright
from nanogpt.config import Corpus, Dataset, UserError
from nanogpt.config import load as load_config
from nanogpt.corpus import fetch, mirrors
from nanogpt.dataset import batch, check_block_size, load, prepare, windows

ROOT = Path(__file__).resolve().parent.parent

TEXT = "Ein Märchen: »€ 5« 😀.\n" * 10


def prepare_text(directory, text, **dataset):
    """Prepare a text written to a file in `directory`; the dataset's directory."""
    corpus_file = directory / "text.txt"
    corpus_file.write_bytes(text.encode())
    made = directory / "dataset"
    prepare(corpus_file, Corpus(files=str(corpus_file)), Dataset(**dataset), made)
    return made


@pytest.fixture
def dataset(tmp_path):
    return prepare_text(tmp_path, TEXT)


# --- Files ----------------------------------------------------------------------------------


def test_a_dataset_is_four_files(dataset):
    names = {path.name for path in dataset.iterdir()}
    assert names == {"train.bin", "val.bin", "tokenizer.json", "meta.json"}


@pytest.mark.parametrize("val_ratio", [0.1, 0.2, 0.05, 0.5, 0.3])
@pytest.mark.parametrize("n_characters", [100, 101, 109, 997])
def test_the_tail_is_held_out_where_nanogpt_cuts(tmp_path, n_characters, val_ratio):
    text = ("0123456789" * 100)[:n_characters]
    files = load(prepare_text(tmp_path, text, val_ratio=val_ratio))
    cut = int(n_characters * (1 - val_ratio))
    assert files.tokenizer.decode(files.train) == text[:cut]
    assert files.tokenizer.decode(files.val) == text[cut:]


def test_token_files_are_little_endian_ids_that_numpy_maps_as_nanogpt_does(dataset):
    ids = np.memmap(dataset / "train.bin", dtype=np.uint16, mode="r")
    symbols = sorted(set(TEXT))
    train = TEXT[: int(len(TEXT) * 0.9)]
    assert ids.tolist() == [symbols.index(c) for c in train]
    expected = b"".join(symbols.index(c).to_bytes(2, "little") for c in train)
    assert (dataset / "train.bin").read_bytes() == expected


def test_many_symbols_are_four_little_endian_bytes_each(tmp_path):
    symbols = [chr(code) for code in range(0x10000, 0x10000 + 65_536)]
    made = prepare_text(tmp_path, "".join(symbols), val_ratio=0.5)
    assert json.loads((made / "meta.json").read_text())["dtype"] == "uint32"
    assert (made / "val.bin").read_bytes()[:4] == (32_768).to_bytes(4, "little")
    assert load(made).val[-1] == 65_535


def test_the_vocabulary_is_that_of_the_whole_text(tmp_path):
    made = prepare_text(tmp_path, "a" * 99 + "z")
    assert load(made).tokenizer.vocabulary == "az"


def test_meta_counts_characters_bytes_and_tokens_of_each_split(dataset):
    meta = json.loads((dataset / "meta.json").read_text(encoding="utf-8"))
    cut = int(len(TEXT) * 0.9)
    for split, part in (("train", TEXT[:cut]), ("val", TEXT[cut:])):
        assert meta[split]["n_characters"] == len(part)
        assert meta[split]["n_tokens"] == len(part)
        assert meta[split]["n_bytes"] == len(part.encode()) > len(part)
    assert meta["vocab_size"] == len(set(TEXT))
    assert meta["dtype"] == "uint16"
    assert meta["tokenizer"] == "char"


def test_meta_has_the_digests_of_the_files(dataset, tmp_path):
    meta = json.loads((dataset / "meta.json").read_text(encoding="utf-8"))

    def sha256(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert meta["corpus_sha256"] == sha256(tmp_path / "text.txt")
    assert meta["tokenizer_sha256"] == sha256(dataset / "tokenizer.json")
    assert meta["train"]["sha256"] == sha256(dataset / "train.bin")
    assert meta["val"]["sha256"] == sha256(dataset / "val.bin")


def test_meta_says_which_encoding_was_read(tmp_path):
    (tmp_path / "text.txt").write_bytes("naïve café\n".encode("latin-1") * 20)
    corpus = Corpus(files="text.txt", encoding="latin-1")
    prepare(tmp_path / "text.txt", corpus, Dataset(), tmp_path / "made")
    meta = load(tmp_path / "made").meta
    assert meta["encoding"].lower().replace("_", "-") in ("latin-1", "iso8859-1", "iso-8859-1")
    assert "ï" in load(tmp_path / "made").tokenizer.vocabulary


def test_the_same_text_gives_the_same_bytes(tmp_path):
    (tmp_path / "again").mkdir()
    one, two = prepare_text(tmp_path, TEXT), prepare_text(tmp_path / "again", TEXT)
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_meta_says_the_entropy_of_what_evaluation_predicts_of_a_builtin_corpus(tmp_path):
    corpus = Corpus(builtin="playwright", n_characters=5000, seed=7)
    text = playwright.write(5000, 7)
    (tmp_path / "input.txt").write_text(text)
    prepare(tmp_path / "input.txt", corpus, Dataset(), tmp_path / "made")
    # Bits of the whole text less those of what is known before the first prediction.
    known = text[: int(5000 * 0.9) + 1]
    bits = playwright.surprisal(text).sum() - playwright.surprisal(known).sum()
    found = load(tmp_path / "made").meta["source"]["val_bits_per_byte"]
    assert found == pytest.approx(bits / (5000 - len(known)), rel=1e-9)
    assert 0.1 < found < 5


def test_meta_claims_no_entropy_for_a_text_of_the_user(dataset):
    assert "source" not in load(dataset).meta


@pytest.mark.parametrize(
    ("text", "val_ratio", "named"),
    [("a", 0.1, "train"), ("ab" * 5, 0.1, "val"), ("ab" * 5, 0.9, "train"), ("abc", 0.5, "train")],
)
def test_a_text_too_short_to_split_is_named_and_nothing_is_written(
    tmp_path, text, val_ratio, named
):
    with pytest.raises(UserError, match=rf"text\.txt: .*too few.*{named} split") as error:
        prepare_text(tmp_path, text, val_ratio=val_ratio)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.glob("dataset/*"))


def test_an_empty_text_is_named(tmp_path):
    with pytest.raises(UserError, match=r"text\.txt"):
        prepare_text(tmp_path, "")


# --- Loading --------------------------------------------------------------------------------


def test_loading_maps_the_files_instead_of_reading_them(dataset):
    files = load(dataset)
    assert isinstance(files.train, np.memmap)
    assert isinstance(files.val, np.memmap)
    assert not files.train.flags.writeable


def test_where_there_is_no_dataset_the_directory_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no dataset here; meta\.json is missing"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "{", '{"dtype"', "\udcff", "{}", "[]", "3", "null"])
def test_a_damaged_meta_json_is_named(dataset, content):
    (dataset / "meta.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"meta\.json"):
        load(dataset)


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
@pytest.mark.parametrize("damage", ["absent", "empty", "one byte short", "one token more"])
def test_a_token_file_of_another_size_is_named(dataset, name, damage):
    path = dataset / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "absent":
        path.write_bytes(
            {"empty": b"", "one byte short": whole[:-1], "one token more": whole + b"\0\0"}[damage]
        )
    with pytest.raises(UserError, match=rf"{name}: .*{len(whole) // 2} tokens.*again") as error:
        load(dataset)
    assert len(str(error.value).splitlines()) == 1


def test_an_absent_tokenizer_is_named(dataset):
    (dataset / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        load(dataset)


def test_a_block_that_fits_no_split_is_refused(tmp_path):
    files = load(prepare_text(tmp_path, "ab" * 50))  # 90 and 10 tokens
    check_block_size(files, 9, "letters")
    with pytest.raises(UserError, match=r"letters: the val split has 10 tokens.*block_size 10"):
        check_block_size(files, 10, "letters")
    with pytest.raises(UserError, match=r"letters: the train split has 90 tokens.*block_size 90"):
        check_block_size(files, 90, "letters")


# --- Batches --------------------------------------------------------------------------------


@st.composite
def cuts(draw, max_tokens=200):
    """(tokens, block_size); each token is its own place, so that a window shows its start."""
    n_tokens = draw(st.integers(2, max_tokens))
    block_size = draw(st.integers(1, n_tokens - 1))
    return np.arange(n_tokens, dtype=np.uint16), block_size


def n_windows(tokens, block_size):
    """Windows of an epoch: what fits whatever the offset, but at least one."""
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
def test_a_batch_depends_on_the_step_and_on_no_batch_before(cut, n_rows, seed, steps):
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


def test_epochs_differ_in_offset_and_order():
    tokens = np.arange(1000, dtype=np.uint16)
    epochs = [epoch_starts(tokens, 10, 1337, epoch) for epoch in range(20)]
    offsets = {int(starts.min()) for starts in epochs}
    orders = {tuple(((starts - starts.min()) // 10).tolist()) for starts in epochs}
    assert len(offsets) > 5
    assert len(orders) == 20


def test_an_epochs_order_is_not_the_texts():
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


def test_a_batch_may_be_larger_than_an_epoch():
    rows = batch(np.arange(25, dtype=np.uint16), 10, 7, 1337, 3)  # an epoch is one window
    assert rows.shape == (7, 11)


def test_another_process_draws_the_same_batch():
    script = (
        "import numpy as np\n"
        "from nanogpt.dataset import batch\n"
        "print(batch(np.arange(1000, dtype=np.uint16), 10, 8, 1337, 40)[:, 0].tolist())\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    here = batch(np.arange(1000, dtype=np.uint16), 10, 8, 1337, 40)[:, 0]
    assert json.loads(there.stdout) == here.tolist()


def test_windows_hold_the_token_after_them():
    tokens = np.arange(100, 120, dtype=np.uint16)
    rows = windows(tokens, np.array([0, 16]), 3)
    assert rows.tolist() == [[100, 101, 102, 103], [116, 117, 118, 119]]
    assert rows.dtype == np.int64


# --- The real text --------------------------------------------------------------------------


@pytest.mark.mirror
@pytest.mark.skipif("NANOGPT_MIRROR" not in os.environ, reason="NANOGPT_MIRROR is not set")
def test_tiny_shakespeare_has_nanogpts_token_files(tmp_path):
    config = load_config(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")))
    corpus, dataset = config.corpora["shakespeare"], config.datasets["shakespeare_char"]
    corpus_file = tmp_path / corpus.file_name
    fetch(corpus.url, corpus_file, sha256=corpus.sha256, mirrors=mirrors([]))
    prepare(corpus_file, corpus, dataset, tmp_path / "made")
    files = load(tmp_path / "made")
    assert files.meta["vocab_size"] == files.tokenizer.vocab_size == 65
    assert len(files.train) == files.meta["train"]["n_tokens"] == 1_003_854
    assert len(files.val) == files.meta["val"]["n_tokens"] == 111_540
    text = corpus_file.read_bytes().decode("ascii")
    id_of = {symbol: number for number, symbol in enumerate(sorted(set(text)))}
    ids = np.array([id_of[c] for c in text], dtype="<u2").tobytes()
    assert (tmp_path / "made/train.bin").read_bytes() == ids[: 2 * 1_003_854]
    assert (tmp_path / "made/val.bin").read_bytes() == ids[2 * 1_003_854 :]
