"""Names, links and texts that try to leave the results or to run as a script."""

import re

import pytest
from fastapi.testclient import TestClient

from nanogpt.project import Project
from nanogpt.web.app import create_app
from nanogpt.web.site import Site
from tests.made_runs import make_run, make_training

OWN = "http://127.0.0.1:8000"
SECRET = "the content of a secret file"
SCRIPT = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "outside/secret.txt"
    path.parent.mkdir()
    path.write_text(SECRET)
    return path


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project")
    make_run(project.root, "one", sample=SCRIPT)
    make_training(project.root, "two")
    return project


@pytest.fixture
def client(project):
    site = Site(project, project.results, token="token", allow_actions=True)
    return TestClient(create_app(site), base_url=OWN, raise_server_exceptions=False)


def addresses(client):
    """Return the paths of all endpoints and pages that answer GET, with their parameters."""
    schema = client.get("/openapi.json").json()["paths"]
    paths = [path for path, methods in schema.items() if "get" in methods]
    return [*paths, "/runs/{name}", "/runs/{name}/state", "/report/{file}", "/static/{file}"]


# Each leads to the secret from `results/`, `results/one/` or the folder of static files.
UP = ("../outside/secret.txt", "../../outside/secret.txt")
WAYS = [
    *UP,
    *(way.replace("/", "%2f") for way in UP),
    *(way.replace(".", "%2e").replace("/", "%2f") for way in UP),
    *(way.replace("/", "%252f") for way in UP),
    *(way.replace("/", "%5c") for way in UP),
    *(way.replace("/", "%c0%af") for way in UP),
    "..",
    "%2e%2e",
    "one%2f..%2f..%2f..%2foutside%2fsecret.txt",
    "one%00",
    "%2fetc%2fpasswd",
    "%2f%2fetc%2fpasswd",
    "/etc/passwd",
    "....//....//etc/passwd",
    "file:%2f%2f%2fetc%2fpasswd",
    "~root",
]


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("way", WAYS)
def test_no_address_leads_out_of_the_results(client, secret, way):
    paths = [path for path in addresses(client) if "{" in path]
    assert len(paths) > 5
    for path in paths:
        for target in (way, str(secret).replace("/", "%2f")):
            answer = client.get(re.sub(r"\{\w+\}", lambda _, to=target: to, path))
            assert SECRET not in answer.text
            assert "root:x:" not in answer.text
            assert answer.status_code < 500


@pytest.mark.parametrize("parameter", ["name", "run", "stage", "q", "sort", "model", "start"])
def test_no_parameter_leads_out_of_the_results(client, secret, parameter):
    for path in addresses(client):
        place = re.sub(r"\{\w+\}", "one", path)
        for value in (*UP, str(secret), "..%2f", "\0", SCRIPT):
            answer = client.get(place, params={parameter: value})
            assert SECRET not in answer.text
            assert "<script>alert" not in answer.text or "json" in answer.headers["content-type"]
            assert answer.status_code < 500


