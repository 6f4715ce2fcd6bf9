"""Command lines are normalized, and nanoGPT's names are translated."""

import json

import pytest

from nanogpt.cli import main  # noqa: F401  importing it registers the commands
from nanogpt.cli.app import ORDER
from nanogpt.cli.flags import name_flags
from nanogpt.cli.parameters import switches_of, values_of
from nanogpt.cli.peers import PRESETS, find_preset
from nanogpt.cli.words import normalise
from nanogpt.config.flags import DOTTED, FLAT, flags_of
from nanogpt.config.loading import read
from nanogpt.config.resolving import run_names
from nanogpt.config.variants import GROUPS
from nanogpt.errors import UserError
from tests.checkouts import PROJECT


def words(line):
    return normalise(line.split())[1:]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train demo --max-iters 5", ["--max_iters=5", "demo"]),
        ("train demo --max_iters=5", ["--max_iters=5", "demo"]),
        ("train --bias demo", ["--bias=True", "demo"]),
        ("train --bias True demo", ["--bias=True", "demo"]),
        ("train --bias=False", ["--bias=False"]),
        ("train --no-bias", ["--bias=False"]),
        ("train --no_decay_lr", ["--decay_lr=False"]),
        ("train --min-lr -1", ["--min_lr=-1"]),
        ("train --milestones 5 --milestones=10 one", ['--milestones=["5", "10"]', "one"]),
        ("train --milestones=[5,10]", ['--milestones=["5", "10"]']),
        ("train --milestones [5,10] --milestones 20", ['--milestones=["5", "10", "20"]']),
        ("sample --stop A demo", ['--stop=["A"]', "demo"]),
        ("sample demo --stop A --stop B", ['--stop=["A", "B"]', "demo"]),
        ("sample --stop=[1]", ['--stop=["[1]"]']),
        ("train --train.max_iters=5 --sample.seed=3", ["--max_iters=5", "--sample.seed=3"]),
        ("train --max_iters=5 --max_iters=6", ["--max_iters=6"]),
        ("train --eval_only=True", ["--eval_only"]),
        ("train --eval-only", ["--eval_only"]),
        ("plan one --no_measure", ["one", "--no-measure"]),
        ("eval one --json=False", ["one", "--no-json"]),
        ("train --always_save_checkpoint=True", ["--keep=last"]),
        ("train --no-always_save_checkpoint", ["--keep=best"]),
        ("train --init_from=scratch", ["--init_from=null"]),
        ("sample --init_from=scratch", []),
        ("sample --stop=😀", ['--stop=["😀"]']),
        ("train --init_from=gpt2-xl", ["--init_from=gpt2-xl"]),
        ("bench --real_data=False", ["--data=random"]),
        ("verify results --json", ["results", "--json"]),
        ("export one --to gguf one.gguf", ["one", "--to=gguf", "one.gguf"]),
        ("sample --out_dir=out-shakespeare-char", ["shakespeare_char"]),
        ("sample --out_dir=out-shakespeare-char demo", ["demo"]),
        ("eval --out_dir out-mine --dataset=novel", ["--dataset=novel"]),
        ("tokenize x -- --bias", ["x", "--", "--bias"]),
    ],
)
def test_flags_can_be_written_in_several_ways(typed, meant):
    assert words(typed) == meant


@pytest.mark.parametrize(
    "flag",
    ["wandb_log=True", "wandb_project=x", "out_dir=out", "backend=nccl", "max_docs=9", "profile"],
)
def test_setting_without_a_counterpart_is_ignored_with_one_line(flag, capsys):
    assert words(f"train demo --{flag}") == ["demo"]
    printed = capsys.readouterr().err
    assert printed.startswith(f"{flag.partition('=')[0]}: ignored: ")
    assert printed.count("\n") == 1


