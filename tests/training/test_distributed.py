"""Several processes train one model: what one would have trained, and the same bytes each time."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanogpt.config.schema import TrainSettings
from nanogpt.errors import UserError
from nanogpt.training import distributed
from nanogpt.training.distributed import ALONE, Ranks, owners
from nanogpt.training.sharding import check_sharding
from tests.training.on_ranks import (
    LONG,
    MODEL,
    ROWS,
    STEPS,
    TRAIN,
    Training,
    assert_alike,
    metrics,
)

ROOT = Path(__file__).resolve().parents[2]
RANKS = (1, 2, 3, 4)
OPTIMIZERS = ("adamw", "muon")
STOP = 4


@pytest.fixture(scope="module")
def trained(play, tmp_path_factory):
    """The directory of each training below, made by four processes."""
    directory = tmp_path_factory.mktemp("ranks")
    with_dropout = {**MODEL, "dropout": 0.2}

    def training(name, n, model=with_dropout, train=TRAIN, **more):
        return Training(str(directory / name), str(play), model, train, n, **more)

    trainings = []
    for optimizer in OPTIMIZERS:
        train = {**TRAIN, "optimizer": optimizer}
        for n in RANKS:
            trainings += [
                training(f"{optimizer} {n}", n, train=train),
                training(f"{optimizer} {n} stopped", n, train=train, stop_at=STOP),
                training(f"{optimizer} {n} stopped", n, train=train),
            ]
        trainings.append(training(f"{optimizer} unsharded", 3, train=train, unsharded=True))
    for n in RANKS:
        trainings.append(training(f"long {n}", n, MODEL, LONG))
        accumulating = {**TRAIN, "batch_size": 4, "gradient_accumulation_steps": 4}
        trainings.append(training(f"accumulating {n}", n, MODEL, accumulating))
    trainings += [
        training("four to two", 4, stop_at=STOP),
        training("four to two", 2),
        training("four to one", 4, stop_at=STOP),
        training("four to one", 1),
    ]
    for n in (2, 4):
        trainings.append(training(f"sharded {n}", n, MODEL, LONG, split=True))
    sharded = {**TRAIN, "milestones": [2]}
    trainings += [
        training("sharded", 2, train=sharded, split=True),
        training("sharded stopped", 2, train=sharded, split=True, stop_at=STOP),
        training("sharded stopped", 2, train=sharded, split=True),
        training("sharded to one", 2, MODEL, split=True, stop_at=STOP),
        training("sharded to one", 1, MODEL),
        training("one to sharded", 1, MODEL, stop_at=STOP),
        training("one to sharded", 2, MODEL, split=True),
        training("one", 1, MODEL),
    ]
    listed = directory / "trainings.json"
    listed.write_text(json.dumps([dataclasses.asdict(each) for each in trainings]))
    command = [sys.executable, "-m", "tests.training.on_ranks"]
    processes = [
        subprocess.Popen([*command, str(listed), str(rank)], cwd=ROOT, stderr=subprocess.PIPE)
        for rank in range(max(RANKS))
    ]
    printed = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(printed)
    return directory


def held(trained, name, n):
    """How many numbers of the optimizer each of n ranks has at the end."""
    paths = [trained / f"{name} {n}" / f"held-{rank}.json" for rank in range(n)]
    return [json.loads(path.read_text()) for path in paths]


def weights(directory):
    return (directory / "model/model.safetensors").read_bytes()


# --- Bits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("n", RANKS)
def test_a_training_that_one_rank_was_told_to_stop_goes_on_to_the_same_bytes(trained, n, optimizer):
    through, stopped = trained / f"{optimizer} {n}", trained / f"{optimizer} {n} stopped"
    assert weights(stopped) == weights(through)
    assert metrics(stopped) == metrics(through)
    assert [line["step"] for line in metrics(through)] == [*range(STEPS + 1)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_owners_change_no_bit(trained, optimizer):
    assert weights(trained / f"{optimizer} unsharded") == weights(trained / f"{optimizer} 3")


# --- Numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", RANKS[1:])
@pytest.mark.parametrize("what", ["long", "accumulating"])
def test_several_ranks_compute_what_one_does(trained, what, n):
    assert_alike(trained / f"{what} 1", trained / f"{what} {n}")


def test_another_number_of_ranks_goes_on_where_the_others_stopped(trained):
    through = metrics(trained / "adamw 4")
    for name in ("four to two", "four to one"):
        found = metrics(trained / name)
        assert found[: STOP + 1] == through[: STOP + 1]
        # Other ranks draw other dropout.
        assert found[-1]["val_loss"] == pytest.approx(through[-1]["val_loss"], abs=0.05)
        assert found[-1] != through[-1]


@pytest.mark.parametrize("n", [2, 4])
def test_a_sharded_model_learns_what_a_whole_one_does(trained, n):
    alone, shared = metrics(trained / "long 1"), metrics(trained / f"sharded {n}")
    for one, other in zip(alone, shared, strict=True):
        for name in one.keys() & {"loss", "train_loss", "val_loss"}:
            assert other[name] == pytest.approx(one[name], abs=1e-4), (one["step"], name)
    assert shared[1]["grad_norm"] == pytest.approx(alone[1]["grad_norm"], rel=1e-5)


def test_a_sharded_training_goes_on_to_the_same_bytes(trained):
    for name in ("model", "state/milestones/2"):
        files = [trained / which / name for which in ("sharded", "sharded stopped")]
        through, stopped = ((path / "model.safetensors").read_bytes() for path in files)
        assert stopped == through
    assert metrics(trained / "sharded stopped") == metrics(trained / "sharded")


@pytest.mark.parametrize("name", ["sharded to one", "one to sharded"])
def test_a_state_goes_on_sharded_or_not(trained, name):
    expected = metrics(trained / "one")[-1]["val_loss"]
    assert metrics(trained / name)[-1]["val_loss"] == pytest.approx(expected, abs=1e-5)


# --- Memory and files -----------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_rank_keeps_the_moments_of_its_own_parameters_only(trained, optimizer):
    (alone,) = held(trained, optimizer, 1)
    for n in RANKS[1:]:
        of_each = held(trained, optimizer, n)
        assert sum(of_each) == alone
        assert max(of_each) < 0.75 * alone


def test_sharded_ranks_have_a_share_of_each_parameter(trained):
    (alone,) = held(trained, "long", 1)
    for n in (2, 4):
        shares = held(trained, "sharded", n)
        assert max(shares) < 1.1 * alone / n


@pytest.mark.parametrize(
    ("setting", "flaw"),
    [
        ({"optimizer": "muon"}, "optimizer: muon; take adamw"),
        ({"reproducible": "anywhere"}, "reproducible: anywhere"),
        ({"dtype": "float16"}, "dtype: float16; take bfloat16"),
        ({"compile": True}, "compile: true"),
        ({"batch_size": 15}, "2 processes, which don't divide the 15 rows of a step"),
    ],
)
def test_what_a_sharded_model_cannot_have_is_refused(setting, flaw):
    settings = TrainSettings(**{**TRAIN, **setting})
    with pytest.raises(UserError, match=f"one: a training with `sharded` can't have {flaw}"):
        check_sharding(settings, Ranks(0, 2, is_sharded=True), "one")


def test_a_state_is_one_file_of_rank_0_and_a_part_of_each_other(trained):
    for n in RANKS:
        state = trained / f"adamw {n} stopped/state"
        names = [path.name for path in state.iterdir()]
        assert sorted(name.partition("-")[0] for name in names) == [
            "metrics.jsonl",
            *["part"] * (n - 1),
            "step",
        ]


@pytest.mark.parametrize("n", RANKS)
def test_the_work_is_shared_evenly(n):
    tensors = [torch.empty(384, 384) for _ in range(24)] + [torch.empty(384) for _ in range(13)]
    of_each = owners(tensors, n)
    assert owners(tensors, n) == of_each
    matrices = [of_each[:24].count(rank) for rank in range(n)]
    assert max(matrices) - min(matrices) <= 1


@pytest.mark.parametrize("n", RANKS)
def test_every_row_has_one_rank(n):
    rows = list(range(ROWS))
    shares = [rows[Ranks(rank, n).share] for rank in range(n)]
    assert sorted(row for share in shares for row in share) == rows
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_rank_is_given_back_what_it_has():
    assert ALONE.largest(1, 2) == [1, 2]
    assert ALONE.sums(math.pi) == [math.pi]
    assert ALONE.gather(7) == [[7]]
    loss = torch.tensor(2.5)
    assert ALONE.add_gradients([], loss) is loss


@pytest.mark.parametrize(
    ("n_gpus", "seen", "device"),
    [(4, [10, 11], "cuda:1"), (1, [10, 11], "cuda:0"), (4, [10, 10], None), (0, [-1, -1], None)],
)
def test_each_rank_has_a_gpu_of_its_own(monkeypatch, n_gpus, seen, device):
    """Whether a process sees all GPUs of its node or just the one that Slurm gave it."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(distributed, "_gpu", lambda _: seen[1])
    monkeypatch.setattr(Ranks, "gather", lambda *_: [[each] for each in seen])
    present = []
    monkeypatch.setattr(torch.cuda, "set_device", present.append)
    rank = Ranks(1, 2, local_rank=1)
    if device:
        assert rank.device("cuda") == device == f"cuda:{present[0]}"
    else:
        with pytest.raises(UserError, match=r"no GPU is left|ranks 0, 1 of 2 have the same GPU"):
            rank.device("cuda")
