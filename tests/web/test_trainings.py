"""Trainings started from the page, with real processes, Snakemake and a real server."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.web.serving import environment_here, running, wait_for

TEXT = "To be, or not to be, that is the question:\nwhether 'tis nobler in the mind.\n" * 400
SETTINGS = {
    "train.max_iters": "1500",
    "train.eval_interval": "50",
    "model.n_embd": "32",
    "sample.start": "To",
}
RESULTS = ("model/model.safetensors", "model/config.json", "eval.json", "samples.txt")

# Holds Snakemake's lock on a file until told to end.
HOLDING = """
rule hold:
    output: "results/one/metrics.jsonl"
    shell: "touch holding; while test ! -e enough; do sleep 0.1; done; false"
"""


def state_of(client, run):
    return client.get(f"/api/jobs/{run}").raise_for_status().json()["state"]


def saved_steps(project):
    return list(project.glob(".nanogpt/state/[!.]*/step-*.safetensors"))


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_from_an_uploaded_text_to_the_bytes_of_the_command_line(essays, empty_project, tmp_path):
    other = shutil.copytree(empty_project, tmp_path / "other")
    often = {"NANOGPT_SAVE_INTERVAL": "0.2"}
    arguments = ("--port=0", "--allow-actions")
    with running(essays, *arguments, **often) as server, server.client() as client:
        text = client.post("/api/texts?name=novel.txt", content=TEXT.encode()).json()
        form = {"dataset": text["dataset"], "name": "mine", "settings": SETTINGS}
        assert client.post("/api/runs", json=form).status_code == 202
        wait_for(lambda: saved_steps(essays), "a saved state", 120)
        assert state_of(client, "mine") == "running"
        assert client.post("/api/runs/mine/stop").status_code == 200
        wait_for(lambda: state_of(client, "mine") == "stopped", "the end", 60)
        assert saved_steps(essays)
        assert not list(essays.glob(".snakemake/locks/*.lock"))
        assert client.post("/api/runs/mine/resume").status_code == 202
        wait_for(lambda: state_of(client, "mine") in ("done", "failed"), "the training", 300)
        assert state_of(client, "mine") == "done", client.get("/api/jobs/mine/log").text
        errors = server.errors.read_text()
        assert [line.split()[3:5] for line in errors.splitlines()] == [
            ["upload", "resources/texts/novel.txt"],
            ["start", "mine"],
            ["stop", "mine:"],
            ["start", "mine"],
        ]
        assert server.token not in errors
    (other / "resources/texts/novel.txt").write_bytes(TEXT.encode())
    flags = [
        f"--{name.removeprefix('train.').removeprefix('model.')}={value}"
        for name, value in SETTINGS.items()
    ]
    subprocess.run(
        [sys.executable, "-m", "nanogpt", "train", "novel", "--name=mine", "--complete", *flags],
        cwd=other,
        env=environment_here(),
        check=True,
        capture_output=True,
    )
    for name in RESULTS:
        made = [(project / "results/mine" / name).read_bytes() for project in (essays, other)]
        assert made[0] == made[1], name


@pytest.mark.slow
def test_a_start_waits_for_snakemakes_lock(essays):
    (essays / "holding.smk").write_text(HOLDING)
    holder = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--snakefile", "holding.smk", "--cores=1", "hold"],
        cwd=essays,
        env=environment_here(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for((essays / "holding").exists, "Snakemake's lock")
        with running(essays, "--port=0", "--allow-actions") as server, server.client() as client:
            assert client.post("/api/runs/one/resume").status_code == 202

            def message():
                return client.get("/api/jobs/one").json()["message"]

            wait_for(lambda: message().startswith(f"waiting for process {holder.pid} "), "it")
            # It can be stopped while it waits, and started again.
            client.post("/api/runs/one/stop")
            wait_for(lambda: state_of(client, "one") == "stopped", "its end")
            client.post("/api/runs/one/resume")
            wait_for(lambda: message().startswith("waiting for process "), "it")
            (essays / "enough").touch()
            wait_for(lambda: state_of(client, "one") in ("done", "failed"), "the training", 300)
            assert state_of(client, "one") == "done", client.get("/api/jobs/one/log").text
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_server_leaves_the_training_running(essays, number):
    arguments = ("--port=0", "--allow-actions")
    with running(essays, *arguments) as server, server.client() as client:
        form = {"dataset": "play", "name": "long", "settings": {"train.max_iters": "1000000"}}
        client.post("/api/runs", json=form)
        client.post("/api/runs/one/resume")
        wait_for(lambda: list(essays.glob(".nanogpt/state/[!.]*/run.json")), "the training", 120)
        server.process.send_signal(number)
        code = 128 + number if number == signal.SIGTERM else -number
        assert server.process.wait(timeout=60) == code
        if number == signal.SIGTERM:
            assert server.errors.read_text().splitlines()[-2:] == [
                "not started: one",
                "still training, without the server: long",
            ]
    with running(essays, *arguments) as server, server.client() as client:
        assert state_of(client, "long") == "running"
        client.post("/api/runs/long/stop")
        wait_for(lambda: state_of(client, "long") == "stopped", "its end", 60)
    assert not list(essays.glob(".nanogpt/serve/*.json"))
