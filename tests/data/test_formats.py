"""The documents of files in every format are read."""

import codecs
import csv
import gzip
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.config.corpora import Corpus
from nanogpt.data import encodings
from nanogpt.data.formats import read_text
from nanogpt.errors import UserError
from tests.data.reading import (
    COMPRESS,
    EMOJI,
    FRENCH,
    GERMAN,
    complaint,
    csv_of,
    decided,
    documents,
    jsonl,
    piece_of,
    pieces,
    varied,
    write,
)

# Small files


def test_read_text_expects_utf_8_and_never_guesses(path):
    write(path, EMOJI + "dos\r\nmac\runix\n")
    assert read_text(path) == EMOJI + "dos\r\nmac\runix\n"
    write(path, GERMAN.encode("cp1252"))
    with pytest.raises(
        UserError, match=r"a\.txt: not UTF-8: byte 0xfc at offset 5; convert it to UTF-8"
    ):
        read_text(path)


def test_read_text_includes_a_byte_order_mark_in_the_offset_of_an_error(path):
    write(path, codecs.BOM_UTF8 + b"abc\xff")
    with pytest.raises(UserError, match="byte 0xff at offset 6;"):
        read_text(path)


def test_read_text_drops_a_byte_order_mark(path):
    assert read_text(write(path, codecs.BOM_UTF8 + b"ROMEO:")) == "ROMEO:"


# JSONL


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.lists(TEXTS, min_size=1),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from([1, 3, encodings.PIECE]),
)
@settings(deadline=None)
def test_each_row_of_jsonl_is_a_document_and_empty_ones_are_skipped(
    scratch, rows, ensure_ascii, encoding, size
):
    path = scratch.with_suffix(".jsonl")
    data = jsonl(*({"id": 1, "text": row} for row in rows), ensure_ascii=ensure_ascii)
    write(path, data.encode(encoding))
    with piece_of(size):
        if any(rows):
            assert documents(path, encoding=encoding) == [row for row in rows if row]
        else:
            assert "no text" in complaint(path, encoding=encoding)


def test_blank_lines_of_jsonl_are_skipped_and_the_last_line_needs_no_line_feed(table):
    path = table(".jsonl", '\n{"text": "a"}\n\n  \t\r\n{"text": "b"}\r\n\n{"text": "c"}')
    assert documents(path) == ["a", "b", "c"]


def test_line_separators_of_unicode_end_no_line_of_jsonl(table):
    rows = ["a\u2028b", "c\u2029d", "e\x85f", "g\x0bh\x0ci\x1cj"]
    raw = "".join(f'{{"text": "{row}"}}\n' for row in rows[:3])
    path = table(".jsonl", raw + jsonl({"text": rows[3]}))
    for size in (1, encodings.PIECE):
        with piece_of(size):
            assert documents(path) == rows


def test_another_field_of_jsonl_can_be_configured(table):
    path = table(".jsonl", jsonl({"text": "no", "Körper": "yes"}))
    assert documents(path, text_column="Körper") == ["yes"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text": "cut', "not JSON: "),
        ("plain text", "not JSON: "),
        ('{"text": "a"} {"text": "b"}', "not JSON: "),
        ('{"body": "x", "id": 1}', "no column `text` (found `body`, `id`)"),
        ("{}", "no column `text` (found none)"),
        ("[1, 2]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("3", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"text": 3}', "`text` should be text (found `3`)"),
        ('{"text": ["a"]}', "`text` should be text (found `["),
        ("[" * 200_000, "not JSON: "),
        ('{"text":' * 100_000, "not JSON: "),
        ('{"text": ' + "1" * 10_000 + "}", "line 4: "),
    ],
    ids=lambda value: value[:24],
)
def test_an_invalid_row_of_jsonl_is_named_with_its_line(table, line, expected):
    path = table(".jsonl", f'{{"text": "fine"}}\n\n{{"text": "é"}}\n{line}\n{{"text": "x"}}\n')
    for size in (5, encodings.PIECE):
        with piece_of(size):
            message = complaint(path)
        assert message.startswith(f"{path}: line 4: ")
        assert expected in message


