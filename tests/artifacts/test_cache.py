"""The cache restores exactly what was stored, or nothing, and never stops a stage."""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from nanogpt.artifacts import cache, manifests
from nanogpt.artifacts.records.manifests import Environment, Manifest
from nanogpt.files.atomic import read_json, sha256_file, write_json
from nanogpt.project import HERE, Project

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures/format_1"
CACHE = Path(".nanogpt/cache")
MANIFEST = "results/demo/train.manifest.json"
CONTENTS = {
    "results/demo/metrics.jsonl": b'{"step": 0}\n',
    "results/demo/model/model.safetensors": bytes(range(256)) * 5000,
}
OUTPUTS = cache.names_in_entry(CONTENTS, MANIFEST)
WEIGHTS = "model/model.safetensors"
ENVIRONMENT = Environment(
    nanogpt="1", python="3", platform="Linux", cpu="a CPU", threads=1, ranks=1, gpu=None
)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty project as the working directory, with the cache at its default path."""
    monkeypatch.delenv("NANOGPT_CACHE", raising=False)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


def make(contents=CONTENTS, seed=1):
    """Write outputs and return their manifest."""
    for path, content in contents.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)
    inputs, parameters = {"results/datasets/d/train.bin": "a" * 64}, {"train": {"seed": seed}}
    return Manifest(
        stage="train",
        version=manifests.version("train", parameters, inputs, "c"),
        inputs=inputs,
        parameters=parameters,
        code="c",
        outputs=manifests.digests(HERE, contents),
        environment=ENVIRONMENT,
        wall_seconds=1.5,
    )


def store(**options):
    """Make an artifact, store it and remove its outputs; return its entry."""
    manifest = make(**options)
    cache.store(HERE, manifest, OUTPUTS)
    for path in CONTENTS:
        Path(path).unlink()
    return CACHE / manifest.version


def restore(entry):
    return cache.restore(HERE, entry.name, OUTPUTS)


def files_below(directory):
    return sorted(str(path) for path in Path(directory).rglob("*") if not path.is_dir())


def assert_restored(manifest):
    assert manifest is not None
    assert manifest.environment == ENVIRONMENT
    assert_outputs()


def assert_outputs():
    assert {path: Path(path).read_bytes() for path in CONTENTS} == CONTENTS
    assert files_below("results") == sorted(CONTENTS)


# --- Location -------------------------------------------------------------------------------


def test_a_cache_that_is_off_stores_and_restores_nothing(monkeypatch):
    entry = store()
    assert entry.is_dir()
    monkeypatch.setenv("NANOGPT_CACHE", "off")
    assert restore(entry) is None
    store(seed=2)
    assert [path.name for path in CACHE.iterdir()] == [entry.name]


def test_names_in_an_entry_are_relative_to_the_manifest():
    assert {
        "metrics.jsonl": "results/demo/metrics.jsonl",
        WEIGHTS: "results/demo/model/model.safetensors",
    } == OUTPUTS


# --- Store and restore ----------------------------------------------------------------------


def test_an_artifact_is_restored_as_it_was_stored():
    entry = store()
    assert files_below(CACHE) == sorted(str(entry / n) for n in (*OUTPUTS, "manifest.json"))
    manifest = restore(entry)
    assert_restored(manifest)
    assert manifest.outputs == {n: sha256_file(path) for n, path in OUTPUTS.items()}
    assert manifest.made_in == "results/demo"


def test_an_entrys_manifest_has_all_that_its_stage_wrote():
    manifest = make().model_copy(update={"summary": "best loss 1.5"})
    cache.store(HERE, manifest, OUTPUTS)
    assert read_json(CACHE / manifest.version / "manifest.json") == {
        **manifest.content(),
        "summary": "best loss 1.5",
        "outputs": {name: manifest.outputs[path] for name, path in OUTPUTS.items()},
        "made_in": "results/demo",
    }
    assert cache.restore(HERE, manifest.version, OUTPUTS).summary == "best loss 1.5"


def test_an_entry_of_the_first_format_is_restored():
    version = "1cd00bc310e8"
    shutil.copytree(FIXTURES / f"cache_{version}", CACHE / version)
    manifest = cache.restore(HERE, version, {"eval.json": "results/one/eval.json"})
    assert manifest.stage == "eval"
    original = FIXTURES / f"cache_{version}/eval.json"
    assert Path("results/one/eval.json").read_bytes() == original.read_bytes()


def test_paths_are_relative_to_the_projects_root(tmp_path, monkeypatch):
    entry = store()
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path / "project")
    assert cache.restore(project, entry.name, OUTPUTS)
    assert (project.results / "demo/metrics.jsonl").exists()
    shutil.rmtree(project.cache)
    monkeypatch.chdir(project.root)
    manifest = make()
    monkeypatch.chdir(tmp_path)
    cache.store(project, manifest, OUTPUTS)
    assert (project.cache / entry.name / WEIGHTS).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


def test_an_artifact_can_be_restored_for_another_run():
    entry = store()
    other = cache.names_in_entry([p.replace("demo", "other") for p in CONTENTS], "results/other/m")
    assert cache.restore(HERE, entry.name, other)
    assert Path("results/other/model/model.safetensors").read_bytes() in CONTENTS.values()
    assert not Path("results/demo/model/model.safetensors").exists()


def test_a_restored_file_is_a_copy_with_a_new_mtime_and_the_usual_mode():
    entry = store()
    for name in OUTPUTS:
        os.utime(entry / name, (0, 0))
        (entry / name).chmod(0o400)
    before = os.umask(0o027)
    try:
        began = time.time() - 1  # a file system's clock may be slightly behind
        restore(entry)
    finally:
        os.umask(before)
    for name, path in OUTPUTS.items():
        copy = Path(path)
        assert copy.stat().st_mtime > began
        assert copy.stat().st_mode & 0o777 == 0o640
        assert copy.stat().st_nlink == 1
        assert not copy.is_symlink()
        copy.write_bytes(b"changed")
        assert (entry / name).read_bytes() in CONTENTS.values(), "the entry stays as it is"


def test_files_of_an_entry_have_the_permissions_of_the_umask():
    before = os.umask(0o022)
    try:
        entry = store()
    finally:
        os.umask(before)
    assert entry.stat().st_mode & 0o777 == 0o755
    for path in entry.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_a_restored_file_replaces_a_link_and_not_its_target(project):
    entry = store()
    (project / "mine.txt").write_text("mine")
    Path("results/demo/metrics.jsonl").symlink_to(project / "mine.txt")
    assert_restored(restore(entry))
    assert (project / "mine.txt").read_text() == "mine"


def test_the_first_entry_of_a_version_stays():
    entry = store()
    store(contents=dict.fromkeys(CONTENTS, b"other bytes"))
    assert_restored(restore(entry))
    assert [path.name for path in CACHE.iterdir()] == [entry.name]


def test_a_second_store_changes_nothing():
    entry = store()
    before = {path: path.stat() for path in [entry, *entry.rglob("*")]}
    store()
    assert {path: path.stat() for path in [entry, *entry.rglob("*")]} == before


def test_an_unknown_version_restores_nothing(caplog):
    store()
    assert cache.restore(HERE, "0123456789ab", OUTPUTS) is None
    assert caplog.messages == []
    assert files_below("results") == []


def test_a_restore_updates_the_time_of_last_use():
    entry = store()
    os.utime(entry, (0, 0))
    restore(entry)
    assert time.time() - entry.stat().st_mtime < 60


def test_bytes_are_copied_if_blocks_cannot_be_shared(tmp_path):
    # Kernel memory can't share blocks with a disk.
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm here")
    (tmp_path / "source").write_bytes(bytes(range(256)) * 10_000)
    copy = Path("/dev/shm") / f"nanogpt-test-{os.getpid()}"
    try:
        with open(tmp_path / "source", "rb") as source, open(copy, "wb") as destination:
            cache.clone_or_copy(source, destination)
        assert copy.read_bytes() == (tmp_path / "source").read_bytes()
    finally:
        copy.unlink()


# --- Damage ---------------------------------------------------------------------------------


def flip_a_bit(entry):
    data = bytearray((entry / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (entry / WEIGHTS).write_bytes(data)


def truncate(entry):
    os.truncate(entry / WEIGHTS, 1000)


def replace(entry, make_instead, name=WEIGHTS):
    (entry / name).unlink()
    make_instead(entry / name)


def link(entry, name):
    (entry / name).rename(entry.parent.parent / "elsewhere")
    (entry / name).symlink_to((entry.parent.parent / "elsewhere").absolute())


def change(entry, **changes):
    write_json(entry / "manifest.json", {**read_json(entry / "manifest.json"), **changes})


def change_outputs(entry, **outputs):
    change(entry, outputs={**read_json(entry / "manifest.json")["outputs"], **outputs})


def rename_output(entry, name):
    outputs = read_json(entry / "manifest.json")["outputs"]
    outputs[name] = outputs.pop(WEIGHTS)
    change(entry, outputs=outputs)


def drop(entry, key):
    content = read_json(entry / "manifest.json")
    del content[key]
    write_json(entry / "manifest.json", content)


def write_manifest(entry, content):
    (entry / "manifest.json").write_bytes(content)


def become_a_file(entry):
    entry.rename(entry.with_name("old"))
    (entry.with_name("old") / WEIGHTS).rename(entry)
    for path in sorted(entry.with_name("old").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    entry.with_name("old").rmdir()


DAMAGE = {
    "a flipped bit": flip_a_bit,
    "a truncated file": truncate,
    "a missing file": lambda entry: (entry / WEIGHTS).unlink(),
    "a directory for a file": lambda entry: replace(entry, Path.mkdir),
    "a link for a file": lambda entry: link(entry, WEIGHTS),
    "a pipe for a file": lambda entry: replace(entry, os.mkfifo),
    "no manifest": lambda entry: (entry / "manifest.json").unlink(),
    "a link for the manifest": lambda entry: link(entry, "manifest.json"),
    "a pipe for the manifest": lambda entry: replace(entry, os.mkfifo, "manifest.json"),
    "an empty manifest": lambda entry: write_manifest(entry, b""),
    "a manifest that isn't text": lambda entry: write_manifest(entry, b"\xff\xfe"),
    "a manifest of another kind": lambda entry: write_manifest(entry, b"[1, 2]"),
    "a deep manifest": lambda entry: write_manifest(entry, b"[" * 100_000),
    "a manifest without environment": lambda entry: drop(entry, "environment"),
    "a manifest without its place": lambda entry: drop(entry, "made_in"),
    "inputs of another kind": lambda entry: change(entry, inputs=5),
    "outputs of another kind": lambda entry: change(entry, outputs=["metrics.jsonl", WEIGHTS]),
    "a digest of another kind": lambda entry: change_outputs(entry, **{WEIGHTS: 5}),
    "not a number": lambda entry: write_manifest(
        entry, (entry / "manifest.json").read_bytes().replace(b"1.5", b"NaN")
    ),
    "a lone surrogate": lambda entry: write_manifest(
        entry, (entry / "manifest.json").read_bytes().replace(b'"threads"', b'"\\ud800"')
    ),
    "a manifest of another version": lambda entry: change(entry, code="d"),
    "an output too many": lambda entry: change_outputs(entry, more="a" * 64),
    "an output of another name": lambda entry: rename_output(entry, "model/weights.bin"),
    "an output outside": lambda entry: rename_output(entry, "../../../escaped"),
    "an absolute output": lambda entry: rename_output(entry, str(Path("escaped").absolute())),
    "a file for the entry": become_a_file,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_entry_is_logged_removed_and_made_again(damage, caplog, project):
    entry = store()
    damage(entry)
    assert restore(entry) is None
    (message,) = caplog.messages
    assert message.startswith(f"{entry}: damaged: ")
    assert message.endswith("; deleting it and running its stage again")
    assert files_below(entry) == []
    assert not os.path.lexists(entry)
    assert list(CACHE.iterdir()) == [], "nothing is left beside it"
    # Files restored before the damage was found are intact.
    for path in files_below("results"):
        assert Path(path).read_bytes() == CONTENTS[path]
    assert {path.name for path in project.iterdir()} == {"results", ".nanogpt"}
    assert {path.name for path in project.parent.iterdir()} == {"project"}
    store()
    assert_restored(restore(entry))


def test_an_entry_with_other_outputs_is_not_restored():
    entry = store()
    assert cache.restore(HERE, entry.name, {"metrics.jsonl": "results/demo/metrics.jsonl"}) is None
    assert files_below("results") == []


@pytest.mark.parametrize("found", [2, 0, -1, "1", None, 1.0, True, [1]], ids=repr)
def test_an_entry_of_an_unknown_format_is_logged_and_left_alone(caplog, found):
    entry = store()
    change(entry, format=found)
    before = {path: path.stat().st_mtime_ns for path in [entry, *entry.rglob("*")]}
    assert restore(entry) is None
    assert caplog.messages == [
        f"{entry}: can't be read: manifest.json: format {json.dumps(found)}, but this version of "
        "nanogpt reads formats up to 1; upgrade nanogpt, or delete it; running its stage again"
    ]
    assert files_below("results") == []
    store()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [path.name for path in CACHE.iterdir()] == [entry.name]


def test_a_restore_that_fails_halfway_keeps_the_existing_file():
    entry = store()
    flip_a_bit(entry)
    make(dict.fromkeys(CONTENTS, b"earlier"))
    assert restore(entry) is None
    assert Path("results/demo/model/model.safetensors").read_bytes() == b"earlier"
    assert files_below("results") == sorted(CONTENTS)


# --- Caches that cannot be used -------------------------------------------------------------

AS_ANOTHER = """
import json, logging, os, sys
from nanogpt.artifacts import cache
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.project import HERE
logging.basicConfig(format="%(message)s")
if os.getuid() == 0:
    os.seteuid(65534)  # permissions hold for another user than root only
