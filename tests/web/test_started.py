"""Trainings started from the page, as the pages of runs show them."""

import os
import sys
import time

import pytest

from nanogpt.web import index as index_module
from nanogpt.web import jobs as jobs_module
from tests.made_runs import make_run
from tests.web.serving import wait_for
from tests.web.test_actions import (  # noqa: F401  fixtures
    client,
    project,
    waiting,
)

NEW = {"dataset": "play", "name": "mine"}


@pytest.fixture(autouse=True)
def always_look(monkeypatch):
    monkeypatch.setattr(index_module, "LOOK", 0.0)


@pytest.fixture
def failing(monkeypatch):
    """Let jobs run a process that prints a mistake."""
    popen = jobs_module.subprocess.Popen
    code = "import sys; sys.exit('error: no space left')"
    monkeypatch.setattr(
        jobs_module.subprocess,
        "Popen",
        lambda _, **options: popen([sys.executable, "-c", code], **options),
    )
    monkeypatch.setattr(jobs_module, "POLL", 0.05)


def state_of(client, run):  # noqa: F811
    return client.get(f"/api/jobs/{run}").raise_for_status().json()["state"]


def entry_of(client, run="mine"):  # noqa: F811
    return client.get(f"/api/runs/{run}").raise_for_status().json()["run"]


@pytest.mark.usefixtures("waiting")
def test_a_new_run_has_a_page_at_once(client):  # noqa: F811
    client.post("/api/runs", json=NEW).raise_for_status()
    assert entry_of(client)["status"] == "waiting"
    page = client.get("/runs/mine").raise_for_status().text
    assert 'data-act="stop"' in page
    assert "waiting" in client.get("/runs/mine/state").raise_for_status().text
    assert [run["name"] for run in client.get("/api/runs").json()["runs"]] == ["mine"]
    # Its script asks for curves before there are any.
    assert client.get("/api/runs/mine/curves").raise_for_status().json()["next"] == ""
    wait_for(lambda: entry_of(client)["note"] == "train mine", "what the process prints")
    client.post("/api/runs/mine/stop").raise_for_status()
    wait_for(lambda: entry_of(client)["status"] == "stopped", "the end")
    assert 'data-act="resume"' in client.get("/runs/mine").text


@pytest.mark.usefixtures("waiting")
def test_a_queued_run_names_the_one_before_it(client):  # noqa: F811
    client.post("/api/runs/one/resume")
    client.post("/api/runs/two/resume")
    wait_for(lambda: state_of(client, "one") == "running", "the first one")
    assert entry_of(client, "two")["status"] == "waiting"
    assert entry_of(client, "two")["note"] == "starts when the training of `one` ends"


@pytest.mark.usefixtures("failing")
def test_a_failure_before_the_training_is_shown(client):  # noqa: F811
    client.post("/api/runs", json=NEW).raise_for_status()
    wait_for(lambda: entry_of(client)["status"] == "failed", "the end")
    assert entry_of(client)["note"] == "error: no space left"
    page = client.get("/runs/mine").text
    assert "error: no space left" in page
    assert 'data-act="resume"' in page


@pytest.mark.usefixtures("waiting")
def test_a_continued_run_waits_until_its_training_begins(client, project):  # noqa: F811
    directory = project.results / "one"
    directory.mkdir()
    log = directory / "train.log"
    log.write_text("2026-11-28 15:57:01,111 ERROR no space left on device\n")
    assert entry_of(client, "one")["status"] == "failed"
    client.post("/api/runs/one/resume").raise_for_status()
    assert entry_of(client, "one")["status"] == "waiting"
    later = time.time() + 2
    os.utime(log, (later, later))
    assert entry_of(client, "one")["status"] == "failed"


@pytest.mark.usefixtures("waiting")
def test_a_run_that_is_being_evaluated_can_be_stopped(client, project):  # noqa: F811
    (make_run(project.root, "one") / "eval.json").unlink()
    assert entry_of(client, "one")["status"] == "not evaluated"
    state = client.get("/runs/one/state").text
    assert 'data-act="resume"' in client.get("/runs/one").text
    client.post("/api/runs/one/resume").raise_for_status()
    wait_for(lambda: state_of(client, "one") == "running", "its process")
    assert 'data-act="stop"' in client.get("/runs/one").text
    assert entry_of(client, "one")["note"] == "being evaluated"
    # The page's script sees by the version that something has changed.
    assert version_of(client.get("/runs/one/state").text) != version_of(state)


def version_of(html):
    return html.partition('data-version="')[2].partition('"')[0]
