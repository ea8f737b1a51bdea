"""Sparse gradients: what torch does with them holds here too, or an error says what to do."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.recommender import PLACES, Recommender, each_with, same, total

MODES = [
    {},
    {"memory": "low"},
    {"every": 2},
    {"method": "taps"},
    {"min_objectives": 4},
    {"protect": "buy"},
]


@each_with(["mgda", "aligned-mtl", "sum"], MODES)
def test_a_sparse_parameter_that_is_not_given_gets_the_sparse_sum(strategy, settings):
    model, dense, plain = Recommender(), Recommender(sparse=False), Recommender()
    surgeries = [gs.Surgery(strategy, m.dense, **settings) for m in (model, dense)]
    for step in range(3):
        for surgery, m in zip(surgeries, (model, dense), strict=True):
            m.zero_grad()
            surgery.backward(m.losses(step))
        plain.zero_grad()
        total(plain.losses(step)).backward()
        same(model.table.weight.grad, plain.table.weight.grad)
        for p, q in zip(model.dense, dense.dense, strict=True):
            torch.testing.assert_close(p.grad, q.grad)


WEIGHTED = ["sum", "mean", "scaled-sum", "uw", "dwa", "gls", "random", "stch", "imtl-l", "famo"]


@pytest.mark.parametrize("strategy", WEIGHTED)
def test_strategies_that_look_at_no_gradient_pass_sparse_gradients_on(strategy):
    model, dense = Recommender(), Recommender(sparse=False)
    for m in (model, dense):
        gs.Surgery(strategy, m).backward(m.losses())
    assert model.table.weight.grad.is_sparse
    for (name, p), q in zip(model.named_parameters(), dense.parameters(), strict=True):
        found = p.grad.to_dense() if name == "table.weight" else p.grad
        torch.testing.assert_close(found, q.grad)


def test_a_sparse_parameter_of_one_objective_gets_its_gradient():
    model = Recommender()
    extra = nn.Embedding(5, 5, sparse=True, dtype=torch.float64)
    losses = model.losses()
    losses["like"] = losses["like"] + extra(torch.tensor([1, 1, 4])).pow(2).sum()
    expected = torch.autograd.grad(losses["like"], [extra.weight], retain_graph=True)[0]
    gs.backward(losses, [*model.dense, extra.weight], "mgda")
    same(extra.weight.grad, expected)


@pytest.mark.parametrize("strategy", ["sum", "mgda"])
def test_a_lookup_of_nothing_has_a_gradient_without_entries(strategy):
    table, head = nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2)
    found = table(torch.tensor([], dtype=torch.int64)).sum(0)
    losses = {"a": head(found + 1).sum(), "b": head(torch.ones(3)).sum()}
    surgery = gs.Surgery(strategy, nn.ModuleList([table, head]), measure=1)
    record = surgery.backward(losses)
    assert record["a"].norms == 0
    assert table.weight.grad.is_sparse
    assert table.weight.grad._nnz() == 0


def test_sparse_gradients_add_to_those_of_earlier_passes_as_in_torch():
    def penalty(model):
        return {"size": model.table.weight.pow(2).sum()}

    orders = ([0, 1], ["penalty", 0], [0, 0, 1], ["penalty", 0, 1])
    for order in orders:
        for strategy, given in (("sum", lambda m: m), ("mgda", lambda m: m.dense)):
            model, plain = Recommender(), Recommender()
            for step in order:
                kept = model.table.weight.grad
                if step == "penalty":
                    gs.backward(penalty(model), model, "sum")
                    total(penalty(plain)).backward()
                    continue
                gs.backward(model.losses(step), given(model), strategy)
                total(plain.losses(step)).backward()
                assert kept is None or model.table.weight.grad is kept
            same(model.table.weight.grad, plain.table.weight.grad)


def test_a_dense_penalty_beside_a_sparse_lookup_gives_a_dense_sum():
    for strategy, memory in (("sum", "auto"), ("mgda", "auto"), ("mgda", "low")):
        model, plain = Recommender(), Recommender()
        for m in (model, plain):
            m.all = {**m.losses(), "size": m.table.weight.pow(2).sum()}
        gs.backward(model.all, model if strategy == "sum" else model.dense, strategy, memory=memory)
        total(plain.all).backward()
        same(model.table.weight.grad, plain.table.weight.grad)


def test_micro_batches_gather_sparse_gradients():
    for strategy in ("mgda", "sum"):
        model, dense = Recommender(), Recommender(sparse=False)
        for m in (model, dense):
            surgery = gs.Surgery(strategy, m.dense)
            for shift in range(3):
                surgery.accumulate(m.losses(shift))
            surgery.combine()
        assert model.table.weight.grad.is_sparse
        torch.testing.assert_close(model.table.weight.grad.to_dense(), dense.table.weight.grad)
        torch.testing.assert_close(model.trunk.weight.grad, dense.trunk.weight.grad)


@pytest.mark.parametrize("strategy", ["mgda", "pcgrad", "db-mtl", "graddrop"])
def test_surgery_on_a_sparse_gradient_names_the_parameter_and_leaves_everything(strategy):
    model = Recommender()
    gs.backward(model.losses(), model, "sum")
    before = model.grads
    surgery = gs.Surgery(strategy, model)
    with pytest.raises(
        gs.InputError, match=r"'table\.weight' is sparse.*leave it out of parameters=.*sparse=False"
    ):
        surgery.backward(model.losses())
    assert surgery.state_dict()["step"] == 0
    for name, grad in model.grads.items():
        same(grad, before[name])


@pytest.mark.parametrize("memory", ["auto", "low"])
def test_a_sparse_parameter_without_a_name_is_named_by_its_shape(memory):
    model = Recommender()
    with pytest.raises(gs.InputError, match=r"a parameter of shape \[9, 4\] is sparse") as caught:
        gs.backward(model.losses(), None, "mgda", memory=memory)
    assert "#" not in str(caught.value)
    gs.backward(
        model.losses(), {"trunk": model.dense, "table": model.table}, "mgda", min_objectives=4
    )


def test_inspect_measures_sparse_gradients_without_making_them_dense():
    for given in (lambda m: m, lambda m: m.dense, lambda m: {"table": m.table, "rest": m.dense}):
        model, dense = Recommender(), Recommender(sparse=False)
        found, expected = (gs.inspect(m.losses(), given(m)).groups for m in (model, dense))
        assert found.keys() == expected.keys()
        for name, group in expected.items():
            torch.testing.assert_close(torch.tensor(found[name].gram), torch.tensor(group.gram))
        assert model.table.weight.grad is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("strategy", ["sum", "mgda"])
def test_a_sparse_gradient_that_is_not_finite_is_an_error(strategy, value):
    model = Recommender()
    model.table.weight.register_hook(lambda g: g * value)
    before = model.grads
    with pytest.raises(gs.NonFiniteError):
        gs.backward(model.losses(), model.dense, strategy)
    assert model.grads == before
    surgery = gs.Surgery(strategy, model.dense)
    with pytest.raises(gs.NonFiniteError, match=r"a parameter of shape \[9, 4\]"):
        surgery.accumulate(model.losses())


@pytest.mark.parametrize("strategy", ["sum", "mgda", "uw"])
def test_a_scaler_skips_an_overflow_with_sparse_parameters(strategy):
    for pass_before in (False, True):
        model = Recommender(dtype=torch.float32)
        given = model.dense if strategy == "mgda" else model
        optimizers = [
            torch.optim.SparseAdam([model.table.weight]),
            torch.optim.SGD(model.dense, lr=0.1),
        ]
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        surgery = gs.Surgery(strategy, given)
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        for factor in (1.0, float("inf")):
            if factor == 1.0 and not pass_before:
                continue
            losses = model.losses()
            losses["buy"] = losses["buy"] * factor
            surgery.backward(losses, scaler=scaler)
        assert model.table.weight.grad.is_sparse
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 2.0**9
        for name, p in model.named_parameters():
            assert torch.equal(p, start[name])


def test_sparse_adam_trains_as_with_torch():
    model, plain = Recommender(), Recommender()
    surgery = gs.Surgery("sum", model)
    seen = []
    model.table.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.layout))
    for m, step in ((model, surgery.backward), (plain, lambda losses: total(losses).backward())):
        optimizers = [
            torch.optim.SparseAdam([m.table.weight], lr=0.05),
            torch.optim.Adam(m.dense, lr=0.05),
        ]
        for shift in range(4):
            m.zero_grad()
            step(m.losses(shift))
            for optimizer in optimizers:
                optimizer.step()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert seen == [torch.sparse_coo] * 4


def test_a_sparse_table_behind_the_features_gets_its_gradient():
    found = {}
    for sparse in (True, False):
        model = Recommender(sparse)
        features = model.trunk(model.table(PLACES).mean(1)).tanh()
        losses = (model.head(features) - 0.5).pow(2).mean(0)
        gs.backward(losses, model, "mgda", features=features)
        found[sparse] = model.table.weight.grad
    assert found[True].is_sparse
    torch.testing.assert_close(found[True].to_dense(), found[False])


def test_a_sparse_table_inside_a_compiled_region_gets_the_sparse_sum():
    model, plain = Recommender(), Recommender()
    torch._dynamo.reset()
    compiled = torch.compile(lambda: list(model.losses().values()), backend="aot_eager")
    gs.backward(compiled(), model.dense, "mgda")
    total(plain.losses()).backward()
    same(model.table.weight.grad, plain.table.weight.grad)
