"""The benchmark times real training steps, and its figures are consistent."""

import json
import math

import pytest

from nanogpt.artifacts.states import TrainingState
from nanogpt.config.parameters import as_parameters
from nanogpt.config.schema import BenchSettings, ModelSettings, SampleSettings, TrainSettings
from nanogpt.errors import UserError
from nanogpt.evaluation import benchmark as bench_module
from nanogpt.evaluation.benchmark import bench, gemm_flops_per_second, summary
from nanogpt.files.atomic import read_json, sha256_file
from nanogpt.model.kernels import matmul_in_use, matmuls
from nanogpt.model.sizing import flops_per_token
from nanogpt.training.loop import train

MODEL = ModelSettings(n_layer=2, n_head=2, n_embd=32, block_size=16, dropout=0.2)
TRAIN = TrainSettings(
    batch_size=4,
    max_iters=5,
    warmup_iters=2,
    eval_iters=1,
    log_interval=1,
    device="cpu",
    dtype="float32",
)
BENCH = BenchSettings(burn_in=1, steps=3)


@pytest.fixture(autouse=True)
def _little_work(monkeypatch):
    """Beside the steps, so little that a test takes no second."""
    monkeypatch.setattr(bench_module, "GEMM_SIZES", (64,))
    monkeypatch.setattr(bench_module, "GEMM_SECONDS", 0.01)
    monkeypatch.setattr(bench_module, "GENERATED_TOKENS", 4)


