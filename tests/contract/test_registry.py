"""The registry: signatures are contracts, errors help, plugins are found."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
import gradsurgery.contract.registry as registry

pytestmark = pytest.mark.quick


def register(function, name="test-it", **settings):
    return gs.strategy(name, **{"paper": "a test", "scale": "own", **settings})(function)


def test_names():
    assert {
        "sum",
        "mean",
        "constant",
        "scaled-sum",
        "random",
        "mgda",
        "pcgrad",
        "cagrad",
        "mmpareto",
    } <= set(gs.strategy_names())
    assert gs.strategy_names() == sorted(gs.strategy_names())


def test_unknown_names_and_options_help():
    with pytest.raises(gs.UnknownNameError, match=r"'mdga'.*Did you mean 'mgda'\?.*cagrad"):
        gs.get_strategy("mdga")
    with pytest.raises(gs.UnknownNameError, match=r"option 'nromalize'.*Did you mean 'normalize'"):
        gs.get_strategy("mgda", nromalize="l2")
    with pytest.raises(gs.UnknownNameError, match="option 'c'.*none"):
        gs.get_strategy("sum", c=1)
    with pytest.raises(gs.UnknownNameError):
        gs.get_strategy(3)
    with pytest.raises(gs.UnknownNameError, match="input 'lossess'.*Did you mean 'losses'"):
        gs.get_strategy("mgda").weights(np.eye(2), lossess=[1, 2])


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (lambda grams: grams, {}, r"input 'grams'.*Did you mean 'gram'.*losses"),
        (lambda gram, *, seed=0: gram, {}, "named like an argument of Surgery"),
        (lambda gram, *, losses=0: gram, {}, "named like an argument"),
        (lambda gram, *args: gram, {}, r"\*args"),
        (lambda gram, **options: gram, {}, r"\*\*kwargs"),
        (lambda gram: gram, {"scale": "large"}, "scale 'large'"),
        (lambda gram: gram, {"acts_on": "heads"}, "acts_on"),
        (lambda gram: gram, {"acts_on": "losses"}, "acts on losses"),
        (lambda gram: gram, {"claims": ("non-conflictng",)}, "Did you mean 'non-conflicting'"),
        (lambda gram: gram, {"claims": ("homogeneous",)}, "degree"),
    ],
)
def test_bad_declarations_fail_at_import(temporary, function, settings, message):
    with pytest.raises(gs.StrategyError, match=message):
        register(function, **settings)
    assert "test-it" not in gs.strategy_names()


def test_conditions():
    (claim,) = gs.when("n == 2", lambda n: n == 2, "strict")
    assert claim.holds(2, 2, {})
    assert not claim.holds(3, 2, {})
    assert str(claim) == "strict when n == 2"
    assert str(gs.homogeneous(0.5)) == "homogeneous(0.5)"
    with pytest.raises(gs.StrategyError, match="predicate takes n, rank, options"):
        gs.when("odd", lambda gram: True, "strict")
    with pytest.raises(gs.StrategyError, match="name the claims"):
        gs.when("odd", lambda n: True)


def test_inputs_are_injected_by_name(temporary):
    seen = {}

    def every(
        gram, block_grams, losses, objectives, group, rng, eps, splits, observed=None, *, factor=2.0
    ):
        seen.update(locals())
        return factor * np.ones(len(gram))

    register(every)
    weight, bias = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))
    record = gs.backward(
        {"a": weight.sum() + bias.sum(), "b": weight[0] + 2 * bias[1]},
        [weight, bias],
        "test-it",
        factor=3.0,
    )
    assert record["a+b"].weights.tolist() == [3.0, 3.0]
    assert seen["gram"].tolist() == [[5.0, 3.0], [3.0, 5.0]]
    assert seen["block_grams"].tolist() == [[[3.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [2.0, 4.0]]]
    assert seen["losses"].tolist() == [5.0, 3.0]
    assert seen["objectives"] == ("a", "b")
    assert seen["group"] == "a+b"
    assert seen["splits"] == (3, 2)
    assert isinstance(seen["rng"], np.random.Generator)
    assert 0 < seen["eps"] < 1e-5
    assert seen["observed"] is None


def test_missing_inputs_are_said(temporary):
    register(lambda gram, scores: gram[0])
    with pytest.raises(gs.StrategyError, match="needs the input 'scores'"):
        gs.get_strategy("test-it").weights(np.eye(2))
    assert gs.get_strategy("test-it").weights(np.eye(2), scores={"a": 1.0}).tolist() == [1.0, 0.0]


def test_narrowed_inputs(temporary):
    def narrow(gram, losses, *, use=False):
        return np.ones(len(gram)) if losses is None else losses

    register(narrow, inputs=lambda options: {"gram", "losses"} if options["use"] else {"gram"})
    assert gs.get_strategy("test-it").weights(np.eye(2)).tolist() == [1.0, 1.0]
    assert gs.get_strategy("test-it", use=True).weights(np.eye(2), losses=[3.0, 4.0]).tolist() == [
        3.0,
        4.0,
    ]
    with pytest.raises(gs.StrategyError, match="losses"):
        gs.get_strategy("test-it", use=True).weights(np.eye(2))


def test_required_options(temporary):
    register(lambda gram, *, target: target * np.ones(len(gram)))
    with pytest.raises(gs.StrategyError, match="needs the option 'target'"):
        gs.get_strategy("test-it")
    assert gs.get_strategy("test-it", target=2.0).weights(np.eye(2)).tolist() == [2.0, 2.0]


def test_rows_strategies_return_a_direction(temporary):
    register(lambda rows, splits: rows.sign().sum(0))
    weight, bias = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2).double())
    record = gs.backward(
        [weight.sum() - bias.sum(), weight.pow(2).sum()], [weight, bias], "test-it"
    )
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]
    assert record["0+1"].weights is None
    with pytest.raises(gs.StrategyError, match="coordinates"):
        gs.get_strategy("test-it").weights(np.eye(2))
    register(lambda rows: rows, name="test-wrong")
    with pytest.raises(gs.StrategyError, match="returns a direction"):
        gs.get_strategy("test-wrong")(torch.ones(2, 3))


def test_weights_per_tensor(temporary):
    register(lambda block_grams: np.arange(4.0).reshape(2, 2))
    weight, bias = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(1))
    record = gs.backward(
        [weight.sum() + bias.sum(), 10 * weight.sum() + 10 * bias.sum()], [weight, bias], "test-it"
    )
    assert weight.grad.tolist() == [10.0, 10.0]
    assert bias.grad.tolist() == [32.0]
    assert record["0+1"].weights.shape == (2, 2)


def test_names_are_taken_once_and_a_cell_may_run_again(temporary):
    def again(gram):
        return np.ones(len(gram))

    register(again)
    register(again)
    with pytest.raises(gs.StrategyError, match="already registered"):
        register(again, name="mgda")


def test_entry_points_are_loaded_once_and_failures_warn(temporary, monkeypatch):
    import importlib.metadata

    class Point:
        def __init__(self, value, load):
            self.value, self.load = value, load

    def plugin():
        register(lambda gram: np.ones(len(gram)), name="test-plugin")

    def broken():
        raise ImportError("no such module")

    points = {"gradsurgery.strategies": [Point("good", plugin), Point("bad:it", broken)]}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points.get(group, []))
    monkeypatch.setattr(registry, "_discovered", False)
    with pytest.warns(UserWarning, match="'bad:it'"):
        assert "test-plugin" in gs.strategy_names()
    assert gs.get_strategy("test-plugin").weights(np.eye(2)).tolist() == [1.0, 1.0]


def test_strategy_reads_well():
    expected = "Strategy('cagrad', c=0.4, rescale='none', preference=None)"
    assert repr(gs.get_strategy("cagrad", c=0.4)) == expected
    chosen = gs.get_strategy("cagrad")
    assert chosen.paper
    assert chosen.scale == "mean"
    assert "strict when c >= 1" in map(str, chosen.claims)
    assert gs.get_strategy(chosen, c=0.1).options["c"] == 0.1


def test_strategies_and_surgeries_copy_and_pickle():
    import copy
    import pickle

    chosen = gs.get_strategy("cagrad", c=0.25)
    assert (
        pickle.loads(pickle.dumps(chosen)).options
        == chosen.options
        == copy.deepcopy(chosen).options
    )
    model = torch.nn.Linear(2, 2)
    surgery = gs.Surgery("random", model, seed=1)
    surgery.backward(list(model(torch.ones(2))))
    twin = copy.deepcopy(surgery)
    assert twin.state_dict() == surgery.state_dict()


def test_mixed_up_arguments_are_explained():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(gs.InputError, match=r"backward\(losses, model, 'mgda'\)"):
        gs.backward(list(model(torch.ones(2))), "mgda")
    with pytest.raises(gs.UnknownNameError, match="expected a name or a Strategy; got Linear"):
        gs.Surgery(model, "mgda")


def test_eps_follows_the_gram_dtype(temporary):
    seen = []

    def look(gram, eps):
        seen.append(eps)
        return np.ones(len(gram))

    register(look)
    for gram in (np.eye(2), np.eye(2, dtype=np.float32), torch.eye(2), torch.eye(2).double()):
        gs.get_strategy("test-it").weights(gram)
    assert seen == [1e-15, 1e-6, 1e-6, 1e-15]


def test_a_name_that_is_taken_is_an_error_at_once_and_breaks_nothing():
    """In a fresh process, before anything was looked up."""
    import subprocess
    import sys

    code = """
