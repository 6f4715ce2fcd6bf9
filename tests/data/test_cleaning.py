"""Documents that fail a filter or are duplicates are left out, the same in any grouping."""

import gc
import json
import os
import resource
import subprocess
import sys
import tracemalloc
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.datasets import CleaningMeta, FileMeta
from nanogpt.artifacts.records.groups import GroupCounts
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data import cleaning, encodings, preparing
from nanogpt.data import pieces as data_pieces
from nanogpt.data.batches import load
from nanogpt.data.preparing import count
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.errors import UserError, user_message
from nanogpt.planning import needs
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

ROOT = Path(__file__).resolve().parents[2]

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
        # In floating-point numbers, 0.28 * 25 is more than 7, and 0.29 * 100 is less than 29.
        ({"min_alphabetic_words": 0.28}, "a " * 7 + "1 " * 18, "a " * 6 + "1 " * 19),
        (
            {"max_repeated_lines": 0.29},
            f"{'a' * 29}\n" * 2 + "b" * 42,
            f"{'a' * 30}\n" * 2 + "b" * 40,
        ),
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
        r"`min_alphabetic_words`\); change the settings or add text"
    )
    prepare, given = (
        (prepare_by_groups, [paths[:2], paths[2:]]) if by_groups else (prepare_files, paths)
    )
    with pytest.raises(UserError, match=message):
        prepare(given, tmp_path / "made", **options)
    assert not (tmp_path / "made/meta.json").exists()


def test_settings_that_leave_out_a_whole_validation_file_are_an_error(tmp_path):
    paths = write_texts(tmp_path / "texts", [NEWS, REPORT, "short"])
    message = (
        r"0002.txt: .* every document of the last file \(1 by `min_characters`\): "
        "nothing to validate on; change the settings"
    )
    with pytest.raises(UserError, match=message):
        prepare_files(paths, tmp_path / "made", split="last_file", min_characters=10)


def test_too_little_text_left_is_an_error(tmp_path):
    message = (
        r"1 character left \(1 of 2 documents left out by `max_characters`\), too few for "
        r"`val_ratio: 0.1`"
    )
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


@pytest.mark.parametrize("by_groups", [False, True])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"deduplicate": "near"}, "3 by `deduplicate`"),
        ({"deduplicate": "exact", "min_characters": 2000}, "1 by `min_characters`, 2 by `ded"),
    ],
)
def test_settings_that_leave_out_all_training_documents_are_an_error(
    tmp_path, options, reason, by_groups
):
    texts = [NEWS * 3, REPORT * 3, NEAR_NEWS if "min_characters" not in options else NEWS]
    paths = write_texts(tmp_path / "texts", texts)
    write_rows(tmp_path / "val.jsonl", [NEWS * 3, REPORT * 3])
    paths.append(tmp_path / "val.jsonl")
    message = (
        rf"0000.txt: the dataset's settings leave out every document before the last file "
        rf"\({reason}.*\): nothing to train on; change the settings or add text"
    )
    prepare, given = (
        (prepare_by_groups, [paths[:2], paths[2:]]) if by_groups else (prepare_files, paths)
    )
    with pytest.raises(UserError, match=message):
        prepare(given, tmp_path / "made", split="last_file", **options)


@pytest.mark.parametrize("by_groups", [False, True])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"split": "document"},
            r"1 document left \(2 of 3 documents left out by `deduplicate`\): none for the "
            r"(train|val) split; add documents",
        ),
        (
            {"train_bytes": 2000, "val_bytes": 2000},
            r"bytes left \(2 of 3 documents left out by `deduplicate`\), too few for the "
            r"dataset's `train_bytes` and `val_bytes`",
        ),
        (
            {"split": "position", "val_ratio": 0.0001},
            r"1,\d{3} characters left \(2 of 3 documents left out by `deduplicate`\), too few "
            r"for `val_ratio: 0.0001`",
        ),
    ],
)
def test_too_few_documents_left_are_an_error_that_names_the_settings(
    tmp_path, options, message, by_groups
):
    paths = write_texts(tmp_path / "texts", [NEWS, NEWS, NEWS])
    prepare, given = (
        (prepare_by_groups, [paths[:1], paths[1:]]) if by_groups else (prepare_files, paths)
    )
    with pytest.raises(UserError, match=message):
        prepare(given, tmp_path / "made", deduplicate="exact", **options)


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


