"""Run every command of docs/COMING-FROM-NANOGPT.md in order, with tiny models."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nanogpt.config.schema import ModelSettings
from nanogpt.data.byte_pairs import GPT2_MERGES_URL, gpt2_tokenizer
from nanogpt.interchange.hugging_face_export import export_hugging_face
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from tests.checkouts import MIRROR, PROJECT, copy_checkout, own_environment

PAGE = (PROJECT / "docs/COMING-FROM-NANOGPT.md").read_text(encoding="utf-8")
TEXT = "The old clocks were striking thirteen, and no ROMEO: was there to hear.\n" * 60


def commands():
    """Return the commands in the column "here" of each table, in order."""
    tables = re.findall(r"^\| there \| here \|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    cells = [row.split("|")[-2] for table in tables for row in table.splitlines()]
    spans = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    return [span for span in spans if span.startswith("nanogpt ")]


def shrink(config):
    """Change the shipped config.yaml to use short texts and trainings of two steps."""
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
        model |= {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 16}
    quick = {"max_iters": 2, "batch_size": 2, "warmup_iters": 0, "eval_iters": 1}
    slow = {"gradient_accumulation_steps", "compile", "lr_decay_iters"}
    config["runs"] = {n: run for n, run in config["runs"].items() if "ensemble" not in run}
    for run in [config["defaults"], *config["runs"].values()]:
        kept = {key: value for key, value in run.get("train", {}).items() if key not in slow}
        run["train"] = {**kept, **quick}
        run["eval"] = {"eval_iters": 1, "batch_size": 2}
        run["sample"] = {"num_samples": 1, "max_new_tokens": 5}
        run["bench"] = {"burn_in": 0, "steps": 1}
        if isinstance(run.get("model"), dict):
            run["model"] = run["model"].get("preset")
    # A model trained here, instead of the largest GPT-2.
    config["runs"]["shakespeare_finetuned_gpt2xl"]["train"]["init_from"] = "shakespeare_baby"


def write_mirror(directory):
    """Write a mirror with GPT-2's merges, and a tiny model instead of GPT-2's weights."""
    merges = GPT2_MERGES_URL.removeprefix("https://")
    (directory / merges).parent.mkdir(parents=True)
    (directory / merges).symlink_to(Path(MIRROR) / merges)
    tiny = ModelSettings(n_layer=1, n_head=1, n_embd=8, block_size=16, activation="gelu_tanh")
    ours = directory / "ours"
    weights = GPT(tiny, 50_257).state_dict()
    save_model(ours, weights, tiny, gpt2_tokenizer(directory / merges))
    export_hugging_face(ours, directory / "huggingface.co/openai-community/gpt2/resolve/main")


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A checkout with the shipped runs made small, and a text in its parent directory."""
    project = copy_checkout(tmp_path_factory.mktemp("newcomer") / "checkout")
    config = yaml.safe_load((PROJECT / "config.yaml").read_text(encoding="utf-8"))
    shrink(config)
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    if MIRROR:
        write_mirror(project.parent / "mirror")
    (project / "resources/short.txt").write_text(TEXT)
    (project.parent / "novel.txt").write_text(TEXT.replace("no", "n\xf3"), encoding="cp1252")
    (project / "prompt.txt").write_text("The old")
    (project / "small.json").write_text('{"max_iters": 40, "batch_size": 4}')
    return project


def test_page_shows_all_kinds_of_commands():
    words = {shlex.split(command)[1] for command in commands()}
    assert {"prepare", "train", "eval", "sample", "bench"} <= words
    assert len(commands()) > 20


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_command_on_the_page_runs(newcomer, command):
    if "models/gpt2" in command and not MIRROR:
        pytest.skip("NANOGPT_MIRROR is not set: GPT-2's merges aren't here")
    ended = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=newcomer,
        env=own_environment(NANOGPT_MIRROR=str(newcomer.parent / "mirror")),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "error:" not in ended.stderr
    assert ended.stdout
