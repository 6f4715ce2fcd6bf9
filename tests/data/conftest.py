"""Places for files that tests of reading write, and tokenizers of every kind."""

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
    """A path that the examples of a property overwrite one after the other."""
    return tmp_path_factory.mktemp("scratch") / "a.txt"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty directory that is the current one, and that other users may enter."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def table(tmp_path):
    """A function: bytes or text in, path of a file of that kind out."""
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
    """A function: name of a kind in, tokenizer that knows every text out."""
    made = {"char": CharTokenizer(EVERY_CHARACTER), "byte": ByteTokenizer()}
    return lambda kind: made[kind] if kind in made else request.getfixturevalue(kind)


@pytest.fixture(scope="module")
def given_file(tmp_path_factory):
    """A function: a dataset's tokenizer in, the file that it is taken from out, if there is one."""
    directory = tmp_path_factory.mktemp("gpt2")

    def given_to(tokenizer):
        if tokenizer != "gpt2":
            return None
        path = directory / "tokenizer.json"
        if not path.exists():
            gpt2_tokenizer(GPT2_FILES / "vocab.bpe").save(path)
        return path

    return given_to
