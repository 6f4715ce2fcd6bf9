"""Shared fixtures: a single thread, a small dataset and a small model."""

import os
import sys
from pathlib import Path

import pytest

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.schema import ModelSettings
from nanogpt.data import play as playwright
from nanogpt.data.preparing import prepare

# As published by OpenAI. tiktoken's version with possessive quantifiers matches the same.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


# The value that `let_threads_sleep` sets on a busy machine. Its check would take a third of a
# second in each command and each Snakemake process.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    # Two OpenMP threads on a busy machine wait for one another a hundred times longer than they
    # compute. A hook, because fixtures of the session would come before a fixture of a test.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def write_dataset(tmp_path_factory):
    """Return a function from a text to the directory of its dataset."""

    def write(text, *, builtin=False, val_ratio=0.1):
        root = tmp_path_factory.mktemp("corpus")
        (root / "input.txt").write_bytes(text.encode("utf-8"))
        corpus = Corpus(builtin="playwright") if builtin else Corpus(files=["input.txt"])
        prepare([root / "input.txt"], corpus, Dataset(val_ratio=val_ratio), root / "dataset")
        return root / "dataset"

    return write


@pytest.fixture(scope="session")
def play(write_dataset):
    """The directory of a dataset with 50,000 characters of the built-in corpus."""
    return write_dataset(playwright.write(50_000, seed=1), builtin=True)


@pytest.fixture(scope="session")
def tiny():
    """Settings of a model whose steps take milliseconds."""
    return ModelSettings(n_layer=2, n_head=2, n_embd=32, block_size=16, dropout=0.0)


@pytest.fixture
def plain_user():
    """Run a test as user `nobody` if it runs as root, since root can read everything."""
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
    """GPT-2's tokenizer made by tiktoken from GPT-2's two files. Needs the mirror."""
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    mirror = Path(os.environ["NANOGPT_MIRROR"])
    files = mirror / "openaipublic.blob.core.windows.net/gpt-2/encodings/main"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # read in place, without a cached copy
        ranks = data_gym_to_mergeable_bpe_ranks(
            str(files / "vocab.bpe"), str(files / "encoder.json")
        )
    return tiktoken.Encoding(
        "reference",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50256},
    )
