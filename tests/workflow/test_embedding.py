"""The workflow works in any directory and for any caller, with the same results.

Callers share results: in the same directory nothing is rerun, and in another one results come from
the cache.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nanogpt import __version__
from nanogpt.config.loading import read
from nanogpt.config.resolving import resolve_run
from tests.checkouts import PROJECT, copy_checkout, own_environment
from tests.sharing import made_once
from tests.workflow.projects import (
    CONFIG,
    PAGE,
    Computed,
    error_of,
    make,
    planned,
    replacement,
    setting,
    snakemake,
    write_essays,
)

pytestmark = pytest.mark.slow

GIT_USER = ("-c", "user.name=Ada", "-c", "user.email=ada@host.example")

SAMPLES = "results/one/samples.txt"
EVAL = "results/one/eval.json"
BENCH = "results/one/bench.json"

# From workflow/report/samples.rst, as shown in Snakemake's own report.
CAPTION = "with the settings that were used"

# The workflow/Snakefile that snakedeploy writes.
DEPLOYED = """
from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


# declare https://host.example/lab/nanogpt as a module
module nanogpt:
    snakefile:
        "{snakefile}"
    config:
        config


# use all rules from https://host.example/lab/nanogpt
use rule * from nanogpt
"""

CALLER = """
configfile: "config.yaml"


rule ours:
    input: "results/one/samples.txt"


module nanogpt:
    snakefile: "{snakefile}"
    config: config


use rule * from nanogpt{renamed}
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another copy of the workflow, with its package."""
    return copy_checkout(tmp_path_factory.mktemp("elsewhere") / "moved checkout")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package installed from its wheel."""

    def install(directory: Path) -> None:
        source = directory / "source"
        source.mkdir(parents=True)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(PROJECT / name, source)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / "nanogpt", source / "nanogpt", ignore=ignored)
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
        target = ["--target", str(directory / "packages"), str(source)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *target], check=True)

    return made_once(tmp_path_factory, "installed", install) / "packages"


