"""`prepare`, `train` and `eval` with the real workflow, including flags that make new runs."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from nanogpt.artifacts.invocations import find_holders
from nanogpt.cli import making
from nanogpt.cli.main import main
from nanogpt.files.atomic import write_text
from nanogpt.project import Project
from tests.checkouts import own_environment
from tests.workflow.projects import nanogpt, planned, setting, snakemake

CORES = "--cores=1"


def succeed(project, *arguments):
    ended = nanogpt(project, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended


def error_of(ended):
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in ended.stderr
    return lines[0]


# --- Flags that make a run ------------------------------------------------------------------


@pytest.mark.slow
def test_train_with_flags_makes_a_run_that_the_workflow_knows(project):
    config = (project / "config.yaml").read_bytes()
    before = (project / "results/one/train.manifest.json").read_bytes()
    flags = ("--max_iters=12", "--no-bias", "--sample.seed=7")
    ended = succeed(project, "train", "one", CORES, *flags)
    name = "one.max_iters-12.sample.seed-7"  # bias is already off
    assert f"results/{name}: model/" in ended.stdout
    assert "train one.max_iters-12" in ended.stderr
    assert "rule train" not in ended.stderr
    fragment = project / f"resources/config/{name}.yaml"
    entry = {"dataset": "play", "train": {"max_iters": 12}, "sample": {"seed": 7}}
    assert yaml.safe_load(fragment.read_text()) == {"runs": {name: entry}}
    assert (project / "config.yaml").read_bytes() == config
    assert (project / "results/one/train.manifest.json").read_bytes() == before
    assert planned(project, f"results/{name}/samples.txt") == {"sample": 1}
    described = succeed(project, "config", name).stdout
    assert "max_iters: 12" in described

    made = (fragment.read_bytes(), fragment.stat().st_mtime_ns)
    again = succeed(project, "train", "one", CORES, "--sample.seed=7", "--max-iters", "12")
    assert again.stdout == ended.stdout
    assert "train one" not in again.stderr
    assert (fragment.read_bytes(), fragment.stat().st_mtime_ns) == made


def test_complete_also_evaluates_and_samples(project):
    made = [project / "results/one" / name for name in ("eval.json", "samples.txt")]
    before = [path.read_bytes() for path in made]
    for path in made:
        path.unlink()
    ended = succeed(project, "train", "one", CORES, "--complete")
    assert "results/one: model/, metrics.jsonl, eval.json, samples.txt; next: " in ended.stdout
    assert [path.read_bytes() for path in made] == before


def test_trainings_that_a_command_runs_first_are_announced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "{corpora: {play: {builtin: play}}, datasets: {play: {}, again: {corpus: play, tokenizer: "
        "play}}, runs: {again: {train: {init_from: play}}}}"
    )
    write_text(tmp_path / "results/again/metrics.jsonl", '{"step": 0, "tokens": 0}\n')
    monkeypatch.setattr(making, "make", lambda *_: 0)
    main(["train", "again"])
    line = "not trained yet; training it first"
    assert capsys.readouterr().err == f"play: {line}\n"
    monkeypatch.setattr(making, "make", lambda *_: 1)
    with pytest.raises(SystemExit):
        main(["eval", "again"])
    assert capsys.readouterr().err == f"play: {line}\nagain: {line}\n"


def test_a_missing_text_leaves_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "{corpora: {book: {files: book.txt}}, datasets: {book: {}}}"
    )
    monkeypatch.setattr(making, "make", lambda *_: 1)
    with pytest.raises(SystemExit):
        main(["train", "book", "--max_iters=500"])
    assert not list((tmp_path / "resources/config").glob("*.yaml"))


def test_flags_that_change_nothing_make_no_run(project):
    ended = succeed(
        project, "train", "one", CORES, "--max_iters=20", "--dataset=play", "--seed=1337"
    )
    assert "results/one: model/" in ended.stdout
    assert not (project / "resources/config").exists()


def test_taken_run_name_is_an_error_and_writes_nothing(project):
    ended = nanogpt(project, "train", "one", "--max_iters=12", "--name=two")
    assert error_of(ended) == (
        "error: runs: `two` already exists with other settings (train.max_iters is `20` and 2 "
        "more); give the new one another name"
    )
    assert not (project / "resources/config").exists()


def test_contradictory_settings_write_nothing(project):
    ended = nanogpt(project, "train", "one", "--n_head=3", "--name=odd")
    assert "n_embd 16 is not divisible by n_head 3" in error_of(ended)
    assert not (project / "resources/config").exists()


def test_run_in_two_files_is_an_error_for_every_command(project):
    directory = project / "resources/config"
    directory.mkdir()
    (directory / "mine.yaml").write_text("runs: {one: {dataset: play}}\n")
    message = (
        "error: resources/config/mine.yaml: runs: `one` is also in config.yaml; rename or "
        "remove one of them"
    )
    assert error_of(nanogpt(project, "config", "two")) == message
    run = snakemake(project, "-n", "results/two/samples.txt")
    assert run.returncode == 1
    assert message in run.stderr.splitlines()


@pytest.mark.slow
def test_two_commands_turn_any_text_into_a_trained_run(essays, tmp_path):
    text = "Größer als «zuvor» war der Spaß… am Fluß.\n" * 60
    (tmp_path / "Mein Büchlein.txt").write_text(text, encoding="cp1252")
    ended = succeed(
        essays,
        *("prepare", "textfile", str(tmp_path / "Mein Büchlein.txt"), "--output=tale"),
        *("--val_ratio=0.2", CORES),
    )
    assert ended.stdout == (
        "results/datasets/tale: dataset ready; next: nanogpt train --dataset=tale\n"
    )
    trained = succeed(essays, "train", "--dataset=tale", CORES)
    assert trained.stdout.startswith("results/tale: model/")
    drawn = succeed(essays, "sample", "--dataset=tale", "--start=Gr", "--max_new_tokens=20")
    assert drawn.stdout.splitlines()[1].startswith("Gr")
    assert "results/tale/model: the model trained most recently on tale" in drawn.stderr


def test_failed_prepare_leaves_no_entry(essays):
    (essays / "page.txt").write_text("<!DOCTYPE html><html><body>words</body></html>")
    ended = nanogpt(essays, "prepare", "textfile", "page.txt", "--output=page", CORES)
    assert "page.txt" in error_of(ended)
    assert not (essays / "resources/config/page.yaml").exists()


def test_training_that_cannot_start_leaves_no_entry(project):
    ended = nanogpt(project, "train", "one", "--device=cuda:99", CORES)
    assert "device cuda:99: " in error_of(ended)
    assert not list((project / "resources/config").glob("*"))


@pytest.mark.slow
def test_prompt_outside_the_vocabulary_is_an_error_even_with_a_cached_model(computed, project):
    cached = shutil.copytree(computed.cache, project / ".nanogpt/cache", dirs_exist_ok=True)
    assert list(cached.iterdir())
    ended = nanogpt(project, "train", "one", CORES, "--sample.start=日")
    assert "日" in error_of(ended)
    assert not list((project / "resources/config").glob("*"))
    assert not list(project.glob("results/one.sample*/model"))


# --- Output of eval, sample and bench -------------------------------------------------------


def test_eval_with_flags_prints_and_changes_no_results(project):
    before = sorted((path, path.stat().st_mtime_ns) for path in project.glob("results/**/*"))
    ended = succeed(project, "eval", "one", "--batch_size=2", "--eval_iters=1", "--device=cpu")
    assert ended.stdout.startswith("one on play\n  validation  ")
    succeed(project, "eval", "results/one/model", "--dataset=play", "--json")
    after = sorted((path, path.stat().st_mtime_ns) for path in project.glob("results/**/*"))
    assert before == after
    assert not (project / "resources/config").exists()


def test_eval_only_with_flags_matches_eval_and_makes_no_run(project):
    before = sorted((path, path.stat().st_mtime_ns) for path in project.glob("results/**/*"))
    flags = ("--batch_size=2", "--eval_iters=1", "--device=cpu")
    expected = succeed(project, "eval", "one", *flags).stdout
    for more in ((), ("--max_iters=12",)):
        ended = succeed(project, "train", "one", "--eval_only=True", *flags, *more)
        assert ended.stdout == expected
    assert "max_iters: ignored, since evaluation doesn't use it" in ended.stderr
    after = sorted((path, path.stat().st_mtime_ns) for path in project.glob("results/**/*"))
    assert before == after
    assert not (project / "resources/config").exists()


def test_eval_only_of_an_untrained_model_is_an_error(project):
    ended = nanogpt(project, "train", "one", "--eval_only", "--n_layer=2")
    assert error_of(ended) == (
        "error: --eval_only: there isn't a run `one` with model.n_layer 2 yet; train it first, "
        "with the same command without --eval_only"
    )
    assert not (project / "resources/config").exists()


@pytest.mark.slow
def test_eval_only_finds_the_run_that_the_same_flags_made(project):
    succeed(project, "train", "one", CORES, "--n_layer=2")
    ended = succeed(project, "train", "one", CORES, "--n_layer=2", "--eval_only")
    assert ended.stdout.startswith("one.n_layer-2 on play\n")
    assert (project / "results/one.n_layer-2/eval.json").exists()


def test_eval_only_of_published_weights_explains_the_import(project):
    ended = nanogpt(project, "train", "one", "--eval_only", "--init_from=gpt2")
    assert "nanogpt import gpt2 models/gpt2 --from huggingface" in error_of(ended)


def test_eval_without_flags_makes_eval_json(project):
    (project / "results/one/eval.json").unlink()
    ended = succeed(project, "eval", "one", CORES)
    assert (project / "results/one/eval.json").exists()
    assert "nats per token" in ended.stdout


def test_a_run_is_sampled_with_its_own_settings(project):
    ended = succeed(project, "sample", "one")
    assert ended.stdout.count("--- sample ") == 2
    # Two samples of 40 tokens with headings and a prompt of one token, with a blank line between.
    assert len(ended.stdout) == 2 * (80 + 1 + 1 + 40 + 1) + 1


# --- Signals and locks ----------------------------------------------------------------------


def start(project, *arguments):
    """Start a command as a process that gets signals, with its messages in a file."""
    with open(project / "messages", "ab") as messages:
        return subprocess.Popen(
            [sys.executable, "-m", "nanogpt", *arguments, CORES],
            cwd=project,
            env=own_environment(NANOGPT_SAVE_INTERVAL="0.5"),
            stdout=messages,
            stderr=messages,
        )


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def steps_of(project):
    return sorted(project.glob(".nanogpt/state/[!.]*/step-*.safetensors"))


def log_of(project):
    """Return the log of the training, which Snakemake removes before starting one."""
    path = project / "results/endless/train.log"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    return ""


def messages_of(project):
    return (project / "messages").read_text()


@pytest.fixture
def endless(project):
    """A project with a long run that's saved often."""
    setting("runs", "endless", value={"dataset": "play", "train": {"max_iters": 1_000_000}})(
        project
    )
    return project


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_the_training_and_leaves_no_lock(endless, number):
    process = start(endless, "train", "endless")
    try:
        wait_for(lambda: steps_of(endless))
        process.send_signal(number)
        if number == signal.SIGINT:  # an impatient user
            time.sleep(0.1)
            process.send_signal(number)
        assert process.wait(180) == 128 + number
    finally:
        process.kill()
    assert not list(endless.glob(".snakemake/locks/*"))
    assert not list(endless.glob(".nanogpt/invocations/*"))
    assert messages_of(endless).count("endless: saved at step ") == 1
    assert "error: " not in messages_of(endless)
    assert "Traceback" not in messages_of(endless)
    assert f"stopped by {number.name}" in log_of(endless)


