"""A full or unwritable disk is reported in one line, and a rerun gives the same bytes."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.attacks import (
    MADE_LATER,
    PATIENCE,
    Call,
    assert_is_whole,
    environment,
    error_line,
    litter,
    log_of,
    made,
    only_in_full,
    run_trainer,
    run_workflow,
    small_disk,
    start,
    start_trainer,
    start_workflow,
    states,
    train_command,
    wait_for_steps,
)

PAGE = 4096  # bytes; the smallest size of a file on a tmpfs


def assert_nothing_is_half_written(project: Path, untouched: dict[str, object]) -> None:
    """Check that each file with a final name equals the undisturbed run's."""
    found = made(project)
    assert [name for name in found if found[name] != untouched[name]] == []
    assert litter(project) == []


DATASET = "results/datasets/play"

# For each directory that a stage writes to: numbers of free pages, chosen so that each of its
# writes fails once, and that all of them succeed at last.
FREE_PAGES = {
    # The log, 44 pages of train.bin, 5 of val.bin, then small files.
    DATASET: {"short": [], "full": [0, 1, 10, 46, 51, 52]},
    # The lock, run.json, metrics that grow, states of 330 pages.
    ".nanogpt/state": {"short": [200], "full": [0, 1, 2, 500]},
    # The log, two small files, 105 pages of weights, the metrics, the manifest.
    "results/one": {"short": [], "full": [0, 1, 20, 108, 110, 112]},
}
CASES = [
    pytest.param(directory, free, marks=only_in_full if form == "full" else ())
    for directory, forms in FREE_PAGES.items()
    for form, numbers in forms.items()
    for free in numbers
]


@pytest.mark.parametrize(("directory", "free"), CASES)
def test_after_a_full_disk_a_rerun_gives_the_same_bytes(
    project: Path,
    done_project: Path,
    untouched: dict[str, object],
    count: Callable[[str], None],
    directory: str,
    free: int,
) -> None:
    def begin() -> Call:
        if directory == DATASET:
            return start_workflow(project, f"{DATASET}/meta.json")
        return start_trainer(project)

    if directory == DATASET:
        shutil.rmtree(project / DATASET)
    with small_disk(project / directory) as leave:
        leave(free * PAGE)
        call = begin()
        if call.end():
            count("fault")
            assert "disk full" in error_line(call.printed())
            assert_nothing_is_half_written(project, untouched)
        leave(None)
        call = begin()
        assert call.end() == 0, call.printed()
        assert "waiting" not in log_of(project)
        if directory != DATASET:
            assert_is_whole(project, untouched, later=())
        for name in ("train.bin", "val.bin", "tokenizer.json", "meta.json"):
            assert (project / DATASET / name).read_bytes() == (
                done_project / DATASET / name
            ).read_bytes()


@only_in_full
@pytest.mark.parametrize("name", ["eval", "samples"])
@pytest.mark.parametrize("free", [0, 1])
def test_after_a_full_disk_past_training_a_rerun_gives_the_same_bytes(
    done_copy: Path,
    untouched: dict[str, object],
    count: Callable[[str], None],
    name: str,
    free: int,
) -> None:
    (target,) = [f"results/one/{later}" for later in MADE_LATER if name in later]
    for path in (done_copy / "results/one").glob(f"{name.removesuffix('s')}*"):
        path.unlink()
    with small_disk(done_copy / "results/one") as leave:
        leave(free * PAGE)
        call = start_workflow(done_copy, target)
        assert call.end() == 1
        count("fault")
        assert "disk full" in error_line(call.printed())
        assert_nothing_is_half_written(done_copy, untouched)
        leave(None)
        run_workflow(done_copy, target)
        assert_is_whole(done_copy, untouched)


