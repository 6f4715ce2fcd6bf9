"""A layout describes this process."""

import torch

from nanogpt.artifacts.layouts import current_layout


def test_a_layout_on_the_cpu_has_its_threads_and_no_gpu():
    assert current_layout("cpu", 7, "onednn").model_dump() == {
        "first_step": 7,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": None,
        "matmul": "onednn",
        "ranks": 1,
        "sharded": False,
    }


def test_a_layout_is_written_in_the_order_of_earlier_versions():
    assert list(current_layout("cpu", 7, "onednn").content()) == [
        "first_step",
        "device",
        "threads",
        "torch",
        "cpu_capability",
        "gpu",
        "matmul",
        "ranks",
        "sharded",
    ]
