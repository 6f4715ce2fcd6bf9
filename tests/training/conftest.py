"""Fixtures for the tests of training."""

import logging

import pytest

from tests.training.trainings import Training


class At(logging.Handler):
    """Calls a function the first time that a training logs a step."""

    def __init__(self, step, action):
        super().__init__()
        self.start, self.action = f"step {step}:", action

    def emit(self, record):
        if self.action and record.getMessage().startswith(self.start):
            action, self.action = self.action, None
            action()


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path)


@pytest.fixture
def another_training(tmp_path):
    return Training(tmp_path / "another")


@pytest.fixture
def at():
    """A function that registers a call for when a step is logged."""
    logger = logging.getLogger("nanogpt.training")
    level = logger.level
    handlers = []

    def add(step, action):
        handlers.append(At(step, action))
        logger.addHandler(handlers[-1])

    logger.setLevel(logging.INFO)
    yield add
    for handler in handlers:
        logger.removeHandler(handler)
    logger.setLevel(level)
