"""The command line: output, one-line errors and imports."""

import contextlib
import json
import os
import pickle
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from nanogpt import __version__
from nanogpt.artifacts import cache, manifests
from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.cli.app import ORDER
from nanogpt.cli.main import main
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.loading import load, read
from nanogpt.config.reference import describe_run
from nanogpt.config.schema import ModelSettings
from nanogpt.data.byte_pairs import GPT2_MERGES_URL, gpt2_tokenizer
from nanogpt.data.preparing import prepare
from nanogpt.data.tokenizers import ByteTokenizer, char_tokenizer
from nanogpt.files.atomic import write_json
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.project import HERE
from tests.made_runs import make_run, make_training, metrics_text

ROOT = Path(__file__).resolve().parents[2]
MIRROR = os.environ.get("NANOGPT_MIRROR")

CONFIG = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}}
runs: {first: {dataset: letters, train: {max_iters: 300}}}
"""


def run_python(code, *arguments, more=None, **options):
    """Run Python code in a new process that can import this package."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path, **(more or {})},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        **options,
    )


def nanogpt(*arguments, **options):
    """Run the `nanogpt` command in a new process."""
    return run_python("from nanogpt.cli.main import main; main()", *arguments, **options)


def error_of(arguments):
    """Run a command that fails and return its error message."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    message = ended.value.code
    assert isinstance(message, str), "a message makes exit code 1"
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 1
    return message


def assert_one_line(ended, *words):
    """Assert that a process ended with exit code 1 and one line with these words."""
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    for word in words:
        assert word in ended.stderr


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory with a config file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


# --- Help and imports -----------------------------------------------------------------------


def test_help_lists_every_command():
    ended = nanogpt("--help")
    assert ended.returncode == 0
    assert ended.stderr == ""
    for command in ("config", "sample", "verify", "cache", "settings", "schema", "version"):
        assert f"• {command} " in ended.stdout


@pytest.mark.parametrize(
    "command", ["config", "sample", "verify", "cache", "settings", "schema", "version"]
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: nanogpt {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ORDER)
def test_help_ends_with_valid_examples(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    _, _, text = capsys.readouterr().out.rpartition("examples:\n")
    lines = text.splitlines()
    assert len(lines) > 1
    for line in lines:
        program, *words = shlex.split(line)
        assert (program, words[0]) == ("nanogpt", command)
        with pytest.raises(SystemExit) as ended:  # tyro parses all words before it shows the help
            main([*words, "--help"])
        assert ended.value.code == 0


@pytest.mark.parametrize("arguments", [["version"], ["--help"], ["sample", "--help"]], ids=" ".join)
def test_commands_work_without_docstrings_and_assertions(monkeypatch, arguments):
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    ended = nanogpt(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout


def test_help_of_sample_shows_settings_with_meaning_and_default(capsys):
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--temperature FLOAT below 1: less random; above 1: more random; 0: always the" in text
    assert "(default: 0.8)" in text
    assert "--max-new-tokens" in text
    assert "--unknown {error,skip}" in text


def help_of(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize("command", ["train", "plan", "bench"])
def test_help_shows_the_defaults_of_config_yaml(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "number of transformer blocks (default: 6)" in help_of(command, capsys)
    config = "{models: {m: {n_layer: 3}}, defaults: {model: {preset: m, n_head: 2}, %s}}"
    Path("config.yaml").write_text(config % "train: {batch_size: 7}")
    text = help_of(command, capsys)
    assert "transformer blocks (default: 3)" in text
    assert "must divide n_embd (default: 2)" in text
    assert "per micro-batch (default: 7)" in text
    Path("config.yaml").write_text("runs: 1")
    assert "number of transformer blocks (default: 6)" in help_of(command, capsys)


def test_help_shows_line_feeds_escaped(capsys):
    assert r'token for it (default: "\n")' in help_of("prepare", capsys)


def test_help_joins_the_lines_of_an_arguments_docstring(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "nanogpt: a checkpoint for nanoGPT's sample.py." in capsys.readouterr().out


LIGHT = {
    "import": ("import nanogpt",),
    "modules of the workflow": (
        "from nanogpt.artifacts import cache, code_digest, manifests, stages, states\n"
        "from nanogpt.data import sources",
    ),
    "help": ("from nanogpt.cli.main import main; main()", "--help"),
    "help of sample": ("from nanogpt.cli.main import main; main()", "sample", "--help"),
    "config": ("from nanogpt.cli.main import main; main()", "config", "first"),
    "verify": ("from nanogpt.cli.main import main; main()", "verify", "results"),
    "cache": ("from nanogpt.cli.main import main; main()", "cache", "ls"),
    "version": ("from nanogpt.cli.main import main; main()", "version"),
}


@pytest.mark.parametrize(("code", "arguments"), [(c, a) for c, *a in LIGHT.values()], ids=LIGHT)
def test_commands_that_compute_nothing_do_not_import_torch(project, code, arguments):
    write_json(project / "results/a.manifest.json", {})
    watch = (
        "import atexit, sys\n"
        "heavy = ('torch', 'matplotlib', 'pandas', 'snakemake')\n"
        "atexit.register(lambda: print('imported', [m for m in heavy if m in sys.modules]))\n"
    )
    ended = run_python(watch + code, *arguments, cwd=project)
    assert ended.stdout.endswith("imported []\n")
    assert "Traceback" not in ended.stderr


def test_no_module_of_the_package_imports_snakemake():
    code = (
        "import importlib, pkgutil, sys, nanogpt\n"
        "for module in pkgutil.iter_modules(nanogpt.__path__):\n"
        "    importlib.import_module(f'nanogpt.{module.name}')\n"
        "assert 'snakemake' not in sys.modules\n"
    )
    assert run_python(code).returncode == 0


# --- config, settings, schema, version ------------------------------------------------------


def test_config_prints_the_resolved_settings_of_a_run(project, capsys):
    main(["config", "first"])
    printed = capsys.readouterr().out
    assert printed == describe_run(read(project / "config.yaml"), "first")
    assert "max_iters: 300" in printed
    assert "# runs.first" in printed


def test_config_reads_the_given_config_file(project, capsys):
    (project / "config.yaml").rename(project / "mine.yaml")
    main(["config", "letters", "--config-file", "mine.yaml"])
    assert capsys.readouterr().out.startswith("dataset: letters\n")


def test_config_finds_a_text_in_resources_texts(project, capsys):
    (project / "resources/texts").mkdir(parents=True)
    (project / "resources/texts/mybook.txt").write_text("text")
    main(["config", "mybook"])
    assert capsys.readouterr().out.startswith("dataset: mybook\n")


def test_unknown_run_gets_one_line_with_a_suggestion(project):
    assert_one_line(nanogpt("config", "fist", cwd=project), "no run `fist`", "mean `first`")


def test_missing_config_file_gets_one_line(tmp_path):
    assert_one_line(nanogpt("config", "first", cwd=tmp_path), "config.yaml: no such file")


def test_wrong_config_gets_one_line(project):
    (project / "config.yaml").write_text("runs: {first: {trian: {}}}")
    assert_one_line(nanogpt("config", "first", cwd=project), "runs.first.trian", "mean `train`")


@pytest.mark.parametrize(
    ("command", "file"),
    [("settings", "docs/SETTINGS.md"), ("schema", "workflow/schemas/config.schema.json")],
)
def test_generated_files_match_the_output_of_their_commands(capsys, command, file):
    main([command])
    hint = f"run `nanogpt {command} > {file}`"
    assert capsys.readouterr().out == (ROOT / file).read_text(encoding="utf-8"), hint


def test_shipped_config_matches_the_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    check = jsonschema.Draft202012Validator(schema)
    # Editors read YAML 1.2, where 1e-3 is a number.
    for run in [shipped["defaults"], *shipped["runs"].values()]:
        for setting in ("learning_rate", "min_lr", "unembedding_lr"):
            if setting in run.get("train", {}):
                run["train"][setting] = float(run["train"][setting])
    assert [error.message for error in check.iter_errors(shipped)] == []
    shipped["runs"]["demo"]["trian"] = {}
    assert not check.is_valid(shipped)


def test_schema_and_workflow_both_allow_empty_entries(capsys):
    jsonschema = pytest.importorskip("jsonschema")
    config = {"corpora": {"a": {"files": "a.txt"}}, "datasets": {"a": None}, "runs": {"a": None}}
    load(config)
    main(["schema"])
    check = jsonschema.Draft202012Validator(json.loads(capsys.readouterr().out))
    assert [error.message for error in check.iter_errors(config)] == []


def test_version_prints_the_package_version(capsys):
    main(["version"])
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["config"], ["train", "--max_iters"]])
def test_invalid_command_lines_get_one_line(arguments):
    assert_one_line(nanogpt(*arguments), "--help")


def test_interrupt_while_modules_load_prints_nothing(tmp_path):
    (tmp_path / "pydantic.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise ImportError('too late')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    ended = subprocess.run(
        [sys.executable, "-m", "nanogpt", "version"],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        # A shell's background jobs ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_interrupt_before_a_command_starts_prints_nothing(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("nanogpt.cli.main.let_threads_sleep", interrupt)
    with pytest.raises(SystemExit) as ended:
        main(["version"])
    assert ended.value.code == 130


# --- verify ---------------------------------------------------------------------------------


@pytest.fixture
def made(project):
    """A result with its manifest."""
    result = project / "results/demo/eval.json"
    path = "results/demo/eval.manifest.json"
    write_manifest(path, "eval", [], {"results/demo/eval.json": '{"loss": 1.5}'})
    return result


def test_verify_accepts_unchanged_files(made):
    assert made.exists()
    ended = nanogpt("verify", "results")
    assert (ended.returncode, ended.stdout) == (0, "1 manifest, 0 problems\n")
    assert ended.stderr == ""


def test_verify_reads_unchanged_files_again_on_request(made, monkeypatch, capsys):
    assert made.exists()
    monkeypatch.setattr("nanogpt.artifacts.verification.RECENT", -3600 * 10**9)
    for arguments, said in (
        ([], "1 manifest, 0 problems\n"),
        ([], "1 manifest, 0 problems (1 unchanged file not read again)\n"),
        (["--all"], "1 manifest, 0 problems\n"),
    ):
        main(["verify", "results", *arguments])
        assert capsys.readouterr().out == said


def test_verify_checks_results_and_resources_by_default(made, project, capsys):
    assert made.exists()
    (project / "resources").mkdir()
    main(["verify"])
    assert capsys.readouterr().out == "1 manifest, 0 problems\n"


def test_verify_reports_a_changed_file_and_fails(made):
    made.write_text("{}")
    ended = nanogpt("verify", "results")
    assert ended.returncode == 1
    assert ended.stdout.startswith("results/demo/eval.json: wrong sha256: ")
    assert ended.stdout.endswith("1 manifest, 1 problem\n")
    assert ended.stdout.count("\n") == 2


def test_verify_reports_a_missing_file_and_fails(made, capsys):
    made.unlink()
    with pytest.raises(SystemExit) as ended:
        main(["verify", "results/demo/eval.manifest.json"])
    assert ended.value.code == 1
    assert capsys.readouterr().out.startswith("results/demo/eval.json: missing")


def test_verify_without_manifests_is_an_error(project):
    assert "nowhere: no such file" in error_of(["verify", "nowhere"])
    (project / "results").mkdir()
    assert "results: no manifests found" in error_of(["verify", "results"])


def write_manifest(path, stage, inputs, outputs):
    """Write the manifest of a stage, with its output files and inputs."""
    for output, content in outputs.items():
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(content)
    digests = manifests.digests(HERE, inputs)
    manifest = Manifest(
        stage=stage,
        version=manifests.version(stage, {}, digests, "c" * 64),
        inputs=digests,
        parameters={},
        code="c" * 64,
        summary="",
        outputs=manifests.digests(HERE, outputs),
        environment=manifests.environment(1),
        wall_seconds=1.0,
    )
    write_record(Path(path), manifest)
    return manifest


CORPUS = "resources/corpora/play/input.txt"
TOKENS = "results/datasets/play/train.bin"
MODEL = "results/demo/model/model.safetensors"
CHAIN = [
    "results/demo/eval.manifest.json",
    "results/demo/train.manifest.json",
    "results/datasets/play/prepare.manifest.json",
    "resources/corpora/play/write_builtin.manifest.json",
]


@pytest.fixture
def chain(project):
    """A run's evaluation with everything upstream, and another run."""
    for path, stage, inputs, outputs in (
        (CHAIN[3], "generate", [], {CORPUS: "corpus"}),
        (CHAIN[2], "prepare", [CORPUS], {TOKENS: "tokens"}),
        (CHAIN[1], "train", [TOKENS], {MODEL: "model"}),
        (CHAIN[0], "eval", [MODEL, TOKENS], {"results/demo/eval.json": "eval"}),
        ("results/other/eval.manifest.json", "eval", [], {"results/other/eval.json": "other"}),
    ):
        write_manifest(project / path, stage, inputs, outputs)
    return project


