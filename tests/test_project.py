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
# Only project.py may have both.
MODULES = sorted(set((ROOT / "nanogpt").rglob("*.py")) - {ROOT / "nanogpt/project.py"})
each_module = pytest.mark.parametrize(
    "module", MODULES, ids=lambda path: str(path.relative_to(ROOT))
)

PATHS = {
    "config_file": "config.yaml",
    "profile": "profiles/default/config.yaml",
    "resources": "resources",
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
    "served": ".nanogpt/serve",
    "run_index": ".nanogpt/index.sqlite",
    "verified": ".nanogpt/verified.json",
    "invocations": ".nanogpt/invocations",
    "code": ".nanogpt/code",
    "snakemake_locks": ".snakemake/locks",
    "rule_records": ".snakemake/metadata",
    "unfinished_records": ".snakemake/incomplete",
    "workflow": "workflow",
    "cache": ".nanogpt/cache",
}


# --- Paths ----------------------------------------------------------------------------------


def test_every_path_of_a_project_is_tested():
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
def test_cache_directory_comes_from_the_environment(monkeypatch, value, path):
    monkeypatch.delenv("NANOGPT_CACHE", raising=False)
    if value is not None:
        monkeypatch.setenv("NANOGPT_CACHE", value)
    assert Project(Path("/srv")).cache == (path and Path(path))


# --- Environment variables ------------------------------------------------------------------


@pytest.mark.parametrize(("value", "mirror"), [(None, None), ("", None), ("/files", "/files")])
def test_mirror_comes_from_the_environment(monkeypatch, value, mirror):
    monkeypatch.delenv("NANOGPT_MIRROR", raising=False)
    if value is not None:
        monkeypatch.setenv("NANOGPT_MIRROR", value)
    assert project_module.mirror() == mirror


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), ("60", 60.0), ("0", 0.0), ("0.5", 0.5), ("1e3", 1000.0)]
)
def test_save_interval_is_a_number_of_seconds(monkeypatch, value, seconds):
    monkeypatch.delenv("NANOGPT_SAVE_INTERVAL", raising=False)
    if value is not None:
        monkeypatch.setenv("NANOGPT_SAVE_INTERVAL", value)
    assert project_module.save_interval() == seconds


@pytest.mark.parametrize("value", ["", "often", "-1", "nan", "1 min"])
def test_invalid_save_interval_is_an_error(monkeypatch, value):
    monkeypatch.setenv("NANOGPT_SAVE_INTERVAL", value)
    with pytest.raises(UserError) as error:
        project_module.save_interval()
    assert str(error.value) == (
        f"NANOGPT_SAVE_INTERVAL: should be a number of seconds, such as 60 (found `{value}`)"
    )


@pytest.mark.parametrize(("value", "seconds"), [(None, 600.0), ("4", 4.0), ("0.5", 0.5)])
def test_rank_timeout_is_a_number_of_seconds(monkeypatch, value, seconds):
    monkeypatch.delenv("NANOGPT_RANK_TIMEOUT", raising=False)
    if value is not None:
        monkeypatch.setenv("NANOGPT_RANK_TIMEOUT", value)
    assert project_module.rank_timeout() == seconds


@pytest.mark.parametrize("value", ["0", "inf", "1e12"])
def test_rank_timeout_out_of_range_is_an_error(monkeypatch, value):
    monkeypatch.setenv("NANOGPT_RANK_TIMEOUT", value)
    with pytest.raises(UserError, match="NANOGPT_RANK_TIMEOUT: should be more than 0 and up to"):
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
    with pytest.raises(UserError, match="MASTER_PORT: should be a whole number, set by torchrun"):
        project_module.start_of_rank()


@pytest.mark.parametrize(("before", "after"), [(None, "FATAL"), ("INFO", "INFO")])
def test_torch_prints_no_stacks_unless_the_user_wants_them(monkeypatch, before, after):
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "")  # so that it's restored afterwards
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL")
    if before:
        monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", before)
    project_module.keep_torch_quiet()
    assert os.environ["TORCH_CPP_LOG_LEVEL"] == after


def test_compiler_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    assert project_module.cxx_compiler() == "g++"
    monkeypatch.setenv("CXX", "clang++")
    assert project_module.cxx_compiler() == "clang++"


