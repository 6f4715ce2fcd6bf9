"""The command line: what it prints, what it refuses in one line, and what it does not import."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from nanogpt import __version__, manifest
from nanogpt.checkpoint import save_model
from nanogpt.cli import main
from nanogpt.config import Corpus, Dataset, ModelSettings, describe_run, load, read
from nanogpt.files import write_json
from nanogpt.model import GPT
from nanogpt.prepare import prepare
from nanogpt.tokenizer import (
    GPT2_MERGES_URL,
    ByteTokenizer,
    char_tokenizer,
    gpt2_tokenizer,
)

ROOT = Path(__file__).resolve().parent.parent
MIRROR = os.environ.get("NANOGPT_MIRROR")

CONFIG = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}}
runs: {first: {dataset: letters, train: {max_iters: 300}}}
"""


def run_python(code, *arguments, **options):
    """Run Python code with this package importable, as its own process."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        **options,
    )


def nanogpt(*arguments, **options):
    """Run the `nanogpt` command as its own process."""
    return run_python("from nanogpt.cli import main; main()", *arguments, **options)


def error_of(arguments):
    """The line with which a command ends that a user's mistake stops."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    message = ended.value.code
    assert isinstance(message, str), "a message makes exit code 1"
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 1
    return message


def assert_one_line(ended, *words):
    """A process ended with exit code 1 and one line that has these words."""
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    for word in words:
        assert word in ended.stderr


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A directory with a config file, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


# --- Help, and what is not imported ---------------------------------------------------------


def test_help_names_every_command():
    ended = nanogpt("--help")
    assert ended.returncode == 0
    assert ended.stderr == ""
    for command in ("config", "sample", "verify", "settings", "schema", "version"):
        assert f"• {command} " in ended.stdout