@pytest.mark.parametrize("named", ["results/demo", "results/demo/eval.manifest.json"])
def test_verify_of_a_run_includes_everything_upstream(chain, capsys, named):
    (chain / "results/other/eval.json").write_text("changed, but not asked for")
    main(["verify", named, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert sorted(said["manifests"]) == sorted(CHAIN)
    assert said["problems"] == []
    main(["verify", named])
    assert capsys.readouterr().out == "4 manifests, 0 problems\n"


def test_verify_of_a_dataset_ignores_runs_that_use_it(chain, capsys):
    (chain / MODEL).unlink()
    main(["verify", "results/datasets"])
    assert capsys.readouterr().out == "2 manifests, 0 problems\n"


def test_verify_of_a_run_reports_a_changed_corpus(chain):
    (chain / CORPUS).write_text("another")
    ended = nanogpt("verify", "results/demo")
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()
    assert [line.partition(": wrong sha256: ")[0] for line in lines[:-1]] == [CORPUS, CORPUS]
    assert [line.rpartition(" (")[2] for line in lines[:-1]] == [
        f"input recorded in {CHAIN[2]})",
        f"output recorded in {CHAIN[3]})",
    ]
    assert lines[-1] == "4 manifests, 2 problems"


def test_verify_prints_problems_as_json_and_exits_with_code_1(chain, capsys):
    (chain / MODEL).unlink()
    (chain / CHAIN[3]).write_text("{")
    with pytest.raises(SystemExit) as ended:
        main(["verify", "results/demo", "resources", "--json"])
    assert ended.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert sorted(said["manifests"]) == sorted(CHAIN)
    assert [(p["path"], p["manifest"]) for p in said["problems"]] == [
        (CHAIN[3], CHAIN[3]),
        (MODEL, CHAIN[0]),
        (MODEL, CHAIN[1]),
    ]
    assert said["problems"][0]["problem"].startswith("damaged: ")
    assert said["problems"][1]["problem"].startswith("missing")


def test_circular_manifests_are_read_once(project, capsys):
    (project / "results/demo").mkdir(parents=True)
    files = ["results/demo/a.txt", "results/demo/b.txt"]
    for path in files:
        Path(path).write_text("text")
    for path, other, stage in ((files[0], files[1], "a"), (files[1], files[0], "b")):
        write_manifest(f"results/demo/{stage}.manifest.json", stage, [other], {path: "text"})
    main(["verify", "results"])
    assert capsys.readouterr().out == "2 manifests, 0 problems\n"


# --- cache ----------------------------------------------------------------------------------


def age(path, hours):
    """Make a path some hours and a minute old."""
    then = time.time() - hours * 3600 - 60
    os.utime(path, (then, then))


@pytest.fixture
def stored(project, monkeypatch):
    """Two artifacts of a run, a damaged one, and the results of a removed run."""
    monkeypatch.delenv("NANOGPT_CACHE", raising=False)
    for days, size in ((5, 1_500_000), (1, 500_000)):
        path = f"results/first/{days}.manifest.json"
        outputs = {"results/first/eval.json": "e" * size}
        manifest = write_manifest(path, f"eval{days}", [], outputs)
        cache.store(HERE, manifest, {"eval.json": "results/first/eval.json"})
        age(project / ".nanogpt/cache" / manifest.version, days * 24)
    (project / ".nanogpt/cache/0123456789ab").mkdir()
    age(project / ".nanogpt/cache/0123456789ab", 4)
    write_manifest("results/gone/eval.manifest.json", "eval", [], {"results/gone/eval.json": "1"})
    age(project / "results/gone", 3)
    return project


def files_below(directory):
    return sorted(str(path) for path in directory.rglob("*"))


def columns(printed):
    """Split each line into size, age, kind and the rest; return them and the last line."""
    *lines, total = printed.splitlines()
    return [(" ".join(line.split()[:5]), line.rpartition(" (")[2]) for line in lines], total


def test_cache_ls_lists_items_and_why_they_are_unused(stored, capsys):
    before = files_below(stored)
    main(["cache", "ls"])
    lines, total = columns(capsys.readouterr().out)
    assert [line for line, _ in lines] == [
        "1.5 MB 5 days artifact",
        "0.5 MB 1 day artifact",
        "0.0 MB 4 hours artifact",
        "0.0 MB 3 hours result",
    ]
    assert [why for _, why in lines[2:]] == ["damaged)", "no such run in config.yaml)"]
    assert total == "4 items, 2.0 MB"
    assert files_below(stored) == before


GOES = {
    "what is unused": ([], ["damaged", "gone"]),
    "older than": (["--older-than", "3"], ["damaged", "gone", "5 days"]),
    "older than all": (["--older-than", "30"], ["damaged", "gone"]),
    "at most": (["--max-size", "1"], ["damaged", "gone", "5 days"]),
    "nothing": (["--max-size", "0"], ["damaged", "gone", "5 days", "1 day"]),
}


@pytest.mark.parametrize(("options", "names"), GOES.values(), ids=GOES.keys())
def test_cache_prune_lists_items_and_yes_removes_exactly_those(stored, capsys, options, names):
    before = files_below(stored)
    options = ["--results", *options]
    main(["cache", "prune", *options])
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(names) + 1
    assert all(name in line for name, line in zip(names, told, strict=False))
    assert told[-1].startswith(f"{len(names)} items, ")
    assert told[-1].endswith(" MB; add --yes to remove them")
    assert files_below(stored) == before
    main(["cache", "ls"])
    listed = capsys.readouterr().out.splitlines()[:-1]
    main(["cache", "prune", *options, "--yes"])
    removed = capsys.readouterr().out.splitlines()
    assert removed[:-1] == told[:-1]
    assert removed[-1].endswith(" MB, removed")
    main(["cache", "ls"])
    stayed = capsys.readouterr().out.splitlines()[:-1]
    assert sorted([*stayed, *removed[:-1]]) == sorted(listed)
    assert (stored / "results/first/eval.json").exists(), "a run of config.yaml"


def test_cache_prune_keeps_results_by_default(stored, capsys):
    main(["cache", "prune", "--yes"])
    assert "results/gone" not in capsys.readouterr().out
    assert (stored / "results/gone/eval.json").exists()


def test_cache_prune_with_nothing_to_remove_prints_0_items(project, capsys):
    main(["cache", "prune", "--yes"])
    assert capsys.readouterr().out == "0 items, 0.0 MB\n"
    assert [path.name for path in project.iterdir()] == ["config.yaml"]


def test_cache_reads_the_given_config_file(stored, capsys):
    config = (stored / "config.yaml").read_text()
    (stored / "mine.yaml").write_text(config.replace("first", "gone"))
    main(["cache", "prune", "--results", "--config-file", "mine.yaml"])
    printed = capsys.readouterr().out
    assert "results/first" in printed
    assert "results/gone" not in printed


@pytest.mark.parametrize("action", ["ls", "prune"])
def test_cache_without_a_config_removes_nothing_and_gets_one_line(stored, action):
    (stored / "config.yaml").unlink()
    before = files_below(stored)
    options = ["--yes"] if action == "prune" else []
    assert "config.yaml: no such file" in error_of(["cache", action, *options])
    assert files_below(stored) == before


@pytest.mark.parametrize("option", ["--older-than", "--max-size"])
@pytest.mark.parametrize("value", ["-1", "nan"])
def test_cache_prune_rejects_invalid_amounts_and_removes_nothing(stored, option, value):
    before = files_below(stored)
    message = error_of(["cache", "prune", option, value, "--yes"])
    assert option.removeprefix("--") in message.replace("_", "-")
    assert files_below(stored) == before


# --- sample ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The directory of a tiny untrained model."""
    directory = tmp_path_factory.mktemp("run") / "model"
    settings = ModelSettings(n_layer=1, n_head=1, n_embd=4, block_size=8, dropout=0)
    tokenizer = char_tokenizer("abcdé \n")
    weights = GPT(settings, tokenizer.vocab_size).state_dict()
    save_model(directory, weights, settings, tokenizer)
    return directory


def sample(model, *arguments):
    main(["sample", str(model), "--device", "cpu", *arguments])


def test_sample_prints_the_prompt_and_the_requested_number_of_tokens(model, capsys):
    sample(model, "--start", "abé", "--num-samples", "1", "--max-new-tokens", "20")
    printed = capsys.readouterr().out
    assert printed.startswith("abé")
    assert printed.endswith("\n")
    assert len(printed) == 3 + 20 + 1
    assert set(printed) <= set("abcdé \n")


def test_samples_start_with_the_prompt_and_differ(model, capsys):
    sample(model, "--start", "abcd", "--num-samples", "3", "--max-new-tokens", "20")
    printed = capsys.readouterr().out
    drawn = re.split(r"\n?--- sample \d of 3 -+\n", printed)[1:]
    assert len(set(drawn)) == 3
    assert all(len(text) == 4 + 20 + 1 for text in drawn)
    assert all(text.startswith("abcd") for text in drawn)


def test_temperature_0_warns_that_samples_are_the_same(model, capsys):
    sample(model, "--temperature=0", "--max-new-tokens=2", "--num-samples=2")
    assert capsys.readouterr().err == (
        "temperature 0: all samples of a prompt are the same; use --num_samples=1 for just one\n"
    )
    sample(model, "--temperature=0", "--max-new-tokens=2", "--num-samples=1")
    assert capsys.readouterr().err == ""


def test_same_seed_gives_the_same_sample(model, capsys):
    printed = []
    for seed in ("1", "1", "2"):
        sample(model, "--start", "a", "--seed", seed, "--max-new-tokens", "30")
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


def test_prompt_can_come_from_a_file(model, tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text("dcba", encoding="utf-8")
    sample(model, "--start", f"FILE:{tmp_path}/prompt.txt", "--num-samples", "1")
    assert capsys.readouterr().out.startswith("dcba")


def test_missing_prompt_file_is_reported(model, tmp_path):
    assert "no.txt: no such file" in error_of(["sample", str(model), "--start", "FILE:no.txt"])
    assert str(tmp_path) in error_of(["sample", str(model), "--start", f"FILE:{tmp_path}"])


def test_unknown_character_gets_one_line(model):
    ended = nanogpt("sample", str(model), "--start", "axb")
    assert_one_line(ended, "--start", "'x' (U+0078)", "`--unknown=skip`")


def test_unknown_characters_are_skipped_on_request(model, capsys):
    sample(model, "--start", "axb", "--unknown", "skip", "--num-samples", "1")
    assert capsys.readouterr().out.startswith("ab")


def test_prompt_with_only_unknown_characters_is_an_error(model):
    assert "none of its characters are in the vocabulary" in error_of(
        ["sample", str(model), "--start", "xyz", "--unknown", "skip"]
    )


@pytest.mark.parametrize(
    ("flag", "value", "word"),
    [
        ("--temperature", "-1", "equal to 0"),
        ("--temperature", "nan", "finite"),
        ("--num-samples", "0", "found `0`"),
        ("--max-new-tokens", "0", "found `0`"),
        ("--top-k", "-1", "found `-1`"),
        ("--device", "gpu", "`gpu`"),
    ],
)
def test_flag_out_of_range_gets_one_line(model, flag, value, word):
    message = error_of(["sample", str(model), flag, value])
    assert flag.removeprefix("--").replace("-", "_") in message
    assert word in message


def test_wrong_flag_ends_the_process_with_one_line(model):
    ended = nanogpt("sample", str(model), "--temperature", "-1")
    assert_one_line(ended, "temperature", "equal to 0", "-1")


def test_missing_device_gets_one_line(model):
    message = error_of(["sample", str(model), "--device", "cuda:99"])
    assert "device cuda:99" in message


def test_directory_with_the_name_of_a_run_does_not_hide_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("corpora: {a: {files: a.txt}}\ndatasets: {a: {}}\n")
    (tmp_path / "a").mkdir()
    assert error_of(["sample", "a"]) == (
        "error: results/a/model: no model yet; train it with `nanogpt train a`"
    )


def test_missing_or_damaged_model_gets_one_line(model, tmp_path):
    assert "no run or model directory `nowhere`" in error_of(["sample", "nowhere"])
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    assert "model.safetensors: damaged" in error_of(["sample", str(tmp_path)])


def test_closed_pipe_ends_sampling_without_a_traceback(model):
    code = "from nanogpt.cli.main import main; main()"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-c", code, "sample", str(model), "--max-new-tokens", "100000"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() != 0


# --- Tokens ---------------------------------------------------------------------------------


def test_tokenize_prints_each_token_with_its_id(model, capsys):
    main(["tokenize", str(model), "aba"])
    assert capsys.readouterr().out == (
        "     2  'a'\n     3  'b'\n     2  'a'\n3 tokens of 7, 3 characters, 1.00 bytes per token\n"
    )


def test_tokenize_prints_partial_characters_as_bytes(tmp_path, capsys):
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    main(["tokenize", str(tmp_path / "tokenizer.json"), "é"])
    assert capsys.readouterr().out.splitlines()[:2] == ["   195  b'\\xc3'", "   169  b'\\xa9'"]


def test_tokenize_reads_standard_input_or_a_file(model, tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text("ab")
    main(["tokenize", str(model), f"FILE:{tmp_path}/prompt.txt"])
    assert nanogpt("tokenize", str(model), input="ab").stdout == capsys.readouterr().out


def test_tokenize_accepts_the_name_of_a_dataset_or_run(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = (
        "{corpora: {a: {files: a.txt}}, datasets: {a: {}, b: {corpus: a}}, runs: {r: {dataset: b}}}"
    )
    Path("config.yaml").write_text(config)
    main(["tokenize", str(model), "aba"])
    printed = capsys.readouterr().out
    assert error_of(["tokenize", "r", "aba"]) == (
        "error: results/datasets/b/tokenizer.json: doesn't exist yet; make it with `nanogpt "
        "prepare b`"
    )
    places = {"results/datasets/a": "a", "results/r/model": "r", "results/datasets/b": "b"}
    for place, name in places.items():
        shutil.copytree(model, place)
        main(["tokenize", name, "aba"])
        assert capsys.readouterr().out == printed
    shutil.rmtree("results/r")
    main(["tokenize", "r", "aba"])
    assert capsys.readouterr().out == printed
    assert error_of(["tokenize", "datasets", "aba"]).startswith(
        "error: no dataset or run `datasets`; "
    )


def test_tokenize_reports_unknown_characters(model):
    assert "'x' (U+0078)" in error_of(["tokenize", str(model), "axb"])


def test_text_that_is_not_utf_8_gets_one_line(model):
    assert_one_line(nanogpt("tokenize", str(model), "a\udcff"), "isn't valid UTF-8")
    assert_one_line(nanogpt("tokenize", str(model), input="\udcff"), "isn't valid UTF-8")


@pytest.mark.parametrize("command", [["tokenize", "nowhere"], ["export", "dataset", "no", "there"]])
def test_missing_files_are_reported(command, project):
    assert "no" in error_of(command)
    assert not (project / "there").exists()


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_exported_dataset_has_nanogpts_format(tokenizer, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 90)
    corpus, dataset = Corpus(files=["text.txt"]), Dataset(tokenizer=tokenizer, vocab_size=270)
    prepare([tmp_path / "text.txt"], corpus, dataset, tmp_path / "ours")
    main(["export", "dataset", str(tmp_path / "ours"), str(tmp_path / "theirs")])
    assert capsys.readouterr().out == (
        f"{tmp_path / 'theirs'}: train.bin, val.bin and meta.pkl for nanoGPT\n"
    )
    meta = pickle.loads((tmp_path / "theirs/meta.pkl").read_bytes())
    # The way nanoGPT's train.py reads tokens, and its sample.py decodes them.
    tokens = np.memmap(tmp_path / "theirs/val.bin", dtype=np.uint16, mode="r")
    assert tokens.max() < meta["vocab_size"] == len(meta["itos"])
    assert (
        "".join(meta["itos"][token] for token in tokens.tolist()) == "the cat sat on the mat. " * 9
    )
    assert [meta["itos"][meta["stoi"][c]] for c in "cat"] == ["c", "a", "t"]
    assert (tmp_path / "theirs/train.bin").read_bytes() == (
        tmp_path / "ours/train.bin"
    ).read_bytes()


@pytest.mark.mirror
@pytest.mark.skipif(not MIRROR, reason="NANOGPT_MIRROR is not set: no GPT-2 vocabulary here")
@pytest.mark.parametrize("name", ["gpt2", "a dataset that has it"])
def test_gpt2_tokens_are_exported_without_meta_pkl(name, tmp_path):
    merges = GPT2_MERGES_URL.removeprefix("https://")
    gpt2_tokenizer(Path(MIRROR) / merges).save(tmp_path / "gpt2.json")
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 90)
    corpus, dataset = Corpus(files=["text.txt"]), Dataset(tokenizer=name)
    files = [tmp_path / "text.txt"]
    prepare(files, corpus, dataset, tmp_path / "ours", tokenizer_file=tmp_path / "gpt2.json")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/meta.pkl").write_text("of an earlier export")
    main(["export", "dataset", str(tmp_path / "ours"), str(tmp_path / "theirs")])
    assert sorted(p.name for p in (tmp_path / "theirs").iterdir()) == ["train.bin", "val.bin"]


def test_32_bit_tokens_are_not_exported(tmp_path):
    letters = "".join(map(chr, range(0x10000, 0x20001)))
    (tmp_path / "text.txt").write_text(letters, encoding="utf-8")
    prepare([tmp_path / "text.txt"], Corpus(files=["t"]), Dataset(), tmp_path / "ours")
    message = error_of(["export", "dataset", str(tmp_path / "ours"), str(tmp_path / "theirs")])
    assert "its vocabulary of 65,537 tokens is too large for nanoGPT's uint16 files" in message
    assert not (tmp_path / "theirs").exists()


# --- Report, curves, speed ------------------------------------------------------------------


def test_report_compares_existing_runs_and_prints_its_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path, "whole")
    (make_run(tmp_path, "early", model={"n_layer": 1}) / "eval.json").unlink()
    main(["report"])
    page = "results/report/now/index.html"
    assert capsys.readouterr().out == f"2 runs; at best 0.880 bits per byte on play: {page}\n"
    assert "(not evaluated)" in (tmp_path / page).read_text()


def test_report_without_runs_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "results: no such directory" in error_of(["report"])
    (tmp_path / "results").mkdir()
    assert "no runs to report on" in error_of(["report"])


def test_bench_prints_its_measurements_and_keeps_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("All that glisters is not gold.\n" * 40)
    shape = "{n_layer: 1, n_head: 1, n_embd: 8, block_size: 8}"
    quick = f"first: {{dataset: letters, model: {shape}, bench: {{burn_in: 0, steps: 1}}}}"
    (tmp_path / "config.yaml").write_text(CONFIG.partition("runs:")[0] + f"runs: {{{quick}}}")
    made = tmp_path / "results/datasets/letters"
    prepare([tmp_path / "text.txt"], Corpus(files=["text.txt"]), Dataset(), made)
    main(["bench", "first"])
    said = json.loads(capsys.readouterr().out)
    assert said["model"]["n_embd"] == 8
    assert said["tokens_per_second"] > 0
    assert not (tmp_path / "results/first").exists()


def test_bench_measures_with_the_settings_of_flags(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("All that glisters is not gold.\n" * 40)
    (tmp_path / "config.yaml").write_text(CONFIG)
    prepare(
        [tmp_path / "text.txt"],
        Corpus(files=["text.txt"]),
        Dataset(),
        tmp_path / "results/datasets/letters",
    )
    flags = "--n_layer=1 --n_head=1 --n-embd=8 --block_size=8 --batch_size=2 --real_data=False"
    main(["bench", "--dataset=letters", *flags.split(), "--burn_in=0", "--steps=1"])
    measured = json.loads(capsys.readouterr().out)
    assert (measured["model"]["n_embd"], measured["batch_size"]) == (8, 2)
    assert measured["data"] == "random"
    assert not (tmp_path / "results/letters").exists()
    assert not (tmp_path / "resources").exists()


def test_watch_shows_finished_and_running_trainings(tmp_path):
    make_run(tmp_path, "whole")
    state = make_training(tmp_path, "growing", last_step=100)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = "from nanogpt.cli.main import main; main()"
    arguments = ["watch", "--port", str(port), "--every", "1"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-c", command, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as watching:
        try:

            def steps(run):
                """Return the steps of a run's validation loss from TensorBoard's server."""
                asked = {"run": run, "tag": "loss/val"}
                url = f"http://localhost:{port}/data/plugin/scalars/scalars"
                with contextlib.suppress(httpx.HTTPError, ValueError):
                    return [step for _, step, _ in httpx.get(url, params=asked).json()]
                return None

            def wait_for(run, wanted):
                end = time.monotonic() + 60
                while (found := steps(run)) != wanted and time.monotonic() < end:
                    time.sleep(0.5)
                assert found == wanted

            wait_for("whole", [0, 100, 200, 300, 400])
            wait_for("growing", [0, 100])
            (state / "metrics.jsonl").write_text(metrics_text(0.6, last_step=300))
            wait_for("growing", [0, 100, 200, 300])
        finally:
            watching.terminate()
        assert watching.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://localhost:{port}/")


# --- Terminals that aren't UTF-8 ------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_terminal_without_unicode_gets_replacements(tmp_path, encoding):
    char_tokenizer("aé日\n").save(tmp_path / "tokenizer.json")
    shown = run_python(
        "from nanogpt.cli.main import main; main()",
        *("tokenize", str(tmp_path / "tokenizer.json"), "aé日"),
        input="",
        more={"PYTHONIOENCODING": encoding},
    )
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[0].endswith("'a'")
    assert shown.stdout.splitlines()[2].endswith(r"'\u65e5'")
    assert "3 tokens of 4" in shown.stdout


def test_closed_standard_input_gets_one_line(tmp_path):
    char_tokenizer("a").save(tmp_path / "tokenizer.json")
    code = "import sys; sys.stdin = None; from nanogpt.cli.main import main; main()"
    ended = run_python(code, "tokenize", str(tmp_path / "tokenizer.json"))
    assert_one_line(ended, "standard input is closed")
