"""Strategies that are registered for the length of a test."""

import threading

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.testing import temporary_strategies

pytestmark = pytest.mark.quick


def register(name, factor=1.0):
    gs.strategy(name)(lambda gram: np.full(len(gram), factor))


def test_temporary_strategies_leave_the_registry_as_it_was_also_after_an_exception():
    before = gs.strategy_names()

    @temporary_strategies()
    def failing():
        register("test-one")
        with temporary_strategies():
            register("test-two", 2.0)
            chosen = gs.get_strategy("test-two")
            assert {"test-one", "test-two"} <= set(gs.strategy_names())
        assert "test-two" not in gs.strategy_names()
        assert "test-one" in gs.strategy_names()
        raise ZeroDivisionError(chosen)

    with pytest.raises(ZeroDivisionError) as error:
        failing()
    (chosen,) = error.value.args
    assert gs.strategy_names() == before
    assert chosen.weights(np.eye(2)).tolist() == [2.0, 2.0]
    model = torch.nn.Linear(2, 2)
    gs.backward(list(model(torch.ones(2))), model, chosen)
    assert model.bias.grad.tolist() == [2.0, 2.0]


def test_a_strategy_that_was_registered_again_for_a_while_is_the_earlier_one_afterwards(temporary):
    register("test-one")
    with temporary_strategies():
        register("test-one", 3.0)
        assert gs.get_strategy("test-one").weights(np.eye(1)).tolist() == [3.0]
    assert gs.get_strategy("test-one").weights(np.eye(1)).tolist() == [1.0]


def test_temporary_strategies_of_two_threads_do_not_overlap():
    entered, left, seen = threading.Event(), threading.Event(), []

    def other():
        entered.wait(10)
        with temporary_strategies():
            seen.append((left.is_set(), "test-first" in gs.strategy_names()))
            register("test-second")

    thread = threading.Thread(target=other)
    thread.start()
    with temporary_strategies():
        entered.set()
        register("test-first")
        thread.join(0.2)
        left.set()
    thread.join(10)
    assert seen == [(True, False)]
    assert not {"test-first", "test-second"} & set(gs.strategy_names())
