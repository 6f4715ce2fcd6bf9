"""Processes become the ranks of a training. See also tests/faults/test_ranks.py."""

from concurrent.futures import ThreadPoolExecutor
from socket import gethostname
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from nanogpt.artifacts.stages import Job, followed_job
from nanogpt.artifacts.states import TrainingState
from nanogpt.config.parameters import as_parameters
from nanogpt.errors import LostRankError, UserError
from nanogpt.project import Project, Start
from nanogpt.training import launching, state_files
from nanogpt.training.distributed import Ranks
from nanogpt.training.launching import _join, _port_of_step
from tests.training.trainings import BASE


def test_a_rank_that_never_joins_is_reported_in_one_line(tmp_path, monkeypatch):
    """For example, a rank that failed because it has no GPU."""
    monkeypatch.setenv("NANOGPT_RANK_TIMEOUT", "1")
    monkeypatch.setattr(launching, "code_digest", lambda _: "one")
    store = dist.FileStore(str(tmp_path / "store"), 2)
    job = Job({"train": as_parameters(BASE)}, "v", TrainingState(tmp_path, "v"))
    request = SimpleNamespace(processes=1, sharded=False)
    with pytest.raises(LostRankError, match="rank 0 of 2: another rank has ended"):
        _join(Start(0, 2, 0, 1, None), store, job, request)


def compare(monkeypatch, *jobs, codes=("one",) * 3):
    """What each of some ranks raises when they compare their jobs and their codes."""
    store, left = dist.HashStore(), iter(codes)
    monkeypatch.setattr(launching, "code_digest", lambda _: next(left))

    def compared(rank):
        try:
            launching._compare(Start(rank, len(jobs), 0, 1, None), store, jobs[rank])
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(compared, range(len(jobs))))


def job(inputs=None, **train):
    return Job({"train": {**as_parameters(BASE), **train}}, "v", inputs=inputs or {})


def test_ranks_with_the_same_job_continue(monkeypatch):
    files = {"train.bin": "a"}
    # The second is on the node of rank 0, and hasn't read the files.
    assert compare(monkeypatch, job(files), job(), job(files)) == [None] * 3


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (job({"train.bin": "b", "val.bin": "a"}), "train.bin"),
        (job({"val.bin": "a"}), "train.bin"),
        (job({"train.bin": "a", "val.bin": "a"}, batch_size=3), "train.batch_size 3"),
        (job(device="cuda"), "train.device cuda"),
        (job(nesterov=True), "train.nesterov True"),
    ],
)
def test_all_ranks_report_one_with_another_job(monkeypatch, other, difference):
    """As on a node that sees another file, or has no GPU, or where something else was typed."""
    first, *more = compare(monkeypatch, job({"train.bin": "a", "val.bin": "a"}), job(), other)
    assert more == [first] * 2
    assert f"rank 2 of 3 on {gethostname()}: different from rank 0: {difference};" in first


def test_a_rank_has_no_digest_of_what_it_is_not_to_read_or_does_not_see(tmp_path):
    (tmp_path / "val.bin").touch()
    request = SimpleNamespace(
        input=["train.bin", "val.bin"], params=SimpleNamespace(settings={}), threads=1
    )
    assert followed_job(request, False, Project(tmp_path)).inputs == {}
    assert followed_job(request, True, Project(tmp_path)).inputs.keys() == {"val.bin"}


def test_all_ranks_report_one_with_other_code(monkeypatch):
    """As where two nodes have another checkout."""
    first, second = compare(monkeypatch, job(), job(), codes=("one", "another"))
    assert first == second
    assert "rank 1 of 2 on " in first
    assert "different from rank 0: code; start all ranks from one checkout" in first


def test_a_rank_that_cannot_see_rank_0s_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(state_files, "LATE", 0.0)
    monkeypatch.setattr(Ranks, "gather", lambda _, token: [[token]] * 2)
    monkeypatch.setattr(Ranks, "largest", lambda _, blind: [blind])
    with pytest.raises(UserError, match=r"rank 1 of 2: .* on a disk that all nodes share"):
        launching._check_disk(Ranks(1, 2), tmp_path)


def test_a_rank_that_cannot_see_the_dataset_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(state_files, "LATE", 0.0)
    seen = tmp_path / "seen.bin"
    seen.touch()
    start = Start(1, 2, 0, 1, None)
    launching._wait_for_inputs([str(seen)], start)
    with pytest.raises(UserError, match=r"rank 1 of 2 on .*/train.bin: rank 0 has this file"):
        launching._wait_for_inputs([str(seen), str(tmp_path / "train.bin")], start)


def test_rank_0_leaves_no_file_of_its_check_of_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(Ranks, "gather", lambda _, token: [[token]] * 2)
    monkeypatch.setattr(Ranks, "largest", lambda _, blind: [blind])
    launching._check_disk(Ranks(0, 2), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_slurm_steps_on_one_node_use_different_ports():
    steps = [(job, step) for job in range(4_000_000, 4_000_020) for step in range(20)]
    ports = {_port_of_step(job, step) for job, step in steps}
    assert len(ports) == len(steps)
    assert all(1024 <= port < 32_768 for port in ports)  # Linux gives higher ports to clients
