"""Fixtures: paths for files that tests write, and tokenizers of every kind."""

import pytest

from nanogpt.data.byte_pairs import gpt2_tokenizer, train_byte_pairs
from nanogpt.data.tokenizers import ByteTokenizer, CharTokenizer
from tests.data.hard_texts import EVERY_CHARACTER, GPT2_FILES, SMALL_TEXT
from tests.data.reading import write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.txt"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path that the examples of a property overwrite."""
    return tmp_path_factory.mktemp("scratch") / "a.txt"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty working directory that other users can enter."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def table(tmp_path):
    """A function that writes bytes or text to a file of that kind and returns its path."""
    return lambda suffix, data: write(tmp_path / f"a{suffix}", data)


@pytest.fixture(scope="module")
def pairs():
    """Byte pairs trained on a small text."""
    return train_byte_pairs([SMALL_TEXT], 350, 1)


@pytest.fixture(scope="module")
def gpt2():
    return gpt2_tokenizer(GPT2_FILES / "vocab.bpe")


@pytest.fixture(scope="module")
def of_kind(request):
    """A function that returns a tokenizer of a kind, which can encode every text."""
    made = {"char": CharTokenizer(EVERY_CHARACTER), "byte": ByteTokenizer()}
    return lambda kind: made[kind] if kind in made else request.getfixturevalue(kind)


@pytest.fixture(scope="module")
def given_file(tmp_path_factory):
    """A function that returns the file of a dataset's tokenizer, or None."""
    directory = tmp_path_factory.mktemp("gpt2")

    def given_to(tokenizer):
        if tokenizer != "gpt2":
            return None
        path = directory / "tokenizer.json"
        if not path.exists():
            gpt2_tokenizer(GPT2_FILES / "vocab.bpe").save(path)
        return path

    return given_to