def test_compile_is_a_setting_of_train_but_not_of_sample(capsys):
    assert words("train --compile=False") == ["--compile=False"]
    assert capsys.readouterr().err == ""
    assert words("sample --compile=False") == []
    assert "only `train` and `bench` compile models" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["eval one --json=maybe", "train --eval_only=", "train --always_save_checkpoint=maybe"],
)
def test_boolean_flag_accepts_only_true_and_false(line):
    flag, _, value = line.split()[-1][2:].partition("=")
    with pytest.raises(UserError) as error:
        words(line)
    assert str(error.value) == f"--{flag}: should be true or false (found `{value}`)"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian demo", "no command `trian`; did you mean `train`?"),
        ("train --max_itres=3", "train: no flag `--max_itres`; did you mean `--max_iters`?"),
        (
            "sample demo --n_samples 3",
            "sample: no flag `--n_samples`; did you mean `--num_samples`?",
        ),
        ("train --lr=3", "train: no flag `--lr`; did you mean `--learning_rate`?"),
        ("prepare x --name=y", "prepare: no flag `--name`; did you mean `--output`?"),
        ("train --epochs=3", "train: no flag `--epochs`; did you mean `--max_iters`?"),
        ("sample --temp=3", "sample: no flag `--temp`; did you mean `--temperature`?"),
        ("train --foo=3", "train: no flag `--foo`; see `nanogpt train --help`"),
        ("sample --model=3", "sample: no flag `--model`; see `nanogpt sample --help`"),
        ("why one --jsno", "why: no flag `--jsno`; did you mean `--json`?"),
        (
            "sample demo ROMEO:",
            "sample: unexpected argument `ROMEO:`; for a prompt, use `--start=ROMEO:`",
        ),
        ("plan one two", "plan: unexpected argument `two`; see `nanogpt plan --help`"),
        ("export", "export: MODEL is missing; see `nanogpt export --help`"),
        ("tokenize", "tokenize: TOKENIZER is missing; see `nanogpt tokenize --help`"),
        (
            "sample demo --top_k",
            "sample: --top_k: the value is missing; write `--top_k=VALUE`, and see `nanogpt sample "
            "--help`",
        ),
        (
            "sample demo --top-k --seed=3",
            "sample: --top_k: the value is missing; write `--top_k=VALUE`, and see `nanogpt sample "
            "--help`",
        ),
        (
            "train one --name",
            "train: --name: the value is missing; write `--name=VALUE`, and see `nanogpt train "
            "--help`",
        ),
        (
            "train one --wandb_project",
            "train: --wandb_project: the value is missing; write `--wandb_project=VALUE`, and see "
            "`nanogpt train --help`",
        ),
        ("watch --port=x", "watch: --port: should be a whole number (found `x`)"),
        ("watch --port 6006.5", "watch: --port: should be a whole number (found `6006.5`)"),
        ("watch --every=", "watch: --every: should be a number (found ``)"),
        ("cache ls --older-than=old", "cache: --older_than: should be a number (found `old`)"),
        ("cache list", "cache: ACTION: should be one of ls, prune (found `list`)"),
        ("cache", "cache: ACTION is missing; see `nanogpt cache --help`"),
        ("completion fish", "completion: SHELL: should be one of bash, zsh, tcsh (found `fish`)"),
        (
            "export one x --to=onnx",
            "export: --to: should be one of huggingface, gguf, nanogpt (found `onnx`)",
        ),
        ("import a b", "import: --from is missing; choose from huggingface, nanogpt"),
        (
            "sample demo -k 5",
            "sample: no flag `-k`; write two dashes for a flag, or put ` -- ` before arguments "
            "that start with a dash",
        ),
        ("-v", "no command given; for example, run `nanogpt train`, and see `nanogpt --help`"),
        ("", "no command given; for example, run `nanogpt train`, and see `nanogpt --help`"),
    ],
)
def test_invalid_words_get_one_line(line, message):
    with pytest.raises(UserError) as error:
        words(line)
    assert str(error.value) == message


@pytest.mark.parametrize("command", ORDER)
def test_every_flag_needs_its_value(command):
    flags = {name for name, flag in flags_of(command).items() if not flag.is_boolean}
    others = values_of(command).keys() - switches_of(command) - {"flags"}
    for name in flags | others:
        with pytest.raises(UserError, match=f"--{name}: the value is missing"):
            normalise([command, f"--{name}"])


def test_help_and_version_have_several_names():
    assert normalise(["help"]) == ["--help"]
    assert normalise(["help", "train"]) == normalise(["train", "--help"]) == ["train", "--help"]
    assert normalise(["--version"]) == ["version"]


def test_out_dir_with_a_model_selects_that_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out-mine").mkdir()
    (tmp_path / "out-mine/config.json").write_text("{}")
    assert words("sample --out_dir=out-mine") == ["out-mine"]