def test_a_null_in_jsonl_is_skipped_as_in_parquet(table):
    assert documents(table(".jsonl", '{"text": null}\n{"text": "x"}\n')) == ["x"]


def test_a_lone_surrogate_in_json_is_replaced_or_named_with_its_line(table):
    path = table(".jsonl", '{"text": "fine"}\n{"text": "a\\ud800b"}\n{"text": "\\ud83d\\ude42"}\n')
    message = complaint(path)
    assert message.startswith(f"{path}: line 2: a lone surrogate, U+D800")
    assert "`errors: replace`" in message
    assert documents(path, errors="replace") == ["fine", "a\ufffdb", "🙂"]


@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
@settings(deadline=None)
def test_errors_replace_replaces_each_lone_surrogate_only(scratch, text):
    path = write(scratch.with_suffix(".jsonl"), jsonl({"text": text}, ensure_ascii=True))
    wanted = json.loads(json.dumps(text))  # joins adjacent halves of a pair
    wanted = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in wanted)
    assert documents(path, errors="replace") == [wanted]


def test_an_invalid_byte_in_jsonl_is_named_with_its_offset_in_the_file(table):
    before = jsonl(*({"text": line} for line in FRENCH.splitlines()))
    path = table(".jsonl", before.encode() + b'{"text": "\xff"}\n')
    assert f"byte 0xff at offset {len(before.encode()) + 10}:" in complaint(path)


@pytest.mark.parametrize("data", ["", "\n\n", '{"text": ""}\n', "\ufeff"])
def test_jsonl_without_a_document_is_an_error(table, data):
    assert "no text in it; add text or use another file" in complaint(table(".jsonl", data))


def test_newlines_lf_applies_within_a_row(table):
    path = table(".jsonl", jsonl({"text": "a\r\nb\rc\n\r"}))
    assert documents(path, newlines="lf") == ["a\nb\nc\n\n"]
    assert documents(path) == ["a\r\nb\rc\n\r"]


# CSV


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([1, 3, encodings.PIECE]),
)
@settings(deadline=None)
def test_each_row_of_csv_is_a_document_and_empty_ones_are_skipped(scratch, rows, end, size):
    table = [["id", "text"], *([1, row] for row in rows)]
    data = csv_of(table, lineterminator=end, quoting=csv.QUOTE_ALL)
    path = write(scratch.with_suffix(".csv"), data)
    with piece_of(size):
        if any(rows):
            assert documents(path) == [row for row in rows if row]
        else:
            assert "no text" in complaint(path)


def test_quoted_line_ends_commas_and_quotes_belong_to_the_text(table):
    path = table(".csv", 'text,id\n"a\nb, ""c""\r\n",1\n\n"é",2')
    assert documents(path) == ['a\nb, "c"\r\n', "é"]
    assert documents(path, newlines="lf") == ['a\nb, "c"\n', "é"]
    assert documents(path, text_column="id") == ["1", "2"]


def test_a_csv_field_can_be_long(table):
    long = "é" * 300_000
    assert documents(table(".csv", f"text\n{long}\n")) == [long]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("id,body\n1,a\n", "no column `text` (found `id`, `body`)"),
        ("id:text\n1:a\n", "no column `text` (found `id:text`)"),
        ("", "no column `text` (found none)"),
        ("id,text\n1,a\n1,b,c\n", "line 3: 3 fields, but the header has 2"),
        ('id,text\n1,"a\nb"\n1\n', "line 4: 1 field, but the header has 2"),
        ('id,text\n1,a\n2,"b\n3,c\n', "line 4: not valid CSV: "),
        ('id,text\n1,"a"b\n', "line 2: not valid CSV: "),
        ("id,text\n", "no text in it"),
        ("text,id,text\na,1,b\n", "several columns are named `text`; rename all but one of them"),
        ('"id,text\n', "line 1: not valid CSV: "),
    ],
)
def test_an_error_in_a_csv_is_named_with_its_line(table, data, message):
    path = table(".csv", data)
    for size in (1, encodings.PIECE):
        with piece_of(size):
            assert complaint(path).startswith(f"{path}: {message}")


