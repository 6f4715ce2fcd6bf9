"""Pages made from the settings: docs/SETTINGS.md, the JSON schema, a run's settings."""

import json
from typing import Any

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.ensembles import NOT_OWN
from nanogpt.config.messages import yaml_scalar
from nanogpt.config.resolving import DERIVED, resolve_run, run_layers
from nanogpt.config.schema import (
    BenchSettings,
    Config,
    EvalSettings,
    ModelChoice,
    NgramChoice,
    Report,
    RunDefaults,
    RunEntry,
    SampleSettings,
    TrainSettings,
)


def describe_run(config: Config, name: str) -> str:
    """Return a run's resolved settings as YAML, with the source of each value in a comment."""
    run = resolve_run(config, name)
    given = {
        (group, setting): (source, value)
        for source, groups in run_layers(config, name)
        for group, settings in groups.items()
        for setting, value in settings.items()
    }
    lines = [f"dataset: {run.dataset}"]
    if run.ensemble:
        lines.append(f"ensemble: [{', '.join(run.ensemble)}]")
    for group in RunDefaults.GROUPS:
        if run.ensemble and group in NOT_OWN:
            continue
        if getattr(run, group) is None:
            lines.append(f"{group}: off")
            continue
        lines.append(f"{group}:")
        for setting, value in getattr(run, group).model_dump().items():
            text = f"{setting}: {yaml_scalar(value)}"
            source, given_value = given.get((group, setting), ("built in", None))
            if given_value is None and (group, setting) in DERIVED:
                source = f"from {'.'.join(DERIVED[group, setting])}"
            elif setting == "warmup_iters" and given_value not in (None, value):
                source = "a tenth of train.max_iters"
            lines.append(f"  {text:<36} # {source}")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Return docs/SETTINGS.md: all settings with their defaults and meanings."""
    lines = [
        "# Settings",
        "",
        "All settings of config.yaml, with the package's defaults. `nanogpt config <run>` prints",
        "a run's settings and where each comes from. This page is generated from",
        "`nanogpt/config/schema.py` by `nanogpt settings`; don't edit it by hand.",
    ]
    for title, model, names in (
        ("model", ModelChoice, ModelChoice.model_fields),
        ("train", TrainSettings, TrainSettings.model_fields),
        ("eval", EvalSettings, EvalSettings.model_fields),
        ("sample", SampleSettings, SampleSettings.model_fields),
        ("bench", BenchSettings, BenchSettings.model_fields),
        ("ngram", NgramChoice, NgramChoice.model_fields),
        ("corpora.<name>", Corpus, Corpus.model_fields),
        ("datasets.<name>", Dataset, Dataset.model_fields),
        (
            "runs.<name>, with the groups above",
            RunEntry,
            ["dataset", "ensemble", "sweep"],
        ),
        ("report", Report, ["runs"]),
        ("top level", Config, ["mirrors"]),
    ):
        lines += ["", f"## {title}", "", "| setting | default | meaning |", "|---|---|---|"]
        for name in names:
            field = model.model_fields[name]
            default = json.dumps(field.get_default(call_default_factory=True))
            lines.append(f"| `{name}` | `{default}` | {field.description} |")
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of config.yaml, for editors."""
    return Config.model_json_schema()