@pytest.mark.parametrize("command", ["config", "sample", "verify", "settings", "schema", "version"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: nanogpt {command}" in capsys.readouterr().out


def test_help_of_sample_has_every_setting_with_its_meaning_and_default(capsys):
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--temperature FLOAT below 1 more cautious, above more random (default: 0.8)" in text
    assert "--max-new-tokens" in text
    assert "--unknown {error,skip}" in text


LIGHT = {
    "import": ("import nanogpt",),
    "modules of the workflow": ("from nanogpt import config, manifest, stage, files",),
    "help": ("from nanogpt.cli import main; main()", "--help"),
    "help of sample": ("from nanogpt.cli import main; main()", "sample", "--help"),
    "config": ("from nanogpt.cli import main; main()", "config", "first"),
    "verify": ("from nanogpt.cli import main; main()", "verify", "results"),
    "version": ("from nanogpt.cli import main; main()", "version"),
}


@pytest.mark.parametrize(("code", "arguments"), [(c, a) for c, *a in LIGHT.values()], ids=LIGHT)
def test_torch_is_not_imported_where_nothing_is_computed(project, code, arguments):
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


def test_config_prints_what_a_run_resolves_to(project, capsys):
    main(["config", "first"])
    printed = capsys.readouterr().out
    assert printed == describe_run(read(project / "config.yaml"), "first")
    assert "max_iters: 300" in printed
    assert "# runs.first" in printed


def test_config_reads_the_file_that_it_is_told(project, capsys):
    (project / "config.yaml").rename(project / "mine.yaml")
    main(["config", "letters", "--config-file", "mine.yaml"])
    assert capsys.readouterr().out.startswith("dataset: letters\n")


def test_config_knows_a_dropped_text(project, capsys):
    (project / "resources/texts").mkdir(parents=True)
    (project / "resources/texts/mybook.txt").write_text("text")
    main(["config", "mybook"])
    assert capsys.readouterr().out.startswith("dataset: mybook\n")


def test_an_unknown_run_is_one_line_with_the_nearest_name(project):
    assert_one_line(nanogpt("config", "fist", cwd=project), "no run `fist`", "mean `first`")


def test_a_missing_config_file_is_one_line(tmp_path):
    assert_one_line(nanogpt("config", "first", cwd=tmp_path), "config.yaml: no such file")


def test_a_wrong_config_is_one_line(project):
    (project / "config.yaml").write_text("runs: {first: {trian: {}}}")
    assert_one_line(nanogpt("config", "first", cwd=project), "runs.first.trian", "mean `train`")


@pytest.mark.parametrize(
    ("command", "file"),
    [("settings", "docs/SETTINGS.md"), ("schema", "workflow/schemas/config.schema.json")],
)
def test_a_generated_file_is_what_its_command_prints(capsys, command, file):
    main([command])
    hint = f"run `nanogpt {command} > {file}`"
    assert capsys.readouterr().out == (ROOT / file).read_text(encoding="utf-8"), hint


def test_the_shipped_config_is_what_the_schema_describes():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    check = jsonschema.Draft202012Validator(schema)
    # Editors read YAML 1.2, where 1e-3 is a number.
    for run in [shipped["defaults"], *shipped["runs"].values()]:
        for setting in ("learning_rate", "min_lr"):
            if setting in run.get("train", {}):
                run["train"][setting] = float(run["train"][setting])
    assert [error.message for error in check.iter_errors(shipped)] == []
    shipped["runs"]["demo"]["trian"] = {}
    assert not check.is_valid(shipped)


def test_an_empty_entry_is_right_for_the_schema_as_it_is_for_the_workflow(capsys):
    jsonschema = pytest.importorskip("jsonschema")
    config = {"corpora": {"a": {"files": "a.txt"}}, "datasets": {"a": None}, "runs": {"a": None}}
    load(config)
    main(["schema"])
    check = jsonschema.Draft202012Validator(json.loads(capsys.readouterr().out))
    assert [error.message for error in check.iter_errors(config)] == []


def test_version_is_the_packages(capsys):
    main(["version"])
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["sampel"], ["sample"], ["config"], ["sample", "m", "--temprature", "1"]]
)
def test_what_cannot_be_understood_is_refused(arguments):
    ended = nanogpt(*arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert "--help" in ended.stderr


# --- verify ---------------------------------------------------------------------------------


@pytest.fixture
def made(project):
    """A result with its manifest."""
    result = project / "results/demo/eval.json"
    write_json(result, {"loss": 1.5})
    outputs = manifest.digests(["results/demo/eval.json"])
    asked = {"stage": "eval", "parameters": {}, "inputs": {}, "code": "c" * 64}
    version = manifest.version("eval", {}, {}, "c" * 64)
    path = project / "results/demo/eval.manifest.json"
    write_json(path, {**asked, "version": version, "outputs": outputs})
    return result


def test_verify_is_content_with_files_as_they_were_made(made):
    assert made.exists()
    ended = nanogpt("verify", "results")
    assert (ended.returncode, ended.stdout) == (0, "1 manifest, 0 problems\n")
    assert ended.stderr == ""


def test_verify_looks_at_results_and_resources_by_itself(made, project, capsys):
    assert made.exists()
    (project / "resources").mkdir()
    main(["verify"])
    assert capsys.readouterr().out == "1 manifest, 0 problems\n"


def test_verify_names_a_changed_file_and_fails(made):
    made.write_text("{}")
    ended = nanogpt("verify", "results")
    assert ended.returncode == 1
    assert ended.stdout.startswith("results/demo/eval.json: sha256 ")
    assert ended.stdout.endswith("1 manifest, 1 problem\n")
    assert ended.stdout.count("\n") == 2


def test_verify_names_a_missing_file_and_fails(made, capsys):
    made.unlink()
    with pytest.raises(SystemExit) as ended:
        main(["verify", "results/demo/eval.manifest.json"])
    assert ended.value.code == 1
    assert capsys.readouterr().out.startswith("results/demo/eval.json: missing")


def test_verify_of_nothing_is_an_error(project):
    assert "nowhere: no such file" in error_of(["verify", "nowhere"])
    (project / "results").mkdir()
    assert "results: no manifest there" in error_of(["verify", "results"])


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


def test_sample_prints_the_prompt_and_as_many_tokens_as_asked_for(model, capsys):
    sample(model, "--start", "abé", "--num-samples", "1", "--max-new-tokens", "20")
    printed = capsys.readouterr().out
    assert printed.startswith("abé")
    assert printed.endswith("\n")
    assert len(printed) == 3 + 20 + 1
    assert set(printed) <= set("abcdé \n")


def test_each_sample_begins_with_the_prompt_and_is_another(model, capsys):
    sample(model, "--start", "abcd", "--num-samples", "3", "--max-new-tokens", "20")
    printed = capsys.readouterr().out
    size = 4 + 20 + 1
    drawn = [printed[i : i + size] for i in range(0, len(printed), size)]
    assert len(set(drawn)) == 3
    assert all(text.startswith("abcd") for text in drawn)


def test_the_same_seed_draws_the_same_sample(model, capsys):
    printed = []
    for seed in ("1", "1", "2"):
        sample(model, "--start", "a", "--seed", seed, "--max-new-tokens", "30")
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


def test_a_prompt_may_come_from_a_file(model, tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text("dcba", encoding="utf-8")
    sample(model, "--start", f"FILE:{tmp_path}/prompt.txt", "--num-samples", "1")
    assert capsys.readouterr().out.startswith("dcba")


def test_an_absent_prompt_file_is_named(model, tmp_path):
    assert "no.txt: no such file" in error_of(["sample", str(model), "--start", "FILE:no.txt"])
    assert str(tmp_path) in error_of(["sample", str(model), "--start", f"FILE:{tmp_path}"])


def test_a_character_that_the_vocabulary_lacks_is_named_in_one_line(model):
    ended = nanogpt("sample", str(model), "--start", "axb")
    assert_one_line(ended, "sample.start", "'x' (U+0078)", "skip")


def test_unknown_characters_are_skipped_when_asked_for(model, capsys):
    sample(model, "--start", "axb", "--unknown", "skip", "--num-samples", "1")
    assert capsys.readouterr().out.startswith("ab")


def test_a_prompt_of_unknown_characters_only_is_refused(model):
    assert "no character" in error_of(["sample", str(model), "--start", "xyz", "--unknown", "skip"])


@pytest.mark.parametrize(
    ("flag", "value", "word"),
    [
        ("--temperature", "-1", "0.000001"),
        ("--temperature", "nan", "finite"),
        ("--num-samples", "0", "found 0"),
        ("--max-new-tokens", "0", "found 0"),
        ("--top-k", "-1", "found -1"),
        ("--device", "gpu", "'gpu'"),
        ("--start", "", "at least 1 character"),
    ],
)
def test_a_flag_out_of_range_is_named_in_one_line(model, flag, value, word):
    message = error_of(["sample", str(model), flag, value])
    assert flag.removeprefix("--").replace("-", "_") in message
    assert word in message


def test_a_wrong_flag_ends_the_process_with_one_line(model):
    ended = nanogpt("sample", str(model), "--temperature", "-1")
    assert_one_line(ended, "temperature", "0.000001", "-1")


def test_an_absent_device_is_one_line(model):
    message = error_of(["sample", str(model), "--device", "cuda:99"])
    assert "device cuda:99" in message


def test_an_absent_or_damaged_model_is_one_line(model, tmp_path):
    assert "nowhere: no model here" in error_of(["sample", "nowhere"])
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    assert "model.safetensors: damaged" in error_of(["sample", str(tmp_path)])


def test_a_reader_that_has_seen_enough_stops_the_samples_quietly(model):
    code = "from nanogpt.cli import main; main()"
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


def test_tokenize_shows_each_token_with_its_id(model, capsys):
    main(["tokenize", str(model), "aba"])
    assert capsys.readouterr().out == (
        "     2  'a'\n     3  'b'\n     2  'a'\n3 tokens of 7, 3 characters, 1.00 bytes a token\n"
    )


def test_tokenize_shows_a_part_of_a_character_as_bytes(tmp_path, capsys):
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    main(["tokenize", str(tmp_path / "tokenizer.json"), "é"])
    assert capsys.readouterr().out.splitlines()[:2] == ["   195  b'\\xc3'", "   169  b'\\xa9'"]


def test_tokenize_reads_standard_input_or_a_file(model, tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text("ab")
    main(["tokenize", str(model), f"FILE:{tmp_path}/prompt.txt"])
    assert nanogpt("tokenize", str(model), input="ab").stdout == capsys.readouterr().out


def test_tokenize_names_what_the_vocabulary_lacks(model):
    assert "'x' (U+0078)" in error_of(["tokenize", str(model), "axb"])


def test_a_text_that_is_not_utf_8_is_told_in_one_line(model):
    assert_one_line(nanogpt("tokenize", str(model), "a\udcff"), "not UTF-8")
    assert_one_line(nanogpt("tokenize", str(model), input="\udcff"), "not UTF-8")


@pytest.mark.parametrize("command", [["tokenize", "nowhere"], ["export", "dataset", "no", "there"]])
def test_what_is_not_there_is_told(command, project):
    assert "no" in error_of(command)
    assert not (project / "there").exists()


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_an_exported_dataset_is_what_nanogpt_reads(tokenizer, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 90)
    corpus, dataset = Corpus(files=["text.txt"]), Dataset(tokenizer=tokenizer, vocab_size=270)
    prepare([tmp_path / "text.txt"], corpus, dataset, tmp_path / "ours")
    main(["export", "dataset", str(tmp_path / "ours"), str(tmp_path / "theirs")])
    meta = pickle.loads((tmp_path / "theirs/meta.pkl").read_bytes())
    # As nanoGPT's train.py reads tokens, and its sample.py turns them into text.
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
def test_tokens_of_gpt2_are_exported_without_a_vocabulary_which_nanogpt_has(name, tmp_path):
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


def test_tokens_of_32_bits_are_not_exported_as_nanogpt_would_misread_them(tmp_path):
    letters = "".join(map(chr, range(0x10000, 0x20001)))
    (tmp_path / "text.txt").write_text(letters, encoding="utf-8")
    prepare([tmp_path / "text.txt"], Corpus(files=["t"]), Dataset(), tmp_path / "ours")
    message = error_of(["export", "dataset", str(tmp_path / "ours"), str(tmp_path / "theirs")])
    assert "uint32" in message
    assert not (tmp_path / "theirs").exists()
