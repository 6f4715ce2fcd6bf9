"""Splits and tokens of documents don't depend on groups, pieces or threads."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.data import encodings, pieces, streams
from nanogpt.data.batches import load
from nanogpt.data.byte_pairs import train_byte_pairs
from nanogpt.data.pieces import Piece
from nanogpt.data.pieces import recut as recut_pieces
from nanogpt.data.tokenizers import char_tokenizer
from nanogpt.errors import UserError
from tests.data.hard_texts import ALL_KINDS, HARD, gpt2_only, joined, needs_gpt2
from tests.data.prepared import (
    FRENCH,
    JAPANESE,
    TEXT,
    TOKENIZERS,
    contents,
    documents,
    made_up,
    numbered,
    prepare_by_groups,
    prepare_files,
    prepare_text,
    tokens_of,
    write_rows,
    write_texts,
)

ROOT = Path(__file__).resolve().parents[2]


# --- Many documents -------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
@pytest.mark.parametrize("separator", ["\n", "", "\n-- é --\n"])
def test_characters_and_bytes_have_the_separator_after_each_document(
    tmp_path, tokenizer, separator
):
    paths = write_texts(tmp_path / "texts", ["one", "two, ", "three"])
    options = {"tokenizer": tokenizer, "separator": separator, "val_ratio": 0.3}
    files = load(prepare_files(paths, tmp_path / "made", **options))
    assert files.tokenizer.decode(files.train) == f"one{separator}two, {separator}t"
    assert files.tokenizer.decode(files.val) == f"hree{separator}"


@pytest.mark.parametrize("tokenizer", ["bpe", pytest.param("gpt2", marks=gpt2_only)])
def test_byte_pairs_have_the_end_of_a_text_after_each_document(tmp_path, tokenizer, given_file):
    texts = ["one two", "three<|endoftext|>", "four five six"]
    paths = write_texts(tmp_path / "texts", texts)
    options = {"tokenizer": tokenizer, "val_ratio": 0.45, "given": given_file(tokenizer)}
    files = load(prepare_files(paths, tmp_path / "made", **options))
    end = files.tokenizer.vocab_size - 1
    tokens = [*files.train.tolist(), *files.val.tolist()]
    ends = [place for place, token in enumerate(tokens) if token == end]
    found = [
        files.tokenizer.decode(tokens[start + 1 : place])
        for start, place in zip([-1, *ends], ends, strict=False)
    ]
    assert found == texts
    assert tokens[-1] == end


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_single_document_has_nothing_after_it(tmp_path, tokenizer, kind, given_file):
    path = tmp_path / f"one.{kind}"
    path.write_text(TEXT if kind == "txt" else json.dumps({"text": TEXT}), encoding="utf-8")
    options = {"tokenizer": tokenizer, "separator": "#", "given": given_file(tokenizer)}
    files = load(prepare_files([path], tmp_path / "made", **options))
    whole = files.tokenizer.decode(files.train) + files.tokenizer.decode(files.val)
    assert whole == TEXT
    assert files.meta.train.n_documents + files.meta.val.n_documents == 1


def test_the_separator_is_in_the_vocabulary_only_where_there_are_several_documents(tmp_path):
    paths = write_texts(tmp_path / "texts", ["ab" * 20, "bc" * 20])
    several = load(prepare_files(paths, tmp_path / "several", separator="#"))
    assert several.tokenizer == char_tokenizer("abc#")
    one = load(prepare_files(paths[:1], tmp_path / "one", separator="#"))
    assert one.tokenizer == char_tokenizer("ab")


@pytest.mark.parametrize(
    ("texts", "val_ratio"),
    [
        (["0123456789"] * 7, 0.1),
        (["0123456789"] * 10, 0.3),  # between two documents
        (["abc", "d" * 200, "e"], 0.5),
        (["é", "😀😀", "漢字" * 50, "x"], 0.25),
        (["a", "b", "c", "d", "e", "f"], 0.4),
    ],
)
@pytest.mark.parametrize("group_size", [1, 2, 100])
@pytest.mark.parametrize("piece", [3, 1 << 18])
def test_a_split_by_position_cuts_at_one_character_across_files_and_groups(
    tmp_path, monkeypatch, texts, val_ratio, group_size, piece
):
    monkeypatch.setattr(encodings, "PIECE", piece)
    paths = write_texts(tmp_path / "texts", texts)
    groups = [paths[start : start + group_size] for start in range(0, len(paths), group_size)]
    files = load(prepare_by_groups(groups, tmp_path, val_ratio=val_ratio, separator="\x1e"))
    train, val = files.tokenizer.decode(files.train), files.tokenizer.decode(files.val)
    whole = "".join(texts)
    cut = int(len(whole) * (1 - val_ratio))
    assert train.replace("\x1e", "") == whole[:cut]
    assert val.replace("\x1e", "") == whole[cut:]
    # A document that ends at the cut includes its separator.
    assert train + val == "".join(f"{text}\x1e" for text in texts)
    assert not val.startswith("\x1e")
    assert files.meta.train.n_characters == cut
    assert files.meta.val.n_characters == len(whole) - cut


@pytest.mark.parametrize(("n_documents", "split"), [(99, "position"), (100, "document")])
def test_auto_splits_by_document_for_a_hundred_documents_or_more(tmp_path, n_documents, split):
    texts = made_up(n_documents)
    paths = write_texts(tmp_path / "texts", texts)
    auto = prepare_files(paths, tmp_path / "auto")
    assert load(auto).meta.split == split
    assert contents(auto) == contents(prepare_files(paths, tmp_path / "named", split=split))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert tokens_of(prepare_files([rows], tmp_path / "rows")) == tokens_of(auto)


def test_a_split_by_document_keeps_documents_whole_and_in_order(tmp_path):
    texts = made_up(200)
    paths = write_texts(tmp_path / "texts", texts)
    made = prepare_files(paths, tmp_path / "made", split="document", separator="\x1e")
    train, val = documents(made, "train"), documents(made, "val")
    assert sorted(train + val) == sorted(texts)
    assert train == [text for text in texts if text in set(train)]
    assert val == [text for text in texts if text in set(val)]
    assert load(made).meta.train.n_documents == len(train)
    assert load(made).meta.val.n_documents == len(val) > 0


def test_adding_documents_moves_none_to_the_other_split(tmp_path):
    texts = made_up(300)
    paths = write_texts(tmp_path / "texts", texts)
    options = {"split": "document", "separator": "\x1e"}
    few = prepare_files(paths[100:200], tmp_path / "few", **options)
    more = prepare_files(paths[::-1], tmp_path / "more", **options)
    for split in ("train", "val"):
        assert set(documents(few, split)) <= set(documents(more, split))


def test_copies_of_a_document_are_in_the_same_split(tmp_path):
    texts = made_up(100)
    paths = write_texts(tmp_path / "texts", texts * 2)
    made = prepare_files(paths, tmp_path / "made", split="document", separator="\x1e")
    assert not set(documents(made, "train")) & set(documents(made, "val"))


@pytest.mark.parametrize("val_ratio", [0.02, 0.1, 0.5])
def test_the_share_of_validation_documents_is_near_val_ratio(tmp_path, val_ratio):
    texts = made_up(3000)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    meta = load(prepare_files([path], tmp_path / "made", val_ratio=val_ratio)).meta
    assert meta.train.n_documents + meta.val.n_documents == 3000
    deviation = math.sqrt(3000 * val_ratio * (1 - val_ratio))
    assert abs(meta.val.n_documents - 3000 * val_ratio) < 4 * deviation


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("split", ["document", "position"])
def test_documents_give_the_same_tokens_in_any_format(tmp_path, tokenizer, split, given_file):
    texts = made_up(150)
    options = {"tokenizer": tokenizer, "vocab_size": 300, "split": split}
    options["given"] = given_file(tokenizer)
    wanted = prepare_files(write_texts(tmp_path / "texts", texts), tmp_path / "wanted", **options)
    in_utf_16 = write_texts(tmp_path / "utf16", texts, "utf-16")
    made = {"utf-16": prepare_files(in_utf_16, tmp_path / "in_utf_16", **options)}
    for name in ("rows.jsonl", "rows.jsonl.gz", "rows.parquet", "rows.csv"):
        write_rows(tmp_path / name, texts)
        made[name] = prepare_files([tmp_path / name], tmp_path / f"of_{name}", **options)
    for name, directory in made.items():
        assert tokens_of(directory) == tokens_of(wanted), name
        assert contents(directory)["tokenizer.json"] == contents(wanted)["tokenizer.json"], name


def test_a_table_of_one_row_is_in_the_split_of_the_same_text_as_a_file(tmp_path):
    # For a file with one document, the hash comes from the first pass.
    texts = made_up(120)
    rows = []
    for number, text in enumerate(texts):
        rows.append(tmp_path / f"{number}.jsonl")
        write_rows(rows[-1], [text])
    wanted = prepare_files(write_texts(tmp_path / "texts", texts), tmp_path / "wanted")
    assert load(wanted).meta.split == "document"
    assert tokens_of(prepare_files(rows, tmp_path / "rows")) == tokens_of(wanted)


@pytest.mark.mirror
@needs_gpt2
def test_parquet_files_of_web_pages_become_gpt2_tokens(tmp_path, given_file, reference):
    texts = made_up(9000, seed=1)
    paths = [tmp_path / f"train-{number:05d}.parquet" for number in range(3)]
    for number, path in enumerate(paths):
        write_rows(path, texts[3000 * number : 3000 * (number + 1)])
    options = {"tokenizer": "gpt2", "val_ratio": 0.0005, "split": "document", "threads": 2}
    files = load(prepare_files(paths, tmp_path / "made", given_file("gpt2"), **options))
    assert files.train.dtype == np.uint16
    assert 1 <= files.meta.val.n_documents <= 14
    assert files.meta.train.n_documents + files.meta.val.n_documents == 9000

    def split_up(tokens):
        ends = np.flatnonzero(tokens == 50256)
        assert ends[-1] == len(tokens) - 1
        return [part.tolist()[:-1] for part in np.split(tokens, ends + 1)[:-1]]

    encoded = [reference.encode_ordinary(text) for text in texts]
    held_out = split_up(files.val)
    assert held_out == [tokens for tokens in encoded if tokens in held_out]
    assert split_up(files.train) == [tokens for tokens in encoded if tokens not in held_out]


# --- Pieces, groups and threads -------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_pieces_cut_anywhere_have_the_tokens_of_the_whole(of_kind, kind):
    tokenizer = of_kind(kind)

    @settings(deadline=None)
    @given(HARD, st.lists(st.integers(0, 200)))
    def check(text, places):
        places = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
        pieces = [
            Piece("train", text[start:end], False, "a.txt")
            for start, end in itertools.pairwise(places)
        ]
        recut = list(recut_pieces([*pieces, Piece("train", "", True, "a.txt")], tokenizer.cut))
        assert "".join(piece.text for piece in recut) == text
        assert [piece.ends_document for piece in recut] == [False] * (len(recut) - 1) + [True]
        parts = [piece.text for piece in recut]
        assert joined(tokenizer, parts) == tokenizer.encode(text).tolist()

    check()


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("piece", [1, 7, 100])
def test_the_sizes_of_pieces_and_batches_change_no_byte(
    tmp_path, monkeypatch, tokenizer, piece, given_file
):
    text = numbered(FRENCH + JAPANESE, 3) + "   \n\n\t\t end's  \u3000\u3000 \r\n\r\n  "
    paths = write_texts(tmp_path / "texts", [text, "second, ", "third  \n"])
    options = {"tokenizer": tokenizer, "vocab_size": 300, "given": given_file(tokenizer)}
    wanted = contents(prepare_files(paths, tmp_path / "wanted", **options))
    monkeypatch.setattr(encodings, "PIECE", piece)
    monkeypatch.setattr(streams, "BATCH", 2 * piece)
    assert contents(prepare_files(paths, tmp_path / "made", threads=2, **options)) == wanted


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff\x1e")).map(
            lambda text: f"{text} long enough ,。"
        ),
        min_size=2,
        max_size=6,
    ),
    st.integers(1, 9),
    st.floats(0.1, 0.9),
    st.sampled_from(["byte", "char"]),
)
def test_any_texts_survive_any_size_of_pieces(tmp_path_factory, texts, piece, val_ratio, tokenizer):
    root = tmp_path_factory.mktemp("any")
    paths = write_texts(root / "texts", texts)
    options = {"tokenizer": tokenizer, "val_ratio": val_ratio, "separator": "\x1e"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "PIECE", piece)
        patch.setattr(streams, "BATCH", piece)
        files = load(prepare_files(paths, root / "made", **options))
    data = files.tokenizer.to_bytes(files.train) + files.tokenizer.to_bytes(files.val)
    assert data.decode() == "".join(f"{text}\x1e" for text in texts)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("split", ["document", "position"])
def test_the_bytes_do_not_depend_on_groups_or_threads(tmp_path, tokenizer, split, given_file):
    texts = made_up(60)
    paths = write_texts(tmp_path / "texts", texts[:9])
    for number in range(3):
        paths.append(tmp_path / f"rows{number}.jsonl")
        write_rows(paths[-1], texts[9 + 17 * number : 26 + 17 * number])
    given = given_file(tokenizer)
    options = {"tokenizer": tokenizer, "vocab_size": 300, "split": split, "val_ratio": 0.3}
    wanted = contents(prepare_files(paths, tmp_path / "wanted", given, **options))
    for threads in (2, 4):
        made = prepare_files(paths, tmp_path / f"threads{threads}", given, threads, **options)
        assert contents(made) == wanted
    groupings = {
        "one": [paths],
        "halves": [paths[:6], paths[6:]],
        "uneven": [paths[:1], paths[1:8], paths[8:10], paths[10:]],
        "each": [[path] for path in paths],
    }
    for name, groups in groupings.items():
        made = prepare_by_groups(groups, tmp_path / name, given, threads=2, **options)
        assert contents(made) == wanted, name


def test_byte_pairs_are_the_same_with_any_number_of_threads(tmp_path):
    # In separate processes, because the training library starts its threads only once.
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from nanogpt.config.corpora import Corpus, Dataset\n"
        "from nanogpt.data.preparing import prepare\n"
        "path, directory, threads = sys.argv[1:]\n"
        "dataset = Dataset(tokenizer='bpe', vocab_size=500)\n"
        "corpus = Corpus(files=[path])\n"
        "prepare([Path(path)], corpus, dataset, Path(directory), threads=int(threads))\n"
    )
    write_rows(tmp_path / "rows.jsonl", made_up(2000))
    for threads in ("1", "2", "4"):
        subprocess.run(
            [sys.executable, "-c", script, tmp_path / "rows.jsonl", tmp_path / threads, threads],
            cwd=ROOT,
            check=True,
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "4")


# --- Places to cut --------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
def test_byte_pairs_reject_a_long_text_without_spaces(tmp_path, monkeypatch, split):
    monkeypatch.setattr(encodings, "PIECE", 50)
    monkeypatch.setattr(pieces, "LONGEST_UNCUT", 100)
    words, letters = "some words " * 100, "x" * 160
    text = letters + words * 20 if split == "train" else words * 20 + letters
    message = r"without a space: .* from '.*xxxx.*'.* on; add line breaks, or .*`tokenizer: char`"
    with pytest.raises(UserError, match=message) as error:
        prepare_text(tmp_path, text, tokenizer="bpe")
    assert len(str(error.value).splitlines()) == 1
    assert "text.txt" in str(error.value)
    train_byte_pairs(["some words"], 300, 1).save(tmp_path / "given.json")
    with pytest.raises(UserError, match=message):
        prepare_text(tmp_path, text, tokenizer="other", given=tmp_path / "given.json")
    assert not list((tmp_path / "dataset").glob("*"))


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
def test_characters_and_bytes_need_no_spaces(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(pieces, "LONGEST_UNCUT", 100)
    files = load(prepare_text(tmp_path, "x" * 5000, tokenizer=tokenizer))
    assert len(files.train) == 4500


@pytest.mark.parametrize("text", ["雨が降る。風が吹く、" * 200, "a b" * 700, "line\n" * 500])
def test_sentences_words_and_lines_can_be_cut(tmp_path, monkeypatch, text):
    monkeypatch.setattr(encodings, "PIECE", 50)
    monkeypatch.setattr(pieces, "LONGEST_UNCUT", 200)
    files = load(prepare_text(tmp_path, text, tokenizer="bpe"))
    assert files.tokenizer.decode(files.train) == text[: int(len(text) * 0.9)]
