"""All paths start at a project's root; environment variables are read in one place."""

import ast
import getpass
import os
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

from nanogpt import project as project_module
from nanogpt.errors import UserError
from nanogpt.project import HERE, Project

ROOT = Path(__file__).resolve().parents[1]
# project.py is where both may be.
MODULES = sorted(set((ROOT / "nanogpt").rglob("*.py")) - {ROOT / "nanogpt/project.py"})
each_module = pytest.mark.parametrize(
    "module", MODULES, ids=lambda path: str(path.relative_to(ROOT))
)

PATHS = {
    "config_file": "config.yaml",
    "texts": "resources/texts",
    "fragments": "resources/config",
    "fragments_lock": ".nanogpt/config",
    "corpora": "resources/corpora",
    "downloaded_models": "resources/models",
    "imported_models": "resources/imported",
    "gpt2_merges": "resources/tokenizers/gpt2/vocab.bpe",
    "results": "results",
    "datasets": "results/datasets",
    "states": ".nanogpt/state",
    "claims": ".nanogpt/runs",
    "jobs": ".nanogpt/jobs",
    "invocations": ".nanogpt/invocations",
    "code": ".nanogpt/code",
    "snakemake_locks": ".snakemake/locks",
    "rule_records": ".snakemake/metadata",
    "unfinished_records": ".snakemake/incomplete",
    "workflow": "workflow",
    "cache": ".nanogpt/cache",
}


# --- Paths ----------------------------------------------------------------------------------


def test_every_path_of_a_project_is_checked_here():
    properties = {name for name, value in vars(Project).items() if isinstance(value, property)}
    assert properties == set(PATHS)


@pytest.mark.parametrize(("name", "path"), PATHS.items(), ids=PATHS.keys())
def test_paths_of_the_working_directory_are_relative(monkeypatch, name, path):
    monkeypatch.delenv("NANOGPT_CACHE", raising=False)
    assert getattr(HERE, name) == Path(path)
    assert str(getattr(Project(), name)) == path


@pytest.mark.parametrize(("name", "path"), PATHS.items(), ids=PATHS.keys())
@pytest.mark.parametrize("root", ["/srv/plays", "../plays"])
def test_paths_start_at_the_root(monkeypatch, name, path, root):
    monkeypatch.delenv("NANOGPT_CACHE", raising=False)
    assert getattr(Project(Path(root)), name) == Path(root) / path


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (None, "/srv/.nanogpt/cache"),
        ("", "/srv/.nanogpt/cache"),
        ("off", None),
        ("../shared", "/srv/../shared"),
        ("/group/cache", "/group/cache"),
    ],
    ids=["unset", "empty", "off", "a relative path", "an absolute path"],
)
def test_the_cache_is_where_the_environment_says(monkeypatch, value, path):
    monkeypatch.delenv("NANOGPT_CACHE", raising=False)
    if value is not None:
        monkeypatch.setenv("NANOGPT_CACHE", value)
    assert Project(Path("/srv")).cache == (path and Path(path))


# --- Environment variables ------------------------------------------------------------------


@pytest.mark.parametrize(("value", "mirror"), [(None, None), ("", None), ("/files", "/files")])
def test_a_mirror_is_set_or_none(monkeypatch, value, mirror):
    monkeypatch.delenv("NANOGPT_MIRROR", raising=False)
    if value is not None:
        monkeypatch.setenv("NANOGPT_MIRROR", value)
    assert project_module.mirror() == mirror


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), ("60", 60.0), ("0", 0.0), ("0.5", 0.5), ("1e3", 1000.0)]
)
def test_an_interval_between_saved_states_is_a_number_of_seconds(monkeypatch, value, seconds):
    monkeypatch.delenv("NANOGPT_SAVE_INTERVAL", raising=False)
    if value is not None:
        monkeypatch.setenv("NANOGPT_SAVE_INTERVAL", value)
    assert project_module.save_interval() == seconds


@pytest.mark.parametrize("value", ["", "often", "-1", "nan", "1 min"])
def test_an_interval_that_is_not_a_number_of_seconds_is_an_error(monkeypatch, value):
    monkeypatch.setenv("NANOGPT_SAVE_INTERVAL", value)
    with pytest.raises(UserError) as error:
        project_module.save_interval()
    assert str(error.value) == (
        f"NANOGPT_SAVE_INTERVAL: `{value}` isn't a number of seconds; use 60, for example"
    )


@pytest.mark.parametrize(("value", "seconds"), [(None, 600.0), ("4", 4.0), ("0.5", 0.5)])
def test_ranks_wait_for_each_other_for_a_number_of_seconds(monkeypatch, value, seconds):
    monkeypatch.delenv("NANOGPT_RANK_TIMEOUT", raising=False)
    if value is not None:
        monkeypatch.setenv("NANOGPT_RANK_TIMEOUT", value)
    assert project_module.rank_timeout() == seconds


@pytest.mark.parametrize("value", ["0", "inf", "1e12"])
def test_ranks_wait_for_more_than_no_time_and_not_for_ever(monkeypatch, value):
    monkeypatch.setenv("NANOGPT_RANK_TIMEOUT", value)
    with pytest.raises(UserError, match="NANOGPT_RANK_TIMEOUT: should be more than 0 and at most"):
        project_module.rank_timeout()


@pytest.mark.parametrize("value", [None, "abc", "-1", ""])
def test_what_torchrun_would_not_set_is_an_error(monkeypatch, value):
    torchrun = {"TORCHELASTIC_RUN_ID": "a", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    torchrun |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}
    for name, text in torchrun.items():
        monkeypatch.setenv(name, text)
    assert project_module.start_of_rank().meeting_place == ("here", 29500)
    monkeypatch.delenv("MASTER_PORT")
    if value is not None:
        monkeypatch.setenv("MASTER_PORT", value)
    with pytest.raises(UserError, match="MASTER_PORT: should be a whole number, as torchrun"):
        project_module.start_of_rank()


