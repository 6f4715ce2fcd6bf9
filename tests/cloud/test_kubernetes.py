"""profiles/kubernetes: read by the plugin's own parser, and run with a stand-in for its API."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkouts import PROJECT
from tests.cloud.conftest import BUCKET
from tests.cloud.kubernetes_server import KubernetesServer
from tests.cloud.projects import make_project, with_packages
from tests.faults import attacks

pytestmark = pytest.mark.cloud

PROFILE = PROJECT / "profiles/kubernetes/config.yaml"
WARNING = (
    "warning: jobs have no persistent disk, so a retried training starts over; to continue it, "
)
VOLUME = "nanogpt-state:/workdir/.nanogpt"


def read_settings(profile: Path) -> Any:
    """The settings that Snakemake's and the plugin's parsers read from a profile."""
    from snakemake.cli import parse_args
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    _, args = parse_args(["--workflow-profile", str(profile.parent)])
    plugin = ExecutorPluginRegistry().get_plugin(args.executor)
    settings = plugin.get_settings(args)
    plugin.validate_settings(settings)
    return settings, args


def test_the_plugin_reads_the_profile() -> None:
    settings, args = read_settings(PROFILE)
    assert settings.namespace == "default"
    assert [volume.unparse() for volume in settings.persistent_volumes] == [VOLUME]
    assert args.default_storage_provider == "s3"
    assert args.default_storage_prefix == f"s3://{BUCKET}/plays"
    assert args.envvars == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_the_plugin_reads_the_profile_with_its_lines_for_a_gpu(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=set-resources:| {2}\S| {4}\S)", "", PROFILE.read_text(), flags=re.M)
    (tmp_path / "config.yaml").write_text(text)
    _, args = read_settings(tmp_path / "config.yaml")
    wanted = {"gpu", "gpu_manufacturer"}
    assert wanted <= args.set_resources["train"].keys()


@pytest.fixture
def cluster(tmp_path: Path, server: str) -> Iterator[KubernetesServer]:
    """A stand-in for a cluster, whose image saves states often and has the packages."""
    directory = tmp_path / "cluster"
    directory.mkdir()
    more = {"PYTHONPATH": with_packages(), "AWS_ENDPOINT_URL": server}
    image = {"NANOGPT_SAVE_INTERVAL": "0.2", "OMP_NUM_THREADS": "1", **more}
    started = KubernetesServer(directory, image)
    yield started
    started.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout, because Snakemake copies the files that git knows to the pods."""
    project = make_project(tmp_path / "project")
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    return project


def start(project: Path, cluster: KubernetesServer, *targets: str) -> attacks.Call:
    options = ("--workflow-profile", "profiles/kubernetes", "--seconds-between-status-checks", "1")
    command = [sys.executable, "-m", "snakemake", *options, *targets]
    return attacks.start(
        project, command, PYTHONPATH=with_packages(), KUBECONFIG=str(cluster.config)
    )


def test_a_training_whose_pod_is_lost_continues_from_the_volume(
    bucket: Any, project: Path, cluster: KubernetesServer, tmp_path: Path
) -> None:
    volume = tmp_path / "view/.nanogpt"  # as `attacks` expects a project's states
    volume.parent.mkdir()
    volume.symlink_to(cluster.directory / "nanogpt-state")
    call = start(project, cluster, "results/one/samples.txt")
    attacks.wait_for_steps(volume.parent, call)
    cluster.end_pods()
    assert call.end(600) == 0, call.printed() + cluster.printed()
    assert "warning" not in call.printed()
    log = bucket.Object("plays/results/one/train.log").get()["Body"].read().decode()
    assert "resuming from step" in log
    assert not (project / "results").exists()

    assert bucket.Object("plays/results/one/milestones/10/model.safetensors").content_length > 0

    (train, *_) = [c for c in cluster.submitted.values() if "train" in " ".join(c["args"])]
    assert train["image"] == "registry.example.org/nanogpt:1.0.0"
    assert train["resources"]["requests"]["cpu"] == "1900m"
    assert train["resources"]["limits"]["memory"] == train["resources"]["requests"]["memory"]


def wait_for(text: str, call: attacks.Call) -> None:
    """Wait until a call prints a text, and end it."""
    deadline = time.monotonic() + 600
    while text not in call.printed():
        assert call.process.poll() is None, call.printed()
        assert time.monotonic() < deadline, call.printed()
        time.sleep(0.2)
    attacks.send(call.process.pid, signal.SIGKILL, to_group=True)
    call.end()


@pytest.mark.usefixtures("bucket")
def test_without_a_volume_the_start_says_that_retries_start_over(
    project: Path, cluster: KubernetesServer
) -> None:
    profile = project / "profiles/kubernetes/config.yaml"
    volumes = r"kubernetes-persistent-volumes:\n.*\n"
    profile.write_text(re.sub(volumes, "", profile.read_text()))
    call = start(project, cluster, "results/datasets/own/meta.json")
    assert call.end(600) == 0, call.printed()
    assert "warning" not in call.printed(), "nothing is trained"
    assert cluster.submitted == {}, "jobs that read the user's own texts run here"
    volume = "mount a volume at /workdir/.nanogpt"
    wait_for(f"{WARNING}{volume}", start(project, cluster, "results/one/samples.txt"))


@pytest.mark.usefixtures("bucket")
def test_the_start_of_other_jobs_without_a_shared_disk_says_so_too(project: Path) -> None:
    options = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", "echo 1")
    storage = ("--default-storage-provider", "s3", "--default-storage-prefix", f"s3://{BUCKET}")
    command = [sys.executable, "-m", "snakemake", *options, *storage, "--jobs", "1"]
    command += ["--cluster-generic-status-cmd", "echo running", "--shared-fs-usage", "none"]
    command += ["--", "results/one/samples.txt"]
    call = attacks.start(project, command, PYTHONPATH=with_packages())
    wait_for(f"{WARNING}share `.nanogpt` among the machines of the jobs", call)