def write_table(path, dataset, texts):
    """Write the table of a group with these documents; return its counts."""
    write_rows(path.with_suffix(".jsonl"), texts)
    with open(path, "wb") as file:
        cleaner = cleaning.Cleaner(dataset, file.write)
        return count([path.with_suffix(".jsonl")], Corpus(files=["a"]), cleaner=cleaner)


def test_a_missing_or_damaged_table_is_an_error(tmp_path):
    path, dataset = tmp_path / "documents.bin", Dataset(deduplicate="exact")
    counts = write_table(path, dataset, [NEWS, REPORT])
    for content in (b"", path.read_bytes()[:-1], path.read_bytes() * 2):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"documents.bin: damaged; delete the file"):
            choose(path, counts, dataset)
    path.unlink()
    with pytest.raises(UserError, match=r"documents.bin: no such file; run the workflow again"):
        choose(path, counts, dataset)


def choose(path, counts, dataset):
    tables = cleaning.table_files([path], [counts], dataset)
    return cleaning.choose_documents([counts], tables, dataset)


def test_a_missing_or_damaged_choice_is_an_error(tmp_path):
    path = tmp_path / "kept.npy"
    for content in (b"", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"kept.npy: damaged; delete the file"):
            cleaning.read_choice(path)
    path.unlink()
    with pytest.raises(UserError, match=r"kept.npy: no such file; run the workflow again"):
        cleaning.read_choice(path)


# --- Limits of the machine --------------------------------------------------------------------


@pytest.fixture
def few_files():
    """A function that lowers the number of files that this process can open, until the end."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def lower(n_more):
        gc.collect()  # close files that nothing uses anymore
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + n_more, limits[1]))

    yield lower
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_corpus_of_many_groups_needs_few_open_files(tmp_path, few_files):
    paths = write_texts(tmp_path / "texts", [f"{NEWS} {n // 2}" for n in range(120)])
    few_files(20)
    made = prepare_by_groups([[path] for path in paths], tmp_path, deduplicate="exact")
    assert removed(made) == {"exact_duplicates": 60}


def test_too_many_open_files_are_not_damage(tmp_path, few_files):
    path, dataset = tmp_path / "documents.bin", Dataset(deduplicate="exact")
    counts = write_table(path, dataset, [NEWS, REPORT])
    cleaning.write_choice(tmp_path / "kept.npy", np.ones(2, np.bool_))
    (tmp_path / "tokenizer.json").write_text('{"type": "byte"}')
    few_files(0)
    for read in (
        lambda: choose(path, counts, dataset),
        lambda: cleaning.read_choice(tmp_path / "kept.npy"),
        lambda: load_tokenizer(tmp_path / "tokenizer.json"),
    ):
        with pytest.raises(OSError, match="Too many open files") as caught:
            read()
        assert "too many open files; raise the limit" in user_message(caught.value)


PLAN = """
import runpy, sys
from types import SimpleNamespace

class Inputs(list):
    counts, documents, tokenizer = ["counts.json"], ["documents.bin"], []

class Outputs(list):
    plan, kept, tokenizer = "plan.json", "kept.npy", "tokenizer.json"