@pytest.fixture(scope="module")
def without_package(elsewhere: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow as on a Git host, without the package next to it."""
    root = tmp_path_factory.mktemp("host") / "workflow copy"
    shutil.copytree(elsewhere, root, ignore=shutil.ignore_patterns("nanogpt"))
    return root


def deploy(directory: Path, workflow: Path) -> Path:
    """Write the directory that snakedeploy writes, for a workflow in a local directory."""
    for name in ("config", "profiles"):
        shutil.copytree(PROJECT / name, directory / name)
    (directory / "workflow").mkdir()
    snakefile = workflow / "workflow/Snakefile"
    (directory / "workflow/Snakefile").write_text(DEPLOYED.format(snakefile=snakefile))
    return directory


def work_directory(directory: Path, config: object = CONFIG) -> Path:
    """Create a directory with only settings and texts."""
    write_essays(directory)
    (directory / "resources/texts").mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return directory


def caller(directory: Path, checkout: Path, renamed: str = "") -> str:
    """Write a user's workflow that uses a checkout's workflow as a module."""
    text = CALLER.format(snakefile=checkout / "Snakefile", renamed=renamed)
    (directory / "caller.smk").write_text(text)
    return str(directory / "caller.smk")


# --- The same workflow for every caller -----------------------------------------------------


def test_moving_a_checkout_reruns_nothing(done_project: Path, elsewhere: Path) -> None:
    assert planned(done_project, "--snakefile", str(elsewhere / "Snakefile")) == {}


def test_a_work_directory_can_be_named_on_the_command_line(
    done_project: Path, elsewhere: Path
) -> None:
    assert planned(elsewhere, "--directory", str(done_project)) == {}
    assert planned(elsewhere, "-s", "workflow/Snakefile", "-d", str(done_project)) == {}


@pytest.mark.parametrize("renamed", ["", " as gpt_*"])
def test_using_the_workflow_as_a_module_reruns_nothing(
    project: Path, elsewhere: Path, renamed: str
) -> None:
    snakefile = caller(project, elsewhere, renamed)
    assert planned(project, "--snakefile", snakefile, PAGE) == {}
    assert planned(project, "--snakefile", snakefile, SAMPLES, EVAL) == {}
    make(project, "--snakefile", snakefile, "--report", "workflow.html", "--", PAGE)
    assert CAPTION in (project / "workflow.html").read_text()


def changing_caller(directory: Path, checkout: Path, used: str, changed: str) -> str:
    """Write a user's workflow that uses some rules and then one with changes."""
    snakefile = Path(directory, caller(directory, checkout))
    used_all = "use rule * from nanogpt"
    text = snakefile.read_text()
    assert used_all in text
    snakefile.write_text(text.replace(used_all, f"use rule {used}\n\n\nuse rule {changed}\n"))
    return str(snakefile)


@pytest.mark.parametrize(
    ("used", "changed", "targets"),
    [
        ("prepare, eval from nanogpt", "sample from nanogpt", [SAMPLES, EVAL]),
        ("* from nanogpt", "sample from nanogpt", [SAMPLES, EVAL]),
        ("* from nanogpt", "bench from nanogpt", [BENCH]),
        ("* from nanogpt as gpt_*", "bench from nanogpt as gpt_bench", [BENCH]),
    ],
)
def test_a_caller_can_use_some_rules_or_change_one(
    project: Path, elsewhere: Path, used: str, changed: str, targets: list[str]
) -> None:
    snakefile = changing_caller(project, elsewhere, used, f"{changed} with:\n    threads: 1")
    assert planned(project, "--snakefile", snakefile, *targets) == {}


def test_settings_of_the_callers_own_workflow_are_not_checked(
    project: Path, elsewhere: Path
) -> None:
    snakefile = Path(project, caller(project, elsewhere, ""))
    text = snakefile.read_text()
    assert "config: config" in text
    snakefile.write_text(text.replace("config: config", 'config: config["nanogpt"]'))
    ours = yaml.safe_load((project / "config.yaml").read_text())
    own = "umask: 0022\nwalltime: 12:30:00\n"
    (project / "config.yaml").write_text(own + yaml.safe_dump({"nanogpt": ours}, sort_keys=False))
    assert planned(project, "--snakefile", str(snakefile), PAGE) == {}


def test_a_deployed_workflow_without_its_package_reruns_nothing(
    project: Path, without_package: Path, installed: Path
) -> None:
    shutil.rmtree(project / "workflow")
    for name in ("nanogpt", "profiles"):
        shutil.rmtree(project / name)
    (project / "Snakefile").unlink()
    deploy(project, without_package)
    (project / "config.yaml").replace(project / "config/config.yaml")
    assert planned(project, PYTHONPATH=str(installed)) == {}


def test_a_workflow_on_a_git_host_reruns_nothing(
    project: Path, without_package: Path, installed: Path, tmp_path: Path
) -> None:
    hosted = Path(shutil.copytree(without_package, tmp_path / "hosted"))
    for command in ("init --quiet", "add .", "commit --quiet --message=x", "tag v1"):
        subprocess.run(["git", *GIT_USER, *command.split()], cwd=hosted, check=True)
    # Snakemake looks here before it contacts the host.
    clones = tmp_path / "cache/snakemake/snakemake/source-cache/snakemake-git-cache"
    clone = ["git", "clone", "--quiet", "--bare", str(hosted), str(clones / "github.com/lab/plays")]
    subprocess.run(clone, check=True)
    (project / "hosted.smk").write_text(
        'configfile: "config.yaml"\n\n\nmodule nanogpt:\n'
        '    snakefile: github("lab/plays", path="workflow/Snakefile", tag="v1")\n'
        "    config: config\n\n\nuse rule * from nanogpt\n"
    )
    replacement("profiles/default/config.yaml", "shared-fs-usage:", "# ")(project)
    environment = {"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert planned(project, "--snakefile", "hosted.smk", PAGE, **environment) == {}
    (project / "results/one/samples.txt").unlink()
    make(project, "--snakefile", "hosted.smk", "results/one/samples.txt", **environment)


# --- Complete runs ----------------------------------------------------------------------------


def test_a_separate_work_directory_works_up_to_the_report(
    computed: Computed, elsewhere: Path, tmp_path: Path
) -> None:
    directory = work_directory(tmp_path / "work", {**CONFIG, "report": {"runs": ["one"]}})
    options = ("--snakefile", str(elsewhere / "Snakefile"), "--directory", str(directory))
    run = make(tmp_path, *options, NANOGPT_CACHE=str(computed.cache))
    assert "train one: " in run.stderr
    assert run.stderr.count("(from the cache)") == 6, "all but curves, speed and report"
    assert "one" in (directory / PAGE).read_text()
    run = make(tmp_path, *options)
    assert "Nothing to be done" in run.stdout + run.stderr
    make(tmp_path, *options, "--report", "workflow.html")
    assert CAPTION in (directory / "workflow.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["work"], "nothing is written elsewhere"


def test_a_renamed_module_reuses_other_callers_results_from_the_cache(
    computed: Computed, elsewhere: Path, tmp_path: Path
) -> None:
    directory = work_directory(tmp_path / "work")
    snakefile = caller(directory, elsewhere, " as gpt_*")
    run = make(directory, "--snakefile", snakefile, NANOGPT_CACHE=str(computed.cache))
    assert "rule gpt_train:" in run.stderr
    assert run.stderr.count("(from the cache)") == 4, "text, dataset, model, samples"
    assert (directory / SAMPLES).exists(), "the caller's own first rule is the target"
    assert not (directory / EVAL).exists()


def test_a_deployed_template_works_with_an_installed_package(
    without_package: Path, installed: Path, tmp_path: Path
) -> None:
    directory = deploy(tmp_path / "deployed", without_package)
    text = "resources/texts/mine.txt"
    (directory / text).parent.mkdir(parents=True)
    (directory / text).write_text("It was a bright cold day in April.\n" * 100)
    steps = "train={max_iters: 2, warmup_iters: 1, eval_iters: 1, batch_size: 1}"
    sample = "sample={num_samples: 1, max_new_tokens: 8}"
    path = {"PYTHONPATH": str(installed)}
    options = ("--config", steps, sample, "--", "results/mine/samples.txt")
    make(directory, *options, **path)
    assert (directory / "results/mine/samples.txt").exists()


def test_a_deployed_template_makes_its_report_unless_told_otherwise(
    without_package: Path, installed: Path, tmp_path: Path
) -> None:
    directory = deploy(tmp_path / "deployed", without_package)
    assert planned(directory, PYTHONPATH=str(installed))["bench_report"] == 1


def test_the_template_has_the_demo_of_the_shipped_config() -> None:
    template, shipped = (read(PROJECT / path) for path in ("config/config.yaml", "config.yaml"))
    assert resolve_run(template, "demo") == resolve_run(shipped, "demo")


# --- Errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [None, "0.9.0"])
def test_a_package_of_another_version_is_an_error(
    without_package: Path, tmp_path: Path, version: str | None
) -> None:
    directory = work_directory(tmp_path / "work")
    package = tmp_path / "packages/nanogpt"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__version__ = '{version}'\n" if version else "")
    snakefile = str(without_package / "Snakefile")
    run = snakemake(directory, "-n", "-s", snakefile, PYTHONPATH=str(package.parent))
    error = error_of(run)
    assert f"needs nanogpt {__version__}, but {version or 'no version'} is installed" in error
    assert "pip install" in error


def test_changed_resources_without_those_of_the_rule_are_an_error(
    project: Path, elsewhere: Path
) -> None:
    changed = "train from nanogpt with:\n    resources:\n        mem_mb=8000"
    snakefile = changing_caller(project, elsewhere, "* from nanogpt", changed)
    error = error_of(snakemake(project, "-n", "--snakefile", snakefile, SAMPLES))
    assert "`train` has no resource `processes`; set resources in your profile" in error


# --- Unusual users ----------------------------------------------------------------------------

# Python runs this file at its start. It makes the user id unknown to the list of users.
NAMELESS = """
import pwd

def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = getpwuid
"""


def test_the_workflow_runs_for_a_user_without_name_and_home(
    computed: Computed, elsewhere: Path, tmp_path: Path
) -> None:
    directory = work_directory(tmp_path / "work")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(NAMELESS)
    environment = own_environment(
        PYTHONPATH=str(tmp_path / "site"),
        NANOGPT_CACHE=str(computed.cache),
        HOME="/dev/null/home",
        XDG_CACHE_HOME="/dev/null/cache",
    )
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "-d", str(directory), SAMPLES]
    run = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (directory / SAMPLES).exists()


def test_the_workflow_runs_without_docstrings_and_assertions(done_project: Path) -> None:
    environment = own_environment(PYTHONOPTIMIZE="2", PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-m", "snakemake", "-n"]
    run = subprocess.run(command, cwd=done_project, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Nothing to be done" in run.stdout + run.stderr


# --- Long names -------------------------------------------------------------------------------


def long_name(length: int, first: str) -> str:
    """Return a name with this length and no repetition, because Snakemake refuses repetition."""
    return (first + "".join(map(str, range(100, 200))))[:length]


def test_names_can_be_as_long_as_file_names(
    computed: Computed, elsewhere: Path, tmp_path: Path
) -> None:
    run, dataset, corpus = (long_name(255, letter) for letter in "rdc")
    config = {
        **CONFIG,
        "corpora": {corpus: CONFIG["corpora"]["play"]},
        "datasets": {dataset: {"corpus": corpus}},
        "runs": {run: {"dataset": dataset}},
        "report": {"runs": []},
    }
    directory = work_directory(tmp_path / "work", config)
    options = ("--snakefile", str(elsewhere / "Snakefile"), "--directory", str(directory))
    samples = f"results/{run}/samples.txt"
    make(tmp_path, *options, samples, NANOGPT_CACHE=str(computed.cache))
    assert run in (directory / samples).read_text()
    assert planned(tmp_path, *options, samples) == {}


def test_a_too_long_name_is_found_before_any_job_starts(essays: Path) -> None:
    name = "r" * 256
    setting("runs", name, value={"dataset": "play"})(essays)
    assert "is 256 bytes long, but 255 is the most" in error_of(
        snakemake(essays, f"results/{name}/samples.txt")
    )


def test_a_text_can_have_the_longest_possible_name(essays: Path) -> None:
    name = long_name(255 - len(".txt"), "t")
    (essays / f"resources/texts/{name}.txt").write_text("It was a bright cold day.\n" * 40)
    target = f"results/datasets/{name}/meta.json"
    make(essays, target)
    assert (essays / target).exists()
