"""Fixtures of the tests of conformance checks."""

import pytest

import gradsurgery as gs


@pytest.fixture
def register(monkeypatch):
    """Register a function for one test only."""
    import gradsurgery.contract.registry as registry

    gs.strategy_names()
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))

    def add(function, name="mine", **settings):
        return gs.strategy(name, **{"paper": "a test", "scale": "own", "claims": (), **settings})(
            function
        )

    return add
