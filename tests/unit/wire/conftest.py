"""A broker with one topic, for the tests of its coordinators."""

from __future__ import annotations

import pytest

from tests.support.broker_world import World


@pytest.fixture
def world() -> World:
    made = World()
    made.create("t", 2)
    return made
