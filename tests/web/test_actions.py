"""Actions: define, start and stop trainings, and upload texts."""

import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from contextlib import contextmanager

import pytest
import yaml
from fastapi.testclient import TestClient

from nanogpt.cli.main import main
from nanogpt.files import locks
from nanogpt.files.atomic import write_text
from nanogpt.project import Project
from nanogpt.web import jobs as jobs_module
from nanogpt.web.app import create_app
from nanogpt.web.jobs import TrainingJob
from nanogpt.web.site import Limits, Site
from tests.made_runs import make_run, make_training
from tests.web.serving import environment_here, wait_for

OWN = "http://127.0.0.1:8000"
TOKEN = "the-right-token"
TEXT = "To be, or not to be, that is the question.\n" * 200

CONFIG = {
    "corpora": {"play": {"builtin": "play", "n_characters": 20_000}},
    "datasets": {"play": {}},
    "models": {
        "tiny": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32},
        "other": {"n_layer": 3, "n_head": 2, "n_embd": 16, "block_size": 32},
    },
    "defaults": {"model": "tiny", "train": {"max_iters": 20}},
    "runs": {"one": {"dataset": "play"}, "two": {"dataset": "play"}, "both": {"ensemble": ["one"]}},
}

NOT_TRAINED = "one: not being trained; reload the page to see its status"

# Stands for `nanogpt train`: says something, then waits for a signal.
WAITING = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("train", sys.argv[1], flush=True)
time.sleep(60)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    return Project()


def open_actions(project, **limits):
    site = Site(project, project.results, token=TOKEN, allow_actions=True, limits=Limits(**limits))
    client = TestClient(create_app(site), base_url=OWN, raise_server_exceptions=False)
    client.headers.update({"Authorization": f"Bearer {TOKEN}"})
    return client


@pytest.fixture
def client(project):
    return open_actions(project)


@pytest.fixture
def waiting(monkeypatch):
    """Let jobs run a process that only waits. Returns the commands that were started."""
    commands, processes = [], []
    popen = subprocess.Popen

    def start(command, **options):
        commands.append(command)
        processes.append(popen([sys.executable, "-c", WAITING, command[-2]], **options))
        return processes[-1]

    monkeypatch.setattr(jobs_module.subprocess, "Popen", start)
    monkeypatch.setattr(jobs_module, "POLL", 0.05)
    opened = []
    run_thread = jobs_module.Jobs._run_thread

    def run_and_remember(jobs):
        opened.append(jobs)
        run_thread(jobs)

    monkeypatch.setattr(jobs_module.Jobs, "_run_thread", run_and_remember)
    yield commands
    for jobs in opened:  # so that none starts in the directory of the next test
        jobs.close()
        jobs._thread.join()
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def unstarted(monkeypatch):
    """Let no job start, for tests of what happens before."""
    monkeypatch.setattr(jobs_module.Jobs, "_run_thread", lambda _: None)


def error_of(answer, status=400):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


# --- Define a run ----------------------------------------------------------------------------


@pytest.mark.usefixtures("unstarted")
def test_a_run_is_defined_as_by_the_command_line(client, project, monkeypatch):
    settings = {"train.max_iters": "30", "train.learning_rate": "1e-2", "sample.start": "Ü: {a"}
    form = {"dataset": "play", "name": "mine", "settings": settings}
    answer = client.post("/api/runs", json=form)
    assert answer.status_code == 202
    assert answer.json() == {"run": "mine", "state": "queued", "message": ""}
    ours = (project.fragments / "mine.yaml").read_text().partition("\n")[2]
    (project.fragments / "mine.yaml").unlink()
    monkeypatch.setattr("nanogpt.cli.making.make", lambda *_: 0)
    write_text(project.results / "mine/metrics.jsonl", '{"step": 0, "tokens": 0}\n')
    flags = ["--max_iters=30", "--learning_rate=1e-2", "--sample.start=Ü: {a"]
    main(["train", "play", "--name=mine", *flags])
    assert (project.fragments / "mine.yaml").read_text().partition("\n")[2] == ours