@pytest.mark.parametrize(("before", "after"), [(None, "FATAL"), ("INFO", "INFO")])
def test_torch_prints_no_stacks_unless_the_user_wants_them(monkeypatch, before, after):
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "")  # so that it's restored afterwards
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL")
    if before:
        monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", before)
    project_module.keep_torch_quiet()
    assert os.environ["TORCH_CPP_LOG_LEVEL"] == after


def test_the_compiler_is_the_one_of_the_environment(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    assert project_module.cxx_compiler() == "g++"
    monkeypatch.setenv("CXX", "clang++")
    assert project_module.cxx_compiler() == "clang++"


def test_variables_that_libraries_read_are_set(monkeypatch):
    names = ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUBLAS_WORKSPACE_CONFIG")
    for name in names:
        monkeypatch.setenv(name, "before")  # so that it's restored afterwards
    project_module.set_tokenizer_threads(3)
    assert [os.environ[name] for name in names] == ["3", "true", "before"]
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    project_module.set_cublas_workspace(":4096:8")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_threads_sleep_soon_unless_the_user_chose_otherwise(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("GOMP_SPINCOUNT", "before")  # so that it's restored afterwards
    monkeypatch.delenv("GOMP_SPINCOUNT")
    project_module.let_threads_sleep()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    project_module.let_threads_sleep()
    assert os.environ["GOMP_SPINCOUNT"] in ("0", "1000", "10000")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    project_module.let_threads_sleep()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_nobody_waits_for_a_look_at_others_if_the_choice_is_made(monkeypatch):
    """It takes a third of a second on a busy machine, of each command and of what it starts."""
    monkeypatch.setattr(project_module, "_n_other_running", lambda: pytest.fail("it looked"))
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        monkeypatch.setenv(name, "7")
        project_module.let_threads_sleep()


def test_what_runs_for_a_moment_only_is_not_counted(monkeypatch):
    loads = iter(["0.1 1.0 1.0 9/77 6854", "0.1 1.0 1.0 4/77 6854", "0.1 1.0 1.0 1/77 6854"])
    monkeypatch.setattr(project_module, "LOAD", SimpleNamespace(read_text=lambda: next(loads)))
    assert project_module._n_other_running() == 0


@pytest.mark.parametrize(
    ("load", "count"),
    [
        ("0.10 1.00 1.00 1/77 6854", "10000"),  # this process alone
        ("0.10 1.00 1.00 2/77 6854", "10000"),  # beside one on eight processors
        ("0.10 1.00 1.00 3/77 6854", "1000"),
        ("0.10 1.00 1.00 8/77 6854", "1000"),
        ("0.10 1.00 1.00 9/77 6854", "0"),  # beside one on each
        ("something else", "10000"),
    ],
)
def test_threads_sleep_sooner_beside_others(monkeypatch, tmp_path, load, count):
    (tmp_path / "loadavg").write_text(load)
    monkeypatch.setattr(project_module, "LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "before")  # so that it's restored afterwards
    monkeypatch.delenv("GOMP_SPINCOUNT")
    project_module.let_threads_sleep()
    assert os.environ["GOMP_SPINCOUNT"] == count


# --- No other module has a path or a variable of its own --------------------------------------

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
WORKING_DIRECTORY = {"cwd", "getcwd", "chdir", "absolute"}


def names_in(tree):
    """Every name and attribute of a module, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.name, node.lineno) for alias in node.names)


@each_module
def test_a_module_reads_no_environment_variable(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    found = [f"line {line}: {name}" for name, line in names_in(tree) if name in ENVIRONMENT]
    assert found == [], "project.py is the one place for environment variables"


# --- Settings where snakedeploy puts them -----------------------------------------------------


def test_settings_of_a_deployed_workflow_are_in_its_config_directory(tmp_path):
    for name in ("config/config.yaml", "workflow/Snakefile"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    project = Project(tmp_path)
    assert project.config_file == tmp_path / "config/config.yaml"
    assert Project.of(project.config_file) == project
    (tmp_path / "config.yaml").touch()
    assert project.config_file == tmp_path / "config.yaml"
    assert Project.of(project.config_file) == project


def test_a_project_may_be_called_config(tmp_path):
    project = Project(tmp_path / "config")
    assert Project.of(project.config_file) == project


# --- The user ----------------------------------------------------------------------------------


def test_a_user_id_without_a_name_gets_one(monkeypatch):
    def find(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", find)
    project_module.name_user()
    assert getpass.getuser() == f"uid-{os.getuid()}"


def test_a_user_keeps_a_name(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    project_module.name_user()
    assert getpass.getuser() == "ada"


@each_module
def test_a_module_does_not_ask_for_the_working_directory(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    found = [f"line {line}: {name}" for name, line in names_in(tree) if name in WORKING_DIRECTORY]
    assert found == [], "paths start at the root of a Project"


def text_of(node):
    """The text that a constant or an f-string begins with, None for what isn't known."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr) and node.values:
        return text_of(node.values[0])
    return None


@each_module
def test_a_module_has_no_path_relative_to_the_working_directory(module):
    found = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id not in ("Path", "PurePath", "PosixPath"):
            continue
        # Path() is the working directory itself.
        text = text_of(node.args[0]) if node.args else "."
        if text is not None and not PurePosixPath(text).is_absolute():
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    assert found == [], "paths start at the root of a Project"
