"""A stage leaves its manifest and its log; a mistake gets one line, a fault its traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanogpt import manifest
from nanogpt.files import sha256_file

ROOT = Path(__file__).resolve().parent.parent

ADAPTER = """
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from nanogpt.config import UserError
from nanogpt.stage import logged, stage

asked = json.loads(sys.argv[1])
job = SimpleNamespace(**{{**asked, "params": SimpleNamespace(**asked["params"])}})


def make(asked_for):
{body}


{call}
"""
WRITE = """
logging.getLogger("nanogpt.mine").info("working")
Path(job.output[0]).write_text(Path(job.input[0]).read_text().upper())
Path(job.output[1]).write_text(json.dumps([asked_for.version, dict(asked_for.settings)]))
"""


LOGGED = "with logged(job):\n    make(None)"


def run_stage(directory, body, settings=None, threads=1, call="stage(job, make)", **environment):
    """Run an adapter of this body in `directory`, as its own process."""
    (directory / "in.txt").write_text("text")
    (directory / "adapter.py").write_text(
        ADAPTER.format(
            call=call,
            body="".join(f"    {line}\n" for line in body.strip().splitlines()),
        )
    )
    job = {
        "rule": "shout",
        "input": ["in.txt"],
        "output": ["out.txt", "asked.json", "shout.manifest.json"],
        "params": {"settings": settings or {"shout": {"loud": True}}, "code": "c" * 64},
        "log": ["logs/shout.log"],
        "threads": threads,
    }
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "adapter.py", json.dumps(job)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, "NANOGPT_CACHE": "off", **environment},
        capture_output=True,
        text=True,
    )


def log_of(directory):
    return (directory / "logs" / "shout.log").read_text(encoding="utf-8")


def assert_one_line(directory, ended, *words):
    """The process told a user's mistake in one line, there and in the log, and left no manifest."""
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    for word in words:
        assert word in ended.stderr
    assert ended.stderr.removeprefix("error: ") in log_of(directory)
    assert "Traceback" not in log_of(directory)
    assert not (directory / "shout.manifest.json").exists()


def test_a_stage_writes_a_manifest_that_holds(tmp_path, monkeypatch):
    ended = run_stage(tmp_path, WRITE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    said = json.loads((tmp_path / "shout.manifest.json").read_text())
    assert said["stage"] == "shout"
    assert said["parameters"] == {"shout": {"loud": True}}
    assert said["code"] == "c" * 64
    assert said["inputs"] == {"in.txt": sha256_file(tmp_path / "in.txt")}
    assert said["outputs"] == {
        name: sha256_file(tmp_path / name) for name in ("asked.json", "out.txt")
    }
    assert said["environment"]["threads"] == 1
    assert said["wall_seconds"] >= 0
    assert said["version"] == manifest.version(
        "shout", said["parameters"], said["inputs"], "c" * 64
    )
    monkeypatch.chdir(tmp_path)
    assert manifest.verify(Path("shout.manifest.json")) == []


def test_the_block_gets_the_settings_and_the_version(tmp_path):
    run_stage(tmp_path, WRITE)
    said = json.loads((tmp_path / "shout.manifest.json").read_text())
    asked = json.loads((tmp_path / "asked.json").read_text())
    assert asked == [said["version"], {"shout": {"loud": True}}]
    assert (tmp_path / "out.txt").read_text() == "TEXT"


def test_the_log_has_what_modules_of_the_package_say(tmp_path):
    run_stage(tmp_path, WRITE)
    assert "INFO working" in log_of(tmp_path)
    assert "stage shout, version " in log_of(tmp_path)


def test_the_log_is_begun_anew(tmp_path):
    run_stage(tmp_path, "raise UserError('first')")
    run_stage(tmp_path, WRITE)
    assert "first" not in log_of(tmp_path)


def test_devices_and_dtypes_are_resolved_before_the_version(tmp_path):
    settings = {"eval": {"device": "cpu", "dtype": "auto"}, "name": "demo"}
    ended = run_stage(tmp_path, WRITE, settings)
    assert ended.returncode == 0, ended.stderr
    said = json.loads((tmp_path / "shout.manifest.json").read_text())
    assert said["parameters"]["eval"]["device"] == "cpu"
    assert said["parameters"]["eval"]["dtype"] in ("float32", "bfloat16")
    assert said["parameters"]["name"] == "demo"
    assert said["environment"]["torch"]


def test_a_stage_that_computes_with_torch_has_the_threads_of_its_job(tmp_path):
    body = WRITE + "\nimport torch\nassert torch.get_num_threads() == job.threads\n"
    ended = run_stage(tmp_path, body, {"eval": {"device": "cpu", "dtype": "float32"}}, threads=1)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "shout.manifest.json").read_text())["environment"]["threads"] == 1


