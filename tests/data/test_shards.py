"""A sharded dataset has the same tokens and batches as one with two token files."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.datasets import ShardMeta, SplitMeta
from nanogpt.artifacts.records.groups import GroupCounts, Plan
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data import shards
from nanogpt.data.batches import batch, load, start_tokens, windows
from nanogpt.data.joining import shard_digests
from nanogpt.data.pieces import Group
from nanogpt.data.preparing import encode
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.shards import ShardedTokens, read_unmapped
from nanogpt.errors import UserError
from nanogpt.files.atomic import sha256_file
from nanogpt.project import group_name, token_file
from tests.data.prepared import made_up, prepare_by_groups, write_texts

GROUPS = (3, 1, 6, 2)  # files per group


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The files of some groups."""
    paths = iter(write_texts(tmp_path_factory.mktemp("texts"), made_up(sum(GROUPS))))
    return [[next(paths) for _ in range(n)] for n in GROUPS]


@pytest.fixture(scope="module", params=["position", "document", "last_file"])
def both(request, texts, tmp_path_factory):
    """The directories of the same dataset, joined and sharded."""
    places = [tmp_path_factory.mktemp(name) for name in ("joined", "sharded")]
    options = {"split": request.param, "val_ratio": 0.3, "tokenizer": "byte"}
    return [
        prepare_by_groups(texts, place, sharded=place is places[1], **options) for place in places
    ]


@pytest.fixture(scope="module")
def sharded(texts, tmp_path_factory):
    return prepare_by_groups(texts, tmp_path_factory.mktemp("made"), sharded=True)


def write_shards(directory, lengths, vocab_size=1000):
    """Write tokens to shards of these lengths; return all tokens, and the shards as one."""
    tokens = np.random.default_rng(0).integers(vocab_size, size=sum(lengths), dtype=np.uint16)
    parts = np.split(tokens, np.cumsum(lengths)[:-1])
    for number, part in enumerate(parts):
        part.tofile(directory / token_file("train", number))
    return tokens, open_shards(directory, lengths, vocab_size)


def open_shards(directory, lengths, vocab_size=1000):
    metas = tuple(ShardMeta(n_tokens=length, sha256="") for length in lengths)
    meta = SplitMeta(
        **dict.fromkeys(("n_tokens", "n_characters", "n_bytes", "n_documents"), sum(lengths)),
        sha256="",
        shards=metas,
    )
    return ShardedTokens(directory, "train", meta, np.dtype(np.uint16), vocab_size)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("shards")


# --- Reading --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(lambda x: sum(x) > 9),
    start=st.integers(-3, 60),
    stop=st.integers(-3, 60) | st.none(),
    most_mapped=st.integers(1, 3),
)
def test_a_slice_of_shards_is_that_of_all_tokens(directory, lengths, start, stop, most_mapped):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MOST_MAPPED", most_mapped)
        whole, split = write_shards(directory, lengths)
    assert len(split) == len(whole)
    part = split[start:stop]
    assert part.dtype == whole.dtype
    assert part.tolist() == whole[start:stop].tolist()
    if start >= 0 and stop is not None and stop >= 0:
        assert read_unmapped(split, start, stop).tolist() == part.tolist()
    starts = np.arange(len(whole) - 8)  # windows that straddle no, one or several borders
    assert windows(split, starts, 7).tolist() == windows(whole, starts, 7).tolist()
    for step in range(4):
        drawn = batch(split, 4, 3, 1337, step)
        assert drawn.dtype == np.int64
        assert drawn.tolist() == batch(whole, 4, 3, 1337, step).tolist()


def test_a_rank_reads_only_its_rows(directory, monkeypatch):
    whole, split = write_shards(directory, [40, 40])
    read = []
    monkeypatch.setattr(ShardedTokens, "_join", lambda _, parts: read.extend(parts) or whole[:5])
    assert batch(split, 4, 6, 1337, 0, slice(1, None, 3)).shape == (2, 5)
    assert len({path for path, _ in read}) <= 2
    assert sum(len(tokens) for _, tokens in read) == 2 * 5
    monkeypatch.undo()
    rows = batch(whole, 4, 6, 1337, 0)
    assert batch(split, 4, 6, 1337, 0, slice(1, None, 3)).tolist() == rows[1::3].tolist()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists a process's memory maps")
def test_a_shard_is_mapped_when_it_is_first_read(tmp_path):
    _, split = write_shards(tmp_path, [100, 100, 100])

    def mapped():
        maps = Path("/proc/self/maps").read_text()
        return [n for n in range(3) if str(tmp_path / token_file("train", n)) in maps]

    assert mapped() == []
    split[110:150]
    assert mapped() == [1]
    read_unmapped(split, 0, 50)
    assert mapped() == [1]


def test_another_vocabulary_is_noticed_when_a_shard_is_read(tmp_path):
    write_shards(tmp_path, [100, 100])
    np.full(100, 7777, np.uint16).tofile(tmp_path / "train.001.bin")
    split = open_shards(tmp_path, [100, 100])
    assert len(split[:100]) == 100
    wrong = r"train\.001\.bin: token id 7777 is outside the vocabulary of 1,000 tokens; delete .*"
    for read in (lambda: split[90:110], lambda: read_unmapped(split, 90, 110)):
        with pytest.raises(UserError, match=wrong + r"meta\.json and run the workflow again"):
            read()


