"""Texts and results in S3: the commands of docs/STORAGE.md, downloads, and an interrupted run."""

import hashlib
import json
import logging
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from nanogpt.errors import UserError
from nanogpt.files.downloads import fetch
from tests.checkouts import PROJECT
from tests.cloud.conftest import BUCKET
from tests.cloud.projects import KEY, TEXT, make_project, with_packages
from tests.docs.commands import blocks_of
from tests.faults import attacks

pytestmark = pytest.mark.cloud

STORED = ("--default-storage-provider", "s3", "--default-storage-prefix", f"s3://{BUCKET}/plays")
COPIES = f".snakemake/storage/s3/{BUCKET}/plays"
SAME = ("model/model.safetensors", "model/config.json", "eval.json", "samples.txt")
MILESTONES = [
    f"plays/results/one/milestones/10/{name}"
    for name in ("config.json", "model.safetensors", "tokenizer.json")
]
VOCABULARY = "export/nanogpt/data/demo/meta.pkl"
DATASET = ("train.bin", "val.bin", "tokenizer.json", "meta.json")


def snakemake(project: Path, *arguments: str) -> attacks.Call:
    command = [sys.executable, "-m", "snakemake", "--cores", "all", *arguments]
    return attacks.start(project, command, PYTHONPATH=with_packages())


def run(project: Path, *arguments: str) -> str:
    call = snakemake(project, *arguments)
    assert call.end(600) == 0, call.printed()
    return call.printed()


def shown_commands(first_words: str) -> list[str]:
    """The commands of docs/STORAGE.md that begin with these words, as arguments."""
    scripts = [block.text for block in blocks_of(PROJECT / "docs/STORAGE.md")]
    lines = [line for text in scripts for line in text.replace("\\\n", "").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(first_words)]


def sync(bucket: Any, project: Path) -> None:
    """Copy a bucket's results to a project, as `aws s3 sync` does."""
    for stored in bucket.objects.filter(Prefix="plays/results/"):
        path = project / stored.key.removeprefix("plays/")
        path.parent.mkdir(parents=True, exist_ok=True)
        bucket.download_file(stored.key, str(path))


