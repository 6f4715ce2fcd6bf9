"""A stage leaves its manifest and its log; a mistake gets one line, a fault its traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanogpt.artifacts import manifests as manifest
from nanogpt.files.atomic import sha256_file

ROOT = Path(__file__).resolve().parents[2]

ADAPTER = """
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from nanogpt.errors import UserError
from nanogpt.artifacts.stages import logged, stage

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


def start_stage(
    directory,
    body,
    settings=None,
    threads=1,
    call="stage(job, make)",
    code="c" * 64,
    output=("out.txt", "asked.json", "shout.manifest.json"),
    **environment,
):
    """Start an adapter of this body in `directory`, as its own process."""
    directory.mkdir(exist_ok=True)
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
        "output": output,
        "params": {"settings": settings or {"shout": {"loud": True}}, "code": code},
        "log": ["logs/shout.log"],
        "threads": threads,
    }
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "adapter.py", json.dumps(job)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, "NANOGPT_CACHE": "off", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_stage(directory, body, settings=None, **options):
    """Run an adapter of this body in `directory`; returns how it ended."""
    with start_stage(directory, body, settings, **options) as process:
        stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def manifest_of(directory):
    return json.loads((directory / "shout.manifest.json").read_text())


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


def test_a_stage_says_in_one_line_what_it_made(tmp_path):
    output = ("results/mine/out.txt", "results/mine/more.txt", "results/mine/shout.manifest.json")
    Path(tmp_path / "results/mine").mkdir(parents=True)
    body = """
for path in job.output[:2]:
    Path(path).write_text("made")
return {"summary": "two files"}
"""
    ended = run_stage(tmp_path, body, output=output)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "shout mine: two files\n")
    assert "INFO shout mine: two files" in log_of(tmp_path)
    said = json.loads((tmp_path / "results/mine/shout.manifest.json").read_text())
    assert said["summary"] == "two files"


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


# --- The cache ------------------------------------------------------------------------------

CACHE = {"NANOGPT_CACHE": "../cache"}  # which the directories of a test share
REFUSE = "raise RuntimeError('made again')"
MORE = """
Path(job.output[0]).write_text("TEXT")
Path(job.output[1]).write_text("[]")
Path("milestones/5").mkdir(parents=True)
Path("milestones/5/model").write_text("kept")
return {"summary": "two files", "environment": {"maker": "the first"}}
"""
CALL_MORE = 'stage(job, make, more_outputs=["milestones/5/model"])'


