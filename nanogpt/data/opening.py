"""Open a file of a corpus: plain, compressed, or a member of an archive."""

import bz2
import gzip
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple, cast

from nanogpt.errors import UserError, plural, shorten

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# The suffixes of texts in a directory. A file that's named explicitly can have any suffix.
KINDS = (".txt", ".md", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")

# The first bytes of each. A file with the suffix but other first bytes isn't compressed.
COMPRESSIONS = {
    ".gz": b"\x1f\x8b\x08",
    ".xz": b"\xfd7zXZ\0",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".zstd": b"\x28\xb5\x2f\xfd",
    ".bz2": b"BZh",
}
BZ2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # after a digit; the second: empty file
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# Files that archives often have along with a text.
NO_TEXTS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".svg", ".ico", ".css")

MEMBERS_SHOWN = 3


class Unpacked(NamedTuple):
    """An open file. raw: its bytes on disk. content: decompressed. name: the content's name."""

    raw: BinaryIO
    content: BinaryIO
    name: str


def content_suffix(name: str) -> str:
    """The suffix of a file's format in lower case, without the suffix of a compression."""
    path = PurePath(PurePath(name).name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix


@contextmanager
def open_unpacked(path: Path, member: str = "") -> Iterator[Unpacked]:
    """Open a file, decompressed according to its content, whatever its name.

    member: the file to read from an archive; by default, its only text.

    Errors: UserError for a file that can't be read, and for an archive with several texts.
    """
    try:
        if not (path.is_file() or path.is_dir()) and path.exists():  # reading might never end
            raise UserError(
                f"{path}: a pipe or a device, not a file; save its content to a file and name that"
            )
        with open(path, "rb") as raw:
            content = _unpack(raw)
            if content is raw and path.suffix.lower() in COMPRESSIONS and raw.peek(1):
                raise UserError(
                    f"{path}: not compressed, despite its name; rename it without `{path.suffix}`"
                )
            content, name = _unarchive(_unpack(content), path, member)
            yield Unpacked(raw, content, name)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; put a text there or correct the path") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a directory, not a file; name a text file in it") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it; try `chmod a+r {path}`") from None
    except (
        EOFError,
        OSError,
        lzma.LZMAError,
        zlib.error,
        zstd.ZstdError,
        zipfile.BadZipFile,
        tarfile.TarError,
    ) as error:
        if isinstance(error, OSError) and error.strerror:  # from the system, not the decompressor
            raise UserError(
                f"{path}: can't be read: {error.strerror}; correct the path or get a new copy"
            ) from None
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: truncated or damaged: {reason}; get a new copy") from None


def _unpack(file: BinaryIO) -> BinaryIO:
    """The decompressed content of a file; the file itself if it isn't compressed."""
    head = file.peek(16)[:16]  # type: ignore[attr-defined]
    found = [name for name, magic in COMPRESSIONS.items() if head.startswith(magic)]
    match found[0] if found else "":
        case ".gz":
            return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))
        case ".xz":
            return cast(BinaryIO, lzma.LZMAFile(file))
        case ".zst":
            return cast(BinaryIO, zstd.ZstdFile(file))
        case ".bz2" if head[4:].startswith(BZ2_BLOCKS):
            return cast(BinaryIO, bz2.BZ2File(file))
    return file


def _unarchive(content: BinaryIO, path: Path, member: str) -> tuple[BinaryIO, str]:
    """The content and its name: of one member for an archive, otherwise of the file itself."""
    head = content.read(512)
    content.seek(0)
    if head.startswith(ZIP):
        try:
            archive = zipfile.ZipFile(content)
            files = [info.filename for info in archive.infolist() if not info.is_dir()]
            _check_is_no_document(files, path)
            chosen = _choose(files, path, member)
            return _unpack(cast(BinaryIO, archive.open(chosen))), chosen
        # It's encrypted, damaged, or uses a compression that Python doesn't support.
        except (RuntimeError, UnicodeError, IndexError) as error:
            raise UserError(f"{path}: can't be unpacked: {error}; unpack it by hand") from None
    if head[257:262] == b"ustar":
        tar = tarfile.open(fileobj=content, mode="r:")  # noqa: SIM115
        members = {info.name: info for info in tar.getmembers() if info.isfile()}
        chosen = _choose(list(members), path, member)
        return _unpack(cast(BinaryIO, tar.extractfile(members[chosen]))), chosen
    if member:
        raise UserError(f"{path}: not an archive, so it has no `{member}`; remove `member:`")
    return content, path.name


def _check_is_no_document(files: Sequence[str], path: Path) -> None:
    """Raise UserError for office documents and e-books, which are zip archives too."""
    for sign, what in (
        ("[Content_Types].xml", "a Word, Excel or PowerPoint file"),
        ("META-INF/container.xml", "an e-book (EPUB)"),
        ("META-INF/manifest.xml", "an OpenDocument file"),
    ):
        if sign in files:
            raise UserError(f"{path}: {what}, not text; save it as plain text")


def _choose(files: Sequence[str], path: Path, member: str) -> str:
    """Choose the member of an archive to read."""
    if member:
        if member not in files:
            raise UserError(
                f"{path}: no file `{member}` in this archive of {_members(files)}; correct the "
                "corpus's `member:`"
            )
        return member
    shown = [f for f in files if not f.startswith("__MACOSX/") and not _is_hidden(f)]
    texts = [f for f in shown if not f.lower().endswith(NO_TEXTS)]
    if len(texts) != 1:
        raise UserError(
            f"{path}: an archive of {_members(texts)}; set the corpus's `member:` to one of them, "
            "or unpack the archive and name the directory"
        )
    return texts[0]


def _is_hidden(file: str) -> bool:
    return any(part.startswith(".") and part != "." for part in PurePath(file).parts)


def _members(files: Sequence[str]) -> str:
    names = ", ".join(map(shorten, files[:MEMBERS_SHOWN]))
    more = ", ..." if len(files) > MEMBERS_SHOWN else ""
    return f"{plural(len(files), 'file')}{f' ({names}{more})' if files else ''}"
