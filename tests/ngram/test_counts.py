"""ngrams.safetensors is small and reproducible, and rejected if it's damaged."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nanogpt.config.schema import NgramSettings
from nanogpt.data.batches import load
from nanogpt.data.tokenizers import char_tokenizer
from nanogpt.errors import UserError
from nanogpt.ngram.counts import count, count_split, load_table, save_table, vocabulary_digest
from tests.ngram.examples import make_tokens, slow_counts


@pytest.fixture(scope="module")
def counted(play, tmp_path_factory):
    """The n-grams of a play of 50,000 characters."""
    path = tmp_path_factory.mktemp("model") / "ngrams.safetensors"
    count_split(play, NgramSettings(max_order=5), path)
    return path


def test_counts_are_occurrences_for_the_longest_and_predecessors_for_shorter_ones():
    train = make_tokens(300, 6, 2).tolist()
    table = count(np.array(train, dtype=np.uint16), 6, 3)
    start = 0
    for order, n in enumerate(table.n_entries.tolist(), start=1):
        expected = slow_counts(train, order, is_highest=order == 3)
        assert n == len(expected)
        assert table.tokens[start : start + n].tolist() == [gram[-1] for gram in sorted(expected)]
        of_order = [expected[gram] for gram in sorted(expected)]
        assert table.counts[start : start + n].tolist() == of_order
        start += n


def test_a_file_survives_a_round_trip(counted, play):
    table, header = load_table(counted)
    files = load(play)
    expected = count(files.train, files.tokenizer.vocab_size, 5)
    for name in ("n_entries", "tokens", "counts", "n_children"):
        assert np.array_equal(getattr(table, name), getattr(expected, name))
    assert header.n_tokens == len(files.train)
    assert header.train_sha256 == files.meta.train.sha256


def test_a_file_has_at_most_50_bytes_per_ngram(counted):
    table, _ = load_table(counted)
    assert counted.stat().st_size <= 50 * len(table.counts)


def test_the_same_text_gives_the_same_bytes(counted, play, tmp_path):
    count_split(play, NgramSettings(max_order=5), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == counted.read_bytes()


def test_a_large_split_is_counted_from_its_end_with_a_warning(play, tmp_path, caplog):
    count_split(play, NgramSettings(max_order=3, max_tokens=1000), tmp_path / "few")
    table, header = load_table(tmp_path / "few")
    assert header.n_tokens == 1000
    files = load(play)
    expected = count(files.train[-1000:], files.tokenizer.vocab_size, 3)
    assert np.array_equal(table.counts, expected.counts)
    assert "counting only the last 1,000 of the training split's 45,000 tokens" in caplog.text


def test_a_text_shorter_than_max_order_has_only_shorter_ngrams():
    assert count(np.array([1, 0], dtype=np.uint16), 2, 8).n_entries.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        ({"tokens": None}, "its tensors should be n_entries, tokens, counts, n_children"),
        ({"counts": np.ones(3, dtype=np.uint32)}, "n-grams are missing"),
        ({"n_children": np.ones(3, dtype=np.uint32)}, "contexts are missing"),
        (
            {"tokens": np.ones(3, dtype=np.int8)},
            "tokens should be a one-dimensional array of uint16",
        ),
        ({"n_entries": np.ones(9, dtype=np.int64)}, "it has 9 orders of n-grams, not 1 to 5"),
        ({"n_entries": np.zeros(0, dtype=np.int64)}, "it has 0 orders of n-grams, not 1 to 5"),
        ("zero count", "a token or a count is out of range"),
        ("large token", "a token or a count is out of range"),
        ("moved child", "n-grams don't match their contexts"),
        ("order", "n-grams aren't sorted"),
    ],
)
def test_a_damaged_file_is_a_one_line_error(counted, tmp_path, changes, flaw):
    arrays = {name: array.copy() for name, array in load_file(counted).items()}
    if changes == "zero count":
        arrays["counts"][5] = 0
    elif changes == "large token":
        arrays["tokens"][-1] = 60_000
    elif changes == "moved child":
        arrays["n_children"][0] -= 1
        arrays["n_children"][1] += 1
    elif changes == "order":
        arrays["tokens"][:2] = arrays["tokens"][1::-1]
    else:
        arrays |= changes
    _, header = load_table(counted)
    path = tmp_path / "ngrams.safetensors"
    metadata = {"ngrams": header.model_dump_json()}
    save_file({name: a for name, a in arrays.items() if a is not None}, path, metadata)
    with pytest.raises(UserError) as error:
        load_table(path)
    assert (
        str(error.value) == f"{path}: damaged ({flaw}); delete the file and run the workflow again"
    )


def test_vocabularies_of_the_same_size_are_distinguished():
    digests = {vocabulary_digest(char_tokenizer(letters)) for letters in ("abc", "abd", "ab")}
    assert len(digests) == 3
    assert vocabulary_digest(char_tokenizer("abc")) in digests


def test_a_file_is_written_atomically(tmp_path, counted):
    table, header = load_table(counted)
    save_table(tmp_path / "new/ngrams.safetensors", table, header)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ngrams.safetensors"]