def test_the_commands_of_the_page_give_the_bytes_of_local_files(
    bucket: Any, tmp_path: Path
) -> None:
    local, stored = make_project(tmp_path / "local"), make_project(tmp_path / "stored")
    (command,) = shown_commands("snakemake --cores all")
    assert tuple(command[3:7]) == STORED
    exported = "results/demo/export/nanogpt/ckpt.pt"
    run(stored, *command[3:], exported)
    assert not (stored / "results").exists()
    shutil.rmtree(stored / ".snakemake/storage")
    assert "Nothing to be done" in run(stored, *command[3:], exported)
    run(local, *command[7:], exported)

    sync(bucket, stored)
    paths = [f"results/demo/{name}" for name in (*SAME, VOCABULARY)]
    paths += [f"results/datasets/own/{name}" for name in DATASET]
    assert [path for path in paths if not same(local / path, stored / path)] == []
    assert not list(stored.glob("results/datasets/own/groups/*/*.bin")), "temporary files are gone"
    verify = [sys.executable, "-m", *shown_commands("nanogpt verify")[0]]
    ended = subprocess.run(
        verify, cwd=stored, env=attacks.environment(), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "5 manifests" in ended.stdout

    model = "results/demo/model/model.safetensors"
    bucket.Object(f"plays/{model}").delete()
    assert "rule train:" in run(stored, "-n", *STORED, model)
    assert "Nothing to be done" in run(stored, "-n", *command[3:], exported), "it needs no model"


def milestones(bucket: Any) -> list[str]:
    """The files in a bucket of the milestones of the run `one`."""
    return [stored.key for stored in bucket.objects.filter(Prefix="plays/results/one/milestones/")]


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def test_a_killed_training_continues_from_the_state_on_this_machine(
    bucket: Any, tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project")
    call = snakemake(project, *STORED, *attacks.TRAINED)
    attacks.wait_for_steps(project, call)
    attacks.send(call.process.pid, signal.SIGKILL, to_group=True)
    attacks.end_all(project)
    run(project, *STORED, "--unlock")
    run(project, *STORED, *attacks.TRAINED)
    assert "resuming from step" in (project / COPIES / "results/one/train.log").read_text()
    assert milestones(bucket) == MILESTONES


# --- s3:// URLs -----------------------------------------------------------------------------


def test_a_corpus_comes_from_a_bucket(bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Key=KEY, Body=TEXT)
    project = make_project(tmp_path / "project")
    run(project, "results/datasets/far/meta.json")
    assert (project / "resources/corpora/far/far_1_100_.txt").read_bytes() == TEXT


def test_a_download_from_a_bucket_is_resumed(
    bucket: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = f"s3://{BUCKET}/a b/far.txt"
    stored = bucket.put_object(Key="a b/far.txt", Body=TEXT)
    (tmp_path / "far.txt.part").write_bytes(TEXT[:500])
    origin = {"source": url, "validator": stored.e_tag}
    (tmp_path / "far.txt.part.json").write_text(json.dumps(origin))
    assert fetch(url, tmp_path / "far.txt") == hashlib.sha256(TEXT).hexdigest()
    logged = [text for name, _, text in caplog.record_tuples if name.startswith("nanogpt")]
    assert f"{url}: resumed at byte 500 of {len(TEXT)}" in logged
    assert "Signature" not in str(logged), "the signed link is secret"


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AWS_ACCESS_KEY_ID", None, "no AWS credentials found; set AWS_ACCESS_KEY_ID and"),
        ("AWS_ENDPOINT_URL", "nowhere", "AWS settings: Invalid endpoint: nowhere; check"),
        ("AWS_PROFILE", "nobody", "AWS settings: The config profile (nobody) could not be found"),
    ],
)
def test_wrong_settings_of_a_bucket_are_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str | None,
    message: str,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv(variable, value) if value else monkeypatch.delenv(variable)
    with pytest.raises(UserError) as error:
        fetch(f"s3://{BUCKET}/far.txt", tmp_path / "far.txt")
    assert str(error.value).startswith(f"s3://{BUCKET}/far.txt: {message}")


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("bucket_name", "message"),
    [
        (BUCKET, "bucket `my-bucket` has no such object; check the URL, save the file as"),
        ("no-bucket", "bucket `no-bucket` doesn't exist; check its name, and AWS_ENDPOINT_URL"),
    ],
)
def test_a_missing_object_or_bucket_is_an_error(
    tmp_path: Path, bucket_name: str, message: str
) -> None:
    url = f"s3://{bucket_name}/far.txt"
    with pytest.raises(UserError) as error:
        fetch(url, tmp_path / "far.txt")
    assert str(error.value).startswith(f"{url}: {message}")


@pytest.fixture
def with_wrong_credentials(server: str) -> Iterator[None]:
    """An S3 server that doesn't know the user's key."""

    def check_after(n_requests: str) -> None:
        httpx.post(f"{server}/moto-api/reset-auth", content=n_requests).raise_for_status()

    check_after("0")
    yield
    check_after("inf")


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("s3://my-bucket/plays#1", "s3://my-bucket/plays#1: `#` and `?` aren't allowed in a pref"),
        ("s3://my:bucket", "--default-storage-prefix: `s3://my:bucket` isn't a place in S3; use"),
    ],
)
def test_a_prefix_that_the_plugin_cannot_use_ends_the_workflow_with_a_line(
    tmp_path: Path, prefix: str, message: str
) -> None:
    project = make_project(tmp_path / "project")
    call = snakemake(project, *STORED[:3], prefix, "results/one/samples.txt")
    assert call.end(600) != 0
    assert call.printed().rstrip().splitlines()[-1].startswith(f"error: {message}")


@pytest.mark.usefixtures("bucket")
def test_an_unreachable_storage_ends_the_workflow_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the port of no server
    project = make_project(tmp_path / "project")
    call = snakemake(project, *STORED, "results/one/samples.txt")
    assert call.end(600) != 0
    last = call.printed().rstrip().splitlines()[-1]
    assert last.startswith("error: s3://my-bucket/plays: Could not connect to the endpoint URL: ")
    assert last.endswith("; check your network and AWS_ENDPOINT_URL")


