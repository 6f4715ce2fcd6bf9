"""The pages of runs and /api/runs: curves that grow, texts that stay texts, and no way out."""

import json
import os
from pathlib import Path

import pytest

from nanogpt.files import locks
from nanogpt.report.page import write_report
from nanogpt.report.runs import find_runs
from nanogpt.web import curves
from nanogpt.web.site import Site
from tests.made_runs import change, make_run, make_training

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def root(site: Site) -> Path:
    return site.project.root


def line(step: int, **measures: float | None) -> str:
    return json.dumps({"step": step, "tokens": step * 10, **measures}) + "\n"


# --- The list ---------------------------------------------------------------------------------


def test_the_list_links_to_each_run(client, root):
    make_run(root, "demo")
    page = client.get("/").text
    assert '<a href="/runs/demo">demo</a>' in page
    assert "finished" in page
    assert "1 run<" in page


def test_an_empty_list_says_how_to_train(client):
    assert "There are no runs yet" in client.get("/").text
    assert client.get("/api/runs").json()["runs"] == []


def test_without_a_script_the_list_filters_and_sorts(client, root):
    make_run(root, "small", "novel", val_loss=2.0)
    make_run(root, "large", "novel", val_loss=1.0)
    make_run(root, "other", "play", val_loss=0.5)
    (root / "results/failed").mkdir()
    (root / "results/failed/train.log").write_text("2026-11-28 15:57:01,1 ERROR no\n")

    def names(query: str) -> list[str]:
        page = client.get(f"/?{query}").text
        return [part.partition('"')[0] for part in page.split('<tr data-name="')[1:]]

    assert names("q=NOVEL") == ["large", "small"]
    assert names("q=novel+sm") == ["small"]
    assert names("status=failed") == ["failed"]
    assert names("sort=loss") == ["other", "large", "small", "failed"]
    assert names("sort=loss&descending=true") == ["small", "large", "other", "failed"]
    assert names("sort=run&descending=true") == ["small", "other", "large", "failed"]
    assert client.get("/?sort=secret").status_code == 422
    page = client.get("/?q=%22%3E%3Cscript%3E").text
    assert "<script>" not in page
    assert "&#34;&gt;&lt;script&gt;" in page


def test_changed_rows_are_those_since_a_revision(client, root):
    make_run(root, "a")
    run = make_run(root, "b")
    revision = client.get("/api/runs").json()["revision"]
    client.app.state.index._looked = -1e9
    change(run / "eval.json", dataset="other")
    rows = client.get(f"/rows?since={revision}").text
    assert 'data-name="b"' in rows
    assert 'data-name="a"' not in rows
    assert 'data-runs="2"' in rows


# --- A run ------------------------------------------------------------------------------------


def test_a_runs_page_has_its_settings_samples_evaluation_and_log(client, root):
    run = make_run(root, "demo", sample=f"To be {SCRIPT}", train={"max_iters": 400})
    (run / "train.log").write_text(f"started {SCRIPT}\n")
    page = client.get("/runs/demo").text
    for text in ("train.learning_rate", "To be", "perplexity", "400 of 400", "Loss by position"):
        assert text in page
    assert SCRIPT not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2


def test_a_note_is_text(client, root):
    (root / "results/demo").mkdir()
    (root / "results/demo/train.log").write_text(f"2026-11-28 15:57:01,1 ERROR {SCRIPT}\n")
    for address in ("/", "/runs/demo", "/runs/demo/state"):
        assert SCRIPT not in client.get(address).text


def test_details_have_no_nan(client, root):
    make_run(root, "demo", val_loss=float("nan"), diverges_at=100)
    answer = client.get("/api/runs/demo")
    found = json.loads(answer.text, parse_constant=lambda name: pytest.fail(name))
    assert found["run"]["status"] == "diverged"
    assert found["evaluation"]["val"]["loss"] is None
    assert found["settings"]["train.seed"] == 1337
    assert client.get("/runs/demo").status_code == 200


@pytest.mark.parametrize("part", ["", "/curves", "/samples", "/log"])
@pytest.mark.parametrize(
    "name",
    ["missing", "datasets", "report", "gpt2", "%2e%2e", "..%2f..%2fsecret", "a%20b", "-a",
     ".nanogpt", "demo%0a", "demo%00", "%3Cscript%3E", "x" * 300],
)  # fmt: skip
def test_anything_that_is_no_run_is_not_found(client, root, name, part):
    make_run(root, "demo")
    (root / "results/datasets").mkdir()
    (root / "secret").mkdir()
    (root / "secret/train.log").write_text("secret")
    for prefix in ("/api/runs/", "/runs/"):
        if prefix == "/runs/" and part:
            continue
        answer = client.get(f"{prefix}{name}{part}")
        assert answer.status_code == 404
        assert "secret" not in answer.text
        assert "<script>" not in answer.text.replace('<script src="/static/theme.js">', "")