def test_a_csv_in_cp1252_is_recognised(table):
    lines = FRENCH.splitlines()
    path = table(".csv", csv_of([["text"], *([line] for line in lines)]).encode("cp1252"))
    assert documents(path) == lines


# Dialects of CSV


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_usual_delimiters_and_line_ends_are_recognised(table, delimiter, end):
    rows = [["id", "text", "note"], [1, "a, b; c\td|e", "x"], [2, 'say "no"\rand go', ""]]
    data = csv_of(rows, delimiter=delimiter, lineterminator=end)
    path = table(".csv", data)
    for size in (1, 3, encodings.PIECE):
        with piece_of(size):
            assert documents(path) == ["a, b; c\td|e", 'say "no"\rand go']


def test_a_tsv_is_separated_by_tabs(table):
    path = table(".tsv", "id\ttext\n1\tone, two\n2\tthree\n")
    assert documents(path) == ["one, two", "three"]


def test_a_quote_in_a_tsv_is_an_ordinary_character(table):
    path = table(".tsv", 'id\ttext\n1\t"Hello\n2\tbye"\n3\t"Yes", he said\n')
    assert documents(path) == ['"Hello', 'bye"', '"Yes", he said']


def test_long_lines_of_a_table_take_time_in_proportion_to_their_length(table):
    def seconds(n_megabytes):
        path = table(".jsonl", jsonl({"text": "x" * (n_megabytes << 20)}))
        began = time.process_time()
        documents(path)
        return time.process_time() - began

    seconds(1)
    assert seconds(32) < 10 * seconds(8) + 0.2


@pytest.mark.parametrize("before", ["\n\n", "sep=;\r\n", "\r\n \r\nsep=;\n"])
def test_lines_before_the_header_are_skipped(table, before):
    assert documents(table(".csv", f"{before}id;text\n1;a, b\n")) == ["a, b"]
    n_lines = before.count("\n") + 3
    message = complaint(table(".csv", f"{before}id;text\n1;a\n2;b;c\n"))
    assert f"line {n_lines}: 3 fields, but the header has 2" in message


def test_another_delimiter_can_be_configured(table):
    path = table(".csv", "id:text\n1:one, two\n")
    assert documents(path, delimiter=":") == ["one, two"]
    assert "no column `text` (found `id:text`)" in complaint(path)


