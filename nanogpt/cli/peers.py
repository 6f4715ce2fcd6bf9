"""What users of nanoGPT and of its Ruby port type: presets, and settings that have other names here
or none."""

import re
from dataclasses import dataclass
from pathlib import Path

from nanogpt.errors import UserError


@dataclass(frozen=True)
class Preset:
    """What a config file of nanoGPT stands for. run: of the shipped config.yaml, with its settings.

    Or init_from: published weights that are evaluated on OpenWebText.
    """

    run: str = ""
    init_from: str = ""


# nanoGPT's config/<name>.py, by name; they are never executed.
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

# Settings that have no counterpart, each with what there is instead.
_CURVES = "curves are in metrics.jsonl, and `nanogpt watch` shows them in TensorBoard"
NO_COUNTERPART = {
    "wandb_log": _CURVES,
    "wandb_project": _CURVES,
    "wandb_run_name": _CURVES,
    "out_dir": "results go to results/<run>/; `nanogpt train --name=NAME` names a run",
    "backend": "processes that train together choose how they talk",
    "compile": "only training compiles: `--compile` of train and bench",
    "profile": "bench times whole steps; for a look inside, use torch.profiler",
    "max_docs": "all documents are read; for fewer, name fewer files in config.yaml",
}
# Of these, the ones that are yes or no.
SWITCHES = ("wandb_log", "compile", "profile")


def find_preset(word: str) -> str:
    """The name of the preset that a word means, such as config/train_gpt2.py; or an empty string.

    Errors: UserError for another Python file.
    """
    match = re.fullmatch(r"(?:.*/)?(\w+?)(\.py)?", word)
    if match and match[1] in PRESETS and (match[2] or "/" not in word):
        return match[1]
    if word.endswith(".py"):
        raise UserError(
            f"{word}: Python isn't executed as a config file; write its settings as flags, or as "
            "JSON for --config"
        )
    return ""


def translate(command: str, key: str, value: str) -> tuple[tuple[str, str] | None, str]:
    """What a flag of nanoGPT's is here, if it's another one: (flag, value) or None, and a note.

    Errors: UserError for what can't be done.
    """
    is_on = value.lower() not in ("false", "no", "off", "0")
    if key == "always_save_checkpoint":
        kept = "last" if is_on else "best"
        return ("keep", kept), f"keeps the {kept} weights: `--keep={kept}`"
    if key == "real_data":
        return ("data", "real" if is_on else "random"), ""
    if key == "init_from" and value == "scratch":
        return (("init_from", "null") if command in ("train", "plan") else None), ""
    if key == "init_from" and value == "resume":
        if command in ("train", "plan"):
            return None, "an unfinished training goes on by itself"
        return None, "name the run, or its dataset by --dataset"
    if key == "init_from" and command in ("sample", "eval"):
        if not value.startswith("gpt2"):
            raise UserError(f"init_from: for a run, say `nanogpt {command} {value}`")
        raise UserError(
            f"init_from: {_import_first(value)}; then `nanogpt {command} models/{value}`"
        )
    return (key, value), ""


def model_in(command: str, out_dir: str) -> str:
    """The run or model directory that nanoGPT's out_dir means, such as out-shakespeare-char.

    Errors: UserError for a directory with a checkpoint of nanoGPT's.
    """
    path = Path(out_dir)
    run = path.name.removeprefix("out-").replace("-", "_")
    if (path / "config.json").is_file():
        return out_dir
    if (path / "ckpt.pt").is_file():
        raise UserError(
            f"{out_dir}: a checkpoint of nanoGPT; import it first: `nanogpt import {out_dir} "
            f"models/{run} --from nanogpt`; then `nanogpt {command} models/{run}`"
        )
    return run


def import_first(preset: str) -> UserError:
    """The error for a preset that evaluates published weights."""
    name = PRESETS[preset].init_from
    return UserError(
        f"{preset}: {_import_first(name)}; then `nanogpt eval models/{name} --dataset=openwebtext "
        "--batch_size=8 --eval_iters=500`"
    )


def _import_first(name: str) -> str:
    return f"get the weights first: `nanogpt import {name} models/{name} --from huggingface`"
