"""Generation uses constant memory, however long it runs."""

import subprocess
import sys

import pytest

from tests.checkouts import PROJECT

# The model of nanoGPT's CPU quick start; ten texts with equal and with different lengths.
GENERATE = """
import resource, sys
from nanogpt.config.schema import ModelSettings, SampleSettings
from nanogpt.inference.engine import Engine, Prompt, generate
from nanogpt.model.gpt import GPT

dtype, n_tokens = sys.argv[1], int(sys.argv[2])
settings = SampleSettings(max_new_tokens=n_tokens // 10, device="cpu", dtype=dtype)
model = GPT(ModelSettings(n_layer=4, n_head=4, n_embd=128, block_size=64, dropout=0.0), 65)
engine = Engine(model, settings)
seen = []
for apart in (0, 1):
    for number in range(10):
        engine.join(Prompt([1] * (1 + apart * number), settings))
    n_steps = 0
    while engine.sequences:
        engine.step()
        n_steps += 1
        if n_steps in (n_tokens // 50, n_tokens // 10 - 10):
            with open("/proc/self/statm") as file:
                seen.append(int(file.read().split()[1]) * resource.getpagesize() / 1e6)
print(*seen)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_is_constant_over_a_hundred_thousand_tokens(dtype):
    command = [sys.executable, "-c", GENERATE, dtype, "100000" if dtype == "float32" else "20000"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    early, late, early_apart, late_apart = map(float, done.stdout.split())
    print(done.stdout)
    assert late - early < 5, "megabytes more"
    assert late_apart - early_apart < 5