script, min_characters = sys.argv[1], int(sys.argv[2])
job = SimpleNamespace(input=Inputs(["counts.json", "documents.bin"]), log=["plan.log"], threads=1)
job.output = Outputs(["plan.json", "kept.npy", "tokenizer.json"])
job.wildcards = SimpleNamespace(dataset="a")
datasets = {"a": {"min_characters": min_characters}}
job.config = {"corpora": {"a": {"files": "texts"}}, "datasets": datasets}
sys.addaudithook(lambda event, args: event == "open" and print(f"opened {args[0]}"))
runpy.run_path(script, {"snakemake": job})
"""


@pytest.mark.parametrize("min_characters", [0, 1])
def test_plan_opens_tables_only_if_documents_can_be_left_out(tmp_path, min_characters):
    write_rows(tmp_path / "a.jsonl", [NEWS, REPORT])
    counts = write_table(tmp_path / "documents.bin", Dataset(), [NEWS, REPORT])
    write_record(tmp_path / "counts.json", counts)
    arguments = ["-c", PLAN, str(ROOT / "workflow/scripts/plan.py"), str(min_characters)]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert (tmp_path / "plan.json").is_file()
    assert "opened counts.json" in done.stdout
    assert ("opened documents.bin" in done.stdout) == (min_characters > 0)


def made_up_table(path, dataset, n_documents, n_copies):
    """A table of documents, with the same keys for each n_copies of them, and its counts."""
    columns = cleaning.row_type(dataset)
    rows = np.zeros(n_documents, columns)
    rows["digest_0"] = np.arange(n_documents)
    first = "band_0" if dataset.deduplicate == "near" else "digest_0"
    for name in columns.names[columns.names.index(first) :]:
        rows[name] = np.arange(n_documents) // n_copies
    starts = range(0, n_documents, cleaning.CHUNK)
    chunks = (rows[start : start + cleaning.CHUNK] for start in starts)
    path.write_bytes(b"".join(map(cleaning.by_column, chunks)))
    file = FileMeta(
        **{"path": "a", "sha256": "", "encoding": "utf-8", "hash": None},
        **{"n_documents": n_documents, "n_characters": 0, "n_bytes": 0},
    )
    counts = GroupCounts(files=(file,), n_documents=n_documents, n_characters=0, characters="")
    return cleaning.table_files([path], [counts], dataset), counts


@pytest.mark.parametrize(
    ("deduplicate", "n_documents"), [("none", 200_000), ("exact", 50_000), ("near", 50_000)]
)
@pytest.mark.parametrize("n_copies", [1, 2, 50_000])
def test_choosing_needs_a_limited_memory_for_each_document(
    tmp_path, deduplicate, n_documents, n_copies
):
    dataset = Dataset(deduplicate=deduplicate, min_characters=1)
    tables, counts = made_up_table(tmp_path / "documents.bin", dataset, n_documents, n_copies)
    tracemalloc.start()
    choice = cleaning.choose_documents([counts], tables, dataset)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert choice.kept.sum() == n_documents // (n_copies if deduplicate != "none" else 1)
    assert peak / n_documents < needs.BYTES_OF_CHOICE[deduplicate]


def test_choosing_reads_tables_about_once(tmp_path):
    def n_bytes_read():
        return int(Path("/proc/self/io").read_text().split()[1])

    dataset = Dataset(deduplicate="near")
    tables, counts = made_up_table(tmp_path / "documents.bin", dataset, 50_000, 2)
    before = n_bytes_read()
    cleaning.choose_documents([counts], tables, dataset)
    n_read = n_bytes_read() - before
    size = (tmp_path / "documents.bin").stat().st_size
    assert size == needs.BYTES_OF_ROW["near"] * counts.n_documents
    assert size <= n_read < 1.2 * size


def test_one_job_keeps_no_table_in_memory(tmp_path, monkeypatch):
    """It's in a file without a name."""
    written = []

    class Table(cleaning.TableFile):
        def column(self, name):
            written.append(os.fstat(self.file.fileno()).st_size)
            assert os.fstat(self.file.fileno()).st_nlink == 0
            return super().column(name)

    monkeypatch.setattr(preparing, "TableFile", Table)
    made = prepare_rows(tmp_path, [NEWS, REPORT, NEAR_NEWS], deduplicate="near")
    assert removed(made) == {"near_duplicates": 1}
    assert {path.suffix for path in made.iterdir()} == {".bin", ".json"}
    assert written[-1] == 3 * needs.BYTES_OF_ROW["near"]


def test_a_long_document_needs_little_memory(monkeypatch):
    monkeypatch.setattr(cleaning, "LONGEST_LINE", 1 << 14)
    monkeypatch.setattr(cleaning, "MOST_LINES", 1 << 10)
    dataset, rows = Dataset(**{**ALL, "max_characters": 10**9}), []
    text = "".join(f"line {number}\n" for number in range(100_000)) + "ab " * 100_000
    cleaner = cleaning.Cleaner(dataset, rows.append)
    tracemalloc.start()
    for _ in cleaner.read([(text, True)]):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_later_lines_are_compared_with_a_limited_number(tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "MOST_LINES", 2)
    texts = ["aa\nbb\ncc\ncc", "aa\ncc\nbb\ncc"]
    assert left(prepare_rows(tmp_path, texts, max_repeated_lines=0.2)) == texts[:1]


def test_a_line_in_many_pieces_is_judged_like_a_whole_one():
    text = "word " * 2**16
    for pieces in ([text], text):
        chunks, dataset = [], Dataset(max_repeated_lines=0.5)
        cleaner = cleaning.Cleaner(dataset, chunks.append)
        for _ in cleaner.read(chain(((piece, False) for piece in pieces), [("", True)])):
            pass
        cleaner.write_rows()
        row = np.frombuffer(chunks[0], cleaning.row_type(dataset))[0]
        assert (row["reason"], row["n_characters"]) == (0, len(text))


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
