"""Documents that fail a filter or are duplicates are left out, the same in any grouping."""

import json

import pytest

from nanogpt.artifacts.records.datasets import CleaningMeta
from nanogpt.config.corpora import Dataset
from nanogpt.data import cleaning, encodings
from nanogpt.data import pieces as data_pieces
from nanogpt.data.batches import load
from nanogpt.errors import UserError
from tests.data.prepared import (
    FRENCH,
    JAPANESE,
    RUSSIAN,
    TEXT,
    contents,
    documents,
    made_up,
    prepare_by_groups,
    prepare_files,
    prepare_text,
    tokens_of,
    write_rows,
    write_texts,
)

# Two documents with nothing in common, and one that is nearly the first.
NEWS = " ".join(f"sentence {number} of the news item" for number in range(40))
REPORT = " ".join(f"paragraph {number} in that report" for number in range(40))
NEAR_NEWS = NEWS.replace("sentence 20", "phrase 20") + "!"


def prepare_rows(tmp_path, texts, name="rows.jsonl", **dataset):
    """Prepare texts as the rows of a table. The split is by position unless it's given."""
    write_rows(tmp_path / name, texts)
    options = {"split": "position", "separator": "\x1e", **dataset}
    return prepare_files([tmp_path / name], tmp_path / f"made-{name}", **options)


def left(made):
    """The documents that are left, in order."""
    files = load(made)
    decode = files.tokenizer.decode
    return (decode(files.train) + decode(files.val)).removesuffix("\x1e").split("\x1e")


def removed(made):
    return {name: n for name, n in load(made).meta.cleaning.removed.items() if n}


# --- Duplicates -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz"])
@pytest.mark.parametrize("deduplicate", ["exact", "near"])
def test_the_first_of_equal_documents_stays(tmp_path, name, deduplicate):
    texts = [NEWS, "über", REPORT, NEWS, "über", "", "uber", NEWS]
    made = prepare_rows(tmp_path, texts, name, deduplicate=deduplicate)
    assert left(made) == [NEWS, "über", REPORT, "uber"]
    assert removed(made) == {"exact_duplicates": 3}


def test_exact_duplicates_have_the_same_text_to_the_last_character(tmp_path):
    texts = ["one", "one ", "One", "one\n", "e\u0301", "\u00e9"]
    assert left(prepare_rows(tmp_path, texts, deduplicate="exact")) == texts


def test_the_first_of_nearly_equal_documents_stays(tmp_path):
    texts = [NEAR_NEWS, REPORT, NEWS, JAPANESE, NEAR_NEWS, NEWS.upper()]
    made = prepare_rows(tmp_path, texts, deduplicate="near")
    assert left(made) == [NEAR_NEWS, REPORT, JAPANESE]
    assert removed(made) == {"exact_duplicates": 1, "near_duplicates": 2}


def test_files_of_one_document_each_are_compared(tmp_path):
    paths = write_texts(tmp_path / "texts", [NEWS, REPORT, NEAR_NEWS, NEWS])
    made = prepare_files(paths, tmp_path / "made", deduplicate="near", separator="\x1e")
    assert left(made) == [NEWS, REPORT]
    assert [file.n_documents for file in load(made).meta.files] == [1, 1, 1, 1]


def test_no_document_is_in_both_splits(tmp_path):
    texts = [f"{text} {number // 2}" for number, text in enumerate(made_up(400))]
    near = [text + " ." for text in texts]
    options = {"split": "document", "val_ratio": 0.5}
    made = prepare_rows(tmp_path, texts + near, deduplicate="near", **options)
    words = {
        split: {tuple(cleaning_words(text)) for text in documents(made, split)}
        for split in ("train", "val")
    }
    assert words["train"]
    assert words["val"]
    assert not words["train"] & words["val"]
    # Without it, some are: the splits depend on the exact text.
    plain = prepare_rows(tmp_path, texts + near, "plain.jsonl", **options)
    both = [{tuple(cleaning_words(d)) for d in documents(plain, s)} for s in ("train", "val")]
    assert both[0] & both[1]


def cleaning_words(text):
    return text.lower().replace(".", " ").split()


@pytest.mark.parametrize("by_groups", [False, True])
def test_a_validation_file_keeps_its_documents(tmp_path, by_groups):
    for name, texts in (("a", [NEWS, REPORT, JAPANESE]), ("b", [FRENCH, NEAR_NEWS, FRENCH])):
        write_rows(tmp_path / f"{name}.jsonl", texts)
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    options = {"deduplicate": "near", "split": "last_file", "separator": "\x1e"}
    if by_groups:
        made = prepare_by_groups([paths[:1], paths[1:]], tmp_path, **options)
    else:
        made = prepare_files(paths, tmp_path / "made", **options)
    assert documents(made, "train") == [REPORT, JAPANESE]
    assert documents(made, "val") == [FRENCH, NEAR_NEWS]