@pytest.mark.usefixtures("unstarted")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.max_iters": "many"}, "train.max_iters: should be a number, such as 10000, "),
        ({"train.max_iters": "0"}, "train.max_iters: should be greater than or equal to 1 "),
        ({"train.max_itres": "5"}, "train.max_itres: unknown setting; did you mean `train.max_i"),
        ({"model.n_head": "3"}, "runs.play.model: n_embd 16 is not divisible by n_head 3"),
        ({"model.preset": "huge"}, "runs.play.model: no model `huge`"),
        ({"train.device": "cuda:x; rm"}, "train.device: should be auto, cpu, mps, cuda or cuda:N"),
        ({"train.milestones": "[" * 9_999}, "train.milestones: should be a list"),
        ({"train.max_iters": "9" * 9_999}, "train.max_iters: "),
        ({"train.learning_rate": "nan"}, "train.learning_rate: "),
        ({"sample.start": "FILE:/etc/passwd"}, "sample.start: can't be a file when it's set on "),
        ({"sample.start": "LINES:../secret"}, "sample.start: can't be a file when it's set on "),
        ({"train.init_from": "../other/model"}, "train.init_from: can't be a file when it's set"),
        ({"train.init_from": "~"}, "train.init_from: can't be a file when it's set on the page; "),
        ({"train.init_from": "~root"}, "train.init_from: can't be a file when it's set on the "),
        ({"train.init_from": ".."}, "train.init_from: can't be a file when it's set on the page"),
        ({"train.init_from": "results"}, "train.init_from: no run `results`"),
        ({"train.init_from": "on"}, "train.init_from: no run `on`; did you mean `one`?"),
        ({"corpus.files": "/etc/passwd"}, "corpus.files: unknown setting"),
        ({"corpus.url": "http://127.0.0.1/"}, "corpus.url: unknown setting"),
        ({"dataset.corpus": "other"}, "dataset.corpus: unknown setting"),
        ({"dataset.tokenizer": "words"}, "datasets.play.tokenizer-words.tokenizer: no tokenizer "),
        ({"__class__": "x"}, "__class__: unknown setting"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_have_the_messages_of_the_command_line(client, project, settings, message):
    answer = client.post("/api/runs", json={"dataset": "play", "settings": settings})
    assert error_of(answer).startswith(message)
    assert not project.fragments.exists()


@pytest.mark.usefixtures("unstarted")
@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "..", ".hidden", "a/b", "a\\b", "a\nb", "%2e%2e", "<b>", "datasets"],
)
def test_names_that_could_leave_their_directory_are_refused(client, project, name):
    answer = client.post("/api/runs", json={"dataset": "play", "name": name})
    assert "name" in error_of(answer)
    assert not project.fragments.exists()


@pytest.mark.usefixtures("unstarted")
def test_a_name_that_is_too_long_is_refused(client, project):
    name = "a" * 255
    answer = client.post("/api/runs", json={"dataset": "play", "name": name})
    assert f"name: `{'a' * 80}…` is too long" in error_of(answer)
    assert not list(project.fragments.glob("*"))
    answer = post_text(client, TEXT, "a" * 252)
    assert f"{'a' * 80}…: name too long" in error_of(answer)
    assert not list(project.texts.glob("a*"))


# References that grow to billions of items when they're expanded.
BOMB = "&a [x,x,x]"
for letter in "bcdefghi":
    before = chr(ord(letter) - 1)
    BOMB = f"{BOMB}\n- &{letter} [{', '.join([f'*{before}'] * 9)}]"