def test_a_stage_without_a_device_does_not_import_torch(tmp_path):
    ended = run_stage(tmp_path, WRITE + "\nassert 'torch' not in sys.modules\n")
    assert ended.returncode == 0, ended.stderr
    said = json.loads((tmp_path / "shout.manifest.json").read_text())
    assert "torch" not in said["environment"]


def test_a_users_mistake_is_one_line(tmp_path):
    ended = run_stage(tmp_path, "raise UserError('text.txt: too short; add text')")
    assert_one_line(tmp_path, ended, "error: text.txt: too short; add text\n")


def test_an_absent_device_is_one_line_before_any_work(tmp_path):
    settings = {"eval": {"device": "cuda:99", "dtype": "float32"}}
    ended = run_stage(tmp_path, WRITE, settings)
    assert_one_line(tmp_path, ended, "device cuda:99", "auto or cpu")
    assert not (tmp_path / "out.txt").exists()


def test_a_fault_of_ours_leaves_its_traceback_in_the_log(tmp_path):
    ended = run_stage(tmp_path, "{}['absent']")
    assert ended.returncode not in (0, None)
    for text in (log_of(tmp_path), ended.stderr):
        assert "Traceback" in text
        assert "KeyError: 'absent'" in text
    assert "stage shout failed" in log_of(tmp_path)
    assert not (tmp_path / "shout.manifest.json").exists()


def test_an_output_that_was_not_made_is_a_fault(tmp_path):
    ended = run_stage(tmp_path, "Path(job.output[0]).write_text('one of two')")
    assert ended.returncode != 0
    assert "asked.json" in log_of(tmp_path)
    assert not (tmp_path / "shout.manifest.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_line(tmp_path):
    ended = run_stage(tmp_path, "with open('/dev/full', 'w') as file:\n    file.write('text')")
    assert_one_line(tmp_path, ended, "disk full", "free some space")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="there are no users here")
@pytest.mark.parametrize("mode", ["r", "w"])
def test_a_file_without_permission_is_named_in_one_line(tmp_path, mode):
    (tmp_path / "locked.txt").write_text("text")
    (tmp_path / "locked.txt").chmod(0)
    # Permissions hold for another user than root only.
    body = (
        "os.seteuid(65534 if os.getuid() == 0 else os.getuid())\n"
        f"try:\n    open('locked.txt', {mode!r})\nfinally:\n    os.seteuid(os.getuid())"
    )
    assert_one_line(tmp_path, run_stage(tmp_path, body), "locked.txt: permission denied")


@pytest.mark.parametrize(
    "body",
    [
        "import torch\ntorch.empty(2**50)",
        "import numpy\nnumpy.empty(2**50)",
        "bytearray(2**60)",
    ],
    ids=["torch", "numpy", "python"],
)
def test_out_of_memory_is_one_line_that_says_what_to_lower(tmp_path, body):
    ended = run_stage(tmp_path, body)
    assert_one_line(tmp_path, ended, "out of memory", "batch_size", "block_size")


def test_a_manifest_names_the_inputs_that_it_is_told_to(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    ended = run_stage(tmp_path, WRITE, call='stage(job, make, inputs=["kept.txt"])')
    assert ended.returncode == 0, ended.stderr
    made = json.loads((tmp_path / "shout.manifest.json").read_text())
    assert made["inputs"] == {"kept.txt": sha256_file(tmp_path / "kept.txt")}


def test_what_is_only_logged_leaves_a_log_and_no_manifest(tmp_path):
    ended = run_stage(tmp_path, 'Path("out.txt").write_text("made")', call=LOGGED)
    assert ended.returncode == 0, ended.stderr
    assert log_of(tmp_path) == ""
    assert not list(tmp_path.glob("*.manifest.json"))
    ended = run_stage(tmp_path, 'raise UserError("no text")', call=LOGGED)
    assert_one_line(tmp_path, ended, "no text")
