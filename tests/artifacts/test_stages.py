"""A stage writes its manifest and log; a user error is one line, a bug leaves its traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanogpt.artifacts import manifests
from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import TrainingRequest
from nanogpt.files.atomic import read_json, sha256_file
from nanogpt.project import HERE, Project

ROOT = Path(__file__).resolve().parents[2]

ADAPTER = """
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from nanogpt.artifacts.records.manifests import Layout
from nanogpt.artifacts.stages import Made, logged, run_stage
from nanogpt.errors import UserError
from nanogpt.files import locks
from nanogpt.project import Project

locks.POLL = 0.02
content = json.loads(sys.argv[1])
workflow_job = SimpleNamespace(**{{**content, "params": SimpleNamespace(**content["params"])}})
out, request_file = map(Path, workflow_job.output[:2])


def make(job):
{body}
    return Made("")


{call}
"""
WRITE = """
logging.getLogger("nanogpt.mine").info("working")
out.write_text(Path(workflow_job.input[0]).read_text().upper())
request_file.write_text(json.dumps([job.version, job.parameters]))
"""
LOGGED = 'with logged(workflow_job, "shout"):\n    make(None)'


def stage_call(**options):
    """The source of a call of run_stage with these options."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return f'run_stage(workflow_job, "shout", make{given})'


def start_stage(
    directory,
    body,
    settings=None,
    threads=1,
    call=None,
    code="c" * 64,
    output=("out.txt", "request.json", "shout.manifest.json"),
    **environment,
):
    """Start an adapter with this body in `directory`, as a separate process."""
    directory.mkdir(exist_ok=True)
    (directory / "in.txt").write_text("text")
    (directory / "adapter.py").write_text(
        ADAPTER.format(
            call=call or stage_call(),
            body="".join(f"    {line}\n" for line in body.strip().splitlines()),
        )
    )
    job = {
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
    """Run an adapter with this body in `directory`; return the finished process."""
    with start_stage(directory, body, settings, **options) as process:
        stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def manifest_of(directory):
    return read_json(directory / "shout.manifest.json")


def log_of(directory):
    return (directory / "logs" / "shout.log").read_text(encoding="utf-8")


def assert_one_line(directory, ended, *words):
    """Check that an error is one line on the terminal and in the log, without a manifest."""
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    for word in words:
        assert word in ended.stderr
    assert ended.stderr.removeprefix("error: ") in log_of(directory)
    assert "Traceback" not in log_of(directory)
    assert not (directory / "shout.manifest.json").exists()


def test_a_stage_prints_a_one_line_summary(tmp_path):
    output = ("results/mine/out.txt", "results/mine/more.txt", "results/mine/shout.manifest.json")
    Path(tmp_path / "results/mine").mkdir(parents=True)
    body = """
for path in workflow_job.output[:2]:
    Path(path).write_text("made")
return Made("two files")
"""
    ended = run_stage(tmp_path, body, output=output)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "shout mine: two files\n")
    assert "INFO shout mine: two files" in log_of(tmp_path)
    manifest = read_json(tmp_path / "results/mine/shout.manifest.json")
    assert manifest["summary"] == "two files"