@pytest.mark.usefixtures("unstarted")
def test_yaml_in_a_value_is_text(client, project):
    for value in (BOMB, "!!python/object/apply:os.system [id]", "a: &x [*x]", "\u0085\u2028\0"):
        form = {"dataset": "play", "name": "mine", "settings": {"sample.start": value}}
        assert client.post("/api/runs", json=form).status_code == 202
        path = project.fragments / "mine.yaml"
        entry = yaml.safe_load(path.read_text())["runs"]["mine"]
        assert entry["sample"]["start"] == value
        assert path.read_text().count("\n") < 20 + value.count("\n")
        path.unlink()
        client.post("/api/runs/mine/stop")
    for name in ("train.milestones", "sample.stop", "train.max_iters"):
        form = {"dataset": "play", "settings": {name: BOMB}}
        assert client.post("/api/runs", json=form).status_code in (202, 400)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"null",
        b'"text"',
        b"{}",
        b'{"dataset": 3}',
        b'{"dataset": "play", "settings": ["a"]}',
        b'{"dataset": "play", "settings": {"train.max_iters": 5}}',
        b'{"dataset": "play", "settings": {"train.max_iters": {"a": 1}}}',
        b'{"dataset": "play", "name": "\\ud800"}',
        b'{"dataset": "play", "name": "' + b"a" * 300 + b'"}',
        b'{"dataset": "play", "settings": {"sample.start": "' + b"a" * 10_001 + b'"}}',
        b"\xff\xfe",
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_bodies_that_arent_a_form_are_refused(client, project, body):
    answer = client.post("/api/runs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert isinstance(answer.json()["error"], str)
    assert not project.fragments.exists()


@pytest.mark.usefixtures("unstarted")
def test_another_dataset_and_tokenizer_are_used(client, project):
    form = {"run": "one", "settings": {"dataset.tokenizer": "byte", "train.max_iters": "5"}}
    answer = client.post("/api/runs", json=form)
    dataset = "play.tokenizer-byte"
    assert answer.json()["run"] == f"one.dataset-{dataset}.max_iters-5"
    written = yaml.safe_load((project.fragments / f"{dataset}.yaml").read_text())
    assert written == {"datasets": {dataset: {"corpus": "play", "tokenizer": "byte"}}}


@pytest.mark.usefixtures("unstarted")
@pytest.mark.parametrize("name", ["one", "none"])
def test_a_run_can_start_from_another_ones_model(client, project, name):
    settings = {"train.init_from": name, "train.max_iters": "5"}
    form = {"dataset": "play", "name": "mine", "settings": settings}
    assert client.post("/api/runs", json=form).status_code == 202
    written = yaml.safe_load((project.fragments / "mine.yaml").read_text())
    expected = None if name == "none" else name
    assert written["runs"]["mine"]["train"].get("init_from") == expected


def test_the_form_has_the_settings_of_the_schema(client):
    page = client.get("/new").text
    for name in ("train.max_iters", "model.preset", "sample.top_p", "dataset.tokenizer"):
        assert f'data-setting="{name}"' in page
    assert 'data-setting="corpus.' not in page
    values = client.get("/api/settings", params={"run": "one"}).json()
    assert values["train.max_iters"] == "20"
    assert values["model.n_embd"] == "16"
    assert "no run `ones`" in error_of(client.get("/api/settings?run=ones"))
    new = client.get("/api/settings?preset=other").json()
    assert (new["model.n_layer"], new["model.preset"], new["train.max_iters"]) == (
        "3",
        "other",
        "20",
    )
    assert client.get("/api/settings").json()["model.n_embd"] == "16"


def test_names_are_escaped_on_the_page(client, project):
    mapping = {**CONFIG, "models": {**CONFIG["models"], "<script>": CONFIG["models"]["tiny"]}}
    project.config_file.write_text(yaml.safe_dump(mapping))
    assert "<script>alert" not in client.get("/new").text
    mapping = {**CONFIG, "defaults": {"sample": {"start": '"><script>alert(1)</script>'}}}
    project.config_file.write_text(yaml.safe_dump(mapping))
    page = client.get("/new").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_without_actions_there_are_none(project):
    site = Site(project, project.results)
    client = TestClient(create_app(site), base_url=OWN)
    assert client.get("/new").status_code == 404
    assert client.get("/api/jobs").status_code == 404
    assert client.post("/api/runs/one/resume").status_code == 403


# --- Start and stop --------------------------------------------------------------------------


def states(client):
    return {job["run"]: job["state"] for job in client.get("/api/jobs").json()}


def test_trainings_run_one_at_a_time(client, waiting):
    for run in ("one", "two"):
        assert client.post(f"/api/runs/{run}/resume").status_code == 202
    wait_for(lambda: states(client) == {"one": "running", "two": "queued"}, "the first")
    wait_for(lambda: client.get("/api/jobs/one").json()["message"] == "train one", "its output")
    assert client.get("/api/jobs/one/log").text == "train one\n"
    assert client.post("/api/runs/one/stop").status_code == 200
    wait_for(lambda: states(client) == {"one": "stopped", "two": "running"}, "the second")
    assert [command[1:] for command in waiting] == [
        ["-m", "nanogpt", "train", run, "--complete"] for run in ("one", "two")
    ]


def status_of(client, run):
    page, answer = client.get(f"/runs/{run}"), client.get(f"/api/runs/{run}")
    if answer.status_code == 404:
        assert page.status_code == 404
        return None
    status = answer.json()["run"]["status"]
    assert f'<div data-status="{status}"' in page.text
    return status


def wait_for_status(client, run, status):
    """Wait until the next look at the files; then the page and its JSON agree."""
    ask = f"/api/runs/{run}"
    wait_for(lambda: client.get(ask).json()["run"]["status"] == status, "the next look")
    assert status_of(client, run) == status


@pytest.mark.usefixtures("waiting")
def test_a_run_has_a_page_as_soon_as_it_is_started(client):
    assert status_of(client, "mine") is None
    for name in ("mine", "next"):
        client.post("/api/runs", json={"dataset": "play", "name": name})
        assert status_of(client, name) == "waiting"
    client.post("/api/runs/next/stop")
    wait_for_status(client, "next", "stopped")
    wait_for(lambda: len(client.get("/api/runs").json()["runs"]) == 2, "the list")


@pytest.mark.usefixtures("waiting")
def test_a_trained_run_can_be_evaluated(client, project):
    run = make_run(project.root, "one")
    (run / "eval.json").unlink()
    assert ">Evaluate</button>" in client.get("/runs/one").text
    assert "Continue" not in client.get("/runs/one").text


def test_a_run_that_failed_waits_again_when_it_is_started(client, project):
    (project.results / "one").mkdir()
    (project.results / "one/train.log").write_text("2026-11-28 15:57:01,111 ERROR no space\n")
    assert status_of(client, "one") == "failed"
    client.post("/api/runs/one/resume")
    wait_for_status(client, "one", "waiting")


@pytest.mark.usefixtures("waiting")
def test_of_two_starts_at_once_one_succeeds(client):
    answers = []

    def start():
        answers.append(client.post("/api/runs/one/resume"))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    assert client.post("/api/runs/one/resume").json()["error"].startswith("one: already ")


@pytest.mark.usefixtures("waiting")
def test_the_queue_is_bounded_and_can_be_left(project):
    client = open_actions(project, jobs=2)
    runs = [
        client.post("/api/runs", json={"dataset": "play", "name": f"n{number}"}).json()
        for number in range(2)
    ]
    assert [run["run"] for run in runs] == ["n0", "n1"]
    answer = client.post("/api/runs/one/resume")
    assert "2 trainings run or wait" in error_of(answer, 429)
    assert answer.headers["retry-after"] == "60"
    assert "out of the queue" in client.post("/api/runs/n1/stop").json()["message"]
    assert client.post("/api/runs/one/resume").status_code == 202


FORM = {
    "dataset": "play",
    "name": "mine",
    "settings": {"train.max_iters": "9", "dataset.tokenizer": "byte"},
}
CORRECTED = {**FORM, "settings": {"train.max_iters": "8", "dataset.tokenizer": "byte"}}


def fragments(project):
    return sorted(path.stem for path in project.fragments.glob("*.yaml"))


@pytest.mark.usefixtures("waiting")
def test_a_refused_start_defines_nothing(project):
    client = open_actions(project, jobs=1)
    client.post("/api/runs/one/resume")
    assert "1 trainings run or wait" in error_of(client.post("/api/runs", json=FORM), 429)
    assert fragments(project) == []


@pytest.mark.usefixtures("waiting")
def test_a_second_start_of_a_run_leaves_its_definition(client, project):
    assert client.post("/api/runs", json=FORM).status_code == 202
    assert "already" in error_of(client.post("/api/runs", json=FORM), 409)
    assert fragments(project) == ["mine", "play.tokenizer-byte"]


@pytest.mark.usefixtures("waiting")
def test_a_training_without_a_result_can_be_corrected(client, project):
    client.post("/api/runs", json=FORM)
    wait_for(lambda: states(client) == {"mine": "running"}, "the training")
    client.post("/api/runs/mine/stop")
    wait_for(lambda: states(client) == {"mine": "stopped"}, "its end")
    assert fragments(project) == []
    assert client.post("/api/runs", json=CORRECTED).status_code == 202
    wait_for(lambda: states(client) == {"mine": "running"}, "the training")


@pytest.mark.usefixtures("waiting")
def test_what_is_taken_out_of_the_queue_can_be_corrected(client, project):
    client.post("/api/runs/one/resume")
    client.post("/api/runs", json=FORM)
    client.post("/api/runs/mine/stop")
    assert fragments(project) == []
    assert client.post("/api/runs", json=CORRECTED).status_code == 202


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("has_state", [True, False])
def test_a_training_with_a_state_or_result_keeps_its_definition(client, project, has_state):
    client.post("/api/runs", json=FORM)
    wait_for(lambda: states(client) == {"mine": "running"}, "the training")
    if has_state:
        make_training(project.root, "mine")
    else:
        write_text(project.results / "mine/metrics.jsonl", "")
    client.post("/api/runs/mine/stop")
    wait_for(lambda: states(client) == {"mine": "stopped"}, "its end")
    assert fragments(project) == ["mine", "play.tokenizer-byte"]


@pytest.mark.usefixtures("waiting")
def test_a_definition_that_another_run_needs_is_kept(client, project):
    client.post("/api/runs", json=FORM)
    wait_for(lambda: states(client) == {"mine": "running"}, "the training")
    client.post("/api/runs", json={**FORM, "name": "yours"})
    client.post("/api/runs/mine/stop")
    wait_for(lambda: states(client)["mine"] == "stopped", "its end")
    assert fragments(project) == ["play.tokenizer-byte", "yours"]


@pytest.mark.usefixtures("waiting")
def test_the_next_server_removes_the_definition_of_a_training_without_a_result(client, project):
    client.post("/api/runs", json=FORM)
    wait_for(lambda: list(project.served.glob("*.json")), "its record")
    client.app.state.jobs.close()
    client.app.state.jobs._thread.join()
    client.app.state.jobs.find("mine").child.kill()
    client.app.state.jobs.find("mine").child.wait()
    assert states(open_actions(project)) == {}
    assert fragments(project) == []


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("is_new", [True, False])
def test_samples_of_an_earlier_training_arent_a_result(client, project, is_new):
    samples = project.results / "one/samples.txt"
    write_text(samples, "To be")
    os.utime(samples, (1e9, 1e9))
    client.post("/api/runs/one/resume")
    wait_for(lambda: list(project.served.glob("*.json")), "its record")
    client.app.state.jobs.close()
    client.app.state.jobs._thread.join()
    later = open_actions(project)
    if is_new:
        samples.touch()
    client.app.state.jobs.find("one").child.kill()
    client.app.state.jobs.find("one").child.wait()
    state = "done" if is_new else "failed"
    wait_for(lambda: states(later) == {"one": state}, "its end")


def test_what_cant_be_trained_is_refused(client):
    assert "no run `ones`; did you mean `one`?" in error_of(client.post("/api/runs/ones/resume"))
    assert "an ensemble isn't trained" in error_of(client.post("/api/runs/both/resume"))
    assert error_of(client.post("/api/runs/one/stop"), 409) == NOT_TRAINED
    for path in ("..%2f..%2fetc", "%2e%2e", "..%252f", "%00", "%0a", "a%2fb"):
        for answer in (
            client.post(f"/api/runs/{path}/resume"),
            client.post(f"/api/runs/{path}/stop"),
            client.get(f"/api/jobs/{path}/log"),
            client.get(f"/api/settings?run={path}"),
        ):
            assert answer.status_code in (400, 404, 409)


def test_a_process_that_fails_shows_its_message(client, monkeypatch):
    monkeypatch.setattr(jobs_module, "POLL", 0.05)
    monkeypatch.setattr(jobs_module.sys, "executable", shutil.which("false"))
    client.post("/api/runs/one/resume")
    wait_for(lambda: states(client) == {"one": "failed"}, "its end")
    monkeypatch.setattr(jobs_module.sys, "executable", "/absent/python")
    client.post("/api/runs/one/resume")
    wait_for(lambda: states(client) == {"one": "failed"}, "its end")
    wait_for(lambda: "/absent/python" in client.get("/api/jobs/one").json()["message"], "why")
    assert "/absent/python" in client.get("/runs/one").text


@pytest.mark.usefixtures("waiting")
def test_actions_are_logged_without_the_token(client, caplog):
    with caplog.at_level(logging.WARNING, "nanogpt.web"):
        client.post("/api/runs/one/resume")
        client.post("/api/runs/one/stop")
        client.post("/api/texts?name=novel", content=TEXT)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" ", 3)[3].split(" ")[0] for line in lines] == ["start", "stop", "upload"]
    assert all(" testclient " in line and TOKEN not in line for line in lines)


