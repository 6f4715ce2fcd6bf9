"""How processes become the ranks of a training; see tests/faults/test_ranks.py, too."""

import pytest
import torch.distributed as dist

from nanogpt.artifacts.stages import Job
from nanogpt.artifacts.states import TrainingState
from nanogpt.config.parameters import as_parameters
from nanogpt.errors import LostRankError, UserError
from nanogpt.project import Start
from nanogpt.training import launching, state_files
from nanogpt.training.distributed import Ranks
from nanogpt.training.launching import _join, _port_of_step
from tests.training.trainings import BASE


def test_a_rank_that_never_joins_is_one_line(tmp_path, monkeypatch):
    """As one that has failed by itself, for lack of a GPU."""
    monkeypatch.setenv("NANOGPT_RANK_TIMEOUT", "1")
    store = dist.FileStore(str(tmp_path / "store"), 2)
    job = Job({"train": as_parameters(BASE)}, "v", TrainingState(tmp_path, "v"))
    with pytest.raises(LostRankError, match="rank 0 of 2: another rank has ended"):
        _join(Start(0, 2, 0, 1, None), store, job)


def test_ranks_of_different_code_are_refused(monkeypatch):
    """As where two nodes have another checkout, or another torch."""
    monkeypatch.setattr(launching, "code_digest", lambda _: "mine")
    monkeypatch.setattr(Ranks, "gather", lambda _, mine: [[mine], [mine], [mine + 1]])
    with pytest.raises(UserError, match="1 rank of 3, the first of them rank 2, run other code"):
        launching._check_code(Ranks(0, 3))


def test_ranks_of_the_same_code_are_not(monkeypatch):
    monkeypatch.setattr(launching, "code_digest", lambda _: "mine")
    monkeypatch.setattr(Ranks, "gather", lambda _, mine: [[mine], [mine]])
    launching._check_code(Ranks(1, 2))


def test_a_rank_that_does_not_see_the_disk_of_rank_0_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(state_files, "LATE", 0.0)
    monkeypatch.setattr(Ranks, "gather", lambda _, token: [[token]] * 2)
    monkeypatch.setattr(Ranks, "largest", lambda _, blind: [blind])
    with pytest.raises(UserError, match=r"rank 1 of 2: .* must be on a disk that all nodes share"):
        launching._check_disk(Ranks(1, 2), tmp_path)


def test_a_rank_that_does_not_see_the_dataset_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(state_files, "LATE", 0.0)
    seen = tmp_path / "seen.bin"
    seen.touch()
    start = Start(1, 2, 0, 1, None)
    launching._wait_for_inputs([str(seen)], start)
    with pytest.raises(UserError, match=r"rank 1 of 2 on .*/train.bin isn't there after"):
        launching._wait_for_inputs([str(seen), str(tmp_path / "train.bin")], start)


def test_rank_0_leaves_nothing_of_its_look_at_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(Ranks, "gather", lambda _, token: [[token]] * 2)
    monkeypatch.setattr(Ranks, "largest", lambda _, blind: [blind])
    launching._check_disk(Ranks(0, 2), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_steps_of_slurm_that_may_share_a_node_meet_at_ports_of_their_own():
    steps = [(job, step) for job in range(4_000_000, 4_000_020) for step in range(20)]
    ports = {_port_of_step(job, step) for job, step in steps}
    assert len(ports) == len(steps)
    assert all(1024 <= port < 32_768 for port in ports)  # Linux gives higher ones to clients
