"""A file of a corpus as it lies on the disk and unpacked, and its kind by its name."""

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

# What is taken from a directory. A file that is named may have any name, and be plain text.
KINDS = (".txt", ".jsonl", ".ndjson", ".csv", ".parquet")

TABLES = KINDS[1:]

COMPRESSIONS = (".gz", ".zst", ".xz")


def kind_of(path: Path) -> str:
    """The suffix that tells a file's format, without that of its compression."""
    path = Path(path.name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """A file as it lies on the disk, and what it holds once unpacked."""
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