# --- Filters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "stay", "go"),
    [
        ({"min_characters": 4}, "é😀ab", "é😀a"),
        ({"max_characters": 4}, "é😀ab", "é😀abc"),
        ({"min_alphabetic_words": 0.8}, "a b2 雨 é --", "a b2 雨 20 --"),
        ({"min_alphabetic_words": 0.1}, "a", " \n\t"),
        ({"min_alphabetic_words": 0.5}, "हिन्दी 1", "١٢٣ 1 a"),
        ({"max_repeated_lines": 0.5}, "ab\ncd\n\n\nab\ncd\n", "ab\nc\nab\nab\n"),
        ({"max_repeated_lines": 0.0}, "ab\n\nabc\n\n", "ab\r\n  ab"),
    ],
)
def test_a_filter_leaves_out_documents_beyond_its_limit(tmp_path, setting, stay, go):
    (name,) = setting
    made = prepare_rows(tmp_path, [go, stay, stay, go], val_ratio=0.5, **setting)
    assert left(made) == [stay, stay]
    assert removed(made) == {name: 2}


def test_a_document_is_counted_once_and_duplicates_after_filters(tmp_path):
    texts = ["1 2", "1 2", "abc def", "abc def", "1 2 3 4", "abc d"]
    options = {"min_characters": 5, "min_alphabetic_words": 0.6, "deduplicate": "near"}
    made = prepare_rows(tmp_path, texts, **options)
    assert left(made) == ["abc def", "abc d"]
    assert load(made).meta.cleaning.model_dump() == {
        "n_documents_read": 6,
        "n_characters_read": 32,
        "removed": {
            "min_characters": 2,
            "min_alphabetic_words": 1,
            "exact_duplicates": 1,
            "near_duplicates": 0,
        },
        "n_documents": 2,
        "n_characters": 12,
    }


def test_the_log_says_what_was_left_out():
    removed = {"min_characters": 2000, "max_characters": 0, "exact_duplicates": 1}
    totals = CleaningMeta(
        n_documents_read=5000,
        n_characters_read=9,
        removed={**removed, "near_duplicates": 3},
        n_documents=2996,
        n_characters=9,
    )
    assert cleaning.summarize(totals) == (
        "left out 2,004 of 5,000 documents (2,000 by min_characters, 1 exact duplicate, "
        "3 near duplicates)"
    )


def test_characters_of_filtered_documents_are_not_in_the_vocabulary(tmp_path):
    made = prepare_rows(tmp_path, ["aab", "日本", "abab"], min_characters=3)
    tokenizer = load(made).tokenizer
    assert tokenizer.decode(range(tokenizer.vocab_size)) == "\x1eab"


# --- Any grouping, pieces and threads ---------------------------------------------------------

ALL = {
    "deduplicate": "near",
    "min_characters": 20,
    "max_characters": 2000,
    "min_alphabetic_words": 0.6,
    "max_repeated_lines": 0.3,
}


@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
@pytest.mark.parametrize("split", [{"split": "document"}, {"train_bytes": 3000, "val_bytes": 999}])
def test_groups_pieces_and_threads_do_not_matter(tmp_path, monkeypatch, tokenizer, split):
    texts = [*made_up(150), *made_up(80), NEWS, NEAR_NEWS, "ab\n" * 30, RUSSIAN * 9, REPORT]
    monkeypatch.chdir(tmp_path)
    paths = []
    for name, rows in (("a.jsonl", texts[:90]), ("b.parquet", texts[90:]), ("c.csv", texts[40:])):
        write_rows(tmp_path / name, rows)
        paths.append(tmp_path / name)
    paths += write_texts(tmp_path / "texts", [FRENCH * 2, NEWS, REPORT, TEXT, "-" * 300])
    options = {"tokenizer": tokenizer, "vocab_size": 300, **split, **ALL}
    whole = prepare_files(paths, tmp_path / "whole", **options)
    assert all(load(whole).meta.cleaning.removed.values())
    monkeypatch.setattr(encodings, "PIECE", 37)
    monkeypatch.setattr(cleaning, "CHUNK", 7)
    small = prepare_files(paths, tmp_path / "small", threads=3, **options)
    groups = [paths[:1], paths[1:4], paths[4:]]
    by_groups = prepare_by_groups(groups, tmp_path / "jobs", threads=2, **options)
    assert contents(whole) == contents(small) == contents(by_groups)
    in_shards = prepare_by_groups(groups, tmp_path / "shards", sharded=True, **options)
    for split in ("train", "val"):
        parts = b"".join(path.read_bytes() for path in sorted(in_shards.glob(f"{split}.*.bin")))
        assert parts == (whole / f"{split}.bin").read_bytes()
    assert load(in_shards).meta.cleaning == load(whole).meta.cleaning