import gradsurgery as gs
try:
    @gs.strategy("mgda", paper="mine", scale="sum")
    def mine(gram):
        return gram[0]
except gs.StrategyError as error:
    assert "already registered by gradsurgery.strategies.mgda" in str(error), error
else:
    raise SystemExit("accepted")
assert {"mgda", "pcgrad", "sum"} <= set(gs.strategy_names())
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_first_strategy_is_three_lines(temporary):
    from gradsurgery.contract.catalogue import describe
    from gradsurgery.testing import check_strategy

    @gs.strategy("test-shortest")
    def shortest(gram):
        return np.eye(len(gram))[gram.diagonal().argmin()]

    chosen = gs.get_strategy("test-shortest")
    assert chosen.weights([[4.0, 0.0], [0.0, 1.0]]).tolist() == [0.0, 1.0]
    assert (chosen.source, chosen.scale, chosen.claims, chosen.summary) == (
        "unpublished", "own", (), ""
    )  # fmt: skip
    assert "unpublished" in describe(chosen)
    assert check_strategy(shortest) == {"contract": "passed"}


def test_a_reserved_name_is_no_option(temporary, monkeypatch):
    monkeypatch.setattr(registry, "_reserved", set(registry._reserved))
    register(lambda gram, *, tempo=1.0: gram[0])
    registry.reserve(["tempo"])
    with pytest.raises(gs.StrategyError, match="'tempo' is named like an argument of Surgery"):
        register(lambda gram, *, tempo=1.0: gram[0])


@pytest.mark.parametrize("name", gs.strategy_names())
def test_what_a_strategy_does_is_one_sentence(name):
    first, *rest = registry.registered(name).description.split("\n")
    assert first.endswith(".")
    assert ". " not in first
    assert rest[:1] in ([], [""])
    assert registry.registered(name).summary == first[:-1]
