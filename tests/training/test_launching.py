"""How processes become the ranks of a training; see tests/faults/test_ranks.py, too."""

import pytest
import torch.distributed as dist

from nanogpt.artifacts.stages import Job
from nanogpt.artifacts.states import TrainingState
from nanogpt.config.parameters import as_parameters
from nanogpt.errors import LostRankError
from nanogpt.project import Start
from nanogpt.training.launching import _join, _port_of_step
from tests.training.trainings import BASE


def test_a_rank_that_never_joins_is_one_line(tmp_path, monkeypatch):
    """As one that has failed by itself, for lack of a GPU."""
    monkeypatch.setenv("NANOGPT_RANK_TIMEOUT", "1")
    store = dist.FileStore(str(tmp_path / "store"), 2)
    job = Job({"train": as_parameters(BASE)}, "v", TrainingState(tmp_path, "v"))
    with pytest.raises(LostRankError, match="rank 0 of 2: another rank has ended"):
        _join(Start(0, 2, 0, 1, None), store, job)


def test_steps_of_slurm_that_may_share_a_node_meet_at_ports_of_their_own():
    steps = [(job, step) for job in range(4_000_000, 4_000_020) for step in range(20)]
    ports = {_port_of_step(job, step) for job, step in steps}
    assert len(ports) == len(steps)
    assert all(1024 <= port < 32_768 for port in ports)  # Linux gives higher ones to clients