@pytest.mark.parametrize(
    ("damage", "flaw"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), "has .* bytes, but should have"),
    ],
    ids=["missing", "truncated"],
)
def test_a_damaged_shard_is_named_when_a_dataset_is_opened(texts, tmp_path, damage, flaw):
    made = prepare_by_groups(texts, tmp_path, sharded=True)
    damage(made / "train.001.bin")
    with pytest.raises(UserError, match=rf"train\.001\.bin: {flaw}.*; delete .*meta\.json and run"):
        load(made)


def test_an_edited_shard_is_refused_and_a_touched_one_is_not(texts, tmp_path, caplog):
    made = prepare_by_groups(texts, tmp_path, sharded=True)
    shard = made / "train.001.bin"
    later = (made / "meta.json").stat().st_mtime_ns + 1
    os.utime(shard, ns=(later, later))
    with caplog.at_level("INFO"):
        load(made)
    assert "computing the digests of 1 shard newer than meta.json" in caplog.text
    tokens = np.fromfile(shard, np.uint16)
    tokens[-1] = 1 - tokens[-1] % 2
    tokens.tofile(shard)
    os.utime(shard, ns=(later, later))
    wrong = r"train\.001\.bin: edited after meta\.json was written; delete .*meta\.json and run"
    with pytest.raises(UserError, match=wrong):
        load(made)


@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_a_shard_that_changes_after_a_dataset_is_opened_is_refused(tmp_path, change):
    _, split = write_shards(tmp_path, [100, 100, 100])
    assert len(split[:50]) == 50
    for number in (0, 1):
        path = tmp_path / token_file("train", number)
        path.unlink()
        if change == "replaced":
            np.zeros(100, np.uint16).tofile(path)
            os.utime(path, (1, 1))
    assert len(split[:50]) == 50, "the file that was mapped is still there"
    wrong = r"train\.001\.bin: changed or removed while it was in use; run the workflow again"
    for read in (lambda: split[90:110], lambda: read_unmapped(split, 110, 120)):
        with pytest.raises(UserError, match=wrong):
            read()


# --- Preparing ------------------------------------------------------------------------------


def test_shards_have_the_bytes_of_the_joined_files(both):
    joined, sharded = both
    for split in ("train", "val"):
        parts = [sharded / token_file(split, number) for number in range(len(GROUPS))]
        assert b"".join(map(Path.read_bytes, parts)) == (joined / f"{split}.bin").read_bytes()
        assert not (sharded / f"{split}.bin").exists()
    one, other = load(joined), load(sharded)
    assert one.val[:].tolist() == other.val[:].tolist()
    assert start_tokens(one) == start_tokens(other)
    for step in range(20):
        arguments = (8, 5, 1337, step)
        assert batch(one.train, *arguments).tolist() == batch(other.train, *arguments).tolist()


def test_meta_json_lists_all_shards(sharded):
    meta = load(sharded).meta
    for split, of_split in (("train", meta.train), ("val", meta.val)):
        files = [sharded / token_file(split, number) for number in range(len(GROUPS))]
        assert [shard.sha256 for shard in of_split.shards] == list(map(sha256_file, files))
        lengths = [shard.n_tokens for shard in of_split.shards]
        assert [2 * length for length in lengths] == [file.stat().st_size for file in files]
        assert sum(lengths) == of_split.n_tokens
    digests = shard_digests(sharded)
    assert len(digests) == 2 * len(GROUPS)
    assert all(sha256_file(Path(path)) == digest for path, digest in digests.items())


def test_token_files_of_an_earlier_layout_are_removed(texts, tmp_path):
    def names(made):
        return sorted(path.name for path in made.glob("*.bin"))

    made = prepare_by_groups(texts, tmp_path)
    (made / "train.notes.bin").touch()
    prepare_by_groups(texts, tmp_path, sharded=True)
    notes, numbers = ["train.notes.bin"], range(len(GROUPS))
    of_shards = [token_file(split, n) for split in ("train", "val") for n in numbers]
    assert names(made) == sorted(notes + of_shards)
    prepare_by_groups(texts[:2], tmp_path, sharded=True)
    assert names(made) == sorted(notes + [f for f in of_shards if f[-7:-4] in ("000", "001")])
    prepare_by_groups(texts, tmp_path)
    assert names(made) == sorted([*notes, "train.bin", "val.bin"])


def test_while_shards_are_made_again_the_dataset_cant_be_read(texts, tmp_path):
    directory = prepare_by_groups(texts, tmp_path, sharded=True)
    jobs = tmp_path / "groups"
    corpus = Corpus(files=[str(path) for group in texts for path in group])
    counts = read_record(jobs / group_name(1) / "counts.json", GroupCounts)
    group = Group(counts, read_record(jobs / "plan.json", Plan), 1, corpus, Dataset(), None)
    encode(group, load_tokenizer(jobs / "tokenizer.json"), directory, shard=1)
    with pytest.raises(UserError, match=r"meta\.json"):
        load(directory)