@pytest.mark.parametrize("place", ["before", "after"])
def test_flags_override_the_settings_of_a_file(tmp_path, place):
    path = tmp_path / "x.json"
    content = {"max_iters": 5, "bias": True, "dataset": "d", "milestones": [2], "wandb_log": False}
    path.write_text(json.dumps(content))
    file, flags = f"--config={path}", "--max_iters=7 --milestones 3"
    line = f"train {file} {flags}" if place == "before" else f"train {flags} {file}"
    assert sorted(words(line)) == [
        *("--bias=True", "--dataset=d", "--max_iters=7", '--milestones=["3"]'),
    ]


def test_file_can_give_several_values_of_a_list(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"stop": ["a", "[1]"]}')
    assert words(f"sample --config={path}") == ['--stop=["a", "[1]"]']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"max_itres": 5}', "unknown setting `max_itres`; did you mean `max_iters`?"),
        ("max_iters = 5", 'invalid JSON; write settings like {"max_iters": 500}'),
        ('{"train": {"max_iters": 5}}', "should be an object of settings without groups"),
    ],
)
def test_wrong_file_of_settings_gets_one_line(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"x\.json") as error:
        words(f"train --config={path}")
    assert message in str(error.value)


def test_python_file_is_never_read_as_config(tmp_path):
    with pytest.raises(UserError, match="aren't executed"):
        find_preset("mine.py")
    with pytest.raises(UserError, match="aren't executed"):
        words(f"train --config={tmp_path}/x.py")


def test_nanogpts_config_files_are_known_by_name():
    assert find_preset("config/train_gpt2.py") == "train_gpt2"
    assert find_preset("train_gpt2") == "train_gpt2"
    assert find_preset("results/train_gpt2") == find_preset("demo") == ""


def test_every_preset_is_a_shipped_run():
    names = run_names(read(PROJECT / "config.yaml"))
    runs = [preset.run for preset in PRESETS.values() if preset.run]
    assert [run for run in runs if run not in names] == []


# --- The groups of flags --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "flag", "group"),
    [
        ("train", "seed", "train"),
        ("train", "device", "train"),
        ("train", "eval_iters", "train"),
        ("train", "block_size", "model"),
        ("train", "sample.seed", "sample"),
        ("eval", "batch_size", "eval"),
        ("eval", "seed", "eval"),
        ("sample", "seed", "sample"),
        ("sample", "dtype", "sample"),
        ("bench", "batch_size", "bench"),
        ("bench", "seed", "bench"),
        ("bench", "device", "train"),
        ("bench", "block_size", "model"),
        ("bench", "train.seed", "train"),
        ("prepare", "val_ratio", "dataset"),
        ("prepare", "encoding", "corpus"),
    ],
)
def test_flat_flag_sets_the_commands_group(command, flag, group):
    assert flags_of(command)[flag].group == group


@pytest.mark.parametrize("command", FLAT)
def test_every_setting_of_a_commands_groups_has_a_flag(command):
    settings = {
        (group, setting)
        for group in (*FLAT[command], *DOTTED.get(command, ()))
        for setting in GROUPS[group].model_fields
    }
    assert {(flag.group, flag.setting) for flag in flags_of(command).values()} == settings


@pytest.mark.parametrize(
    ("line", "message", "named"),
    [
        ("sample a --start=x", "sample.start: `unknown: skip`", "--start: `--unknown=skip`"),
        ("train a --n_layer=x", "model.n_layer: wrong", "--n_layer: wrong"),
        ("train a --milestones=x", "train.milestones: wrong", "--milestones: wrong"),
        ("train a --sample.seed=x", "runs.a.b-1.sample.seed: wrong", "--sample.seed: wrong"),
        ("train a --min_lr=1", "runs.a.train.min_lr: `matrix_lr`", "--min_lr: `--matrix_lr`"),
        ("prepare a --tokenizer=x", "datasets.a.tokenizer: no `x`", "--tokenizer: no `x`"),
        ("train a --seed=1", "runs.a.train.seed: `tokenizer: c`", "--seed: `tokenizer: c`"),
        ("train a --n_layer=2", "runs.b.model.n_head: wrong", "runs.b.model.n_head: wrong"),
        ("train a", "runs.a.model.n_layer: wrong", "runs.a.model.n_layer: wrong"),
        ("verify a", "a: missing", "a: missing"),
    ],
)
def test_message_about_a_flag_uses_flag_names(line, message, named):
    assert name_flags(normalise(line.split()), message) == named