@pytest.mark.parametrize(
    ("what", "largest"),
    [
        # A shorter test for machines where we can't fill a disk.
        pytest.param("the weights", 400_000, marks=only_in_full if os.geteuid() == 0 else ()),
        pytest.param("the metrics", 4_000, marks=only_in_full),
        pytest.param("the state", 1_000_000, marks=only_in_full),
    ],
)
def test_after_a_file_size_limit_a_rerun_gives_the_same_bytes(
    project: Path,
    untouched: dict[str, object],
    count: Callable[[str], None],
    what: str,
    largest: int,
) -> None:
    interval = {"NANOGPT_SAVE_INTERVAL": "0.2" if what == "the state" else "1000"}
    limited = subprocess.run(
        train_command(project),
        cwd=project,
        env=environment(**interval),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    count("fault")
    assert limited.returncode == 1, what
    assert "disk full" in error_line(limited.stdout)
    assert_nothing_is_half_written(project, untouched)
    assert not list(project.glob(".nanogpt/state/*/.state.*"))
    run_trainer(project, **interval)
    assert_is_whole(project, untouched, later=())


@only_in_full
@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_an_unwritable_cache_is_only_a_warning(
    project: Path, untouched: dict[str, object], count: Callable[[str], None], fault: str
) -> None:
    cache = project / ".nanogpt/cache"
    with small_disk(cache) as leave:
        if fault == "full":
            leave(20 * PAGE)
        else:
            command = ["mount", "-o", "remount,ro", str(cache)]
            subprocess.run(command, timeout=PATIENCE, check=True)
        count("fault")
        printed = run_trainer(project, NANOGPT_CACHE=".nanogpt/cache")
        warning, made = printed.splitlines()
        assert warning.startswith("warning: .nanogpt/cache: not stored in the cache: ")
        assert made.startswith("train one: ")
        assert [path.name for path in cache.iterdir() if path.name != ".ballast"] == []
        shutil.rmtree(project / ".nanogpt/runs")
        cache_litter = project / ".nanogpt/cache/.ballast"
        if fault == "full":
            cache_litter.unlink()
        assert_is_whole(project, untouched, later=())


@pytest.fixture
def unprivileged() -> list[str]:
    """Return a prefix for a command that makes permissions apply even to root."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("permissions don't apply to root, and setpriv isn't installed")
    kept = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={kept}", f"--inh-caps={kept}"]


@pytest.mark.parametrize("name", ["results/one", pytest.param(".nanogpt", marks=only_in_full)])
def test_an_unwritable_directory_is_named_in_one_line(
    project: Path,
    untouched: dict[str, object],
    count: Callable[[str], None],
    unprivileged: list[str],
    name: str,
) -> None:
    (project / name).mkdir()
    (project / name).chmod(0o555)
    call = start(project, [*unprivileged, *train_command(project)])
    assert call.end() == 1
    count("fault")
    assert call.printed().count("\n") == 1, call.printed()
    error = error_line(call.printed())
    assert name in error
    assert "permission denied" in error
    assert list((project / name).iterdir()) == []
    (project / name).chmod(0o755)
    run_trainer(project)
    assert_is_whole(project, untouched, later=())


@only_in_full
@pytest.mark.parametrize("mode", [0o000, 0o555], ids=oct)
def test_another_users_cache_is_only_a_warning(
    project: Path,
    untouched: dict[str, object],
    count: Callable[[str], None],
    unprivileged: list[str],
    mode: int,
) -> None:
    (project / "cache").mkdir(mode=mode)
    more = {"NANOGPT_CACHE": "cache"}
    call = start(project, [*unprivileged, *train_command(project)], **more)
    assert call.end() == 0, call.printed()
    count("fault")
    warning, made = call.printed().splitlines()
    assert warning.startswith("warning: cache: ")
    assert made.startswith("train one: ")
    (project / "cache").chmod(0o755)
    assert_is_whole(project, untouched, later=())


@only_in_full
def test_a_vanished_mirror_is_one_line_and_works_again_when_it_is_back(
    project: Path, tmp_path: Path, count: Callable[[str], None]
) -> None:
    url = "http://127.0.0.1:9/far.txt"
    config = project / "config.yaml"
    text = config.read_text().replace("corpora:\n", f"corpora:\n  far: {{url: '{url}'}}\n")
    config.write_text(text.replace("datasets:\n", "datasets:\n  far: {}\n"))
    mirror = tmp_path / "mirror"
    file = mirror / "127.0.0.1:9/far.txt"
    file.parent.mkdir(parents=True)
    file.write_text("A text that lies far away, and is fetched.\n" * 200)
    away = tmp_path / "away"
    mirror.rename(away)
    target = "results/datasets/far/meta.json"
    call = start_workflow(project, target, NANOGPT_MIRROR=str(mirror))
    assert call.end(timeout=200) == 1
    count("fault")
    assert url in error_line(call.printed())
    assert litter(project) == []
    away.rename(mirror)
    run_workflow(project, target, NANOGPT_MIRROR=str(mirror))
    assert (project / "resources/corpora/far/far.txt").read_bytes() == file.read_bytes()


@only_in_full
def test_a_disk_that_fills_up_during_a_save_keeps_the_previous_state(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    with small_disk(project / ".nanogpt/state") as leave:
        call = start_trainer(project)
        wait_for_steps(project, call)
        leave(2 * PAGE)
        assert call.end() == 1
        count("fault")
        assert "disk full" in error_line(call.printed())
        assert states(project)
        leave(None)
        run_trainer(project)
        assert "resuming from step" in log_of(project)
        assert_is_whole(project, untouched, later=())
