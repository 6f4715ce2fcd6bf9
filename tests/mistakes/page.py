"""Print docs/ERRORS.md: `python -m tests.mistakes.page > docs/ERRORS.md`."""

import sys

from tests.mistakes.base import code
from tests.mistakes.commands import COMMANDS
from tests.mistakes.config_files import CONFIG_FILES
from tests.mistakes.datasets import DATASETS
from tests.mistakes.downloads import DOWNLOADS
from tests.mistakes.edits import EDITS
from tests.mistakes.embedding import EMBEDDING
from tests.mistakes.ensembles import ENSEMBLES
from tests.mistakes.initial import INITIAL
from tests.mistakes.interchange import INTERCHANGE
from tests.mistakes.models import MODELS
from tests.mistakes.ngrams import NGRAMS
from tests.mistakes.planning import PLANNING
from tests.mistakes.prompts import PROMPTS
from tests.mistakes.reports import REPORTS
from tests.mistakes.settings import SETTINGS
from tests.mistakes.sweeps import SWEEPS
from tests.mistakes.texts import TEXTS
from tests.mistakes.tokenizers import TOKENIZERS
from tests.mistakes.training import TRAINING
from tests.mistakes.verification import VERIFICATION

# Headings of the page, each with its mistakes.
AREAS = {
    "The file config.yaml": CONFIG_FILES,
    "Settings": SETTINGS,
    "Sweeps": SWEEPS,
    "Ensembles": ENSEMBLES,
    "Fine-tuning": INITIAL,
    "Texts": TEXTS,
    "Tokenizers": TOKENIZERS,
    "Datasets": DATASETS,
    "Models": MODELS,
    "Models for other programs, and from them": INTERCHANGE,
    "N-grams": NGRAMS,
    "Prompts and sampling": PROMPTS,
    "Devices and training": TRAINING,
    "Downloads": DOWNLOADS,
    "Reports": REPORTS,
    "What `nanogpt verify` finds": VERIFICATION,
    "Plans and reasons": PLANNING,
    "Commands": COMMANDS,
    "The workflow elsewhere": EMBEDDING,
    "Edits of the code": EDITS,
}


def page() -> str:
    """docs/ERRORS.md."""
    lines = [
        "# Errors, and what to do",
        "",
        "A mistake ends a command or a job with exit code 1 and one line: `error:` and a message",
        "from this page. Search it for part of the message that isn't one of your own names.",
        "",
        "`make format` writes this page, so don't edit it by hand; a test makes each of these",
        "mistakes. HOST is the name of a server.",
    ]
    for area, mistakes in AREAS.items():
        lines += ["", f"## {area}", "", "| mistake | message |", "|---|---|"]
        lines += [f"| {m.title}: {m.shown} | {code(m.message)} |" for m in mistakes]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(page().encode("utf-8"))
