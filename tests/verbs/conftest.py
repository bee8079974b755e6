"""Whole runs of the tests draw their plots once, where a test asks for `drawn`."""

from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="module")
def _undrawn(undrawn: dict[str, Any]) -> None:
    """For every test of a verb."""
