"""What the workflow knows of runs before any of their files exist."""

import pytest

from nanogpt.planning.stages import milestones, runs_with_characters
from tests.config.examples import load_yaml

SWEEP = "{dataset: letters, sweep: {seed: [1, 2]}, train: {milestones: [3]}}"
LATER = "{dataset: letters, train: {init_from: ./missing, milestones: [3]}}"
KEEP = "{dataset: letters, train: {milestones: [3]}}"
BOTH = "{a: {dataset: letters}, b: {dataset: letters}, both: {ensemble: [a, b]}}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"runs: {{a: {KEEP}}}", {(3,): ["a"]}),
        (f"runs: {{s: {SWEEP}}}", {(3,): ["s.seed-1", "s.seed-2"]}),
        (f"runs: {{a: {LATER}}}", {(3,): ["a"]}),
        ("runs: {a: {dataset: letters, train: {milestones: [5, 3, 5]}}}", {(3, 5): ["a"]}),
        (f"{{train: {{milestones: []}}, runs: {{a: {KEEP}}}}}", {}),
        (
            f"{{defaults: {{train: {{milestones: [4, 5]}}}}, runs: {{a: {KEEP}}}}}",
            {(3,): ["a"], (4, 5): ["letters"]},
        ),
        (f"runs: {BOTH}", {}),
        (
            f"{{defaults: {{train: {{milestones: [3]}}}}, runs: {BOTH}}}",
            {(3,): ["a", "b", "letters"]},
        ),
    ],
)
def test_milestones_are_known_from_settings(text, found):
    assert milestones(load_yaml(text)) == found


def test_runs_with_characters_are_those_of_such_datasets():
    datasets = "{chars: {corpus: text}, bytes: {corpus: text, tokenizer: byte}}"
    config = load_yaml(f"{{datasets: {datasets}, runs: {{a: {{dataset: bytes}}}}}}")
    assert runs_with_characters(config) == ["chars"]
