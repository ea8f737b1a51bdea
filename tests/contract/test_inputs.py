"""The table of inputs: what a step knows is what a strategy takes; nothing else is made."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.contract.inputs import FROM_GRADIENTS, INPUTS, TABLE, Context
from gradsurgery.gradients.matrix import GradientMatrix

pytestmark = [pytest.mark.quick, pytest.mark.usefixtures("temporary")]


def context(**changed):
    rows = [torch.tensor([3.0, 0.0, 4.0]), torch.tensor([0.0, 1.0, 0.0])]
    known = {
        "objectives": ("a", "b"),
        "group": "a+b",
        "every": ("a", "c", "b"),
        "matrix": GradientMatrix([list(row.split([2, 1])) for row in rows], blocks=True),
        "parameters": {"weight": torch.zeros(2), "bias": torch.zeros(1)},
        "losses": {"a": 2.0, "b": 5.0, "c": 1.0},
        "observed": {"a": 1.5},
        "scores": {"audio": 1.0},
        "seed": 3,
        "step": 7,
        "state": gs.State(),
    }
    return Context(**{**known, **changed})


def test_every_row_says_what_it_is():
    assert len(INPUTS) == len(TABLE)
    for row in TABLE:
        assert row.meaning.endswith(".")
        assert row.shape
        assert row.source in ("gradients", "losses", "call", "surgery")


def test_each_input_follows_from_the_context():
    known = context()
    made = {name: row.provide(known) for name, row in INPUTS.items()}
    assert made["gram"].tolist() == [[25.0, 0.0], [0.0, 1.0]]
    assert made["block_grams"].sum(0).tolist() == made["gram"].tolist()
    assert made["rows"].tolist() == [[3.0, 0.0, 4.0], [0.0, 1.0, 0.0]]
    assert made["splits"] == (2, 1)
    assert made["losses"].tolist() == [2.0, 5.0]
    assert made["observed"][0] == 1.5
    assert np.isnan(made["observed"][1])
    assert made["scores"] == {"audio": 1.0}
    assert made["objectives"] == ("a", "b")
    assert made["objectives"].every == ("a", "c", "b")
    assert made["group"] == "a+b"
    assert made["state"].objectives == ("a", "b")
    assert made["state"].rows("y").shape == (2, 3)
    again = INPUTS["rng"].provide(known)
    assert made["rng"].random() == again.random()
    assert torch.equal(
        torch.rand(2, generator=made["generator"]),
        torch.rand(2, generator=INPUTS["generator"].provide(known)),
    )
    assert made["eps"] == 1e-15


@pytest.mark.parametrize("field", ["losses", "observed", "scores", "state"])
def test_what_is_not_known_is_none(field):
    assert INPUTS[field].provide(context(**{field: None})) is None


def test_only_the_inputs_of_the_strategy_are_made():
    class Nothing:
        def __getattr__(self, name):
            raise AssertionError(f"{name} was made")

    @gs.strategy("test-names")
    def by_name(objectives, losses=None):
        assert losses is None
        return np.ones(len(objectives))

    known = context(matrix=Nothing(), losses=None)
    assert gs.get_strategy("test-names").decide(known).weights.tolist() == [1.0, 1.0]


def test_the_state_changes_with_what_the_strategy_left_in_it_and_not_when_it_fails():
    @gs.strategy("test-counts")
    def counts(objectives, state, *, fails: bool = False):
        state["steps"] = state.scalar("steps") + 1
        return None if fails else np.ones(len(objectives))

    known = context()
    counting = gs.get_strategy("test-counts")
    counting.decide(known)
    counting.decide(known)
    with pytest.raises(gs.StrategyError, match="NoneType"):
        gs.get_strategy("test-counts", fails=True).decide(known)
    assert known.state.state_dict()["numbers"] == {"steps": (((), 2.0),)}


def test_a_call_makes_what_it_is_not_given():
    seen = {}

    @gs.strategy("test-all")
    def takes_all(gram, losses, objectives, group, splits, rng, eps, observed=None):
        seen.update(locals())
        return np.ones(len(gram))

    rows = torch.tensor([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0]])
    chosen = gs.get_strategy("test-all")
    chosen(rows, losses={"b": 1.0, "a": 2.0}, objectives=("a", "b"), splits=[2, 1])
    assert seen["losses"].tolist() == [2.0, 1.0]
    assert (seen["group"], list(seen["splits"]), seen["observed"]) == ("all", [2, 1], None)
    chosen(rows, losses=[1.0, 2.0], observed=None, group=None)
    assert (seen["objectives"], seen["group"]) == (("0", "1"), "all")
    with pytest.raises(gs.InputError, match="losses: expected 2 numbers; got 3"):
        chosen(rows, losses=[1.0, 2.0, 3.0])
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'losses'"):
        chosen(rows, loses=[1.0, 2.0])
    with pytest.raises(gs.StrategyError, match="needs the input 'losses'"):
        chosen(rows)


def test_inputs_made_from_gradients_are_the_ones_a_strategy_on_losses_may_not_take():
    for name in INPUTS:
        function = eval(f"lambda {name}: None")
        if name in FROM_GRADIENTS:
            with pytest.raises(gs.StrategyError, match="inputs made of gradients"):
                gs.strategy("test-it", acts_on="losses")(function)
        else:
            gs.strategy("test-it", acts_on="losses")(function)
