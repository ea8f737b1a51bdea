"""Sparse, complex and float8 tensors, gradients of another dtype than their parameter, and hooks:
what torch does with them holds here too, or an error says what to do."""

import io
import re

import pytest
import torch
from torch import nn

import gradsurgery as gs

PLACES = torch.tensor([[0, 3, 3], [1, 3, 0], [7, 7, 7]])


class Recommender(nn.Module):
    """A sparse embedding, a trunk and a head."""

    def __init__(self, sparse=True, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(9, 4, sparse=sparse, dtype=dtype)
        self.trunk = nn.Linear(4, 5, dtype=dtype)
        self.head = nn.Linear(5, 3, dtype=dtype)

    def losses(self, shift=0):
        out = self.head(self.trunk(self.table((PLACES + shift) % 9).mean(1)).tanh())
        parts = (out - torch.tensor([1.0, -1.0, 0.3])).pow(2).mean(0)
        return dict(zip(("click", "buy", "like"), parts, strict=True))

    @property
    def dense(self):
        return [*self.trunk.parameters(), *self.head.parameters()]

    @property
    def grads(self):
        return {
            name: None if p.grad is None else p.grad.clone() for name, p in self.named_parameters()
        }


def same(found, expected):
    """Alike in layout and dtype, and equal in numbers."""
    assert found.layout == expected.layout
    assert found.dtype == expected.dtype
    if found.layout == torch.sparse_coo:
        assert found.is_coalesced() == expected.is_coalesced()
        found, expected = found.to_dense(), expected.to_dense()
    torch.testing.assert_close(found, expected)


def total(losses):
    return sum(losses.values())


def taken(strategy, settings):
    """Whether Surgery takes these settings for this strategy, whatever the parameters."""
    try:
        gs.Surgery(strategy, [nn.Parameter(torch.ones(1))], **settings)
    except gs.InputError:
        return False
    return True


def each_with(strategies, modes):
    return pytest.mark.parametrize(
        ("strategy", "settings"),
        [
            pytest.param(s, m, id=f"{s}-{'-'.join(map(str, m.values()))}")
            for s in strategies
            for m in modes
            if taken(s, m)
        ],
    )


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


# Complex parameters.

INPUT = torch.complex(
    torch.linspace(-1, 1, 15, dtype=torch.float64), torch.linspace(2, -1, 15, dtype=torch.float64)
).view(5, 3)


class Waves(nn.Module):
    """Complex and real parameters, or all as pairs of reals."""

    def __init__(self, pairs=False, dtype=torch.complex128):
        super().__init__()
        torch.manual_seed(3)
        self.pairs, self.dtype = pairs, dtype
        for name, shape in (("weight", (3, 4)), ("bias", (4,)), ("head", (4,))):
            value = torch.randn(shape, dtype=dtype)
            self.register_parameter(
                name, nn.Parameter(torch.view_as_real(value) if pairs else value)
            )
        self.gain = nn.Parameter(torch.rand(4, dtype=dtype.to_real()))

    def losses(self, step=0):
        weight, bias, head = (
            torch.view_as_complex(p) if self.pairs else p
            for p in (self.weight, self.bias, self.head)
        )
        z = ((INPUT.to(self.dtype) + step / 3) @ weight + bias) * self.gain
        return {
            "a": z.abs().square().mean() + 0.1,
            "b": (z.conj().imag + 0.5).square().mean() + 0.1,
            "c": (z * head).real.sub(1).square().mean() + 0.1,
        }

    @property
    def real_grads(self):
        return [torch.view_as_real(p.grad) if p.is_complex() else p.grad for p in self.parameters()]

    @torch.no_grad()
    def move(self):
        for p in self.parameters():
            p -= 0.05 * p.grad
            p.grad = None


COMPLEX = ["mgda", "upgrad", "aligned-mtl", "pcgrad", "mmpareto", "graddrop", "moco", "db-mtl"]
COMPLEX += ["excess-mtl", "trimmed-mean", "uw", "mean"]
COMPLEX_MODES = [
    {},
    {"memory": "low"},
    {"method": "batched"},
    {"method": "taps"},
    {"protect": "a"},
    {"every": 2},
]


@each_with(COMPLEX, COMPLEX_MODES)
def test_complex_parameters_count_as_pairs_of_reals(strategy, settings):
    """Three steps are those of the same model whose parameters are real, with a last dimension of two."""
    models = Waves(), Waves(pairs=True)
    surgeries = [gs.Surgery(strategy, m, **settings) for m in models]
    for step in range(3):
        records = [s.backward(m.losses(step)) for s, m in zip(surgeries, models, strict=True)]
        for found, expected in zip(models[0].real_grads, models[1].real_grads, strict=True):
            torch.testing.assert_close(found, expected)
        for name, group in records[1].groups.items():
            if group.gram is not None:
                torch.testing.assert_close(records[0][name].gram, group.gram)
        for m in models:
            m.move()


def test_complex_parameters_that_are_not_given_get_the_plain_sum():
    for strategy in ("mgda", "sum"):
        model, plain = Waves(), Waves()
        gs.backward(model.losses(), [model.gain], strategy)
        total(plain.losses()).backward()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            if strategy == "sum" or p.is_complex():
                torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("strategy", ["moco", "db-mtl", "excess-mtl"])
def test_the_state_of_complex_parameters_is_saved_and_loaded(strategy):
    def run(save):
        model = Waves()
        surgery = gs.Surgery(strategy, model)
        for step in range(4):
            if step == 2 and save:
                buffer = io.BytesIO()
                torch.save(surgery.state_dict(), buffer)
                surgery = gs.Surgery(strategy, model)
                surgery.load_state_dict(
                    torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
                )
            surgery.backward(model.losses(step))
            model.move()
        return list(model.parameters())

    for found, expected in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("strategy", ["mgda", "db-mtl", "sum"])
def test_micro_batches_and_earlier_gradients_of_complex_parameters(strategy):
    models = Waves(), Waves(pairs=True)
    for m in models:
        surgery = gs.Surgery(strategy, m)
        for _ in range(2):
            for step in range(2):
                surgery.accumulate(m.losses(step))
            surgery.combine()
        surgery.backward(m.losses())
    for found, expected in zip(models[0].real_grads, models[1].real_grads, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_complex_gradient_is_written_as_an_optimizer_takes_it():
    """Without conjugate or negative bit, in the parameter's own layout."""
    torch.manual_seed(0)
    for strategy in ("sum", "mgda"):
        weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64).t())
        factor = torch.randn(4, 3, dtype=torch.complex64)
        losses = {
            "a": (weight.conj() * factor).sum().real,
            "b": (weight * factor).sum().imag,
            "c": weight.conj().sum().abs(),
        }
        expected = torch.stack(torch.autograd.grad(total(losses), [weight], retain_graph=True)).sum(
            0
        )
        gs.backward(losses, [weight], strategy)
        assert not weight.grad.is_conj()
        assert not weight.grad.is_neg()
        assert weight.grad.stride() == weight.stride()
        if strategy == "sum":
            torch.testing.assert_close(weight.grad, expected)
        torch.optim.Adam([weight]).step()
        assert torch.isfinite(torch.view_as_real(weight.detach())).all()