def test_library_variables_are_set(monkeypatch):
    names = ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUBLAS_WORKSPACE_CONFIG")
    for name in names:
        monkeypatch.setenv(name, "before")  # so that monkeypatch restores it
    project_module.set_tokenizer_threads(3)
    assert [os.environ[name] for name in names] == ["3", "true", "before"]
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    project_module.set_cublas_workspace(":4096:8")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_threads_sleep_sooner_unless_the_user_set_it(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("GOMP_SPINCOUNT", "before")  # so that monkeypatch restores it
    monkeypatch.delenv("GOMP_SPINCOUNT")
    project_module.let_threads_sleep()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    project_module.let_threads_sleep()
    assert os.environ["GOMP_SPINCOUNT"] in ("0", "1000", "10000")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    project_module.let_threads_sleep()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_load_is_not_checked_if_the_user_set_it(monkeypatch):
    """The check takes a third of a second on a busy machine, in each command and its children."""
    monkeypatch.setattr(project_module, "_n_other_running", lambda: pytest.fail("it looked"))
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        monkeypatch.setenv(name, "7")
        project_module.let_threads_sleep()


def test_short_lived_threads_are_not_counted(monkeypatch):
    loads = iter(["0.1 1.0 1.0 9/77 6854", "0.1 1.0 1.0 4/77 6854", "0.1 1.0 1.0 1/77 6854"])
    monkeypatch.setattr(project_module, "LOAD", SimpleNamespace(read_text=lambda: next(loads)))
    assert project_module._n_other_running() == 0


@pytest.mark.parametrize(
    ("load", "count"),
    [
        ("0.10 1.00 1.00 1/77 6854", "10000"),  # this process alone
        ("0.10 1.00 1.00 2/77 6854", "10000"),  # one other thread on eight processors
        ("0.10 1.00 1.00 3/77 6854", "1000"),
        ("0.10 1.00 1.00 8/77 6854", "1000"),
        ("0.10 1.00 1.00 9/77 6854", "0"),  # one other thread per processor
        ("something else", "10000"),
    ],
)
def test_threads_sleep_sooner_on_a_busy_machine(monkeypatch, tmp_path, load, count):
    (tmp_path / "loadavg").write_text(load)
    monkeypatch.setattr(project_module, "LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "before")  # so that monkeypatch restores it
    monkeypatch.delenv("GOMP_SPINCOUNT")
    project_module.let_threads_sleep()
    assert os.environ["GOMP_SPINCOUNT"] == count


# --- No other module has its own paths or variables -------------------------------------------

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
WORKING_DIRECTORY = {"cwd", "getcwd", "chdir", "absolute"}


def names_in(tree):
    """Yield every name and attribute in a module, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.name, node.lineno) for alias in node.names)


@each_module
def test_module_reads_no_environment_variable(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    found = [f"line {line}: {name}" for name, line in names_in(tree) if name in ENVIRONMENT]
    assert found == [], "project.py is the one place for environment variables"


# --- Projects made by snakedeploy -------------------------------------------------------------


def test_deployed_workflow_has_its_config_in_config_yaml(tmp_path):
    for name in ("config/config.yaml", "workflow/Snakefile"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    project = Project(tmp_path)
    assert project.config_file == tmp_path / "config/config.yaml"
    assert Project.of(project.config_file) == project
    (tmp_path / "config.yaml").touch()
    assert project.config_file == tmp_path / "config.yaml"
    assert Project.of(project.config_file) == project


def test_project_directory_can_be_named_config(tmp_path):
    project = Project(tmp_path / "config")
    assert Project.of(project.config_file) == project


# --- The user ----------------------------------------------------------------------------------


def test_user_id_without_a_name_gets_one(monkeypatch):
    def find(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", find)
    project_module.name_user()
    assert getpass.getuser() == f"uid-{os.getuid()}"


def test_user_name_is_kept(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    project_module.name_user()
    assert getpass.getuser() == "ada"


@each_module
def test_module_does_not_use_the_working_directory(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    found = [f"line {line}: {name}" for name, line in names_in(tree) if name in WORKING_DIRECTORY]
    assert found == [], "paths start at the root of a Project"


def text_of(node):
    """Return the start of a constant or f-string; None if it isn't known."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr) and node.values:
        return text_of(node.values[0])
    return None


@each_module
def test_module_has_no_path_relative_to_the_working_directory(module):
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
