"""Run folders of this room: see `tests/_runs.py`."""

from tests._runs import *  # noqa: F403  a fixture is found where its name stands
