"""Fixtures of the workflow's tests, for commands that run the workflow."""

from tests.workflow.conftest import (  # noqa: F401  fixtures
    computed,
    done_project,
    empty_project,
    essays,
    project,
)