@pytest.mark.slow
def test_early_signal_keeps_the_new_run_and_explains_how_to_continue(project):
    process = start(project, "train", "one", "--max_iters=12", "--name=short")
    try:
        wait_for(lambda: list(project.glob(".nanogpt/invocations/*")))
        process.send_signal(signal.SIGINT)
        assert process.wait(180) == 128 + signal.SIGINT
    finally:
        process.kill()
    assert "short: stopped; run the same command to continue" in messages_of(project)
    assert (project / "resources/config/short.yaml").exists()


@pytest.mark.slow
def test_sigusr1_saves_and_training_continues(endless):
    environment = own_environment(NANOGPT_SAVE_INTERVAL="10000")
    process = subprocess.Popen(
        [sys.executable, "-m", "nanogpt", "train", "endless", CORES],
        cwd=endless,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: list(endless.glob(".nanogpt/state/*/metrics.jsonl")))
        assert not steps_of(endless)
        time.sleep(1)
        process.send_signal(signal.SIGUSR1)
        wait_for(lambda: steps_of(endless))
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(180) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_second_process_waits_for_the_first_and_reports_it(endless):
    first = start(endless, "train", "endless")
    second = None
    try:
        wait_for(lambda: steps_of(endless))
        second = start(endless, "train", "endless")
        wait_for(lambda: "waiting for process" in messages_of(endless))
        assert "making results/endless/metrics.jsonl and 3 more" in messages_of(endless)
        assert "--unlock" not in messages_of(endless)
        first.send_signal(signal.SIGTERM)
        first.wait(180)
        step = max(int(path.name.split("-")[1].split(".")[0]) for path in steps_of(endless))
        wait_for(lambda: f"resuming from step {step}" in log_of(endless))
    finally:
        for process in filter(None, (first, second)):
            process.send_signal(signal.SIGTERM)
            process.wait(180)


