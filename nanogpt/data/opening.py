"""Open a file of a corpus, compressed or not, and tell its format by its name."""

import gzip
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from nanogpt.errors import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# What a directory's texts are called. A file that is listed itself may have any other name, and is
# plain text then.
KINDS = (".txt", ".jsonl", ".ndjson", ".csv", ".parquet")
TABLES = KINDS[1:]
COMPRESSIONS = (".gz", ".zst", ".xz")


def kind_of(path: Path) -> str:
    """The suffix of a file's format, in lower case, without that of its compression."""
    path = Path(path.name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix


@contextmanager
def open_unpacked(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file itself, and its content without the compression; both are the same without one."""
    suffix = path.suffix.lower()
    try:
        with open(path, "rb") as raw:
            if suffix == ".gz":
                yield raw, cast(BinaryIO, gzip.GzipFile(fileobj=raw))
            elif suffix == ".xz":
                yield raw, cast(BinaryIO, lzma.LZMAFile(raw))  # noqa: SIM115
            elif suffix == ".zst":
                yield raw, cast(BinaryIO, zstd.ZstdFile(raw))
            else:
                yield raw, raw
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; put a text there or correct the path") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a directory; name a text file in it") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it; try `chmod a+r {path}`") from None
    except (EOFError, lzma.LZMAError, zlib.error, zstd.ZstdError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:  # the system's, not of what unpacks
            raise UserError(
                f"{path}: cannot be read: {error.strerror}; correct the path, or get it again"
            ) from None
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: cannot be read to its end: {reason}; it may be cut short or damaged: "
            "get it again"
        ) from None
