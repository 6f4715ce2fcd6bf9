"""Presets and settings of nanoGPT and its Ruby port that have another name here, or none."""

import re
from dataclasses import dataclass
from pathlib import Path

from nanogpt.errors import UserError


@dataclass(frozen=True)
class Preset:
    """The meaning of a nanoGPT config file.

    run: a run of the shipped config.yaml with the same settings. init_from: instead of that,
    published weights to evaluate on OpenWebText.
    """

    run: str = ""
    init_from: str = ""


# nanoGPT's config/<name>.py, by name. The files are never executed.
PRESETS = {
    "train_shakespeare_char": Preset("shakespeare_char_baby"),
    "train_shakespeare": Preset("shakespeare_baby"),
    "train_gpt2": Preset("openwebtext_gpt2.model-gpt2"),
    "finetune_shakespeare": Preset("shakespeare_finetuned_gpt2xl"),
    "eval_gpt2": Preset(init_from="gpt2"),
    "eval_gpt2_medium": Preset(init_from="gpt2-medium"),
    "eval_gpt2_large": Preset(init_from="gpt2-large"),
    "eval_gpt2_xl": Preset(init_from="gpt2-xl"),
}

# Settings without a counterpart here, with the reason or the alternative.
_CURVES = "loss curves are in metrics.jsonl; `nanogpt watch` shows them in TensorBoard"
NO_COUNTERPART = {
    "wandb_log": _CURVES,
    "wandb_project": _CURVES,
    "wandb_run_name": _CURVES,
    "out_dir": "results go to results/<run>/; `nanogpt train --name=NAME` sets the name",
    "backend": "the backend of distributed training is chosen automatically",
    "compile": "only `train` and `bench` compile models",
    "profile": "bench times whole steps; use torch.profiler for details",
    "max_docs": "all documents are read; to use fewer, list fewer files in config.yaml",
}
# The boolean ones of these.
SWITCHES = ("wandb_log", "compile", "profile")


def find_preset(word: str) -> str:
    """Return the name of the preset that a word such as config/train_gpt2.py means, or "".

    Errors: UserError for any other Python file.
    """
    match = re.fullmatch(r"(?:.*/)?(\w+?)(\.py)?", word)
    if match and match[1] in PRESETS and (match[2] or "/" not in word):
        return match[1]
    if word.endswith(".py"):
        raise UserError(
            f"{word}: Python config files aren't executed; give the settings as flags, or as a "
            "JSON file with --config"
        )
    return ""


def translate(command: str, key: str, value: str) -> tuple[tuple[str, str] | None, str]:
    """Translate a nanoGPT flag to ours. Returns (flag, value) or None, and a note for the user.

    Errors: UserError for a flag that can't be translated.
    """
    is_on = value.lower() not in ("false", "no", "off", "0")
    if key == "always_save_checkpoint":
        kept = "last" if is_on else "best"
        return ("keep", kept), f"same as `--keep={kept}`"
    if key == "real_data":
        return ("data", "real" if is_on else "random"), ""
    if key == "init_from" and value == "scratch":
        return (("init_from", "null") if command in ("train", "plan") else None), ""
    if key == "init_from" and value == "resume":
        if command in ("train", "plan"):
            return None, "ignored: an unfinished training resumes automatically"
        return None, "ignored: name the run, or its dataset with --dataset"
    if key == "init_from" and command in ("sample", "eval"):
        if not value.startswith("gpt2"):
            raise UserError(
                f"init_from: not a flag of {command}; for a run, use `nanogpt {command} {value}`"
            )
        raise UserError(
            f"init_from: {_import_first(value)}, then run `nanogpt {command} models/{value}`"
        )
    return (key, value), ""


def model_in(command: str, out_dir: str) -> str:
    """Return the run or model directory that a nanoGPT out_dir such as out-shakespeare-char means.

    Errors: UserError for a directory with a nanoGPT checkpoint.
    """
    path = Path(out_dir)
    run = path.name.removeprefix("out-").replace("-", "_")
    if (path / "config.json").is_file():
        return out_dir
    if (path / "ckpt.pt").is_file():
        raise UserError(
            f"{out_dir}: a nanoGPT checkpoint; import it with `nanogpt import {out_dir} "
            f"models/{run} --from nanogpt`, then run `nanogpt {command} models/{run}`"
        )
    return run


def import_first(preset: str) -> UserError:
    """Return the error for a preset that evaluates published weights."""
    name = PRESETS[preset].init_from
    return UserError(
        f"{preset}: {_import_first(name)}, then run `nanogpt eval models/{name} "
        "--dataset=openwebtext --batch_size=8 --eval_iters=500`"
    )


def _import_first(name: str) -> str:
    command = f"nanogpt import {name} models/{name} --from huggingface"
    return f"needs the published weights; run `{command}`"