def test_a_stage_writes_a_manifest_that_matches_its_files(tmp_path, monkeypatch):
    ended = run_stage(tmp_path, WRITE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    manifest = manifest_of(tmp_path)
    assert manifest["stage"] == "shout"
    assert manifest["parameters"] == {"shout": {"loud": True}}
    assert manifest["code"] == "c" * 64
    assert manifest["inputs"] == {"in.txt": sha256_file(tmp_path / "in.txt")}
    assert manifest["outputs"] == {
        name: sha256_file(tmp_path / name) for name in ("request.json", "out.txt")
    }
    assert manifest["environment"]["threads"] == 1
    assert manifest["wall_seconds"] >= 0
    assert manifest["version"] == manifests.version(
        "shout", manifest["parameters"], manifest["inputs"], "c" * 64
    )
    monkeypatch.chdir(tmp_path)
    assert manifests.verify(HERE, Path("shout.manifest.json")) == []


def test_a_stage_gets_its_parameters_and_its_version(tmp_path):
    run_stage(tmp_path, WRITE)
    manifest = manifest_of(tmp_path)
    assert request_of(tmp_path) == [manifest["version"], {"shout": {"loud": True}}]
    assert (tmp_path / "out.txt").read_text() == "TEXT"


def test_modules_of_the_package_log_to_the_log_of_the_stage(tmp_path):
    run_stage(tmp_path, WRITE)
    assert "INFO working" in log_of(tmp_path)
    assert "stage shout, version " in log_of(tmp_path)


def test_an_earlier_log_is_replaced(tmp_path):
    run_stage(tmp_path, "raise UserError('first')")
    run_stage(tmp_path, WRITE)
    assert "first" not in log_of(tmp_path)


def test_devices_and_dtypes_are_resolved_before_the_version(tmp_path):
    settings = {"eval": {"device": "cpu", "dtype": "auto"}, "name": "demo"}
    ended = run_stage(tmp_path, WRITE, settings)
    assert ended.returncode == 0, ended.stderr
    manifest = manifest_of(tmp_path)
    assert manifest["parameters"]["eval"]["device"] == "cpu"
    assert manifest["parameters"]["eval"]["dtype"] in ("float32", "bfloat16")
    assert manifest["parameters"]["name"] == "demo"
    assert manifest["environment"]["torch"]


def test_a_stage_that_computes_with_torch_has_the_threads_of_its_job(tmp_path):
    body = WRITE + "\nimport torch\nassert torch.get_num_threads() == workflow_job.threads\n"
    ended = run_stage(tmp_path, body, {"eval": {"device": "cpu", "dtype": "float32"}}, threads=1)
    assert ended.returncode == 0, ended.stderr
    assert manifest_of(tmp_path)["environment"]["threads"] == 1


def test_a_stage_reads_its_settings_as_a_model_and_its_texts_as_text(tmp_path):
    body = (
        WRITE
        + """
from nanogpt.config.schema import SampleSettings
from nanogpt.errors import UserError
assert job.text("name") == "demo"
assert job.settings("some", SampleSettings, partial=True).seed == 7
try:
    job.settings("some", SampleSettings)
except UserError as error:
    assert str(error) == "`start` is missing", error
else:
    raise AssertionError("settings are missing, but nothing was raised")
"""
    )
    ended = run_stage(tmp_path, body, {"name": "demo", "some": {"seed": 7}})
    assert ended.returncode == 0, ended.stderr


def test_files_of_a_stage_are_below_its_projects_root(tmp_path):
    root = tmp_path / "elsewhere"
    (root / "results/mine").mkdir(parents=True)
    (root / "in.txt").write_text("elsewhere's text")
    output = ("results/mine/out.txt", "results/mine/request.json", "results/mine/x.manifest.json")
    body = "for path in workflow_job.output[:2]:\n    Path('elsewhere', path).write_text('made')"
    call = stage_call().replace("make)", "make, project=Project(Path('elsewhere')))")
    ended = run_stage(tmp_path, body, output=output, call=call, NANOGPT_CACHE="cache")
    assert ended.returncode == 0, ended.stderr
    manifest = read_json(root / output[2])
    assert manifest["inputs"] == {"in.txt": sha256_file(root / "in.txt")}
    assert manifest["outputs"].keys() == set(output[:2])
    assert manifests.verify(Project(root), root / output[2]) == []
    assert files_below(root / "cache") == [
        f"{manifest['version']}/{name}" for name in ("manifest.json", "out.txt", "request.json")
    ]
    assert (root / "logs/shout.log").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"adapter.py", "elsewhere", "in.txt"}


def test_a_shell_command_describes_the_same_job_as_a_script():
    program = (
        "import json\n"
        "from nanogpt.artifacts.stages import shell_job\n"
        "job = shell_job()\n"
        "print(json.dumps([job.input, job.output, job.log, job.threads, vars(job.params)]))\n"
    )
    arguments = ["--input", "a", "b", "--output", "c", "--log", "d", "--threads", "2"]
    arguments += ["--run", "demo", "--settings", '{"train": {"seed": 1}}', "--code", "ab"]
    arguments += ["--untracked", '{"sample": {"start": "a"}}']
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, check=True
    )
    params = {"run": "demo", "settings": {"train": {"seed": 1}}, "code": "ab"}
    params["untracked"] = {"sample": {"start": "a"}}
    assert json.loads(ended.stdout) == [["a", "b"], ["c"], ["d"], 2, params]