@pytest.mark.usefixtures("bucket", "with_wrong_credentials")
def test_wrong_credentials_for_results_end_the_workflow_with_a_line(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    call = snakemake(project, *STORED, "results/datasets/own/meta.json")
    assert call.end(600) != 0
    assert (
        call.printed()
        .rstrip()
        .splitlines()[-1]
        .startswith("error: s3://my-bucket/plays: wrong AWS credentials (InvalidAccessKeyId); set")
    )
    assert "Traceback" not in call.printed()


def test_without_boto3_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UserError, match=r"s3:// URLs need boto3; run `pip install boto3`"):
        fetch(f"s3://{BUCKET}/far.txt", tmp_path / "far.txt")


@pytest.mark.usefixtures("bucket")
def test_a_storage_has_no_shards_since_it_would_not_deliver_them(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["datasets"]["own"] = {"shards": "always"}
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    target = "results/datasets/own/meta.json"
    assert "rule encode_shard:" in run(project, "-n", target)
    stored = run(project, "-n", *STORED, target)
    assert "rule encode:" in stored
    assert "rule encode_shard:" not in stored


CALLER = """
configfile: "config.yaml"


module nanogpt:
    snakefile: "Snakefile"
    config: config


"""
SOME = "use rule count, plan, encode, prepare, train from nanogpt"
CHANGED = """use rule * from nanogpt{}
use rule {} from nanogpt as gpt_{} with:
    threads: 3
"""


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("use", "rule"),
    [
        (SOME, "train"),
        (SOME.replace("train", "train, train_with_milestones_10"), "train_with_milestones_10"),
        ("use rule * from nanogpt exclude export_nanogpt", "train_with_milestones_10"),
        (CHANGED.format(" as gpt_*", "train", "train"), "gpt_train_with_milestones_10"),
        (CHANGED.format(" as gpt_*", "eval", "eval"), "gpt_train_with_milestones_10"),
        (CHANGED.format(" exclude train as gpt_*", "train", "train"), "gpt_train"),
    ],
    ids=["some", "listed", "all but one", "changed", "another changed", "replaced"],
)
def test_a_caller_of_any_rules_can_store_results(tmp_path: Path, use: str, rule: str) -> None:
    project = make_project(tmp_path / "project")
    (project / "caller.smk").write_text(CALLER + use)
    target = "results/one/model/model.safetensors"
    stored = run(project, "-n", "--snakefile", "caller.smk", *STORED, target)
    assert f"rule {rule}:\n" in stored
    warning = "milestones of `one` aren't uploaded; add `train_with_milestones_10` to your `use"
    assert stored.count(warning) == (not rule.endswith("_10"))


@pytest.mark.usefixtures("bucket")
def test_many_milestones_give_their_rule_a_short_name(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["runs"]["one"]["train"] = {"milestones": list(range(1, 101))}
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    stored = run(project, "-n", *STORED, "results/one/model/model.safetensors")
    assert re.search(r"^rule train_with_milestones_[0-9a-f]{12}:$", stored, re.MULTILINE)
    assert "results/one/milestones/100/model.safetensors" in stored


@pytest.mark.usefixtures("bucket")
def test_the_files_of_a_large_group_stay_on_this_machine(tmp_path: Path) -> None:
    """They're inputs that aren't in the storage, so Kubernetes' jobs that read them run here."""
    project = make_project(tmp_path / "project")
    texts = [f"texts/{number}.txt" for number in range(272)]
    for text in texts:
        (project / text).write_bytes(TEXT)
    target, of_count = "results/datasets/own/meta.json", re.compile(r"\nrule count:\n +input: (.*)")
    inputs = of_count.findall(run(project, "-n", *STORED, target))
    assert [len(line.split(", ")) for line in inputs] == [17] * 16
    assert set(", ".join(inputs).split(", ")) == set(texts), "and none is retrieved from a storage"
    assert not of_count.findall(run(project, "-n", target)), "which takes long with thousands"
