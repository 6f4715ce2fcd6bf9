"""A small project for the tests of the workflow, and functions that use it."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from nanogpt.config.schema import ModelSettings
from nanogpt.data.tokenizers import ByteTokenizer
from nanogpt.interchange.hugging_face import config_for_hugging_face, weights_for_hugging_face
from nanogpt.interchange.tokenizer_files import tokenizer_json
from nanogpt.model.checkpoints import Checkpoint
from nanogpt.model.gpt import GPT
from tests.checkouts import own_environment

CONFIG = {
    "corpora": {
        "play": {"builtin": "play", "n_characters": 20_000},
        "essays": {"files": "texts/my éssays"},
        "far": {"url": "http://corpora.example/far.txt"},
    },
    "datasets": {"play": {}, "essays": {"tokenizer": "bpe", "vocab_size": 280}, "far": {}},
    "models": {"tiny": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32, "dropout": 0.1}},
    "defaults": {
        "model": "tiny",
        "train": {
            "max_iters": 20,
            "batch_size": 4,
            "warmup_iters": 2,
            "eval_interval": 10,
            "eval_iters": 2,
        },
        "eval": {"eval_iters": 2},
        "sample": {"num_samples": 2, "max_new_tokens": 40},
        "bench": {"burn_in": 1, "steps": 2},
    },
    "runs": {
        "one": {"dataset": "play"},
        "two": {"dataset": "play", "train": {"seed": 2}},
        "mixed": {"dataset": "play", "ngram": {"max_order": 4}},
        "both": {"ensemble": ["one", "two"]},
        "foreign": {"dataset": "play", "train": {"init_from": "./foreign"}},
    },
    "report": {"runs": ["one", "two"]},
}
PAGE = "results/report/index.html"
ESSAYS = "results/datasets/essays/meta.json"
FAR = "results/datasets/far/meta.json"
# For a run that mixes n-grams with the GPT of `one` and isn't in the report.
MIXED = ("results/mixed/eval.json", "results/mixed/samples.txt")

# For an ensemble of the report's runs.
BOTH = ("results/both/eval.json", "results/both/samples.txt")

# The model of `one` exported for other programs, one file each.
EXPORTS = tuple(
    f"results/one/export/{name}"
    for name in ("huggingface/config.json", "gguf/one.gguf", "nanogpt/ckpt.pt")
)

# The imported model that the run `foreign` starts from.
FOREIGN = f"resources/imported/foreign-{hashlib.sha256(b'foreign').hexdigest()[:8]}/config.json"

# The text of every third essay. The 40 essays make up three groups of files.
TEXTS = [f"The {word} essay is short, and ends here.\n" * 3 for word in ("first", "next", "last")]
N_ESSAYS = 40

# Jobs by rule, for the report unless another target is given.
AFTER_TRAIN = {"train", "eval", "sample", "tensorboard", "bench_report"}
FORMATS = {"import_model", "export_huggingface", "export_gguf", "export_nanogpt"}
ALL_RULES = {"prepare", "ngram", "count_ngrams", "combine", "bench", *AFTER_TRAIN, *FORMATS}
# The runs share a dataset and a model, so there's one n-gram count and one benchmark.
RETRAINING = {**dict.fromkeys(AFTER_TRAIN, 2), "bench_report": 1}
REMODELLING = {**RETRAINING, "bench": 1}
RETOKENIZING = {**REMODELLING, "prepare": 1, "ngram": 1}
GROUP_JOBS = {"count": 3, "plan": 1, "encode": 3, "prepare": 1}


@dataclass(frozen=True)
class Computed:
    """The results of a Snakemake call that ran every rule.

    cache: the artifacts, by version. loaded: a file for each process that ran a stage, listing the
    modules of this package that it had loaded.
    """

    project: Path
    cache: Path
    loaded: Path

    def loaded_modules(self) -> dict[str, set[str]]:
        """Return the modules of this package that each stage loaded, by the name of its script."""
        found: dict[str, set[str]] = {}
        for path in self.loaded.glob("*.json"):
            stage = path.name.split(".")[0]
            found.setdefault(stage, set()).update(json.loads(path.read_text()))
        return found


def write_essays(project: Path) -> None:
    """Write the 40 texts of the corpus `essays`, and a file that isn't one of them."""
    directory = project / "texts/my éssays"
    directory.mkdir(parents=True)
    for number in range(N_ESSAYS):
        (directory / f"{number:02} é.txt").write_text(TEXTS[number % len(TEXTS)])
    (directory / "notes.html").write_text("not an essay")