def test_links_out_of_the_results_arent_followed(client, project, secret):
    outside = secret.parent / "run"
    make_run(secret.parent / "made", "run", sample=SECRET)
    (secret.parent / "made/results/run").rename(outside)
    (project.results / "linked").symlink_to(outside)
    run = project.results / "one"
    for name in ("train.log", "samples.txt", "metrics.jsonl", "eval.json"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(secret)
    (project.results / "report").mkdir()
    (project.results / "report/index.html").symlink_to(secret)
    for path in addresses(client):
        for name in ("one", "linked"):
            for stage in ("train", "sample"):
                place = re.sub(r"\{file\}", "index.html", path)
                answer = client.get(re.sub(r"\{\w+\}", name, place), params={"stage": stage})
                assert SECRET not in answer.text, answer.url
                assert answer.status_code < 500, answer.url
    assert SECRET not in client.get("/report/").text


@pytest.mark.parametrize("place", ["report", "report/now"])
def test_a_report_outside_the_results_isnt_shown(client, project, secret, place):
    for name in ("index.html", "secret.csv", "secret.md", "secret.svg"):
        (secret.parent / name).write_text(SECRET)
    link = project.results / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(secret.parent)
    for name in ("", "secret.csv", "secret.md", "secret.svg"):
        assert client.get(f"/{place}/{name}").status_code == 404
    assert f'href="/{place}/"' not in client.get("/").text


def test_a_loop_of_links_is_nothing(client, project):
    for path in ("report", "loop", "datasets/loop", "three/model", "three/train.log"):
        link = project.results / path
        link.parent.mkdir(exist_ok=True, parents=True)
        link.symlink_to(link)
    assert client.get("/report/").status_code == 404
    for path in addresses(client):
        for name in ("loop", "three"):
            answer = client.get(re.sub(r"\{\w+\}", name, path))
            assert answer.status_code < 500, answer.url
    answer = client.post("/api/tokens", json={"dataset": "loop", "text": "a"})
    assert answer.status_code == 400


def test_models_and_states_outside_arent_read(client, project, secret):
    other = Project(secret.parent / "made")
    make_run(other.root, "run", sampling={"start": SECRET})
    make_training(other.root, "three", train={"init_from": SECRET}, version="fedcba987654")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (secret.parent / name).write_text(SECRET)
    (project.results / "one/model").symlink_to(secret.parent)
    (project.results / "one/sample.manifest.json").unlink()
    (project.results / "one/sample.manifest.json").symlink_to(
        other.results / "run/sample.manifest.json"
    )
    (project.states / "fedcba987654").symlink_to(other.states / "fedcba987654")
    assert client.get("/v1/models").json()["data"] == []
    for body in ({"model": "one", "prompt": ""}, {"model": "one", "echo": True}):
        answer = client.post("/v1/completions", json=body)
        assert answer.status_code == 404
        assert SECRET not in answer.text
    answer = client.post("/api/tokens", json={"model": "one", "text": "a"})
    assert answer.status_code == 400
    for path in addresses(client):
        for name in ("one", "three"):
            answer = client.get(re.sub(r"\{\w+\}", name, path))
            assert SECRET not in answer.text, answer.url
            assert answer.status_code < 500, answer.url


def test_scripts_in_results_are_shown_as_text(client, project):
    run = project.results / "one"
    (run / "train.log").write_text(SCRIPT)
    state = next(project.states.iterdir())
    for name in ("run.json", "metrics.jsonl"):
        text = (state / name).read_text()
        (state / name).write_text(text.replace('"two"', '"<script>alert(1)<\\/script>"'))
    (project.results / "<script>alert(2)").mkdir()
    (project.results / "<script>alert(2)/metrics.jsonl").write_text("{}")
    shown = 0
    for path in addresses(client):
        answer = client.get(re.sub(r"\{\w+\}", "one", path))
        if not answer.headers["content-type"].startswith("text/html"):
            assert answer.headers["x-content-type-options"] == "nosniff"
            continue
        shown += "alert(1)" in answer.text
        assert "<script>alert" not in answer.text, path
        assert "<img src=x" not in answer.text, path
    assert shown  # at least the run's page shows its sample


def test_pages_have_no_inline_scripts_or_styles_and_nothing_of_others(client):
    pages = ("/", "/runs/one", "/compare?run=one", "/playground", "/docs", "/absent")
    for path in pages:
        text = client.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path
        assert not re.search(r"<style|<[^>]*\s(style|on[a-z]+)=|javascript:\w", text), path
        sources = re.findall(r"(?:src|href|action)=\"([^\"]*)\"", text)
        assert all(source.startswith(("/", "#", "?")) for source in sources), path
        assert not any(source.startswith("//") for source in sources), path


def test_the_page_of_the_api_lists_all_endpoints(client):
    text = client.get("/docs").text
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in text
    assert "<code>temperature</code>" in text  # a field of a body
