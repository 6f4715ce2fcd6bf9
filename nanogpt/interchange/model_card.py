"""Write the README.md of an export: the model's usage, evaluation, data and settings."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import JsonValue

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.evaluations import Evaluation
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.config.parameters import complete
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.config.values import Settings
from nanogpt.errors import plural
from nanogpt.interchange.exports import ExportedModel
from nanogpt.project import HERE

# The groups of a training's settings, and the settings that only Muon uses.
GROUPS: Mapping[str, type[Settings]] = {"model": ModelSettings, "train": TrainSettings}
OF_MUON = {"matrix_lr", "embedding_lr", "unembedding_lr", "momentum", "ns_steps"}


def model_card(model: ExportedModel, architecture: str) -> str:
    """The model card, with the evaluation and training from the run's directory if there are any.

    They're omitted if they aren't for exactly these weights, such as an older evaluation.
    """
    n_parameters = sum(weight.numel() for weight in model.weights.values())
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags:",
        "- nanogpt",
        "---",
        "",
        f"# {model.name}",
        "",
        f"A language model of {n_parameters:,} parameters, trained with nanogpt and exported as",
        f"`{architecture}`. Its context is {model.settings.block_size:,} tokens, including the",
        "continuation.",
        "",
        "```python",
        "from transformers import pipeline",
        "",
        'generate = pipeline("text-generation", "path/of/this/directory")',
        'print(generate("a text", do_sample=True, temperature=0.8)[0]["generated_text"])',
        "```",
    ]
    run = model.directory.parent
    lines += _write_evaluation(run, model.sha256)
    training = _read_manifest(run / "train.manifest.json", model.sha256)
    if training:
        lines += _write_data(training)
    groups: dict[str, JsonValue] = {"model": _dump_settings(model)}
    if training:
        groups = {**training.parameters}
        groups |= {name: _complete_group(name, groups[name]) for name in GROUPS if name in groups}
    lines += ["", "## Settings", "", "```yaml", yaml.safe_dump(groups, sort_keys=False).rstrip()]
    return "\n".join([*lines, "```", ""])


def _complete_group(name: str, given: JsonValue) -> JsonValue:
    """Complete a group with settings omitted from the parameters, and remove unused ones."""
    assert isinstance(given, dict)
    settings = complete(GROUPS[name], given, partial=True)
    unused = {"init_from"}  # this name may have changed; the card has the digest
    if isinstance(settings, TrainSettings):
        if settings.optimizer != "muon":
            unused |= OF_MUON
        if not settings.decay_lr or settings.lr_schedule != "wsd":
            unused.add("warmdown_ratio")
    dumped: JsonValue = settings.model_dump(mode="json", exclude_unset=True, exclude=unused)
    return dumped


def _dump_settings(model: ExportedModel) -> JsonValue:
    settings: JsonValue = model.settings.model_dump(mode="json")
    return settings


def _read_manifest(path: Path, weights: str) -> Manifest | None:
    """Read a manifest; None if it doesn't list weights of this digest as input or output."""
    if not path.is_file():
        return None
    manifest = read_record(path, Manifest)
    known = {**manifest.inputs, **manifest.outputs}.values()
    return manifest if weights in known else None


def _write_evaluation(run: Path, weights: str) -> list[str]:
    if not _read_manifest(run / "eval.manifest.json", weights) or not (run / "eval.json").is_file():
        return []
    evaluation = read_record(run / "eval.json", Evaluation)
    rows = [
        f"| {name} | {split.loss:.4f} | {split.perplexity:.3f} | {split.bits_per_byte:.4f} "
        f"| {split.n_tokens:,} |"
        for name, split in (("validation", evaluation.val), ("training", evaluation.train))
    ]
    head = ["| split | loss, nats per token | perplexity | bits per byte | tokens |"]
    return ["", "## Evaluation", "", *head, "|---|---|---|---|---|", *rows]


def _write_data(training: Manifest) -> list[str]:
    """The section about the training data and the initial model."""
    of_data = {
        path: digest
        for path, digest in training.inputs.items()
        if Path(path).is_relative_to(HERE.datasets)
    }
    initial = {p: digest for p, digest in training.inputs.items() if p not in of_data}
    datasets = sorted({Path(path).parent.name for path in of_data})
    files = f"{plural(len(of_data), 'file')} of the dataset"
    read = f"{files} {', '.join(f'`{name}`' for name in datasets)}, as the training read them."
    lines = ["", "## Data", "", read, "", *_write_digests(of_data)]
    if initial:
        lines += ["", "## Initial model", "", "The training started from these weights.", ""]
        lines += _write_digests(initial)
    return lines


def _write_digests(files: Mapping[str, str]) -> list[str]:
    rows = [f"| {Path(path).name} | {digest} |" for path, digest in files.items()]
    return ["| file | sha256 |", "|---|---|", *rows]
