"""A training reuses freed memory without requesting new pages from the system."""

import subprocess
import sys

import pytest

from nanogpt.training import memory

# Tensors of 40 MB: above 32 MB, glibc requests each from the system and returns it.
PROGRAM = """
import resource
import torch
from nanogpt.training.memory import keep_freed_memory
{keep}

def add():
    return (torch.ones(10_000_000) + 1).sum()

for _ in range(5):
    add()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    add()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep):
    program = PROGRAM.format(keep=keep)
    return int(subprocess.check_output([sys.executable, "-c", program], text=True))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has glibc")
def test_freed_memory_is_reused_without_page_faults():
    assert page_faults("keep_freed_memory()") < page_faults("") / 10


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("glibc isn't loaded there"))
    memory.keep_freed_memory()


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    memory.keep_freed_memory()