def test_a_waiting_run_has_a_page(client, root, site):
    (root / ".snakemake/locks").mkdir(parents=True)
    (root / ".snakemake/locks/0.output.lock").write_text("results/new/metrics.jsonl\n")
    with locks.hold(site.project.invocations / "here-1", "running the workflow"):
        assert "waiting" in client.get("/runs/new").text
        assert client.get("/api/runs/new/curves").json()["columns"]["step"] == []


@pytest.mark.parametrize("file", ["samples.txt", "train.log", "metrics.jsonl"])
def test_links_out_of_a_run_are_not_served(client, root, tmp_path_factory, file):
    secret = tmp_path_factory.mktemp("outside") / "secret"
    secret.write_text('{"step": 1, "tokens": 1, "loss": 770077007700}\n770077007700\n')
    run = make_run(root, "demo")
    (run / file).unlink(missing_ok=True)
    (run / file).symlink_to(secret)
    for address in ("/runs/demo", "/api/runs/demo/samples", "/api/runs/demo/log",
                    "/api/runs/demo/curves"):  # fmt: skip
        assert "770077007700" not in client.get(address).text


def test_a_pipe_in_place_of_a_file_is_not_waited_for(client, root):
    run = make_run(root, "demo")
    (run / "samples.txt").unlink()
    os.mkfifo(run / "samples.txt")
    assert client.get("/api/runs/demo/samples").status_code == 404
    assert client.get("/runs/demo").status_code == 200


def test_a_log_is_read_from_its_end(client, root):
    run = make_run(root, "demo")
    (run / "train.log").write_text("".join(f"line {i}\n" for i in range(100_000)))
    (run / "eval.log").write_text("evaluated\n")
    text = client.get("/api/runs/demo/log").json()["text"]
    assert text.startswith("line ")
    assert text.endswith("line 99999\n")
    assert len(text) < 100_000
    assert client.get("/api/runs/demo/log?stage=eval").json()["text"] == "evaluated\n"
    assert client.get("/api/runs/demo/log?stage=bench").json()["text"] == ""
    assert client.get("/api/runs/demo/log?stage=../secret").status_code == 422


def test_long_samples_are_cut(client, root):
    make_run(root, "demo", sample="long " * 100_000)
    assert len(client.get("/api/runs/demo/samples").json()["text"]) < 100_000


# --- Curves -----------------------------------------------------------------------------------


def test_curves_grow_by_whole_lines(client, root):
    metrics = make_training(root, "demo") / "metrics.jsonl"
    metrics.write_text(line(0, val_loss=4.0) + line(10, loss=3.0, learning_rate=0.1))
    first = client.get("/api/runs/demo/curves").json()
    assert first["columns"]["step"] == [0, 10]
    assert first["columns"]["val_loss"] == [4.0, None]
    assert first["columns"]["loss"] == [None, 3.0]
    with open(metrics, "a") as file:
        file.write(line(20, loss=2.5) + '{"step": 30')
    second = client.get(f"/api/runs/demo/curves?since={first['next']}").json()
    assert second["since"] == first["next"]
    assert second["columns"]["step"] == [20]
    third = client.get(f"/api/runs/demo/curves?since={second['next']}").json()
    assert (third["columns"]["step"], third["next"]) == ([], second["next"])


def test_curves_of_a_training_that_was_resumed_start_again(client, root):
    metrics = make_training(root, "demo") / "metrics.jsonl"
    metrics.write_text(line(0, seconds=1.0) + line(10, seconds=2.0))
    place = client.get("/api/runs/demo/curves").json()["next"]
    metrics.write_text(line(0, seconds=1.0) + line(10, seconds=2.5) + line(20, seconds=3.0))
    again = client.get(f"/api/runs/demo/curves?since={place}").json()
    assert again["since"] == ""
    assert again["columns"]["step"] == [0, 10, 20]


def test_curves_continue_when_a_training_ends(client, root):
    metrics = make_training(root, "demo") / "metrics.jsonl"
    place = client.get("/api/runs/demo/curves").json()["next"]
    run = make_run(root, "demo")
    (run / "metrics.jsonl").write_text(metrics.read_text() + line(250))
    found = client.get(f"/api/runs/demo/curves?since={place}").json()
    assert (found["since"], found["columns"]["step"]) == (place, [250])


def test_curves_without_finite_values_are_json(client, root):
    run = make_run(root, "demo")
    text = '{"step": 1, "tokens": 1, "loss": NaN, "val_loss": Infinity, "train_loss": null}\n'
    (run / "metrics.jsonl").write_text(text)
    answer = client.get("/api/runs/demo/curves")
    columns = json.loads(answer.text, parse_constant=lambda name: pytest.fail(name))["columns"]
    assert columns["loss"] == columns["val_loss"] == columns["train_loss"] == [None]


def test_damaged_lines_are_left_out_of_curves(client, root):
    metrics = make_training(root, "demo") / "metrics.jsonl"
    metrics.write_bytes(line(0).encode() + b"\xff{oops\n[]\n" + line(10).encode())
    found = client.get("/api/runs/demo/curves").json()
    assert (found["columns"]["step"], found["n_damaged"]) == ([0, 10], 2)