@pytest.mark.slow
def test_lock_of_a_killed_process_is_removed_but_not_one_of_an_unknown_owner(endless):
    process = start(endless, "train", "endless")
    wait_for(lambda: steps_of(endless))
    (child,) = children_of(process.pid)
    process.kill()
    process.wait()
    os.killpg(child, signal.SIGKILL)
    wait_for(lambda: not find_holders(Project(endless)))
    assert list(endless.glob(".snakemake/locks/*.lock"))
    unknown = endless / ".nanogpt/invocations"
    unknown.rename(endless / "aside")
    ended = nanogpt(endless, "train", "endless", CORES)
    assert "run `snakemake --unlock`" in error_of(ended)
    (endless / "aside").rename(unknown)
    again = start(endless, "train", "endless")
    try:
        wait_for(lambda: "removed the lock of a killed Snakemake process" in messages_of(endless))
        wait_for(lambda: "resuming from step" in log_of(endless))
    finally:
        again.send_signal(signal.SIGTERM)
        again.wait(180)


@pytest.mark.slow
def test_killed_snakemake_is_reported_with_its_output_and_leaves_no_lock(endless):
    process = start(endless, "train", "endless")
    wait_for(lambda: steps_of(endless))
    (child,) = children_of(process.pid)
    os.killpg(child, signal.SIGKILL)
    assert process.wait(180) == 128 + signal.SIGKILL
    assert "error: Snakemake was killed by signal 9" in messages_of(endless)
    assert not list(endless.glob(".snakemake/locks/*.lock"))


