"""What all exports share: the model that is read, and what no format can hold."""

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nanogpt.config.schema import ModelSettings
from nanogpt.config.trained import check_program
from nanogpt.data.byte_pairs import GPT2_SHA256
from nanogpt.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer
from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import sha256_file
from nanogpt.interchange.architectures import Format, check_format
from nanogpt.interchange.destinations import Mark
from nanogpt.model.checkpoints import load_model
from nanogpt.model.ensemble import Ensemble
from nanogpt.project import NGRAMS_FILE

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportedModel:
    """A model to export. name: of its run, or of its directory. sha256: of its weights."""

    directory: Path
    name: str
    settings: ModelSettings
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    start: tuple[int, ...]
    sha256: str

    def mark(self, kind: str) -> Mark:
        """What the mark of an export says of it."""
        return Mark(kind=kind, source=self.name, sha256=self.sha256)


def read_model(directory: Path, kind: Format) -> ExportedModel:
    """Read a nanogpt model directory to export it. N-grams beside it are left, with a warning.

    Errors: UserError for files that are absent or damaged, for an ensemble, and for an architecture
    or tokens that the format can't hold.
    """
    check_program(directory)
    checkpoint = load_model(directory)
    model = checkpoint.model
    if isinstance(model, Ensemble):
        raise UserError(
            f"{directory}: an ensemble of {plural(len(model.members), 'model')}, which no other "
            "program can run; export the model of one of its runs"
        )
    tokenizer = _find_tokenizer(directory, checkpoint.tokenizer)
    check_format(model.settings, tokenizer, kind, str(directory))
    if (directory / NGRAMS_FILE).exists():
        logger.warning("%s: n-grams aren't exported, only the GPT", directory / NGRAMS_FILE)
    return ExportedModel(
        directory=directory,
        name=model_name(directory),
        settings=model.settings,
        weights=model.state_dict(),
        tokenizer=checkpoint.tokenizer,
        start=checkpoint.start,
        sha256=sha256_file(directory / "model.safetensors"),
    )


def model_name(directory: Path) -> str:
    """`demo` of results/demo/model; of another directory, its own name."""
    resolved = directory.resolve()
    return resolved.parent.name if resolved.name == "model" else resolved.name


def _find_tokenizer(directory: Path, tokenizer: Tokenizer) -> str:
    """The tokenizer of a model directory, as config.yaml calls it."""
    if isinstance(tokenizer, CharTokenizer):
        return "char"
    if isinstance(tokenizer, ByteTokenizer):
        return "byte"
    return "gpt2" if sha256_file(directory / "tokenizer.json") == GPT2_SHA256 else "bpe"
