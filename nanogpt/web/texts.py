"""Texts that are uploaded, to resources/texts/."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.exceptions import HTTPException

from nanogpt.config.corpora import Corpus
from nanogpt.config.loading import add_fragments, find_texts, load, read_mapping
from nanogpt.config.patterns import NAME, NAME_RULE
from nanogpt.data.encodings import decide_encoding
from nanogpt.data.formats import read_documents
from nanogpt.data.opening import open_unpacked
from nanogpt.data.sniffing import format_of
from nanogpt.errors import UserError, shorten
from nanogpt.files.atomic import NAME_BYTES, put_in_place
from nanogpt.files.locks import hold
from nanogpt.project import Project

SUFFIX = ".txt"
TEMPORARY = ".upload-"
LEFT_OVER = 24 * 3600.0  # seconds after which an unfinished upload is removed


async def receive_text(
    project: Project, name: str, most: int, pieces: AsyncIterator[bytes]
) -> Path:
    """Write an upload to a text of the project, as soon as it's complete and checked.

    name: with or without `.txt`. most: bytes.

    Errors: UserError for a name or a text that `nanogpt prepare` wouldn't accept; HTTPException for
    a name that exists and for a text that's too large.
    """
    stem = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name
    if not NAME.fullmatch(stem):
        raise UserError(f"invalid name `{name}`; {NAME_RULE}")
    place = project.texts / f"{stem}{SUFFIX}"
    if len(place.name) > NAME_BYTES:
        raise UserError(f"{shorten(stem)}: name too long; use a shorter one")
    temporary = await asyncio.to_thread(_begin, place)
    try:
        with temporary.open("wb") as file:
            n_bytes = 0
            async for piece in pieces:
                n_bytes += len(piece)
                if n_bytes > most:
                    raise HTTPException(413, f"the text is too large; send {most:,} bytes or fewer")
                await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(_finish, project, temporary, place)
    finally:
        temporary.unlink(missing_ok=True)
    return place


def _begin(place: Path) -> Path:
    """Create the temporary file of an upload, and remove those that an earlier server left."""
    _refuse_existing(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    for path in place.parent.glob(f"{TEMPORARY}*"):
        if time.time() - path.stat().st_mtime > LEFT_OVER:
            path.unlink(missing_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=place.parent, prefix=TEMPORARY, suffix=SUFFIX)
    os.close(descriptor)
    return Path(temporary)


def _finish(project: Project, temporary: Path, place: Path) -> None:
    """Check an uploaded text and the config with it, and give it its name."""
    try:
        _check_text(temporary)
    except UserError as error:
        message = str(error).replace(str(temporary), str(place))
        raise UserError(message) from None
    with hold(project.fragments_lock, f"adding {place.name}"):
        _refuse_existing(place)
        mapping = read_mapping(project.config_file)
        add_fragments(mapping, project)
        load(mapping, sorted([*find_texts(project), place.name]), project)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        put_in_place(temporary, place)


def _check_text(path: Path) -> None:
    """Raise UserError for a file that `nanogpt prepare` can't read, or without text."""
    with open_unpacked(path) as (raw, content, _):
        if content is not raw:
            raise UserError(f"{path}: a compressed file or an archive; unpack it first")
    corpus = Corpus(files=[str(path)])
    if format_of(path, corpus) == "parquet":
        raise UserError(f"{path}: a parquet file; name it under `corpora` in config.yaml")
    next(read_documents(path, corpus, decide_encoding(path, corpus)))


def _refuse_existing(place: Path) -> None:
    if os.path.lexists(place):
        raise HTTPException(409, f"{place.name}: a text of this name exists; choose another name")
