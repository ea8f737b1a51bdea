"""Fixtures of the tests of conformance checks."""

import pytest

import gradsurgery as gs


@pytest.fixture
def register(temporary):
    """Register a function for one test only."""

    def add(function, name="mine", **settings):
        return gs.strategy(name, **{"paper": "a test", "scale": "own", **settings})(function)

    return add