manifest, outputs = Manifest.model_validate_json(sys.argv[1]), json.loads(sys.argv[2])
print("restored" if cache.restore(HERE, manifest.version, outputs) else "not restored")
cache.store(HERE, manifest, outputs)
"""


def run_as_another(manifest):
    """Restore and store as a user who owns nothing; return the output and the log."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    # Another user can't write this user's coverage file.
    own = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            AS_ANOTHER,
            manifest.model_dump_json(exclude_unset=True),
            json.dumps(OUTPUTS),
        ],
        env={**own, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip(), ended.stderr


@pytest.fixture
def open_project(monkeypatch):
    """A project that others can write to, outside pytest's directories, which they can't enter."""
    with tempfile.TemporaryDirectory() as project:
        monkeypatch.chdir(project)
        for directory in (Path("results/demo/model"), CACHE):
            directory.mkdir(parents=True)
        for directory in [Path(), *Path().rglob("*")]:
            directory.chmod(0o777)
        yield Path(project)
        CACHE.chmod(0o777)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="there are no users here")
@pytest.mark.parametrize("mode", [0o555, 0o444, 0o000], ids=["no writing", "no entry", "nothing"])
@pytest.mark.usefixtures("open_project")
def test_a_cache_that_cannot_be_written_to_is_only_logged(mode):
    manifest = make()
    CACHE.chmod(mode)
    printed, log = run_as_another(manifest)
    assert printed == "not restored"
    assert log == f"{CACHE}: not stored in the cache: Permission denied\n"
    CACHE.chmod(0o777)
    assert list(CACHE.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="there are no users here")
