"""What the tests share: one thread, a small play as a dataset, and a small model."""

import os
import sys
from pathlib import Path

import pytest

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.schema import ModelSettings
from nanogpt.data import play as playwright
from nanogpt.data.preparing import prepare

# As OpenAI published it; possessive quantifiers, which tiktoken uses, change no match.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


# What `let_threads_sleep` sets beside others. It would look for them for a third of a second, in
# each command and each call of Snakemake.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    # Two OpenMP threads on a busy machine wait for one another a hundred times longer than they
    # compute. A hook, because fixtures of the session would come before a fixture of a test.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def write_dataset(tmp_path_factory):
    """A function: text in, directory of its dataset out."""

    def write(text, *, builtin=False, val_ratio=0.1):
        root = tmp_path_factory.mktemp("corpus")
        (root / "input.txt").write_bytes(text.encode("utf-8"))
        corpus = Corpus(builtin="playwright") if builtin else Corpus(files=["input.txt"])
        prepare([root / "input.txt"], corpus, Dataset(val_ratio=val_ratio), root / "dataset")
        return root / "dataset"

    return write


@pytest.fixture(scope="session")
def play(write_dataset):
    """The directory of a dataset of 50,000 characters of the built-in play."""
    return write_dataset(playwright.write(50_000, seed=1), builtin=True)


@pytest.fixture(scope="session")
def tiny():
    """Settings of a model that takes milliseconds a step."""
    return ModelSettings(n_layer=2, n_head=2, n_embd=32, block_size=16, dropout=0.0)


@pytest.fixture
def plain_user():
    """Nobody's rights for the time of a test, if it runs as root, who may read everything."""
    if not hasattr(os, "geteuid"):
        pytest.skip("there are no users here")
    user = os.geteuid()
    if user == 0:
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("root may not become another user here")
    yield
    os.seteuid(user)


@pytest.fixture(scope="session")
def reference():
    """GPT-2's tokenizer as tiktoken makes it, from both of GPT-2's files; needs the mirror."""
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    mirror = Path(os.environ["NANOGPT_MIRROR"])
    files = mirror / "openaipublic.blob.core.windows.net/gpt-2/encodings/main"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # read where they lie, no copy kept
        ranks = data_gym_to_mergeable_bpe_ranks(
            str(files / "vocab.bpe"), str(files / "encoder.json")
        )
    return tiktoken.Encoding(
        "reference",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50256},
    )
