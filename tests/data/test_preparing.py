"""A corpus becomes token files and meta.json, and errors are named."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import yaml

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.loading import load as load_config
from nanogpt.data import encodings, pieces, play, streams
from nanogpt.data.batches import load
from nanogpt.data.byte_pairs import train_byte_pairs
from nanogpt.data.preparing import prepare
from nanogpt.data.tokenizers import ByteTokenizer, char_tokenizer
from nanogpt.errors import UserError
from tests.data.hard_texts import needs_gpt2
from tests.data.prepared import (
    ENCODED,
    FRENCH,
    JAPANESE,
    PLAY_FILE,
    RUSSIAN,
    TEXT,
    TOKENIZERS,
    contents,
    made_up,
    needs_play,
    numbered,
    prepare_by_groups,
    prepare_files,
    prepare_text,
    tokens_of,
    write_rows,
    write_texts,
)

ROOT = Path(__file__).resolve().parents[2]


# --- Files ----------------------------------------------------------------------------------


def test_a_dataset_is_four_files(tmp_path):
    made = prepare_text(tmp_path, TEXT)
    assert set(contents(made)) == {"train.bin", "val.bin", "tokenizer.json", "meta.json"}


@pytest.mark.parametrize("val_ratio", [0.1, 0.2, 0.05, 0.5, 0.3])
@pytest.mark.parametrize("n_characters", [100, 101, 109, 997])
def test_the_validation_split_starts_where_nanogpts_does(tmp_path, n_characters, val_ratio):
    text = ("0123456789" * 100)[:n_characters]
    files = load(prepare_text(tmp_path, text, val_ratio=val_ratio))
    cut = int(n_characters * (1 - val_ratio))
    assert files.tokenizer.decode(files.train) == text[:cut]
    assert files.tokenizer.decode(files.val) == text[cut:]


def test_token_files_are_little_endian_ids_that_numpy_reads_as_nanogpt_does(tmp_path):
    made = prepare_text(tmp_path, TEXT)
    symbols = sorted(set(TEXT))
    train = TEXT[: int(len(TEXT) * 0.9)]
    wanted = [symbols.index(c) for c in train]
    assert np.fromfile(made / "train.bin", dtype=np.uint16).tolist() == wanted
    assert np.memmap(made / "train.bin", dtype=np.uint16, mode="r").tolist() == wanted
    assert (made / "train.bin").read_bytes() == b"".join(i.to_bytes(2, "little") for i in wanted)


def test_many_symbols_are_four_little_endian_bytes_each(tmp_path):
    symbols = [chr(code) for code in range(0x10000, 0x10000 + 65_536)]
    made = prepare_text(tmp_path, "".join(symbols), val_ratio=0.5)
    assert json.loads((made / "meta.json").read_text())["dtype"] == "uint32"
    assert (made / "val.bin").read_bytes()[:4] == (32_768).to_bytes(4, "little")
    assert load(made).val[-1] == 65_535


def test_the_vocabulary_covers_the_whole_text(tmp_path):
    made = prepare_text(tmp_path, "a" * 99 + "z")
    assert load(made).tokenizer == char_tokenizer("az")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_each_tokenizer_decodes_to_the_splits(tmp_path, tokenizer, given_file):
    text = numbered(FRENCH + JAPANESE)
    made = prepare_text(
        tmp_path, text, tokenizer=tokenizer, vocab_size=400, given=given_file(tokenizer)
    )
    files = load(made)
    cut = int(len(text) * 0.9)
    assert files.tokenizer.decode(files.train) == text[:cut]
    assert files.tokenizer.decode(files.val) == text[cut:]
    assert files.meta.vocab_size == files.tokenizer.vocab_size
    kinds = {"char": len(set(text)), "byte": 256, "bpe": 400, "gpt2": 50257}
    assert files.tokenizer.vocab_size == kinds[tokenizer]


def test_byte_pairs_are_trained_on_the_training_split_only(tmp_path):
    text = "abab " * 180 + "cdcd " * 20
    tokens = load(prepare_text(tmp_path, text, tokenizer="bpe")).tokenizer.tokens
    assert b"abab" in tokens
    assert not any(b"cd" in token for token in tokens)


def test_byte_pairs_from_pieces_equal_those_from_the_whole_split(tmp_path, monkeypatch):
    text = numbered(FRENCH + JAPANESE)
    wanted = train_byte_pairs([text[: int(len(text) * 0.9)]], 400, 1)
    assert wanted.vocab_size == 400
    monkeypatch.setattr(encodings, "PIECE", 100)
    made = prepare_text(tmp_path, text, tokenizer="bpe", vocab_size=400)
    assert load(made).tokenizer == wanted


def test_fewer_byte_pairs_than_requested_are_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "nanogpt"):
        made = prepare_text(tmp_path, "abab " * 50, tokenizer="bpe", vocab_size=5000)
    size = load(made).tokenizer.vocab_size
    assert 257 < size < 300
    assert f"byte pairs for only {size} tokens, fewer than vocab_size 5000" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "nanogpt"):
        prepare_text(tmp_path, numbered(FRENCH), tokenizer="bpe", vocab_size=300)
    assert caplog.text == ""


def test_the_builtin_plays_entropy_covers_the_predicted_tokens(tmp_path):
    corpus = Corpus(builtin="play", n_characters=5000, seed=7)
    text = play.write(5000, 7)
    (tmp_path / "input.txt").write_text(text)
    prepare([tmp_path / "input.txt"], corpus, Dataset(), tmp_path / "made")
    # The bits of the whole text minus those known before the first prediction.
    known = text[: int(5000 * 0.9) + 1]
    bits = play.surprisal(text).sum() - play.surprisal(known).sum()
    found = load(tmp_path / "made").meta.source.val_bits_per_byte
    assert found == pytest.approx(bits / (5000 - len(known)), rel=1e-9)
    assert 0.1 < found < 5


def test_a_users_text_has_no_entropy(tmp_path):
    assert load(prepare_text(tmp_path, TEXT)).meta.source is None
    assert "source" not in json.loads((tmp_path / "dataset/meta.json").read_text())


# --- The real text --------------------------------------------------------------------------


@pytest.mark.mirror
@needs_play
def test_tiny_shakespeare_has_nanogpts_token_files(tmp_path):
    config = load_config(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")))
    corpus, dataset = config.corpora["shakespeare"], config.datasets["shakespeare_char"]
    prepare([PLAY_FILE], corpus, dataset, tmp_path)
    files = load(tmp_path)
    assert files.meta.vocab_size == files.tokenizer.vocab_size == 65
    assert len(files.train) == files.meta.train.n_tokens == 1_003_854
    assert len(files.val) == files.meta.val.n_tokens == 111_540
    text = PLAY_FILE.read_bytes().decode("ascii")
    id_of = {symbol: number for number, symbol in enumerate(sorted(set(text)))}
    ids = np.array([id_of[c] for c in text], dtype=np.uint16)
    assert np.fromfile(tmp_path / "train.bin", dtype=np.uint16).tolist() == ids[:1_003_854].tolist()
    assert np.fromfile(tmp_path / "val.bin", dtype=np.uint16).tolist() == ids[1_003_854:].tolist()


@pytest.mark.mirror
@needs_play
@needs_gpt2
@pytest.mark.parametrize("threads", [1, 4])
def test_tiny_shakespeare_has_nanogpts_gpt2_tokens(tmp_path, given_file, reference, threads):
    given = given_file("gpt2")
    prepare_files([PLAY_FILE], tmp_path, given, threads, tokenizer="gpt2")
    text = PLAY_FILE.read_bytes().decode("ascii")
    cut = int(len(text) * 0.9)
    for split, part, n_tokens in (("train", text[:cut], 301_966), ("val", text[cut:], 36_059)):
        tokens = np.fromfile(tmp_path / f"{split}.bin", dtype=np.uint16)
        assert len(tokens) == n_tokens
        assert tokens.tolist() == reference.encode_ordinary(part)


# --- Encodings ------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", ENCODED)
def test_a_text_gives_the_same_tokens_in_any_encoding(tmp_path, name, tokenizer, given_file):
    text, encoding, named = ENCODED[name]
    options = {"tokenizer": tokenizer, "vocab_size": 300, "given": given_file(tokenizer)}
    twin = write_texts(tmp_path / "twin", [text])
    wanted = tokens_of(prepare_files(twin, tmp_path / "wanted", **options))
    assert len(wanted[0]) > 1000
    path = write_texts(tmp_path / "encoded", [text], encoding)
    assert name == "utf-8" or path[0].read_bytes() != twin[0].read_bytes()
    for read_as in named:
        made = prepare_files(path, tmp_path / read_as, corpus={"encoding": read_as}, **options)
        assert tokens_of(made) == wanted, read_as


def test_files_of_a_corpus_can_have_different_encodings(tmp_path):
    texts = [text for text, _, _ in ENCODED.values()]
    wanted = prepare_files(write_texts(tmp_path / "twins", texts), tmp_path / "wanted")
    paths = []
    for number, (text, encoding, _) in enumerate(ENCODED.values()):
        paths += write_texts(tmp_path / str(number), [text], encoding)
    made = prepare_files(paths, tmp_path / "made")
    assert tokens_of(made) == tokens_of(wanted)
    decided = [file.encoding for file in load(made).meta.files]
    # These Latin-1 texts have the same bytes in cp1252.
    assert decided[:5] == ["utf-8", "utf-8-sig", "utf-16", "cp1252", "cp1252"]
    assert decided[8] == "koi8-r"
    # Guesses, for which a superset is also right.
    assert decided[5] in ("shift_jis", "cp932")
    assert decided[6] in ("gb18030", "gbk", "gb2312")
    assert decided[7] in ("big5", "big5hkscs", "cp950")


# --- meta.json ------------------------------------------------------------------------------


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("split", ["document", "position"])
def test_meta_has_the_counts_of_files_and_splits(tmp_path, tokenizer, split, given_file):
    texts = made_up(80)
    paths = [*write_texts(tmp_path / "texts", texts[:40]), tmp_path / "rows.csv"]
    write_rows(paths[-1], texts[40:])
    options = {"tokenizer": tokenizer, "split": split, "separator": "\n\n", "val_ratio": 0.3}
    made = prepare_files(paths, tmp_path / "made", given_file(tokenizer), **options)
    files = load(made)
    meta = files.meta
    assert meta.tokenizer == tokenizer
    assert meta.split == split
    assert meta.dtype == "uint16"
    assert meta.vocab_size == files.tokenizer.vocab_size
    totals = {
        "n_documents": len(texts),
        "n_characters": sum(map(len, texts)),
        "n_bytes": sum(len(text.encode()) for text in texts),
    }
    for name, total in totals.items():
        assert getattr(meta.train, name) + getattr(meta.val, name) == total
        assert sum(getattr(file, name) for file in meta.files) == total
    for name in ("train", "val"):
        tokens = getattr(files, name)
        counts = getattr(meta, name)
        assert counts.n_tokens == len(tokens)
        separators = 2 * counts.n_documents if tokenizer in ("char", "byte") else 0
        assert files.tokenizer.token_bytes[tokens].sum() == counts.n_bytes + separators
        if tokenizer == "char":
            assert counts.n_tokens == counts.n_characters + separators
    first = meta.files[0]
    assert first.path == paths[0].name
    assert first.n_documents == 1
    assert first.n_characters == len(texts[0])
    assert first.n_bytes == len(texts[0].encode())


def test_meta_has_the_digests_of_all_files(tmp_path):
    paths = write_texts(tmp_path / "texts", made_up(5))
    made = prepare_files(paths, tmp_path / "made")
    meta = load(made).meta
    assert [(file.path, file.sha256) for file in meta.files] == [
        (path.name, sha256(path)) for path in paths
    ]
    assert meta.tokenizer_sha256 == sha256(made / "tokenizer.json")
    assert meta.train.sha256 == sha256(made / "train.bin")
    assert meta.val.sha256 == sha256(made / "val.bin")


def test_meta_has_the_python_name_of_the_encoding(tmp_path):
    path = write_texts(tmp_path / "texts", [FRENCH], "latin-1")
    made = prepare_files(path, tmp_path / "made", corpus={"encoding": "Latin-1"})
    assert load(made).meta.files[0].encoding == "iso8859-1"


def test_the_same_text_gives_the_same_bytes_again(tmp_path):
    one = contents(prepare_text(tmp_path, TEXT))
    assert contents(prepare_text(tmp_path, TEXT)) == one


# --- Given tokenizers -----------------------------------------------------------------------


def test_another_datasets_tokenizer_is_used_unchanged(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one = prepare_text(tmp_path / "one", numbered(FRENCH), tokenizer="bpe", vocab_size=300)
    given = one / "tokenizer.json"
    other = prepare_text(tmp_path / "other", numbered(RUSSIAN), tokenizer="one", given=given)
    assert contents(other)["tokenizer.json"] == contents(one)["tokenizer.json"]
    files = load(other)
    text = numbered(RUSSIAN)
    assert files.tokenizer.decode(files.train) == text[: int(len(text) * 0.9)]
    assert files.meta.tokenizer == "one"
    assert files.meta.tokenizer_sha256 == sha256(given)


@pytest.mark.parametrize("threads", [1, 3])
def test_characters_missing_from_a_given_tokenizer_are_an_error(tmp_path, threads):
    char_tokenizer("abc\n").save(tmp_path / "given.json")
    with pytest.raises(
        UserError,
        match=r"text\.txt: .* `one` .* 4 characters lacks 'é' \(U\+00E9\); leave it out, or choose",
    ) as error:
        prepare_text(
            tmp_path,
            "abc" * 50 + "é",
            tokenizer="one",
            given=tmp_path / "given.json",
            threads=threads,
        )
    assert len(str(error.value).splitlines()) == 1


def test_a_separator_missing_from_a_given_tokenizer_is_an_error(tmp_path):
    char_tokenizer("abc").save(tmp_path / "given.json")
    paths = write_texts(tmp_path / "texts", ["abc" * 20, "cba" * 20])
    with pytest.raises(
        UserError, match=r"0000\.txt: .* `one` and separator .*U\+000A.*, or choose"
    ) as error:
        prepare_files(paths, tmp_path / "made", tmp_path / "given.json", tokenizer="one")
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_or_damaged_given_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match=r"given\.json: no such file"):
        prepare_text(tmp_path, TEXT, tokenizer="one", given=tmp_path / "given.json")
    (tmp_path / "given.json").write_text("{}")
    with pytest.raises(UserError, match=r"given\.json: not a nanogpt tokenizer"):
        prepare_text(tmp_path, TEXT, tokenizer="one", given=tmp_path / "given.json")


# --- Errors ---------------------------------------------------------------------------------

TOO_SHORT = [
    ("a", 0.1, "train"),
    ("ab" * 5, 0.1, "val"),
    ("ab" * 5, 0.9, "train"),
    ("abc", 0.5, "train"),
]


@pytest.mark.parametrize(("text", "val_ratio", "named"), TOO_SHORT)
def test_a_text_too_short_to_split_is_named_with_the_split(tmp_path, text, val_ratio, named):
    with pytest.raises(
        UserError, match=rf"text\.txt: .* too few .*{named} split would get \d tokens?; add text"
    ) as error:
        prepare_text(tmp_path, text, val_ratio=val_ratio)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.glob("dataset/meta.json"))


def test_a_split_without_a_document_is_named(tmp_path):
    paths = write_texts(tmp_path / "texts", ["some text", "and more"])
    for val_ratio, empty in ((1e-9, "val"), (1 - 1e-9, "train")):
        with pytest.raises(
            UserError,
            match=rf"0000\.txt: 2 documents in total: none for the {empty} split;",
        ) as error:
            prepare_files(paths, tmp_path / "made", split="document", val_ratio=val_ratio)
        assert len(str(error.value).splitlines()) == 1


def test_an_empty_text_is_named(tmp_path):
    with pytest.raises(UserError, match=r"text\.txt: no text in it"):
        prepare_text(tmp_path, "")


def test_a_wrong_digest_is_an_error_with_both_digests(tmp_path):
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    right = sha256(tmp_path / "text.txt")
    prepare_files([tmp_path / "text.txt"], tmp_path / "right", corpus={"sha256": right})
    with pytest.raises(
        UserError, match=rf"text\.txt: .*{'0' * 64}.*{right}.*get a new copy"
    ) as error:
        prepare_files([tmp_path / "text.txt"], tmp_path / "wrong", corpus={"sha256": "0" * 64})
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "wrong").exists()


FAILURES = {
    "invalid bytes": ({}, {}, b"text \xff\xfe\xfd and more text\n", "byte 0xff"),
    "wrong digest": ({"sha256": "0" * 64}, {}, None, "sha256"),
    "unknown character": ({}, {"tokenizer": "other"}, "é".encode(), "U\\+00E9"),
    "no place to cut": ({}, {"tokenizer": "bpe"}, b"x" * 2000, "without a space"),
    "too short": ({}, {"val_ratio": 0.999999}, None, "train split would get 0 tokens"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_leaves_the_old_dataset_and_nothing_else(tmp_path, monkeypatch, failure, threads):
    monkeypatch.setattr(pieces, "LONGEST_UNCUT", 1000)
    monkeypatch.setattr(streams, "BATCH", 500)
    corpus, dataset, tail, message = FAILURES[failure]
    made = prepare_text(tmp_path, "older text\n" * 100)
    before = contents(made)
    char_tokenizer("newr txt\n").save(tmp_path / "given.json")
    given = tmp_path / "given.json" if dataset.get("tokenizer") == "other" else None
    path = tmp_path / "text.txt"
    path.write_bytes(b"newer text\n" * 1000 + (tail or b""))
    with pytest.raises(UserError, match=message) as error:
        prepare_files(
            [path], made, given, threads, corpus={"encoding": "utf-8", **corpus}, **dataset
        )
    assert len(str(error.value).splitlines()) == 1
    assert contents(made) == before


def test_an_error_in_a_later_group_leaves_nothing_in_its_directory(tmp_path):
    paths = write_texts(tmp_path / "texts", ["abc" * 100, "abcé" * 100])
    char_tokenizer("abc\n").save(tmp_path / "given.json")
    options = {"tokenizer": "other", "given": tmp_path / "given.json"}
    with pytest.raises(UserError, match=r"U\+00E9"):
        prepare_by_groups([[path] for path in paths], tmp_path, **options)
    assert set(contents(tmp_path / "groups" / "001")) == {"counts.json", "documents.bin"}
    assert not (tmp_path / "made").exists()


def test_byte_tokens_are_the_bytes_of_the_file(tmp_path):
    files = load(prepare_text(tmp_path, TEXT, tokenizer="byte"))
    assert files.tokenizer == ByteTokenizer()
    assert files.train.astype(np.uint8).tobytes() == TEXT[: int(len(TEXT) * 0.9)].encode()


# --- Splits by bytes and by file, and skipped files -----------------------------------------


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
@pytest.mark.parametrize(("train", "val"), [(50, 20), (4, 4), (49, 51), (60, None), (33, 33)])
def test_a_text_can_be_split_at_bytes_and_the_rest_skipped(tmp_path, tokenizer, train, val):
    text = "é" * 20 + "a" * 20 + "日" * 20 + "b" * 20  # 140 bytes
    data = text.encode()
    made = prepare_text(tmp_path, text, tokenizer=tokenizer, train_bytes=train, val_bytes=val)
    files = load(made)
    end = train + val if val else len(data)
    # Rounded to whole characters.
    expected = [data[:train].decode(errors="ignore"), data[:end].decode(errors="ignore")]
    assert files.tokenizer.decode(files.train) == expected[0]
    assert files.tokenizer.decode(files.val) == expected[1].removeprefix(expected[0])
    assert (files.meta.split, files.meta.train.n_bytes) == ("bytes", len(expected[0].encode()))


def test_a_split_at_bytes_is_the_same_by_groups_and_in_small_pieces(tmp_path, monkeypatch):
    texts = [RUSSIAN * 3, JAPANESE * 2, FRENCH * 4, RUSSIAN, JAPANESE]
    paths = write_texts(tmp_path / "texts", texts)
    split = {"train_bytes": 2000, "val_bytes": 777}
    whole = prepare_files(paths, tmp_path / "whole", **split)
    by_groups = prepare_by_groups([paths[:2], paths[2:3], paths[3:]], tmp_path, **split)
    monkeypatch.setattr(encodings, "PIECE", 101)
    small = prepare_files(paths, tmp_path / "small", **split)
    assert tokens_of(whole) == tokens_of(by_groups) == tokens_of(small)


@pytest.mark.parametrize("split", [{"train_bytes": 60, "val_bytes": 50}, {"train_bytes": 100}])
def test_a_text_shorter_than_its_splits_is_an_error(tmp_path, split):
    with pytest.raises(
        UserError, match="100 bytes in total, too few for the dataset's `train_bytes`"
    ):
        prepare_text(tmp_path, "ab" * 50, **split)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"val_bytes": 5}, "`val_bytes` is only used with `train_bytes`"),
        ({"train_bytes": 5, "split": "document"}, "`train_bytes` splits by position"),
    ],
)
def test_contradictory_splits_are_rejected(split, message):
    with pytest.raises(ValueError, match=message):
        Dataset(**split)


@pytest.mark.parametrize("by_groups", [False, True])
def test_the_last_file_can_be_the_validation_split(tmp_path, by_groups):
    paths = write_texts(tmp_path / "texts", ["one\n", "two\n", "three\n"])
    if by_groups:
        made = prepare_by_groups([paths[:1], paths[1:]], tmp_path, split="last_file")
    else:
        made = prepare_files(paths, tmp_path / "made", split="last_file", separator="|")
    files = load(made)
    between = "\n" if by_groups else "|"
    assert files.tokenizer.decode(files.train) == f"one\n{between}two\n{between}"
    assert files.tokenizer.decode(files.val) == f"three\n{between}"


@pytest.mark.parametrize("texts", [[TEXT], [TEXT, ""], ["", TEXT]])
def test_a_last_file_split_without_text_is_an_error(tmp_path, texts):
    paths = write_texts(tmp_path / "texts", texts)
    message = rf"{paths[-1].name}: `split: last_file` validates on this file"
    with pytest.raises(UserError, match=message):
        prepare_files(paths, tmp_path / "made", split="last_file")


def test_digests_of_files_with_the_same_name_are_distinguished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [Path("a/x.txt"), Path("b/x.txt")]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        path.write_text(f"{TEXT}{number}")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    prepare_files(paths, tmp_path / "made", corpus={"sha256": digests})
    with pytest.raises(UserError, match=r"a/x\.txt: wrong sha256: expected"):
        prepare_files(paths, tmp_path / "made", corpus={"sha256": digests[::-1]})


def test_empty_files_are_skipped_with_a_warning(tmp_path, caplog):
    texts = ["", "one two three\n", "", "four five six\n", "", "", "\n"]
    paths = write_texts(tmp_path / "texts", texts)
    write_rows(tmp_path / "texts/rows.jsonl", [""])
    paths.append(tmp_path / "texts/rows.jsonl")
    with caplog.at_level(logging.WARNING):
        files = load(prepare_files(paths, tmp_path / "made", separator="|"))
    assert files.meta.train.n_documents + files.meta.val.n_documents == 3
    assert [r.getMessage() for r in caplog.records] == [
        f"{paths[0]}: no text in it; skipped",
        f"{paths[2]}: no text in it; skipped",
        f"{paths[4]}: no text in it; skipped",
        "2 more files: no text in them; skipped",
    ]
    groups = [paths[:1], paths[1:5], paths[5:6], paths[6:]]
    assert tokens_of(prepare_by_groups(groups, tmp_path, separator="|")) == tokens_of(
        tmp_path / "made"
    )


def test_a_corpus_of_empty_files_is_an_error(tmp_path):
    paths = write_texts(tmp_path / "texts", ["", "", ""])
    with pytest.raises(UserError, match=r"0000\.txt: no text in it, nor in the 2 other files; add"):
        prepare_files(paths, tmp_path / "made")


def test_skipped_files_of_a_directory_are_reported_and_recorded(tmp_path):
    texts = tmp_path / "texts"
    paths = write_texts(texts, [TEXT])
    for name in ("a.html", "b.html", "c.pdf"):
        (texts / name).write_text("x")
    summary = prepare(paths, Corpus(files=[str(texts)]), Dataset(), tmp_path / "made")
    assert summary.endswith("; read 1 file, skipped 2 .html, 1 .pdf")
    assert load(tmp_path / "made").meta.passed_over == {".html": 2, ".pdf": 1}


@pytest.mark.parametrize(
    ("separator", "warned"), [(r"\n\n", True), (r"a\tb", True), ("\n\n", False), ("\\ ", False)]
)
def test_a_backslash_n_in_a_separator_is_a_warning(tmp_path, caplog, separator, warned):
    paths = write_texts(tmp_path / "texts", ["one two three\n", "four five six\n"])
    with caplog.at_level(logging.WARNING):
        prepare_files(paths, tmp_path / "made", separator=separator)
    assert any("separator: \\" in r.getMessage() for r in caplog.records) == warned