@pytest.fixture
def run_bench(play, tmp_path):
    """A function: settings that differ from the above in, the benchmark out."""

    def run(dataset=play, **changes):
        def changed(settings):
            own = {k: v for k, v in changes.items() if k in type(settings).model_fields}
            return type(settings)(**{**settings.model_dump(), **own})

        model, train_settings = changed(MODEL), changed(TRAIN.model_copy())
        bench_settings = BENCH.model_copy(update=changes.get("bench", {}))
        path = tmp_path / "results/bench.json"
        sample_settings = SampleSettings(device="cpu", dtype=changes.get("sample_dtype", "float32"))
        return bench("r", dataset, model, train_settings, bench_settings, sample_settings, path)

    return run


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_timed_step_equals_a_training_step(dtype, run_bench, play, tmp_path):
    settings = TRAIN.model_copy(update={"dtype": dtype})
    train("r", play, MODEL, settings, TrainingState(tmp_path / "state", "v"), tmp_path / "trained")
    lines = (tmp_path / "trained/metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines[1:]]
    assert len(set(losses)) == len(losses) == 5
    for burn_in, steps in ((0, 1), (1, 1), (1, 2), (0, 4), (4, 1)):
        timed = run_bench(dtype=dtype, bench={"burn_in": burn_in, "steps": steps})
        assert timed.loss == losses[burn_in + steps - 1]


def test_the_file_records_the_measurement_and_the_machine(run_bench, play, tmp_path):
    result = run_bench(bench={"seed": 7})
    assert result.content() == read_json(tmp_path / "results/bench.json")
    assert result.run == "r"
    assert result.dataset == play.name
    assert result.model.content() == {
        "n_parameters": 32 * (59 + 16) + 2 * (12 * 32**2 + 2 * 32) + 32,
        "vocab_size": 59,
        **as_parameters(MODEL),
    }
    assert (result.device, result.dtype, result.compile) == ("cpu", "float32", False)
    assert result.threads == 1
    assert (result.burn_in, result.steps, result.data) == (1, 3, "real")
    assert result.peak_memory_bytes > 50e6  # torch alone takes more
    for part in (result.generation, result.batch_generation):
        assert part.max_new_tokens == 4
        assert part.tokens_per_second > 0
    assert result.generation.batch_size == 1
    assert result.batch_generation.batch_size == 10


def test_speeds_follow_from_the_median_step(run_bench):
    result = run_bench()
    step = result.seconds.step.median
    assert result.tokens_per_second == pytest.approx(4 * 16 / step)
    assert result.flops_per_token == flops_per_token(MODEL, 59)
    assert result.flops_per_second == pytest.approx(
        result.tokens_per_second * result.flops_per_token
    )
    assert result.mfu == pytest.approx(result.flops_per_second / result.gemm_flops_per_second)


def test_each_part_of_a_step_is_timed_from_the_end_of_the_previous_one(run_bench, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(bench_module, "_now", lambda _: float(next(clock) ** 2))
    seconds = run_bench(bench={"burn_in": 0, "steps": 1}).seconds
    # The clock was read when the whole step began and ended, when the step whose parts are timed
    # began, when its forward pass began, and after each part.
    assert seconds.step.median == 1**2 - 0**2
    assert seconds.forward.median == 4**2 - 3**2
    assert seconds.backward.median == 5**2 - 4**2
    assert seconds.optimizer.median == 6**2 - 5**2


def test_p10_and_p90_surround_the_median(run_bench):
    for spread in dict(run_bench(bench={"steps": 5}).seconds).values():
        assert 0 < spread.p10 <= spread.median <= spread.p90


def test_burn_in_steps_are_not_timed(run_bench, monkeypatch):
    def steps_that_grow(burn_in):
        clock = iter(range(10_000))
        monkeypatch.setattr(bench_module, "_now", lambda _: float(next(clock) ** 2))
        return run_bench(bench={"burn_in": burn_in}).seconds.step

    assert steps_that_grow(20).p10 > 4 * steps_that_grow(0).p90


def test_the_batch_size_is_trains_unless_bench_sets_one(run_bench):
    assert run_bench().batch_size == 4
    assert run_bench(bench={"batch_size": 3}).batch_size == 3


def test_a_step_is_one_micro_batch(run_bench):
    assert run_bench(gradient_accumulation_steps=4).loss == run_bench().loss


def test_random_tokens_need_no_text_as_long_as_a_window(run_bench, write_dataset):
    short = write_dataset("to be or not to be")
    with pytest.raises(UserError, match="fewer than one window of block_size 16"):
        run_bench(short)
    result = run_bench(short, bench={"data": "random"})
    assert result.data == "random"
    assert result.tokens_per_second > 0
    assert result.loss > 1


def test_the_seed_chooses_the_random_tokens(run_bench):
    losses = [run_bench(bench={"data": "random", "seed": seed}).loss for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_a_nan_loss_keeps_the_other_figures(run_bench, tmp_path):
    result = run_bench(learning_rate=1e30, decay_lr=False, bench={"steps": 4})
    assert not math.isfinite(result.loss)
    assert read_json(tmp_path / "results/bench.json")["loss"] is None
    assert result.tokens_per_second > 0


def test_nothing_but_its_file_is_written(run_bench, play, tmp_path):
    before = {path: sha256_file(path) for path in play.iterdir()}
    run_bench()
    assert {path: sha256_file(path) for path in play.iterdir()} == before
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / "results/bench.json"]


def test_generation_stops_when_its_time_is_up(run_bench, monkeypatch):
    monkeypatch.setattr(bench_module, "GENERATION_SECONDS", 0.0)
    assert run_bench().generation.max_new_tokens == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_matrix_sizes_that_take_too_long_are_skipped(dtype, monkeypatch):
    sizes = []

    def linear(x, weight):
        sizes.append(len(x))
        return x @ weight.T

    monkeypatch.setattr(bench_module, "matmuls", lambda: {"torch": linear})
    monkeypatch.setattr(bench_module.F, "linear", linear)
    monkeypatch.setattr(bench_module, "GEMM_SIZES", (64, 128, 2**40))
    assert gemm_flops_per_second("cpu", dtype) > 0
    assert set(sizes) == {64, 128}


def test_the_summary_is_one_line(run_bench):
    result = run_bench()
    figures = {"tokens_per_second": 38_000.4, "mfu": 0.314, "step_seconds": {}}
    stream = result.generation.model_copy(update={"tokens_per_second": 950.2})
    result = result.model_copy(update={**figures, "generation": stream})
    assert summary(result) == (
        "38,000 tokens/s in training (MFU 0.31), 950 tokens/s sampling one stream"
    )


def test_a_step_is_timed_with_each_matmul_kernel(run_bench):
    result = run_bench()
    assert result.matmul == matmul_in_use()
    assert set(result.step_seconds) == set(matmuls())
    assert all(seconds > 0 for seconds in result.step_seconds.values())
    assert run_bench(dtype="bfloat16").step_seconds == {}


@pytest.mark.skipif("onednn" not in matmuls(), reason="this build of torch has no oneDNN")
def test_the_summary_mentions_a_faster_matmul_kernel(run_bench):
    result = run_bench().model_copy(update={"matmul": "onednn"})
    slower = result.model_copy(update={"step_seconds": {"torch": 2.0, "onednn": 1.0}})
    assert "NANOGPT_MATMUL" not in summary(slower)
    faster = result.model_copy(update={"step_seconds": {"torch": 1.0, "onednn": 2.0}})
    assert summary(faster).endswith("; set NANOGPT_MATMUL=torch to train 2.00 times as fast")


def test_timed_sampling_uses_the_sample_groups_dtype(run_bench):
    result = run_bench(dtype="bfloat16", sample_dtype="float32")
    assert result.dtype == "bfloat16"
    assert result.generation.dtype == result.batch_generation.dtype == "float32"