# --- Trainings of other processes ------------------------------------------------------------

HOLDING = """
import sys, time
from pathlib import Path
from nanogpt.files import locks
with locks.hold(Path(sys.argv[1]), "training one"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def training(root):
    """A process that owns the state of a training, as in a terminal."""
    state = make_training(root, "one")
    command = [sys.executable, "-c", HOLDING, str(state)]
    environment = environment_here()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield state, process
        process.kill()


def test_a_training_in_a_terminal_can_be_stopped(client, tmp_path):
    with training(tmp_path) as (_, process):
        message = error_of(client.post("/api/runs/one/resume"), 409)
        assert message.startswith(f"one: already being trained by process {process.pid} on ")
        answer = client.post("/api/runs/one/stop")
        assert answer.status_code == 200
        assert process.wait(timeout=30) == -signal.SIGTERM
        # Its id may belong to any process now.
        assert error_of(client.post("/api/runs/one/stop"), 409) == NOT_TRAINED


def test_a_training_on_another_machine_isnt_signalled(client, tmp_path):
    with training(tmp_path) as (state, process):
        (lock,) = state.glob("lock.*")
        content = json.loads(lock.read_text())
        lock.write_text(json.dumps({**content, "host": "far", "machine": "far"}))
        message = error_of(client.post("/api/runs/one/stop"), 409)
        assert message.endswith("; stop it on that machine")
        assert process.poll() is None


def test_a_reused_process_id_isnt_signalled(client, tmp_path):
    with training(tmp_path) as (state, process):
        (lock,) = state.glob("lock.*")
        lock.write_text(json.dumps({**json.loads(lock.read_text()), "started": "1"}))
        assert error_of(client.post("/api/runs/one/stop"), 409) == NOT_TRAINED
        assert process.poll() is None


@pytest.mark.usefixtures("waiting")
def test_the_next_server_finds_the_training_that_runs(client, project):
    client.post("/api/runs/one/resume")
    wait_for(lambda: states(client) == {"one": "running"}, "the training")
    wait_for(lambda: list(project.served.glob("*.json")), "its record")
    client.app.state.jobs.close()  # as when the server ends
    later = open_actions(project)
    assert states(later) == {"one": "running"}
    assert later.post("/api/runs/two/resume").json()["state"] == "queued"
    later.post("/api/runs/one/stop")
    wait_for(lambda: states(later) == {"one": "stopped", "two": "running"}, "the second")
    later.post("/api/runs/two/stop")


def test_damaged_records_are_ignored(project):
    project.served.mkdir(parents=True)
    for number, text in enumerate(
        (
            "",
            "[1]",
            "{}",
            '{"pid": 1}',
            '{"touched": 1, "pid": 1}',
            "\xff",
            '{"process": {"touched": 1, "pid": 1}, "fragments": 3}',
        )
    ):
        (project.served / f"r{number}.json").write_text(text)
    gone = locks.Owner(1, 1, "1", machine=locks.identify(os.getpid(), "").machine)
    record = {"process": vars(gone), "fragments": []}
    (project.served / "gone.json").write_text(json.dumps(record))
    assert states(open_actions(project)) == {}
    assert not (project.served / "gone.json").exists()


# --- Upload a text ---------------------------------------------------------------------------


def post_text(client, content, name="novel"):
    return client.post("/api/texts", params={"name": name}, content=content)


def archive(kind):
    data = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(data, "w") as file:
            file.writestr("a.txt", TEXT)
    else:
        with tarfile.open(fileobj=data, mode=kind) as file:
            info = tarfile.TarInfo("a.txt")
            info.size = len(TEXT)
            file.addfile(info, io.BytesIO(TEXT.encode()))
    return data.getvalue()


def test_an_uploaded_text_is_a_dataset(client, project):
    answer = post_text(client, TEXT)
    assert answer.status_code == 201
    assert answer.json() == {"file": "novel.txt", "dataset": "novel", "n_bytes": len(TEXT)}
    assert (project.texts / "novel.txt").read_text() == TEXT
    assert 'value="novel"' in client.get("/new").text
    latin = "Ein Mädchen und ein Bär gehen über die Brücke.\n" * 50
    assert post_text(client, latin.encode("latin-1"), "Märchen.txt").status_code == 400
    assert (
        post_text(client, latin.encode("latin-1"), "Maerchen.TXT").json()["dataset"] == "Maerchen"
    )


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "..",
        ".",
        "",
        ".txt",
        "/etc/cron.d/evil",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        ".hidden",
        "con<script>",
        "..%2fevil",
        "a" * 300,
        "é",
    ],
)
def test_names_of_texts_cant_leave_their_directory(client, tmp_path, name):
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert post_text(client, TEXT, name).status_code in (400, 422)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no text in it"),
        (b"abc\0def" * 1000, "binary"),
        (b"%PDF-1.7 ...", "looks like a PDF"),
        (b"<!doctype html><html>" + b"a" * 1000, "looks like a web page"),
        (archive("zip"), "a compressed file or an archive; unpack it first"),
        (archive("w:gz"), "a compressed file or an archive; unpack it first"),
        (archive("w"), "a compressed file or an archive; unpack it first"),
        (b"\x1f\x8b\x08" + b"0" * 100, "truncated or damaged"),
        (b"PAR1" + b"a" * 100, "a parquet file; name it under `corpora` in config.yaml"),
        ("\ufeff".encode(), "no text in it"),
        ("\ufeff".encode("utf-16-le"), "no text in it"),
        (b'{"text": ""}\n' * 2, "no text in it"),
    ],
    ids=[
        "empty",
        "NUL",
        "PDF",
        "HTML",
        "zip",
        "tar.gz",
        "tar",
        "damaged",
        "parquet",
        "mark",
        "mark of UTF-16",
        "empty rows",
    ],
)
def test_what_isnt_text_is_refused(client, project, content, message):
    error = error_of(post_text(client, content))
    assert message in error
    assert ".upload" not in error
    assert not list(project.texts.iterdir())


def test_a_text_is_never_overwritten(client, project):
    project.texts.mkdir(parents=True)
    (project.texts / "novel.txt").write_text("mine")
    (project.texts / "link.txt").symlink_to("/absent/target")
    assert "a text of this name exists" in error_of(post_text(client, TEXT), 409)
    assert "a text of this name exists" in error_of(post_text(client, TEXT, "link"), 409)
    assert (project.texts / "novel.txt").read_text() == "mine"


def test_names_that_config_yaml_uses_are_refused(client, project):
    for name in ("play", "bpe", "report", "gpt2"):
        assert "rename the text" in error_of(post_text(client, TEXT, name))
    assert not list(project.texts.iterdir())


def test_of_two_uploads_of_one_name_one_succeeds(client, project):
    answers = []
    texts = [f"text {number}. " * 5000 for number in range(4)]
    threads = [
        threading.Thread(target=lambda text=text: answers.append(post_text(client, text)))
        for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert [path.name for path in project.texts.iterdir()] == ["novel.txt"]
    assert (project.texts / "novel.txt").read_text() in texts


def test_large_texts_are_refused_and_leave_nothing(project):
    client = open_actions(project, upload_bytes=10_000)

    def pieces():
        for _ in range(20):
            yield b"0123456789" * 100

    assert post_text(client, TEXT * 10).status_code == 413
    assert post_text(client, pieces()).status_code == 413
    assert not list(project.texts.glob("*"))
    assert not list(project.texts.glob(".*"))


# --- With real processes ---------------------------------------------------------------------


def test_a_job_says_that_it_starts_until_it_prints_a_line(tmp_path):
    job = TrainingJob("one", tmp_path / "one.log")
    assert job.message == ""
    job.state = "running"
    assert job.message == "Snakemake is starting"
    job.log.write_text("waiting for process 7\n\n")
    assert job.message == "waiting for process 7"