def test_a_file_of_one_document_is_judged_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "PIECE", 10)
    monkeypatch.setattr(cleaning, "LONGEST_LINE", 25)
    paths = write_texts(tmp_path / "texts", ["x y z\n" * 20, NEWS, "12 34 56 78\n" * 20, NEWS])
    options = {"max_repeated_lines": 0.96, "min_alphabetic_words": 0.5, "deduplicate": "exact"}
    made = prepare_files(paths, tmp_path / "made", separator="\x1e", **options)
    assert left(made) == ["x y z\n" * 20, NEWS]
    assert removed(made) == {"min_alphabetic_words": 1, "exact_duplicates": 1}


def test_the_same_documents_without_cleaning_have_the_same_tokens(tmp_path):
    texts = [NEWS, REPORT, NEWS, "a", JAPANESE]
    options = {"tokenizer": "byte", "split": "position"}
    cleaned = prepare_rows(tmp_path, texts, deduplicate="near", min_characters=2, **options)
    plain = prepare_rows(tmp_path, [NEWS, REPORT, JAPANESE], "plain.jsonl", **options)
    assert tokens_of(cleaned) == tokens_of(plain)
    assert load(plain).meta.cleaning is None
    assert "cleaning" not in json.loads((plain / "meta.json").read_text())


# --- Mistakes -------------------------------------------------------------------------------


@pytest.mark.parametrize("by_groups", [False, True])
def test_settings_that_leave_out_all_documents_are_an_error(tmp_path, by_groups):
    paths = write_texts(tmp_path / "texts", ["short", "1234567890", "also"])
    options = {"min_characters": 10, "min_alphabetic_words": 0.5}
    message = (
        r"0000.txt: the dataset's settings leave out every document \(2 by `min_characters`, 1 by "
        r"`min_alphabetic_words`\); change these settings or add text"
    )
    prepare, given = (
        (prepare_by_groups, [paths[:2], paths[2:]]) if by_groups else (prepare_files, paths)
    )
    with pytest.raises(UserError, match=message):
        prepare(given, tmp_path / "made", **options)
    assert not (tmp_path / "made/meta.json").exists()


def test_settings_that_leave_out_a_whole_validation_file_are_an_error(tmp_path):
    paths = write_texts(tmp_path / "texts", [NEWS, REPORT, "short"])
    message = r"0002.txt: .* every document of the last file \(1 by `min_characters`\)"
    with pytest.raises(UserError, match=message):
        prepare_files(paths, tmp_path / "made", split="last_file", min_characters=10)


def test_too_little_text_left_is_an_error(tmp_path):
    message = r"1 character left, too few to split by val_ratio 0.1"
    with pytest.raises(UserError, match=message):
        prepare_rows(tmp_path, ["a", NEWS], max_characters=1)


def test_a_single_document_is_filtered_like_any_other(tmp_path):
    made = prepare_text(tmp_path, NEWS, deduplicate="near", min_characters=10)
    assert load(made).tokenizer.decode(load(made).train) in NEWS
    assert load(made).meta.cleaning.n_documents == 1
    with pytest.raises(UserError, match="every document"):
        prepare_text(tmp_path, NEWS, max_characters=10)


def test_empty_files_are_no_documents(tmp_path, caplog):
    paths = write_texts(tmp_path / "texts", ["", NEWS, "", REPORT])
    made = prepare_files(paths, tmp_path / "made", deduplicate="exact", separator="\x1e")
    assert left(made) == [NEWS, REPORT]
    assert load(made).meta.cleaning.n_documents_read == 2
    assert caplog.text.count("no text in it; skipped") == 2
    with pytest.raises(UserError, match="no text in it, nor in the 1 other file"):
        prepare_files([paths[0], paths[2]], tmp_path / "none", deduplicate="near")


@pytest.mark.parametrize("n_rows", [2, 4])
def test_a_file_that_changes_between_the_passes_is_an_error(tmp_path, monkeypatch, n_rows):
    path = tmp_path / "a.jsonl"
    read = data_pieces.read_documents

    def change(*arguments):
        write_rows(path, [NEWS, REPORT, FRENCH, RUSSIAN][:n_rows])
        return read(*arguments)

    monkeypatch.setattr(data_pieces, "read_documents", change)
    with pytest.raises(UserError, match=r"a.jsonl: this file changed while the dataset was"):
        prepare_rows(tmp_path, [NEWS, REPORT, FRENCH], "a.jsonl", deduplicate="exact")


def test_a_damaged_table_is_an_error(tmp_path):
    path = tmp_path / "documents.npy"
    for content in (b"", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"documents.npy: missing or damaged; delete the file"):
            cleaning.read_array(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deduplicate": "fuzzy"}, "'none', 'exact' or 'near'"),
        ({"min_characters": -1}, "greater than or equal to 0"),
        ({"min_alphabetic_words": 80}, "less than or equal to 1"),
        ({"min_characters": 9, "max_characters": 8}, "no document has both"),
    ],
)
def test_wrong_settings_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        Dataset(**settings)
