"""Files are opened, compressed or not, and unreadable files are named."""

from pathlib import Path

import pytest

from tests.data.reading import (
    COMPRESS,
    FRENCH,
    JAPANESE,
    SPANISH,
    complaint,
    csv_of,
    documents,
    jsonl,
    piece_of,
    varied,
    write,
)

# Compressed files


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_compressed_file_reads_like_its_content(tmp_path, compression):
    compress = COMPRESS[compression]
    for text, encoding in ((varied(JAPANESE, 400_000), "utf-8"), (FRENCH, "cp1252")):
        path = write(tmp_path / f"a.txt{compression}", compress(text.encode(encoding)))
        assert documents(path) == [text]
        with piece_of(1001):
            assert documents(path) == [text]
    rows = FRENCH.splitlines()
    for suffix, data in (
        (".jsonl", jsonl(*({"text": row} for row in rows))),
        (".csv", csv_of([["text"], *([row] for row in rows)])),
    ):
        path = write(tmp_path / f"a{suffix}{compression}", compress(data.encode()))
        assert documents(path) == rows


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_several_compressed_streams_in_one_file_are_read_whole(tmp_path, compression, suffix):
    rows = [f"{number}: {line}" for number in range(500) for line in FRENCH.splitlines()]
    lines = [jsonl({"text": row}) if suffix == ".jsonl" else row + "\n" for row in rows]
    # Cut within lines and characters.
    data = "".join(lines).encode()
    parts = [data[start : start + 100_003] for start in range(0, len(data), 100_003)]
    assert len(parts) > 3
    path = write(tmp_path / f"a{suffix}{compression}", b"".join(map(COMPRESS[compression], parts)))
    assert documents(path) == (rows if suffix == ".jsonl" else ["".join(lines)])


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
@pytest.mark.parametrize("left", [0.01, 0.5, 0.99, -1])
def test_a_truncated_compressed_file_is_a_one_line_error(tmp_path, compression, suffix, left):
    data = varied(SPANISH, 300_000)
    if suffix == ".jsonl":
        data = jsonl(*({"text": line} for line in data.splitlines()))
    packed = COMPRESS[compression](data.encode())
    packed = packed[:-1] if left == -1 else packed[: int(left * len(packed))]
    path = write(tmp_path / f"a{suffix}{compression}", packed)
    message = complaint(path)
    assert "truncated or damaged: " in message
    assert "get a new copy" in message


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_damaged_compressed_file_is_a_one_line_error(tmp_path, compression, suffix):
    data = varied(SPANISH, 300_000)
    if suffix == ".jsonl":
        data = jsonl(*({"text": line} for line in data.splitlines()))
    packed = bytearray(COMPRESS[compression](data.encode()))
    middle = len(packed) // 2
    packed[middle:] = bytes(len(packed) - middle)  # as an interrupted download can end
    path = write(tmp_path / f"a{suffix}{compression}", packed)
    assert "truncated or damaged: " in complaint(path)


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_text_named_like_a_compressed_file_is_an_error(tmp_path, compression):
    path = write(tmp_path / f"a.txt{compression}", FRENCH)
    message = f"not compressed, despite its name; rename it without `{compression}`"
    assert complaint(path) == f"{path}: {message}"


@pytest.mark.parametrize("compression", COMPRESS)
def test_an_error_in_a_compressed_file_has_its_offset_in_the_content(tmp_path, compression):
    before = varied(FRENCH, 600_000).encode()
    path = write(tmp_path / f"a.txt{compression}", COMPRESS[compression](before + b"\xff"))
    assert f"byte 0xff at offset {len(before)}:" in complaint(path)


# Files that can't be read


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.txt", "no such file; put"),
        (".", "a directory, not a file; name"),
        ("a.txt/b.txt", "Not a directory"),
        ("a.txt", "binary"),
        ("absent.parquet", "no such file; put"),
        ("absent.jsonl", "no such file; put"),
        ("absent.txt.gz", "no such file; put"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_a_remedy(tmp_path, name, message):
    write(tmp_path / "a.txt", b"\0")
    assert message in complaint(tmp_path / name)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.txt.gz", "a.parquet"])
def test_a_file_without_permission_is_an_error(name, request):
    pytest.importorskip("pyarrow")  # imported before the process loses its permissions
    path = write(Path(name), "secret")
    path.chmod(0)
    request.getfixturevalue("plain_user")
    assert complaint(path).startswith(f"{name}: no permission to read it; try `chmod a+r {name}`")