def test_a_gradient_is_written_in_the_layout_of_its_parameter():
    for size in (3, 300):  # small ones are combined together, large ones alone
        weight = nn.Parameter(torch.randn(size, size + 1))
        turned = weight.t().contiguous()
        gs.backward([turned.square().sum(), turned.sin().sum()], [weight], "mgda")
        assert weight.grad.stride() == weight.stride()


@pytest.mark.parametrize("part", ["real", "imag"])
@pytest.mark.parametrize("strategy", ["sum", "mgda"])
def test_a_complex_gradient_that_is_not_finite_is_an_error(strategy, part):
    model = Waves()

    def spoil(gradient):
        gradient = gradient.resolve_conj().clone()
        getattr(gradient, part)[0] = float("inf")
        return gradient

    model.bias.register_hook(spoil)
    with pytest.raises(gs.NonFiniteError):
        gs.backward(model.losses(), model, strategy)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("strategy", ["mgda", "uw"])
def test_complex_parameters_under_a_scaler(strategy):
    models = Waves(dtype=torch.complex64), Waves(dtype=torch.complex64)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    gs.Surgery(strategy, models[0]).backward(models[0].losses(), scaler=scaler)
    gs.Surgery(strategy, models[1]).backward(models[1].losses())
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p.grad / 2.0**8, q.grad)


# Parameters of other layouts.