def test_a_stage_without_a_device_does_not_import_torch(tmp_path):
    ended = run_stage(tmp_path, WRITE + "\nassert 'torch' not in sys.modules\n")
    assert ended.returncode == 0, ended.stderr
    manifest = manifest_of(tmp_path)
    assert "torch" not in manifest["environment"]


def test_a_user_error_is_one_line(tmp_path):
    ended = run_stage(tmp_path, "raise UserError('text.txt: too short; add text')")
    assert_one_line(tmp_path, ended, "error: text.txt: too short; add text\n")


def test_a_missing_device_is_a_one_line_error_before_any_work(tmp_path):
    settings = {"eval": {"device": "cuda:99", "dtype": "float32"}}
    ended = run_stage(tmp_path, WRITE, settings)
    assert_one_line(tmp_path, ended, "device cuda:99", "auto or cpu")
    assert not (tmp_path / "out.txt").exists()


def test_a_bug_leaves_its_traceback_in_the_log(tmp_path):
    ended = run_stage(tmp_path, "{}['absent']")
    assert ended.returncode not in (0, None)
    for text in (log_of(tmp_path), ended.stderr):
        assert "Traceback" in text
        assert "KeyError: 'absent'" in text
    assert "stage shout failed" in log_of(tmp_path)
    assert not (tmp_path / "shout.manifest.json").exists()


def test_a_missing_output_is_a_bug(tmp_path):
    ended = run_stage(tmp_path, "out.write_text('one of two')")
    assert ended.returncode != 0
    assert "request.json" in log_of(tmp_path)
    assert not (tmp_path / "shout.manifest.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_a_one_line_error(tmp_path):
    ended = run_stage(tmp_path, "with open('/dev/full', 'w') as file:\n    file.write('text')")
    assert_one_line(tmp_path, ended, "disk full", "free some space")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="there are no users here")
@pytest.mark.parametrize("mode", ["r", "w"])
def test_a_file_without_permission_is_a_one_line_error(tmp_path, mode):
    (tmp_path / "locked.txt").write_text("text")
    (tmp_path / "locked.txt").chmod(0)
    # Permissions don't apply to root.
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
def test_out_of_memory_is_a_one_line_error_with_settings_to_lower(tmp_path, body):
    ended = run_stage(tmp_path, body)
    assert_one_line(tmp_path, ended, "out of memory", "batch_size", "block_size")


