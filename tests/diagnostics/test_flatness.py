"""flatness: the largest Hessian eigenvalue of known models, and what it leaves as it was."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.diagnostics import flatness
from gradsurgery.diagnostics.flatness import largest


def quadratic(eigenvalues, seed=0):
    """A model with the loss wᵀHw/2, H with these eigenvalues."""
    torch.manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues)).double())[0]
    hessian = turn @ torch.diag(torch.tensor(eigenvalues).double()) @ turn.T
    model = nn.Linear(len(eigenvalues), 1, bias=False).double()
    return model, hessian


def energy(model, hessian):
    return (model.weight @ hessian @ model.weight.T).squeeze() / 2


@pytest.mark.parametrize(
    ("eigenvalues", "value"),
    [
        ([5.0, 1.0, 0.1, 0.0], 5.0),
        ([2.0, 1.0, -30.0], 2.0),  # the largest in size is negative
        ([-1.0, -2.0, -3.0], -1.0),
        ([3.0, 3.0, 3.0], 3.0),
        ([7.0], 7.0),
        ([0.0, 0.0], 0.0),
        ([1e-9, 5e-10, 1e-10], 1e-9),
        ([*torch.linspace(0, 1, 200).tolist(), 4.0], 4.0),
    ],
)
def test_quadratic_losses_have_the_eigenvalue_that_they_were_made_with(eigenvalues, value):
    model, hessian = quadratic(eigenvalues)
    found = flatness(model, [hessian], energy, tolerance=1e-4)
    assert found.eigenvalue == pytest.approx(value, rel=1e-6, abs=1e-15)
    assert found.converged
    assert found.products <= 40
    assert found.loss == pytest.approx(energy(model, hessian).item())


def test_the_error_bounds_the_distance_to_an_eigenvalue_and_is_said_where_it_is_large():
    eigenvalues = torch.linspace(0, 1, 300).tolist()
    model, hessian = quadratic(eigenvalues)
    found = flatness(model, [hessian], energy, products=4, tolerance=1e-6)
    assert not found.converged
    assert found.products == 4
    assert 0.5 < found.eigenvalue < 1
    assert min(abs(found.eigenvalue - x) for x in eigenvalues) <= found.error


def dense(model, batches, losses):
    """The Hessian of the mean of the summed losses, whole."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def value(weights):
        parts = weights.split([shape.numel() for shape in shapes])
        own = {n: x.view(s) for n, x, s in zip(names, parts, shapes, strict=True)}
        called = torch.func.functional_call

        def substituted(x):
            return called(model, own, (x,))

        found = [sum(losses(substituted, batch).values()) for batch in batches]
        return torch.stack(found).mean()

    return torch.autograd.functional.hessian(value, flat)


def two(model, batch):
    x, y = batch
    out = model(x)
    return {"class": nn.functional.cross_entropy(out[:, :3], y), "size": out[:, 3].pow(2).mean()}


@pytest.mark.parametrize("count", [1, 3])
def test_a_network_has_the_largest_eigenvalue_of_its_dense_hessian(count):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4))
    batches = [(torch.randn(20, 4), torch.randint(3, (20,))) for _ in range(count)]
    hessian = dense(net, batches, two)
    wanted = torch.linalg.eigvalsh(hessian)
    found = flatness(net, batches, two, tolerance=1e-3)
    assert found.eigenvalue == pytest.approx(wanted[-1].item(), rel=1e-3)
    assert found.converged
    part = flatness(net, batches, two, parameters=net[2], tolerance=1e-3)
    block = torch.linalg.eigvalsh(hessian[-24:, -24:])[-1].item()
    assert part.eigenvalue == pytest.approx(block, rel=1e-3)


def test_the_seed_is_of_the_first_vector_alone():
    model, hessian = quadratic([3.0, 2.0, 1.0, 0.5] * 4)
    found = [flatness(model, [hessian], energy, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[2].eigenvalue == pytest.approx(found[0].eigenvalue, rel=0.01)


def test_with_dropout_the_products_are_of_one_loss_and_the_model_is_as_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 4))
    net[0].weight.grad = torch.ones(6, 4)
    before = {name: x.clone() for name, x in net.state_dict().items()}
    batches = [(torch.randn(30, 4), torch.randint(3, (30,)))]
    state = torch.get_rng_state()
    first, again = (flatness(net, batches, two, tolerance=1e-3) for _ in range(2))
    assert first == again
    assert first.converged
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert torch.equal(net[0].weight.grad, torch.ones(6, 4))
    assert net[0].bias.grad is None


def test_losses_that_are_linear_or_do_not_reach_a_parameter_have_no_curvature():
    net = nn.Linear(3, 2)
    found = flatness(net, [torch.ones(3)], lambda model, x: (model(x)[0], model(x)[1]))
    assert (found.eigenvalue, found.error, found.converged) == (0.0, 0.0, True)
    only = flatness(net, [2.0], lambda model, c: c * model.bias.pow(2).sum())
    assert only.eigenvalue == pytest.approx(4.0)


def test_lanczos_agrees_with_a_product_that_is_symmetric_only_to_rounding():
    torch.manual_seed(0)
    matrix = torch.randn(80, 80)
    matrix = matrix + matrix.T
    wanted = torch.linalg.eigvalsh(matrix.double())[-1].item()
    value, error, converged, taken = largest(lambda v: matrix @ v, torch.randn(80), 80, 1e-5)
    assert converged
    assert value == pytest.approx(wanted, rel=1e-5)
    assert taken < 80
    assert error <= 1e-5 * 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "net"}, "is a Module; got str"),
        ({"batches": []}, "batches: none was given"),
        ({"losses": lambda model, x: {"a": 1.0}}, "return a scalar loss"),
        ({"losses": lambda model, x: x.sum()}, "none depends on a parameter"),
        ({"products": 0}, "are positive; got 0"),
        ({"tolerance": 0.0}, "are positive; got 40 and 0.0"),
        ({"parameters": []}, "no parameter requires a gradient"),
        ({"parameters": [torch.ones(2, requires_grad=True).to(torch.cfloat)]}, "real numbers"),
    ],
)
def test_what_cannot_be_used_is_said(change, message):
    given = {
        "model": nn.Linear(3, 2),
        "batches": [torch.ones(3)],
        "losses": lambda model, x: model(x).pow(2).sum(),
        **change,
    }
    with pytest.raises(gs.InputError, match=message):
        flatness(given.pop("model"), given.pop("batches"), given.pop("losses"), **given)


def test_parameters_of_two_dtypes_and_what_is_not_finite_are_errors():
    both = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1).double())
    with pytest.raises(gs.InputError, match=r"torch.float32 on cpu and torch.float64"):
        flatness(both, [1.0], lambda model, x: 0)
    net = nn.Linear(3, 2)
    with pytest.raises(gs.NonFiniteError, match="nan on batch 1"):
        flatness(net, [torch.ones(3), torch.full((3,), torch.nan)], lambda m, x: m(x).sum())
    with pytest.raises(gs.NonFiniteError, match="second derivative"):
        flatness(net, [1.0], lambda m, x: (0 * m.weight).abs().pow(1.5).sum())