# A command that waits between reading the config and adding to it.
SLOW = """
import sys, time
from nanogpt.cli import main, making
vary_run = making.vary_run
def vary_slowly(*arguments):
    varied = vary_run(*arguments)
    time.sleep(float(sys.argv[1]))
    return varied
making.vary_run = vary_slowly
main.main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("pauses", [("0", "0"), ("1", "6")], ids=["together", "one is slower"])
def test_two_commands_with_the_same_new_flags_both_succeed(project, pauses):
    words = ("train", "one", "--max_iters=12", CORES)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SLOW, pause, *words],
            cwd=project,
            env=own_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for pause in pauses
    ]
    ended = [(process.communicate(timeout=300), process.returncode) for process in processes]
    name = "one.max_iters-12"
    for (out, err), code in ended:
        assert code == 0, err
        assert out.startswith(f"results/{name}: model/")
    assert sum(err.count(": settings of ") for (_, err), _ in ended) == 1
    entry = {"dataset": "play", "train": {"max_iters": 12}}
    fragment = project / f"resources/config/{name}.yaml"
    assert yaml.safe_load(fragment.read_text()) == {"runs": {name: entry}}
    assert sum(err.count(f"train {name}: ") > 0 for (_, err), _ in ended) <= 1


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return list(map(int, file.read().split()))


def test_failed_job_gets_one_line_and_exit_code_1(essays):
    (essays / "resources/texts/empty.txt").write_text("")
    ended = nanogpt(essays, "train", "empty", CORES)
    assert "resources/texts/empty.txt" in error_of(ended)
    assert ended.stdout == ""
