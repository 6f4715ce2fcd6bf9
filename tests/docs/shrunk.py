"""A checkout for the commands of the pages: the shipped runs with tiny models and short texts."""

from pathlib import Path
from typing import Any

import yaml

from nanogpt.config.schema import ModelSettings
from nanogpt.data.byte_pairs import GPT2_MERGES_URL, gpt2_tokenizer
from nanogpt.interchange.hugging_face_export import export_hugging_face
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from tests.checkouts import MIRROR, PROJECT, copy_checkout

TEXT = "The old clocks were striking thirteen, and no ROMEO: or Tam: was there to hear.\n" * 60


def shrink(config: dict[str, Any]) -> None:
    """Give each corpus of a config.yaml a short text, and each run a tiny model and two steps."""
    for name in config["corpora"]:
        config["corpora"][name] = {"files": "resources/short.txt"}
    for dataset in config["datasets"].values():
        for key in ("train_bytes", "val_bytes", "split"):
            dataset.pop(key, None)
        dataset["val_ratio"] = 0.1
        if dataset.get("tokenizer") in ("bpe", "gpt2"):
            dataset |= {"tokenizer": "bpe", "vocab_size": 260}
    if MIRROR:
        config["datasets"]["openwebtext"] = {"tokenizer": "gpt2"}
    for model in config["models"].values():
        model |= {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 16}
    quick = {"max_iters": 2, "batch_size": 2, "warmup_iters": 0, "eval_iters": 1}
    slow = {"gradient_accumulation_steps", "compile", "lr_decay_iters"}
    for run in [config["defaults"], *config["runs"].values()]:
        if "ensemble" in run:
            continue
        kept = {key: value for key, value in run.get("train", {}).items() if key not in slow}
        run["train"] = {**kept, **quick}
        run["eval"] = {"eval_iters": 1, "batch_size": 2}
        run["sample"] = {"num_samples": 1, "max_new_tokens": 5}
        run["bench"] = {"burn_in": 0, "steps": 1}
        if isinstance(run.get("model"), dict):
            run["model"] = run["model"].get("preset")
    config["report"] = {"runs": ["demo"]}
    # From a model that is trained here, instead of GPT-2's largest.
    config["runs"]["shakespeare_finetuned_gpt2xl"]["train"]["init_from"] = "shakespeare_baby"


def write_mirror(directory: Path) -> None:
    """Write a mirror with GPT-2's merges, and a tiny model instead of GPT-2's weights."""
    merges = GPT2_MERGES_URL.removeprefix("https://")
    (directory / merges).parent.mkdir(parents=True)
    (directory / merges).symlink_to(Path(MIRROR) / merges)
    tiny = ModelSettings(n_layer=1, n_head=1, n_embd=8, block_size=16, activation="gelu_tanh")
    ours = directory / "ours"
    weights = GPT(tiny, 50_257).state_dict()
    save_model(ours, weights, tiny, gpt2_tokenizer(directory / merges))
    export_hugging_face(ours, directory / "huggingface.co/openai-community/gpt2/resolve/main")


def shrunk_checkout(directory: Path, config: dict[str, Any] | None = None) -> Path:
    """Copy the checkout to `directory`/checkout, with `config` or the shipped one, shrunk.

    A mirror lies beside it, if this machine has GPT-2's merges.
    """
    project = copy_checkout(directory / "checkout")
    config = config or shipped_config()
    shrink(config)
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (project / "resources/short.txt").write_text(TEXT)
    if MIRROR:
        write_mirror(directory / "mirror")
    return project


def shipped_config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((PROJECT / "config.yaml").read_text(encoding="utf-8"))
    return config