def files_below(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def test_a_stage_whose_version_is_in_the_cache_restores_it_and_makes_nothing(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run_stage(first, MORE, call=CALL_MORE, **CACHE).returncode == 0
    ended = run_stage(second, REFUSE, call=CALL_MORE, threads=2, **CACHE)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "shout : two files (from the cache)\n"
    assert "restored from the cache" in log_of(second)
    assert files_below(second) == files_below(first)
    for name in ("out.txt", "asked.json", "milestones/5/model"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    assert manifest_of(second) == manifest_of(first), "the maker's environment and seconds too"
    assert manifest_of(second)["environment"]["maker"] == "the first"
    assert manifest_of(second)["environment"]["threads"] == 1


def test_a_restored_manifest_has_the_paths_of_its_own_stage(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    body = "for path in job.output[:-1]:\n    Path(path).write_text('made')"
    for directory, run in ((first, "one"), (second, "two")):
        (directory / run).mkdir(parents=True)
        output = [f"{run}/out.txt", f"{run}/asked.json", f"{run}/shout.manifest.json"]
        body = body if directory == first else REFUSE
        ended = run_stage(directory, body, output=output, **CACHE)
        assert ended.returncode == 0, ended.stderr
    said = json.loads((second / "two/shout.manifest.json").read_text())
    assert list(said["outputs"]) == ["two/out.txt", "two/asked.json"]
    assert said.keys() == json.loads((first / "one/shout.manifest.json").read_text()).keys()
    monkeypatch.chdir(second)
    assert manifest.verify(Path("two/shout.manifest.json")) == []


@pytest.mark.parametrize(
    ("options", "environment"),
    [({}, {"NANOGPT_CACHE": "off"}), ({"call": "stage(job, make, cached=False)"}, CACHE)],
    ids=["the cache is off", "the stage is not cached"],
)
def test_without_a_cache_a_stage_is_made_each_time(tmp_path, options, environment):
    for name in ("first", "second"):
        ended = run_stage(tmp_path / name, WRITE, **options, **environment)
        assert ended.returncode == 0, ended.stderr
        assert "INFO working" in log_of(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}


@pytest.mark.parametrize(
    "other",
    [{"settings": {"shout": {"loud": False}}}, {"code": "d" * 64}, {"threads": 2}],
    ids=["settings", "code", "threads"],
)
def test_only_what_was_asked_for_makes_another_version(tmp_path, other):
    run_stage(tmp_path / "first", WRITE, **CACHE)
    ended = run_stage(tmp_path / "second", WRITE, **other, **CACHE)
    assert ended.returncode == 0, ended.stderr
    restored = "restored from the cache" in log_of(tmp_path / "second")
    assert restored == ("threads" in other)


def test_a_stage_that_failed_is_not_stored(tmp_path):
    body = "Path(job.output[0]).write_text('half')\nraise UserError('no')"
    assert_one_line(tmp_path / "first", run_stage(tmp_path / "first", body, **CACHE), "no")
    assert not (tmp_path / "cache").exists()


def test_a_damaged_entry_is_told_and_made_again(tmp_path):
    run_stage(tmp_path / "first", WRITE, **CACHE)
    (entry,) = (tmp_path / "cache").iterdir()
    (entry / "out.txt").write_text("DAMAGE")
    ended = run_stage(tmp_path / "second", WRITE, **CACHE)
    assert ended.returncode == 0
    assert ended.stderr.startswith("warning: ../cache/")
    assert ended.stderr.count("\n") == 1
    assert (tmp_path / "second/out.txt").read_text() == "TEXT"
    third = run_stage(tmp_path / "third", REFUSE, **CACHE)
    assert (third.returncode, third.stderr) == (0, "")


def test_a_cache_that_cannot_be_used_is_a_warning_and_no_error(tmp_path):
    ended = run_stage(tmp_path, WRITE, NANOGPT_CACHE="in.txt/cache")
    assert ended.returncode == 0
    assert ended.stderr == "warning: in.txt/cache: not stored in the cache: Not a directory\n"
    assert manifest_of(tmp_path)["outputs"].keys() == {"out.txt", "asked.json"}


# --- What stops a stage ---------------------------------------------------------------------


def wait_for(path):
    """Wait until another process has made a file."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not made"
        time.sleep(0.01)


def test_what_killed_writers_of_the_outputs_left_is_removed(tmp_path):
    left = [".out.txt.x7f3.tmp", ".asked.json.ab12.tmp", ".shout.manifest.json.q.tmp"]
    kept = [".other.txt.x7f3.tmp", ".out.txt", "out.txt.tmp"]
    for name in [*left, *kept]:
        (tmp_path / name).write_text("left")
    assert run_stage(tmp_path, WRITE).returncode == 0
    assert [name for name in left if (tmp_path / name).exists()] == []
    assert [name for name in kept if (tmp_path / name).exists()] == kept


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
@pytest.mark.parametrize("call", ["stage(job, make)", LOGGED], ids=["stage", "logged"])
def test_a_signal_ends_a_stage_in_order_without_traceback_or_litter(tmp_path, number, code, call):
    project = tmp_path / "project"
    body = (
        "import time\nfrom nanogpt.files.atomic import atomic_write\n"
        "with atomic_write('out.txt') as file:\n"
        "    file.write(b'half')\n    Path('begun').touch()\n    time.sleep(60)"
    )
    with start_stage(project, body, call=call, **CACHE) as process:
        wait_for(project / "begun")
        process.send_signal(number)
        assert process.communicate() == ("", "")
        assert process.returncode == code
    assert "Traceback" not in log_of(project)
    assert files_below(project) == ["adapter.py", "begun", "in.txt", "logs/shout.log"]
    assert not (tmp_path / "cache").exists()


# --- A training's state ---------------------------------------------------------------------

TRAINED = "from nanogpt import lock\nlock.POLL = 0.02\nstage(job, make, run='demo')"
STATE = """
assert asked_for.training.version == asked_for.version
step = asked_for.training.directory / "step-5.0123456789abcdef.safetensors"
"""
SAVE_AND_STOP = STATE + "step.write_text('state')\nraise UserError('stopped')"
GO_ON = (
    STATE
    + """
found = step.exists()
Path(job.output[0]).write_text("made")
Path(job.output[1]).write_text(json.dumps([found, asked_for.training.adopted]))
"""
)


def states(directory):
    return sorted(path.name for path in (directory / ".nanogpt/state").iterdir())


def asked_of(directory):
    return json.loads((directory / "asked.json").read_text())


def test_a_stage_that_trains_goes_on_from_its_state_and_leaves_none(tmp_path):
    stopped = run_stage(tmp_path, SAVE_AND_STOP, call=TRAINED)
    assert_one_line(tmp_path, stopped, "error: stopped\n")
    (version,) = states(tmp_path)
    assert run_stage(tmp_path, GO_ON, call=TRAINED).returncode == 0
    assert asked_of(tmp_path) == [True, []]
    assert manifest_of(tmp_path)["version"] == version
    assert "adopted" not in manifest_of(tmp_path)["environment"]
    assert states(tmp_path) == []


def test_a_training_that_is_in_the_cache_is_restored_and_leaves_no_state(tmp_path):
    run_stage(tmp_path / "first", GO_ON, call=TRAINED, **CACHE)
    ended = run_stage(tmp_path / "second", REFUSE, call=TRAINED, **CACHE)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert manifest_of(tmp_path / "second") == manifest_of(tmp_path / "first")
    assert states(tmp_path / "second") == []


def test_what_is_made_already_is_taken_as_it_is_and_only_when_all_of_it_is_there(tmp_path):
    run_stage(tmp_path, GO_ON, call=TRAINED)
    ended = run_stage(tmp_path, REFUSE, call=TRAINED)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "made by the process that was waited for" in log_of(tmp_path)
    (tmp_path / "out.txt").write_text("changed")
    assert run_stage(tmp_path, GO_ON, call=TRAINED).returncode == 0
    assert (tmp_path / "out.txt").read_text() == "made"


def test_an_adopted_state_is_in_the_manifest_and_not_in_the_cache(tmp_path):
    project = tmp_path / "project"
    run_stage(project, SAVE_AND_STOP, call=TRAINED, code="d" * 64, **CACHE)
    (older,) = states(project)
    hint = run_stage(project, SAVE_AND_STOP.replace("step.w", "#"), call=TRAINED, **CACHE).stderr
    assert hint.splitlines()[0] == (
        f"warning: .nanogpt/state/{older} holds this training at step 5, made by other code; to go "
        f"on from there, set NANOGPT_ADOPT_STATE={older}"
    )
    ended = run_stage(project, GO_ON, call=TRAINED, NANOGPT_ADOPT_STATE=older, **CACHE)
    assert ended.returncode == 0
    assert ended.stderr == f"warning: adopted the state of .nanogpt/state/{older} at step 5\n"
    assert asked_of(project) == [True, [older]]
    assert manifest_of(project)["environment"]["adopted"] == [older]
    assert not (tmp_path / "cache").exists()
    assert states(project) == []


@pytest.mark.parametrize("environment", [{}, CACHE], ids=["cache off", "cache on"])
def test_a_second_process_waits_for_the_one_that_trains_and_takes_what_it_made(
    tmp_path, environment
):
    project = tmp_path / "project"
    # The first one is in the middle of writing an output, which the second one must leave alone.
    body = (
        STATE
        + """
import time
from nanogpt.files.atomic import atomic_write
with atomic_write(job.output[0]) as file:
    file.write(b"made")
    Path("begun").touch()
    while "waiting for" not in Path(job.log[0]).read_text():
        time.sleep(0.01)
Path(job.output[1]).write_text("[]")
"""
    )
    with start_stage(project, body, call=TRAINED, **environment) as first:
        wait_for(project / "begun")
        second = run_stage(project, REFUSE, call=TRAINED, **environment)
        assert first.communicate() == ("", "")
        assert first.returncode == 0
    assert (second.returncode, second.stdout) == (0, "")
    assert second.stderr.startswith("warning: .nanogpt/state/")
    assert second.stderr.count("\n") == 1
    assert f"waiting for process {first.pid} on " in log_of(project)
    assert "made by the process that was waited for" in log_of(project)
    assert (project / "out.txt").read_text() == "made"
    assert states(project) == []


def test_a_process_that_trains_with_older_settings_stops_and_writes_no_manifest(tmp_path):
    body = GO_ON + "step.write_text('state')\n(Path('.nanogpt/runs') / 'demo').write_text('other')"
    ended = run_stage(tmp_path, body, call=TRAINED)
    assert_one_line(tmp_path, ended, "demo: another process trains this run with other settings")
    assert len(states(tmp_path)) == 1
