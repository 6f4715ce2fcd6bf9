"""The playground's page, and /api/tokens: the tokens of a text."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

from nanogpt.config.patterns import NAME
from nanogpt.config.schema import SampleSettings
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import UserError, shorten
from nanogpt.web.pages import page
from nanogpt.web.run_files import is_inside
from nanogpt.web.site import SiteOf

# A page with more pieces than this is slow in a browser.
MOST_CHARACTERS = 20_000
KEPT_TOKENIZERS = 8

router = APIRouter(tags=["playground"])


class TextToSplit(BaseModel):
    """A text, and the model or dataset whose tokenizer splits it.

    unknown: what to do with characters that aren't in the vocabulary.
    """

    # Each field that's forbidden would make an error, and there can be a hundred thousand.
    model_config = ConfigDict(extra="ignore")

    text: str
    model: str = ""
    dataset: str = ""
    unknown: Literal["error", "skip"] = "error"


class Piece(BaseModel):
    """A token. text: with U+FFFD for part of a character."""

    id: int
    text: str
    bytes: list[int]


@router.get("/playground", response_class=HTMLResponse, include_in_schema=False)
def playground_page(request: Request, site: SiteOf) -> HTMLResponse:
    """Show the playground."""
    results = "" if site.shows_own_results else str(site.results)
    return page(
        request,
        "playground.html",
        datasets=_datasets(site.results),
        defaults=SampleSettings().model_dump(),
        results=results,
    )


@router.post("/api/tokens")
def split_text(body: TextToSplit, site: SiteOf) -> list[Piece]:
    """Split a text into tokens, as a prompt."""
    if len(body.text) > MOST_CHARACTERS:
        raise UserError(
            f"text: has {len(body.text):,} characters; use {MOST_CHARACTERS:,} or fewer"
        )
    if any("\ud800" <= character <= "\udfff" for character in body.text):
        raise UserError(
            "text: has a lone surrogate, which isn't a valid character; remove or replace it"
        )
    tokenizer = _find_tokenizer(body, site.results)
    tokens = tokenizer.encode_prompt(body.text, body.unknown).tolist()
    pieces = {
        token: Piece(
            id=token, text=tokenizer.decode([token]), bytes=list(tokenizer.to_bytes([token]))
        )
        for token in set(tokens)
    }
    return [pieces[token] for token in tokens]


def _find_tokenizer(body: TextToSplit, results: Path) -> Tokenizer:
    if bool(body.model) == bool(body.dataset):
        raise UserError("name either a `model` or a `dataset`")
    kind, name = ("model", body.model) if body.model else ("dataset", body.dataset)
    path = results / name / "model" if body.model else results / "datasets" / name
    file = path / "tokenizer.json"
    if not (NAME.fullmatch(name) and _is_there(file, results)):
        raise UserError(f"no {kind} `{shorten(name)}` with a tokenizer")
    status = file.stat()
    return _read_tokenizer(file, status.st_ino, status.st_mtime_ns)


@lru_cache(KEPT_TOKENIZERS)
def _read_tokenizer(file: Path, inode: int, mtime_ns: int) -> Tokenizer:  # noqa: ARG001
    """Read a tokenizer once, until its file is replaced."""
    return load_tokenizer(file)


def _is_there(file: Path, results: Path) -> bool:
    """Whether a file exists in the results; false, too, for a name that's too long."""
    return os.path.isfile(file) and is_inside(file, results)  # noqa: PTH113 - a Path may raise


def _datasets(results: Path) -> list[str]:
    """Return the names of the datasets with a tokenizer."""
    files = (results / "datasets").glob("*/tokenizer.json")
    return sorted(file.parent.name for file in files if _is_there(file, results))