@pytest.mark.usefixtures("open_project")
def test_another_users_cache_can_be_restored_from():
    manifest = make()
    cache.store(HERE, manifest, OUTPUTS)
    for path in CONTENTS:
        Path(path).unlink()
    CACHE.chmod(0o555)
    assert run_as_another(manifest) == ("restored", "")
    assert_outputs()


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="there are no users here")
@pytest.mark.usefixtures("open_project")
def test_another_users_damaged_entry_is_logged_and_skipped():
    manifest = make()
    cache.store(HERE, manifest, OUTPUTS)
    flip_a_bit(CACHE / manifest.version)
    CACHE.chmod(0o555)
    printed, log = run_as_another(manifest)
    assert printed == "not restored"
    assert "damaged: model.safetensors has the wrong sha256: " in log
    assert f"{CACHE / manifest.version}: can't be deleted: Permission denied" in log
    assert (CACHE / manifest.version / "manifest.json").exists()


@pytest.mark.parametrize("content", [b"a file", None], ids=["a file", "below a file"])
def test_a_file_instead_of_the_cache_is_only_logged(content, caplog, monkeypatch):
    Path("file").write_bytes(b"a file")
    monkeypatch.setenv("NANOGPT_CACHE", "file" if content else "file/cache")
    manifest = make()
    assert cache.restore(HERE, manifest.version, OUTPUTS) is None
    cache.store(HERE, manifest, OUTPUTS)
    (message,) = caplog.messages
    assert "not stored in the cache: " in message
    assert Path("file").read_bytes() == b"a file"