def write_model(project: Path) -> None:
    """Write the model that the run `foreign` starts from, as a transformers directory."""
    settings = ModelSettings.model_validate(CONFIG["models"]["tiny"])
    torch.manual_seed(1)
    model = GPT(settings, ByteTokenizer.vocab_size)
    write_for_transformers(Checkpoint(model, ByteTokenizer()), project / "foreign")


def write_for_transformers(checkpoint: Checkpoint, directory: Path) -> None:
    """Write a model as a transformers directory, with its vocabulary padded as in nanoGPT."""
    settings, n_tokens = checkpoint.model.settings, checkpoint.tokenizer.vocab_size
    weights = checkpoint.model.state_dict()
    rows = weights["wte.weight"]
    weights["wte.weight"] = rows.new_zeros(n_tokens + 7, rows.shape[1])
    weights["wte.weight"][:n_tokens] = rows
    directory.mkdir()
    save_file(weights_for_hugging_face(weights, settings), directory / "model.safetensors")
    config = config_for_hugging_face(settings, n_tokens + 7) | {"nanogpt": {"bias": False}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(tokenizer_json(checkpoint.tokenizer))


def snakemake(
    project: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake as a user would, with one core."""
    variables = own_environment(**{"NANOGPT_CACHE": "off", **environment})
    arguments = ("--cores", "1", *arguments)
    server = _server()
    assert server.stdin
    assert server.stdout
    with tempfile.NamedTemporaryFile() as output, tempfile.NamedTemporaryFile() as errors:
        request = (str(project), arguments, variables, output.name, errors.name)
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        printed = output.read().decode(), errors.read().decode()
    return subprocess.CompletedProcess(["snakemake", *arguments], code, *printed)


@cache
def _server() -> subprocess.Popen[str]:
    """The process that runs Snakemake for this one, and ends with it."""
    # -P keeps the script's directory off the import path.
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("snakemake_server.py"))],
        env=own_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def planned(project: Path, *arguments: str, **environment: str) -> dict[str, int]:
    """Return the number of jobs per rule that a dry run plans."""
    run = snakemake(project, "-n", *arguments, **environment)
    assert run.returncode == 0, run.stderr
    table = run.stdout.partition("Job stats:")[2] + run.stderr.partition("Job stats:")[2]
    counts = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    return {rule: n for rule, n in counts.items() if rule not in ("all", "total")}


def make(project: Path, *targets: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake for some targets; it must succeed."""
    run = snakemake(project, *targets, **environment)
    assert run.returncode == 0, run.stderr
    return run


def error_of(run: subprocess.CompletedProcess[str]) -> str:
    """Return the one error line of a call that failed by a user's mistake."""
    (error,) = errors_of(run)
    return error


def errors_of(run: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the error lines of a call that failed by users' mistakes."""
    assert run.returncode != 0
    assert "Traceback" not in run.stderr
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert errors, run.stderr
    return errors


def nanogpt(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the project's copy of the package."""
    return subprocess.run(
        [sys.executable, "-c", "from nanogpt.cli.main import main; main()", *arguments],
        cwd=project,
        env=own_environment(),
        capture_output=True,
        text=True,
    )


def edit_config(project: Path, edit: Callable[[dict], object]) -> None:
    """Edit the parsed config.yaml."""
    config = yaml.safe_load((project / "config.yaml").read_text())
    edit(config)
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


Edit = Callable[[Path], None]


def setting(*keys: str, value: object) -> Edit:
    """Return an edit of a project that sets a value in config.yaml."""

    def apply(project: Path) -> None:
        def edit(config: dict) -> None:
            for key in keys[:-1]:
                config = config.setdefault(key, {})
            config[keys[-1]] = value

        edit_config(project, edit)

    return apply


def replacement(path: str, old: str, new: str) -> Edit:
    """Return an edit of a project that replaces a text in a file."""

    def apply(project: Path) -> None:
        text = (project / path).read_text()
        assert old in text
        (project / path).write_text(text.replace(old, new, 1))

    return apply


def results(project: Path, *patterns: str) -> Mapping[str, bytes]:
    """Return the bytes of some results, by path."""
    found = [path for pattern in patterns for path in project.glob(pattern)]
    assert found
    return {str(path.relative_to(project)): path.read_bytes() for path in found}