@pytest.mark.parametrize("delimiter", ["", "::", '"', "\n"])
def test_a_delimiter_is_one_character(delimiter):
    with pytest.raises(ValueError, match="delimiter"):
        Corpus(files=["a.csv"], delimiter=delimiter)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("encoding", ["auto", "utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_not_part_of_the_first_column_name(table, suffix, encoding):
    data = "text,id\none,1\n" if suffix == ".csv" else '{"text": "one"}\n'
    assert documents(table(suffix, "\ufeff" + data), encoding=encoding) == ["one"]


def test_json_lines_can_have_cr_line_ends(table):
    path = table(".jsonl", '{"text": "one"}\r{"text": "two"}\r')
    for size in (1, encodings.PIECE):
        with piece_of(size):
            assert documents(path) == ["one", "two"]


def test_a_csv_without_a_header_is_a_short_error(table):
    message = complaint(table(".csv", ",".join(["a word" * 500] * 40) + "\n"))
    assert len(message) < 1500
    assert "no column `text`" in message
    assert "set the corpus's `text_column:`" in message


# Nested fields, missing fields, joined rows


def test_a_field_within_an_object_is_named_with_a_dot(table):
    rows = [{"meta": {"body": {"en": "one"}}}, {"meta": {"body": {"en": None}}}, {"meta.body": 1}]
    assert documents(table(".jsonl", jsonl(*rows[:2])), text_column="meta.body.en") == ["one"]
    message = complaint(table(".jsonl", jsonl(*rows)), text_column="meta.body.en")
    assert "line 3: no column `meta.body.en` (found `meta.body`)" in message
    flat = table(".jsonl", jsonl({"meta.body": "flat", "meta": {"body": "nested"}}))
    assert documents(flat, text_column="meta.body") == ["flat"]


def test_rows_without_the_field_can_be_skipped(table):
    path = table(".jsonl", jsonl({"text": "one"}, {"title": "x"}, {"text": "two"}))
    message = complaint(path)
    assert "line 2: no column `text` (found `title`)" in message
    assert "or set `missing: skip`" in message
    assert documents(path, missing="skip") == ["one", "two"]
    assert "no column `body`" in complaint(path, missing="skip", text_column="body")


@pytest.mark.parametrize(("name", "is_told"), [("log.txt", True), ("log.jsonl", False)])
def test_detected_json_lines_can_be_read_as_text(tmp_path, name, is_told):
    path = write(tmp_path / name, jsonl({"level": 1}, {"level": 2}))
    assert ("or `format: text`" in complaint(path)) == is_told


def test_joined_rows_are_one_document(table):
    path = table(".jsonl", jsonl(*({"text": line} for line in ["one\n", "", "two\n", "three"])))
    assert documents(path, rows="joined") == ["one\ntwo\nthree"]
    empty = table(".jsonl", jsonl({"text": ""}))
    assert "no text in it" in complaint(empty, rows="joined")


def test_an_error_lists_only_a_few_shortened_columns(table):
    path = table(".jsonl", jsonl({f"column {n} " + "x" * 500: 1 for n in range(300)}))
    message = complaint(path)
    assert "and 292 more" in message
    assert len(message) < 1500


# Parquet


@pytest.fixture
def parquet(tmp_path):
    """A function that writes columns to a parquet file and returns its path."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write_table(columns, **options):
        columns = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns)
        parquet.write_table(columns, tmp_path / "a.parquet", **options)
        return tmp_path / "a.parquet"

    return write_table


def test_each_row_of_parquet_is_a_document_in_all_row_groups(parquet):
    rows = [f"{number}: {line}" for number in range(200) for line in FRENCH.splitlines()]
    path = parquet({"id": list(range(len(rows))), "text": rows}, row_group_size=100)
    assert documents(path) == rows
    assert decided(path) == "utf-8"


def test_nulls_and_empty_rows_of_parquet_are_skipped(parquet):
    path = parquet({"text": [None, "a", "", "b\r\n", None]}, row_group_size=2)
    assert documents(path) == ["a", "b\r\n"]
    assert documents(path, newlines="lf") == ["a", "b\n"]


def test_another_parquet_column_can_be_configured(parquet):
    path = parquet({"text": [1, 2], "my.body": ["é", "b"]})
    assert documents(path, text_column="my.body") == ["é", "b"]


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_every_kind_of_strings_in_parquet_is_text(parquet, kind):
    pyarrow = pytest.importorskip("pyarrow")
    types = {"dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.string())}
    column = pyarrow.array(["é", "b", "é"], types.get(kind) or getattr(pyarrow, kind)())
    assert documents(parquet({"text": column})) == ["é", "b", "é"]


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view"])
def test_bytes_of_utf_8_in_parquet_are_text(parquet, kind):
    pyarrow = pytest.importorskip("pyarrow")
    column = pyarrow.array(["é".encode(), None, b"b"], getattr(pyarrow, kind)())
    path = parquet({"text": column})
    assert documents(path) == ["é", "b"]
    column = pyarrow.array([b"fine", b"a\xffb"], getattr(pyarrow, kind)())
    path = parquet({"text": column})
    message = complaint(path)
    assert "row 2: `text` isn't UTF-8: invalid start byte at offset 1" in message
    assert documents(path, errors="replace") == ["fine", "a\ufffdb"]


def test_a_nested_column_of_parquet_is_named_with_dots(parquet):
    rows = [{"body": {"en": "one"}, "id": 1}, None, {"body": None, "id": 2}]
    path = parquet({"meta": rows, "text": ["a", "b", "c"]})
    assert documents(path, text_column="meta.body.en") == ["one"]
    message = complaint(path, text_column="meta.text")
    assert "(found `meta`, `text`, `meta.body.en`, `meta.id`)" in message
    assert "row 1: `meta` should be text (found" in complaint(path, text_column="meta")


def test_two_columns_of_one_name_in_parquet_are_told(parquet):
    pyarrow = pytest.importorskip("pyarrow")
    path = parquet(pyarrow.table([["a"], ["b"]], names=["text", "text"]))
    assert "several columns are named `text`" in complaint(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "body": ["a"]}, "no column `text` (found `id`, `body`)"),
        ({"text": [1, 2]}, "row 1: `text` should be text (found `1`)"),
        ({"text": [None, ["a"]]}, "row 2: `text` should be text (found `["),
        ({"text": [None, ""]}, "no text in it"),
        ({"text": []}, "no text in it"),
    ],
)
def test_what_is_wrong_with_a_parquet_file_is_told(parquet, columns, message):
    path = parquet(columns)
    assert complaint(path).startswith(f"{path}: {message}")


def test_strings_of_parquet_that_are_not_utf_8_are_told_in_one_line(parquet):
    pyarrow = pytest.importorskip("pyarrow")
    offsets, letters = (0).to_bytes(4, "little") + (2).to_bytes(4, "little"), b"a\xff"
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(letters)]
    path = parquet({"text": pyarrow.Array.from_buffers(pyarrow.string(), 1, buffers)})
    complaint(path)


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -4, -100])
def test_a_truncated_parquet_file_is_told(parquet, cut):
    path = parquet({"text": FRENCH.splitlines()})
    path.write_bytes(path.read_bytes()[:cut])
    assert "can't be read as parquet" in complaint(path)


def test_a_parquet_file_with_damaged_pages_is_told(parquet):
    path = parquet({"text": varied(FRENCH, 100_000).splitlines()}, compression="zstd")
    data = bytearray(path.read_bytes())
    data[100:200] = bytes(100)
    path.write_bytes(data)
    complaint(path)


def test_a_text_that_is_called_parquet_is_told(tmp_path):
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "a.parquet", FRENCH)
    assert "can't be read as parquet" in complaint(path)


def test_a_suffix_in_capitals_says_the_same_of_a_file(tmp_path):
    data = jsonl({"text": "one"}, {"text": "two"}).encode()
    assert documents(write(tmp_path / "A.JSONL", data)) == ["one", "two"]
    assert documents(write(tmp_path / "A.JSONL.GZ", gzip.compress(data))) == ["one", "two"]


# Progress


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".txt.gz", ".jsonl.xz", ".txt.zst"])
def test_what_progress_is_told_sums_to_the_size_of_the_file(tmp_path, suffix):
    lines = varied(FRENCH, 1_000_000).splitlines()
    data = "".join(f"{line}\n" for line in lines)
    if ".jsonl" in suffix:
        data = jsonl(*({"text": line} for line in lines))
    if ".csv" in suffix:
        data = csv_of([["text"], *([line] for line in lines)])
    compress = COMPRESS.get(Path(suffix).suffix, bytes)
    path = write(tmp_path / f"a{suffix}", compress(data.encode()))
    steps = []
    pieces(path, steps.append)
    assert sum(steps) == path.stat().st_size
    assert min(steps) >= 0
    if compress is bytes:
        assert sum(step > 0 for step in steps) > 1


@pytest.mark.parametrize("n_rows", [1, 256, 257, 1000])
def test_what_progress_is_told_of_parquet_sums_to_the_size_of_the_file(parquet, n_rows):
    rows = [f"{number}: {line}" for number in range(200) for line in FRENCH.splitlines()]
    path = parquet({"text": rows[:n_rows]}, row_group_size=300)
    steps = []
    pieces(path, steps.append)
    assert sum(steps) == path.stat().st_size
