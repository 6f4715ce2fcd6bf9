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
from tests.mistakes.serve import SERVE
from tests.mistakes.settings import SETTINGS
from tests.mistakes.sweeps import SWEEPS
from tests.mistakes.texts import TEXTS
from tests.mistakes.tokenizers import TOKENIZERS
from tests.mistakes.training import TRAINING
from tests.mistakes.verification import VERIFICATION

# The headings of the page, with their mistakes.
AREAS = {
    "config.yaml": CONFIG_FILES,
    "Settings": SETTINGS,
    "Sweeps": SWEEPS,
    "Ensembles": ENSEMBLES,
    "Fine-tuning": INITIAL,
    "Texts": TEXTS,
    "Tokenizers": TOKENIZERS,
    "Datasets": DATASETS,
    "Models": MODELS,
    "Export and import": INTERCHANGE,
    "N-grams": NGRAMS,
    "Prompts and sampling": PROMPTS,
    "Devices and training": TRAINING,
    "Downloads": DOWNLOADS,
    "Reports": REPORTS,
    "The page": SERVE,
    "Problems that `nanogpt verify` reports": VERIFICATION,
    "`nanogpt plan` and `nanogpt why`": PLANNING,
    "Commands": COMMANDS,
    "Deployed workflows and long names": EMBEDDING,
    "Code changes": EDITS,
}


def page() -> str:
    """Return the contents of docs/ERRORS.md."""
    lines = [
        "# Error messages",
        "",
        "If a command or a job fails because of a mistake, it prints one line that starts with",
        "`error:` and exits with code 1. Find your message here by searching for a part of it that",
        "isn't one of your own names. HOST stands for the name of a server.",
        "",
        "`make format` generates this page from the tests, which make each of these mistakes, so",
        "don't edit it by hand.",
    ]
    for area, mistakes in AREAS.items():
        lines += ["", f"## {area}", "", "| mistake | message |", "|---|---|"]
        lines += [f"| {m.title}: {m.shown} | {code(m.message)} |" for m in mistakes]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(page().encode("utf-8"))