def test_a_manifest_can_list_other_inputs_than_the_rule(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    ended = run_stage(tmp_path, WRITE, call=stage_call(inputs=["kept.txt"]))
    assert ended.returncode == 0, ended.stderr
    manifest = manifest_of(tmp_path)
    assert manifest["inputs"] == {"kept.txt": sha256_file(tmp_path / "kept.txt")}


def test_a_stage_with_temporary_outputs_has_a_log_and_no_manifest(tmp_path):
    ended = run_stage(tmp_path, 'Path("out.txt").write_text("made")', call=LOGGED)
    assert ended.returncode == 0, ended.stderr
    assert log_of(tmp_path) == ""
    assert not list(tmp_path.glob("*.manifest.json"))
    ended = run_stage(tmp_path, 'raise UserError("no text")', call=LOGGED)
    assert_one_line(tmp_path, ended, "no text")


# --- The cache ------------------------------------------------------------------------------

CACHE = {"NANOGPT_CACHE": "../cache"}  # shared by the directories of a test
REFUSE = "raise RuntimeError('made again')"
MORE = """
out.write_text("TEXT")
request_file.write_text("[]")
Path("milestones/5").mkdir(parents=True)
Path("milestones/5/model").write_text("kept")
layout = Layout(
    first_step=0, device="cpu", threads=1, torch="2", cpu_capability="the first's", gpu=None
)
return Made("two files", [layout])
"""
CALL_MORE = stage_call(more_outputs=["milestones/5/model"])


def files_below(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def test_a_cached_version_is_restored_instead_of_made(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run_stage(first, MORE, call=CALL_MORE, **CACHE).returncode == 0
    ended = run_stage(second, REFUSE, call=CALL_MORE, threads=2, **CACHE)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "shout : two files (from the cache)\n"
    assert "restored from the cache" in log_of(second)
    assert files_below(second) == files_below(first)
    for name in ("out.txt", "request.json", "milestones/5/model"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    assert manifest_of(second) == manifest_of(first), "the maker's environment and seconds too"
    (layout,) = manifest_of(second)["environment"]["layouts"]
    assert layout["cpu_capability"] == "the first's"
    assert manifest_of(second)["environment"]["threads"] == 1


def test_with_a_storage_manifests_have_the_paths_of_the_project(tmp_path):
    output = [f"copies/demo/{name}" for name in ("out.txt", "request.json", "shout.manifest.json")]
    options = {"output": output, "NANOGPT_COPIES": "copies", "NANOGPT_CACHE": "cache"}
    (tmp_path / "copies/demo").mkdir(parents=True)
    for body in (WRITE, "raise AssertionError('made again')"):
        ended = run_stage(tmp_path, body, **options)
        assert ended.returncode == 0, ended.stderr
        manifest = read_json(tmp_path / output[-1])
        assert list(manifest["inputs"]) == ["in.txt"], "a file of the user's own isn't a copy"
        assert list(manifest["outputs"]) == ["demo/out.txt", "demo/request.json"]
        (tmp_path / output[-1]).unlink()


def test_a_restored_manifest_has_the_paths_of_its_own_stage(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    body = "for path in workflow_job.output[:-1]:\n    Path(path).write_text('made')"
    for directory, run in ((first, "one"), (second, "two")):
        (directory / run).mkdir(parents=True)
        output = [f"{run}/out.txt", f"{run}/request.json", f"{run}/shout.manifest.json"]
        body = body if directory == first else REFUSE
        ended = run_stage(directory, body, output=output, **CACHE)
        assert ended.returncode == 0, ended.stderr
    manifest = read_json(second / "two/shout.manifest.json")
    assert list(manifest["outputs"]) == ["two/out.txt", "two/request.json"]
    assert manifest.keys() == json.loads((first / "one/shout.manifest.json").read_text()).keys()
    monkeypatch.chdir(second)
    assert manifests.verify(HERE, Path("two/shout.manifest.json")) == []


@pytest.mark.parametrize(
    ("options", "environment"),
    [({}, {"NANOGPT_CACHE": "off"}), ({"call": stage_call(cached=False)}, CACHE)],
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
def test_only_the_request_changes_the_version(tmp_path, other):
    run_stage(tmp_path / "first", WRITE, **CACHE)
    ended = run_stage(tmp_path / "second", WRITE, **other, **CACHE)
    assert ended.returncode == 0, ended.stderr
    restored = "restored from the cache" in log_of(tmp_path / "second")
    assert restored == ("threads" in other)


def test_a_failed_stage_is_not_stored(tmp_path):
    body = "out.write_text('half')\nraise UserError('no')"
    assert_one_line(tmp_path / "first", run_stage(tmp_path / "first", body, **CACHE), "no")
    assert not (tmp_path / "cache").exists()


def test_a_damaged_entry_is_logged_and_made_again(tmp_path):
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


def test_an_unusable_cache_is_only_a_warning(tmp_path):
    ended = run_stage(tmp_path, WRITE, NANOGPT_CACHE="in.txt/cache")
    assert ended.returncode == 0
    assert ended.stderr == "warning: in.txt/cache: not stored in the cache: Not a directory\n"
    assert manifest_of(tmp_path)["outputs"].keys() == {"out.txt", "request.json"}


# --- Interruptions --------------------------------------------------------------------------


def wait_for(path):
    """Wait until another process has created a file."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not made"
        time.sleep(0.01)


@pytest.mark.parametrize("call", [stage_call(), LOGGED], ids=["stage", "logged"])
def test_temporary_files_of_killed_writers_are_removed(tmp_path, call):
    left = [".out.txt.x7f3.tmp", ".request.json.ab12.tmp", ".shout.manifest.json.q.tmp"]
    kept = [".other.txt.x7f3.tmp", ".out.txt", "out.txt.tmp"]
    for name in [*left, *kept]:
        (tmp_path / name).write_text("left")
    write = 'for path in (out, request_file):\n    path.write_text("made")'
    assert run_stage(tmp_path, write, call=call).returncode == 0
    assert [name for name in left if (tmp_path / name).exists()] == []
    assert [name for name in kept if (tmp_path / name).exists()] == kept


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
@pytest.mark.parametrize("call", [stage_call(), LOGGED], ids=["stage", "logged"])
def test_a_signal_ends_a_stage_without_traceback_or_temporary_files(tmp_path, number, code, call):
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

TRAINED = stage_call(run="demo")
STATE = """
assert job.training.version == job.version
step = job.training.directory / "step-5.0123456789abcdef.safetensors"
"""
SAVE_AND_STOP = STATE + "step.write_text('state')\nraise UserError('stopped')"
GO_ON = (
    STATE
    + """
found = step.exists()
out.write_text("made")
request_file.write_text(json.dumps(found))
"""
)


def state_names(directory):
    return sorted(path.name for path in (directory / ".nanogpt/state").iterdir())


def request_of(directory):
    return read_json(directory / "request.json")


def test_a_training_stage_resumes_from_its_state_and_removes_it(tmp_path):
    stopped = run_stage(tmp_path, SAVE_AND_STOP, call=TRAINED)
    assert_one_line(tmp_path, stopped, "error: stopped\n")
    (version,) = state_names(tmp_path)
    assert run_stage(tmp_path, GO_ON, call=TRAINED).returncode == 0
    assert request_of(tmp_path) is True
    assert manifest_of(tmp_path)["version"] == version
    assert state_names(tmp_path) == []


def test_a_cached_training_is_restored_and_leaves_no_state(tmp_path):
    run_stage(tmp_path / "first", GO_ON, call=TRAINED, **CACHE)
    ended = run_stage(tmp_path / "second", REFUSE, call=TRAINED, **CACHE)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert manifest_of(tmp_path / "second") == manifest_of(tmp_path / "first")
    assert state_names(tmp_path / "second") == []


def test_existing_outputs_are_reused_only_if_complete(tmp_path):
    run_stage(tmp_path, GO_ON, call=TRAINED)
    ended = run_stage(tmp_path, REFUSE, call=TRAINED)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "another process has made the outputs meanwhile" in log_of(tmp_path)
    (tmp_path / "out.txt").write_text("changed")
    assert run_stage(tmp_path, GO_ON, call=TRAINED).returncode == 0
    assert (tmp_path / "out.txt").read_text() == "made"


def test_a_state_of_other_code_is_kept_with_a_warning(tmp_path):
    run_stage(tmp_path, SAVE_AND_STOP, call=TRAINED, code="d" * 64)
    (older,) = state_names(tmp_path)
    ended = run_stage(tmp_path, GO_ON, call=TRAINED)
    assert ended.returncode == 0
    assert ended.stderr == (
        f"warning: .nanogpt/state/{older}: found an unfinished training of demo with different "
        "code; starting from scratch (the old state is kept)\n"
    )
    assert request_of(tmp_path) is False
    assert state_names(tmp_path) == [older]


def test_a_trainings_request_has_its_run_and_unresolved_settings(tmp_path):
    settings = {"train": {"device": "auto", "dtype": "float32", "max_iters": 5}}
    run_stage(tmp_path, SAVE_AND_STOP, settings, call=TRAINED)
    (version,) = state_names(tmp_path)
    request = read_record(tmp_path / ".nanogpt/state" / version / "run.json", TrainingRequest)
    assert (request.run, request.stage, request.version) == ("demo", "shout", version)
    assert request.settings == settings
    assert request.parameters["train"]["device"] in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("environment", [{}, CACHE], ids=["cache off", "cache on"])
def test_a_second_process_waits_for_the_training_and_uses_its_outputs(tmp_path, environment):
    project = tmp_path / "project"
    # The first process is still writing an output, which the second one must leave alone.
    body = (
        STATE
        + """
import time
from nanogpt.files.atomic import atomic_write
with atomic_write(out) as file:
    file.write(b"made")
    Path("begun").touch()
    while "waiting for" not in Path(workflow_job.log[0]).read_text():
        time.sleep(0.01)
request_file.write_text("[]")
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
    assert "another process has made the outputs meanwhile" in log_of(project)
    assert (project / "out.txt").read_text() == "made"
    assert state_names(project) == []


def test_a_process_with_older_settings_stops_without_a_manifest(tmp_path):
    body = GO_ON + "step.write_text('state')\n(Path('.nanogpt/runs') / 'demo').write_text('other')"
    ended = run_stage(tmp_path, body, call=TRAINED)
    assert_one_line(
        tmp_path,
        ended,
        "demo: another process has started to train this run with different settings",
    )
    assert len(state_names(tmp_path)) == 1