def test_a_vanished_output_is_logged_and_leaves_nothing_in_the_cache(caplog):
    manifest = make()
    Path("results/demo/model/model.safetensors").unlink()
    cache.store(HERE, manifest, OUTPUTS)
    assert caplog.messages == [f"{CACHE}: not stored in the cache: No such file or directory"]
    assert list(CACHE.iterdir()) == []


# --- Concurrency ----------------------------------------------------------------------------

MANY = """
import json, logging, os, sys
from nanogpt.artifacts import cache
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.project import HERE
logging.basicConfig(format="%(message)s")
manifest, outputs = Manifest.model_validate_json(sys.argv[1]), json.loads(sys.argv[2])
for number in range(8):
    if os.fork() == 0:
        copies = {name: f"copy{number}/{name}" for name in outputs}
        for _ in range(10):
            cache.store(HERE, manifest, outputs)
            if not cache.restore(HERE, manifest.version, copies):
                os._exit(1)
        os._exit(0)
print(sum(os.waitpid(-1, 0)[1] for number in range(8)))
"""


def test_many_processes_can_store_and_restore_one_version_at_the_same_time():
    manifest = make()
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            MANY,
            manifest.model_dump_json(exclude_unset=True),
            json.dumps(OUTPUTS),
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (ended.stdout, ended.stderr) == ("0\n", "")
    for number in range(8):
        for name, original in OUTPUTS.items():
            assert (Path(f"copy{number}") / name).read_bytes() == Path(original).read_bytes()
    assert [path.name for path in CACHE.iterdir()] == [manifest.version]


def test_files_left_by_a_killed_process_are_not_an_entry(caplog):
    left = CACHE / ".0123456789ab.x7f3" / "entry"
    left.mkdir(parents=True)
    (left / "manifest.json").write_text("{")
    with caplog.at_level(logging.INFO):
        assert_restored(restore(store()))
    assert caplog.messages == []