LAYOUTS = {
    "sparse_csr": (lambda: torch.eye(3).to_sparse_csr(), lambda p: (p @ torch.ones(3, 1)).sum()),
    "sparse_coo": (
        lambda: torch.eye(3).to_sparse(),
        lambda p: torch.sparse.mm(p, torch.ones(3, 1)).sum(),
    ),
    "mkldnn": (lambda: torch.eye(3).to_mkldnn(), lambda p: p.to_dense().sum()),
    "nested": (
        lambda: torch.nested.nested_tensor(
            [torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged
        ),
        lambda p: (p * 2.0).values().sum(),
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("strategy", ["sum", "mgda"])
@pytest.mark.parametrize("form", LAYOUTS)
def test_parameters_of_other_layouts_are_named(form, strategy):
    if form == "mkldnn" and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no MKLDNN")
    value, loss = LAYOUTS[form]
    model = nn.Module()
    model.odd, model.scale = nn.Parameter(value()), nn.Parameter(torch.ones(2))

    def losses():
        return [loss(model.odd) * model.scale[0], loss(model.odd) * model.scale[1]]

    with pytest.raises(
        gs.InputError, match=rf"parameter 'odd' is .*{form}.*requires_grad_\(False\)"
    ):
        gs.backward(losses(), model, strategy)
    with pytest.raises(gs.InputError, match=rf"a parameter of shape \[.*\] is .*{form}"):
        gs.backward(losses(), [model.scale], strategy)
    assert model.scale.grad is None
    model.odd.requires_grad_(False)
    gs.backward(losses(), model, strategy)
    assert model.scale.grad is not None


# Gradients of another dtype than their parameter.

needs_grad_dtype = pytest.mark.skipif(
    not hasattr(torch.Tensor, "grad_dtype"), reason="Tensor.grad_dtype came with torch 2.10"
)


class Wide(nn.Module):
    """bfloat16 parameters whose products are formed in float32, as a fused kernel would."""

    def __init__(self, grad_dtype="float32"):
        super().__init__()
        torch.manual_seed(5)
        self.trunk = nn.Parameter(torch.randn(6, 4).bfloat16())
        self.bias = nn.Parameter(torch.randn(4).bfloat16())
        self.head = nn.Parameter(torch.randn(4).bfloat16())
        for p in self.parameters():
            if grad_dtype != "own":
                p.grad_dtype = None if grad_dtype is None else getattr(torch, grad_dtype)

    def losses(self):
        h = Product.apply(self.trunk) + Product.apply(self.bias)
        return {
            "a": h.square().mean(),
            "b": (h - 1).abs().mean(),
            "c": (h * Product.apply(self.head)).tanh().mean() + 1,
        }


class Product(torch.autograd.Function):
    """To float32, with the gradient left in float32 whatever its tensor's dtype."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


GRAD_MODES = [
    {},
    {"memory": "low"},
    {"method": "batched"},
    {"every": 2},
    {"protect": "a"},
    {"min_objectives": 4},
]


@needs_grad_dtype
@each_with(["mgda", "aligned-mtl", "db-mtl", "moco", "graddrop", "sum", "uw"], GRAD_MODES)
def test_gradients_have_the_dtype_that_the_parameter_asks_for(strategy, settings):
    """What float32 parameters of the same values get, without rounding to bfloat16 on the way."""
    model, exact = Wide(), Wide(grad_dtype="own").float()
    surgeries = [gs.Surgery(strategy, m, **settings) for m in (model, exact)]
    for _ in range(2):  # the second step adds to .grad
        for surgery, m in zip(surgeries, (model, exact), strict=True):
            surgery.backward(m.losses())
        for p, q in zip(model.parameters(), exact.parameters(), strict=True):
            assert p.grad.dtype == torch.float32
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-7)


@needs_grad_dtype
@pytest.mark.parametrize("grad_dtype", ["float64", "float32", "own", None])
def test_every_grad_dtype_is_written_as_torch_writes_it(grad_dtype):
    for strategy in ("sum", "mgda"):
        model, plain = Wide(grad_dtype), Wide(grad_dtype)
        gs.backward({"a": model.losses()["a"]}, model, strategy)
        plain.losses()["a"].backward()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            if q.grad is not None:
                same(p.grad, q.grad)


@needs_grad_dtype
def test_taps_micro_batches_and_a_scaler_keep_the_grad_dtype():
    torch.manual_seed(0)
    layer = nn.Linear(64, 64).bfloat16()
    head = nn.Linear(64, 2)
    for p in layer.parameters():
        p.grad_dtype = torch.float32
    x = torch.randn(4, 64).bfloat16()

    def losses():
        return dict(zip("ab", head(layer(x).float().tanh()).square().mean(0), strict=True))

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    parameters = [*layer.parameters(), *head.parameters()]
    found = []
    for settings, call in (
        ({"method": "gradients"}, lambda s: s.backward(losses())),
        ({"method": "taps"}, lambda s: s.backward(losses())),
        ({}, lambda s: (s.accumulate(losses()), s.combine())),
        ({}, lambda s: s.backward(losses(), scaler=scaler)),
        ({"memory": "low"}, lambda s: s.backward(losses())),
    ):
        for p in parameters:
            p.grad = None
        call(gs.Surgery("mgda", parameters, **settings))
        assert {p.grad.dtype for p in parameters} == {torch.float32}
        found.append([p.grad for p in parameters])
    found[3] = [g / 2 for g in found[3]]
    for other in found[1:]:
        for g, h in zip(other, found[0], strict=True):
            torch.testing.assert_close(g, h, rtol=2e-2, atol=1e-3)
    losses_with_overflow = {name: loss * float("inf") for name, loss in losses().items()}
    for p in parameters:
        p.grad = None
    gs.backward(losses_with_overflow, parameters, "mgda", scaler=scaler)
    assert {p.grad.dtype for p in parameters} == {torch.float32}


@needs_grad_dtype
def test_parameters_behind_the_features_keep_their_form():
    torch.manual_seed(0)
    waves = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))
    scale = nn.Parameter(torch.randn(4).bfloat16())
    scale.grad_dtype = torch.float32
    head = nn.Linear(4, 2)
    for given in ([waves, scale, *head.parameters()], [scale, *head.parameters()]):
        waves.grad = scale.grad = None
        features = (torch.ones(5, 3, dtype=torch.complex64) @ waves).abs() * scale.float()
        losses = dict(zip("ab", head(features).square().mean(0), strict=True))
        expected = torch.autograd.grad(total(losses), [waves], retain_graph=True)[0]
        gs.backward(losses, given, "mgda", features=features)
        assert scale.grad.dtype == torch.float32
        assert waves.grad.dtype == torch.complex64
        if len(given) == 3:  # not given: the plain sum
            torch.testing.assert_close(waves.grad, expected)


@needs_grad_dtype
def test_a_sparse_gradient_has_the_grad_dtype_too():
    model = Recommender(dtype=torch.bfloat16)
    model.table.weight.grad_dtype = torch.float32
    gs.backward(model.losses(), model.dense, "mgda")
    assert model.table.weight.grad.is_sparse
    assert model.table.weight.grad.dtype == torch.float32


# Several dtypes side by side.


def test_a_grad_of_another_dtype_is_added_to_or_refused_before_anything_is_written():
    def model_with(dtype):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        model[1].bias.grad = torch.ones(2)
        model[1].bias.grad.data = torch.ones(2, dtype=dtype)
        model[0].weight.grad = torch.zeros(4, 3)
        return model, dict(zip("ab", model(torch.ones(5, 3)).square().mean(0), strict=True))

    for dtype in (torch.int64, torch.bool, torch.float8_e4m3fn):
        for strategy in ("mgda", "sum"):
            model, losses = model_with(dtype)
            with pytest.raises(
                gs.InputError, match=rf"\.grad \({re.escape(str(dtype))}.*set it to None"
            ):
                gs.backward(losses, model, strategy)
            assert model[0].bias.grad is None
            assert not model[0].weight.grad.any()
    for dtype in (torch.float64, torch.bfloat16):
        (model, losses), (plain, others) = model_with(dtype), model_with(dtype)
        gs.backward(losses, model, "sum")
        total(others).backward()
        assert model[1].bias.grad.dtype == plain[1].bias.grad.dtype == dtype
        torch.testing.assert_close(model[1].bias.grad, plain[1].bias.grad)


@pytest.mark.parametrize("strategy", ["sum", "mgda", "graddrop", "db-mtl"])
def test_losses_and_parameters_of_several_dtypes(strategy):
    torch.manual_seed(0)
    values = [torch.randn(3) for _ in range(4)]
    dtypes = torch.bfloat16, torch.float16, torch.float32, torch.float64
    parameters = [nn.Parameter(v.to(dtype)) for v, dtype in zip(values, dtypes, strict=True)]
    exact = [nn.Parameter(p.detach().double()) for p in parameters]

    def losses(given, dtypes):
        wide = [p.double() for p in given]
        parts = (
            sum(p.square().sum() for p in wide),
            sum(p.tanh().sum() for p in wide) + 20,
            sum(wide).cos().sum() + 9,
        )
        return dict(
            zip(
                "abc",
                (part.to(dtype) for part, dtype in zip(parts, dtypes, strict=True)),
                strict=True,
            )
        )

    gs.Surgery(strategy, parameters).backward(
        losses(parameters, (torch.float64, torch.float32, torch.bfloat16))
    )
    gs.Surgery(strategy, exact).backward(losses(exact, [torch.float64] * 3))
    for p, q in zip(parameters, exact, strict=True):
        assert p.grad.dtype == p.dtype
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=0.05, atol=0.05)


EIGHT_BITS = [
    getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2") if hasattr(torch, name)
]


@pytest.mark.parametrize("dtype", EIGHT_BITS, ids=str)
def test_a_float8_loss_is_named(dtype):
    weight = nn.Parameter(torch.ones(3))
    losses = {"fine": weight.sum(), "narrow": weight.square().sum().to(dtype)}
    with pytest.raises(gs.InputError, match=r"loss 'narrow'.*float8.*\.float\(\)"):
        gs.backward(losses, [weight], "mgda")
    assert weight.grad is None


@pytest.mark.parametrize("dtype", EIGHT_BITS, ids=str)
@pytest.mark.parametrize("strategy", ["mgda", "graddrop", "db-mtl", "aligned-mtl"])
def test_float8_parameters_are_seen_as_float32(strategy, dtype):
    narrow = nn.Parameter(torch.tensor([0.5, 1.0, -2.0]).to(dtype))
    exact = nn.Parameter(narrow.detach().float())

    def losses(weight):
        wide = weight.float()
        return {
            "a": wide.square().sum(),
            "b": (wide - 1).square().sum(),
            "c": wide.tanh().sum() + 3,
        }

    gs.Surgery(strategy, [narrow]).backward(losses(narrow))
    gs.Surgery(strategy, [exact]).backward(losses(exact))
    assert narrow.grad.dtype == dtype
    torch.testing.assert_close(narrow.grad.float(), exact.grad, rtol=0.3, atol=0.1)
    kept = narrow.grad.float()
    with pytest.raises(gs.InputError, match=r"float8.*set it to None"):
        gs.backward(losses(narrow), [narrow], strategy="mgda")
    assert torch.equal(narrow.grad.float(), kept)


def test_a_direction_beyond_the_range_of_float8_is_an_error():
    weight = nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn))
    losses = [weight.float().sum() * 300, weight.float().sum() * 299]
    with pytest.raises(gs.NonFiniteError, match="not finite in the parameters' dtype"):
        gs.backward(losses, [weight], "sum", protect="0")
    assert weight.grad is None


def test_float8_gradients_that_torch_cannot_add_are_an_error_that_says_so():
    weight = nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn))
    with pytest.raises(gs.InputError, match=r"float8.*wider dtype"):
        gs.backward([weight.float().sum(), weight.float().square().sum()], [weight], "sum")
    assert weight.grad is None


# Hooks.


@pytest.mark.parametrize("strategy", ["sum", "mgda"])
def test_a_multi_grad_hook_on_parameters_is_an_error_that_says_what_to_use(strategy):
    model = Recommender(sparse=False)
    handle = torch.autograd.graph.register_multi_grad_hook(model.dense, lambda gradients: None)
    with pytest.raises(
        gs.InputError, match=r"register_multi_grad_hook.*register_post_accumulate_grad_hook"
    ):
        gs.backward(model.losses(), model, strategy)
    assert all(grad is None for grad in model.grads.values())
    handle.remove()
    gs.backward(model.losses(), model, strategy)


@pytest.mark.parametrize("mode", ["all", "any"])
def test_a_multi_grad_hook_on_activations_fires_in_every_pass(mode):
    model = Recommender(sparse=False)
    seen = []
    hidden = model.trunk(model.table(PLACES).mean(1))
    other = hidden.tanh()
    torch.autograd.graph.register_multi_grad_hook([hidden, other], seen.append, mode=mode)
    losses = dict(zip("ab", model.head(other).square().mean(0), strict=False))
    gs.backward(losses, model, "mgda")
    assert len(seen) == 2


def test_a_tensor_hook_on_a_parameter_acts_on_the_gradient_of_each_loss():
    model, plain = Recommender(sparse=False), Recommender(sparse=False)
    seen = []
    model.trunk.weight.register_hook(lambda g: seen.append(g.shape) or g / 2)
    gs.backward(model.losses(), model, "mgda", method="gradients")
    assert len(seen) == 3
    rows = [
        torch.autograd.grad(loss, list(plain.parameters()), retain_graph=True)
        for loss in plain.losses().values()
    ]
    halved = [
        torch.cat([(g / 2 if i == 1 else g).flatten() for i, g in enumerate(row)]) for row in rows
    ]
    torch.testing.assert_close(
        torch.cat([p.grad.flatten() for p in model.parameters()]), gs.get_strategy("mgda")(halved)
    )
