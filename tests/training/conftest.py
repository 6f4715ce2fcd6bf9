"""What the tests of training share."""

import pytest

from tests.training.trainings import Training


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path)


@pytest.fixture
def another_training(tmp_path):
    return Training(tmp_path / "another")
