"""Download GPT-2 by name from OpenAI's publication on Hugging Face, and check its digests.

The first download records the digests in the files' directory. Later uses check against them.
"""

from collections.abc import Sequence
from pathlib import Path

from nanogpt.artifacts.records.base import Record, read_record, write_record
from nanogpt.data.byte_pairs import GPT2_MERGES_SHA256, GPT2_MERGES_URL, gpt2_tokenizer
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import UserError
from nanogpt.files import downloads
from nanogpt.files.atomic import sha256_file
from nanogpt.project import Project

URL = "https://huggingface.co/openai-community/{name}/resolve/main/{file}"
FILES = ("config.json", "model.safetensors")
DIGESTS = "digests.json"


class Digests(Record):
    """digests.json: the sha256 of each file when it was first downloaded."""

    sha256: dict[str, str]


def download_gpt2(name: str, project: Project, mirrors: Sequence[str] = ()) -> Path:
    """The directory of a GPT-2 model by name, downloaded if it isn't there.

    mirrors: those in config.yaml. NANOGPT_MIRROR is tried before them.

    Errors: UserError for a failed download, and for a file that changed since its download.
    """
    directory = project.downloaded_models / name
    record = directory / DIGESTS
    known = dict(read_record(record, Digests, "delete it").sha256) if record.exists() else {}
    for file in FILES:
        path = directory / file
        if path.exists():
            digest = sha256_file(path)
            if known.get(file, digest) != digest:
                raise UserError(
                    f"{path}: changed since its download: expected sha256 {known[file][:12]}, "
                    f"found {digest[:12]}; delete it to download it again"
                )
        else:
            url = URL.format(name=name, file=file)
            directory.mkdir(parents=True, exist_ok=True)
            sources = downloads.mirrors(mirrors)
            digest = downloads.fetch(url, path, sha256=known.get(file), mirrors=sources)
        if file not in known:
            known[file] = digest
            write_record(record, Digests(sha256=known))
    return directory


def download_tokenizer(project: Project, mirrors: Sequence[str] = ()) -> Tokenizer:
    """GPT-2's tokenizer. Its merges are downloaded if they aren't there."""
    merges = project.gpt2_merges
    if not merges.exists():
        merges.parent.mkdir(parents=True, exist_ok=True)
        sources = downloads.mirrors(mirrors)
        downloads.fetch(GPT2_MERGES_URL, merges, sha256=GPT2_MERGES_SHA256, mirrors=sources)
    return gpt2_tokenizer(merges)