def test_long_curves_come_in_parts(client, root, monkeypatch):
    monkeypatch.setattr(curves, "AT_ONCE", 200)
    metrics = make_training(root, "demo") / "metrics.jsonl"
    metrics.write_text("".join(line(step) for step in range(50)))
    steps, place, has_more = [], "", True
    while has_more:
        found = client.get(f"/api/runs/demo/curves?since={place}").json()
        steps += found["columns"]["step"]
        place, has_more = found["next"], found["has_more"]
    assert steps == list(range(50))


@pytest.mark.parametrize("since", ["x", "5", "999999-00000000", "-1-00000000", "0-ffffffff"])
def test_an_unknown_place_in_curves_is_the_start(client, root, since):
    make_run(root, "demo")
    found = client.get(f"/api/runs/demo/curves?since={since}").json()
    assert (found["since"], found["columns"]["step"][0]) == ("", 0)


def test_a_run_without_its_evaluation_names_the_command(client, root):
    run = make_run(root, "demo")
    (run / "eval.json").unlink()
    page = client.get("/runs/demo").text
    assert "Evaluate it with <code>nanogpt eval demo</code>." in page
    assert "alarm" not in page


def test_a_failed_evaluation_is_an_alarm(client, root):
    run = make_run(root, "demo")
    (run / "eval.json").unlink()
    (run / "eval.log").write_text("2026-11-28 15:57:01,111 ERROR no memory\n")
    assert '<p class="card alarm note-of-run">no memory</p>' in client.get("/runs/demo").text


def test_one_row_is_not_plural(client, root):
    make_training(root, "demo", last_step=0)
    assert "Losses during training (1 row)<" in client.get("/runs/demo").text


# --- Several runs -----------------------------------------------------------------------------


def test_compared_runs_show_what_differs(client, root):
    make_run(root, "a", train={"learning_rate": 0.01})
    make_run(root, "b", train={"learning_rate": 0.02})
    page = client.get("/compare?run=a&run=b&run=a").text
    table = page.partition('aria-label="Settings that differ"')[2].partition("</table>")[0]
    assert table.count("<tr>") == 2
    for text in ("train.learning_rate", "0.01", "0.02"):
        assert text in table
    assert page.count("data-run=") == 2
    assert "Loss by kind of token" in page


def test_compared_runs_on_different_datasets_show_them(client, root):
    make_run(root, "a", "novel")
    make_run(root, "b", "play")
    page = client.get("/compare?run=a&run=b").text
    table = page.partition('aria-label="Settings that differ"')[2].partition("</table>")[0]
    assert '<th scope="row">dataset</th><td>novel</td><td>play</td>' in table


def test_long_names_break_after_punctuation(client, root):
    make_run(root, "my_novel.large-2")
    assert (
        ">my_<wbr>novel.<wbr>large-<wbr>2</th>" in client.get("/compare?run=my_novel.large-2").text
    )


def test_comparing_needs_runs_that_exist(client, root):
    make_run(root, "a")
    assert "Choose runs" in client.get("/compare").text
    answer = client.get("/compare?run=a&run=../a")
    assert answer.status_code == 404
    assert "Not found" in answer.text


def test_runs_of_any_state_can_be_compared(client, root):
    make_run(root, "finished", deep=False)
    make_training(root, "stopped")
    make_run(root, "damaged")
    (root / "results/damaged/eval.json").write_text("{")
    page = client.get("/compare?run=finished&run=stopped&run=damaged")
    assert page.status_code == 200
    assert page.text.count("data-run=") == 3


# --- The report -------------------------------------------------------------------------------


@pytest.fixture
def report(root: Path, site: Site) -> Path:
    make_run(root, "demo")
    directory = root / "results/report/now"
    write_report(find_runs(site.results, site.project), directory)
    return directory


@pytest.mark.usefixtures("report")
def test_the_report_is_served_in_a_sandbox(client):
    assert 'href="/report/now/"' in client.get("/").text
    answer = client.get("/report/now/")
    assert "<title>" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "script-src 'sha256-" in policy
    assert "frame-ancestors 'none'" in policy
    assert client.get("/report/").status_code == 404
    kinds = {"runs.csv": "text/csv", "report.md": "text/plain", "scaling.svg": "image/svg+xml"}
    for file, kind in kinds.items():
        answer = client.get(f"/report/now/{file}")
        assert answer.headers["content-type"].startswith(kind)
        assert "script-src" not in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("file", ["workflow.html", "x.js", "..%2f..%2fdemo%2feval.md", "a.b.svg"])
def test_only_files_of_the_report_are_served(client, report, file):
    (report / file).parent.mkdir(exist_ok=True, parents=True)
    for name in ("workflow.html", "x.js", "a.b.svg"):
        (report / name).write_text("secret")
    assert client.get(f"/report/now/{file}").status_code == 404


def test_links_out_of_the_report_are_not_followed(client, report, root):
    (root / "results/demo/secret.md").write_text("secret")
    (report / "link.md").symlink_to(root / "results/demo/secret.md")
    assert client.get("/report/now/link.md").status_code == 404
