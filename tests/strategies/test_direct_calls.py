"""The strategies on gradients: closed forms, definitions written out, scales, dtypes, and bad options."""

import itertools

import numpy as np
import pytest
import torch
from zoo import LEAST, SHIPPED, ready
from zoo import direction as run

import gradsurgery as gs
from gradsurgery.testing import KINDS, make_sample

HOMOGENEOUS = [
    n
    for n in SHIPPED
    if any(
        c.name == "homogeneous" and c.degree_under(ready(n).options) == 1 and not c.condition
        for c in ready(n).claims
    )
]


def jacobian(rng, n, kind, spread=0.0):
    return make_sample(kind, n, rng, spread=spread).jacobian


def direction(name, rows, **options):
    return gs.get_strategy(name, **options)(torch.as_tensor(rows))


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_list_and_matrix_and_dtype(name, dtype):
    rows = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(
        dtype
    )
    matrix = run(ready(name), rows)
    assert matrix.dtype == dtype
    assert matrix.shape == (7,)
    assert torch.equal(matrix, run(ready(name), list(rows)))
    exact = run(ready(name), rows.double())
    assert torch.allclose(
        matrix.double(),
        exact,
        rtol=8 * torch.finfo(dtype).eps,
        atol=8 * torch.finfo(dtype).eps * max(1.0, float(exact.abs().max())),
    )


@pytest.mark.parametrize("name", HOMOGENEOUS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scale_does_not_matter(name, dtype):
    rng = np.random.default_rng(0)
    for kind in ("normal", "square", "opposite", "duplicates"):
        rows = torch.as_tensor(jacobian(rng, 4, kind, 1.0)).to(dtype)
        if kind == "opposite" and dtype == torch.float32:
            continue  # in float32 a factor of 1e-20 rounds, and opposite rows are opposite no more: see the next test
        reference = run(ready(name), rows.double())
        for scale in (1e-20, 1e-8, 1.0, 1e8, 1e20):
            scaled = run(ready(name), rows * scale)
            unit = scaled.double() / scale
            assert (unit - reference).norm() <= 1e-6 * max(
                reference.norm(), 1e-1 * rows.double().norm(dim=1).sum()
            ), (kind, scale)


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_scale_of_opposite_float32_rows(name):
    """The same rows to the last bit, at other scales."""
    rows = torch.as_tensor(jacobian(np.random.default_rng(0), 4, "opposite", 1.0)).float()
    reference = run(ready(name), rows)
    for exponent in (-40, -27, 27, 40):
        assert torch.equal(run(ready(name), rows * 2.0**exponent), reference * 2.0**exponent)


def test_float32_rows_with_large_and_tiny_norms_together():
    rows = torch.tensor([[1e-20, 0.0], [-0.5e20, 1e20]])
    # the large row loses its part along the small one, and the small one its part along the large one
    assert torch.allclose(gs.get_strategy("pcgrad")(rows), torch.tensor([0.0, 1e20]))
    found = gs.get_strategy("mgda")(rows).double()
    assert torch.allclose(
        found, torch.tensor([0.8e-20, 0.4e-20], dtype=torch.float64), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(
    "rows",
    [
        [[0.0, 0.0]], [[1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [-1.0, -2.0]], [[1.0, 2.0], [0.0, 0.0]],
        [[1.0, 1.0]] * 5, [[1.0, 2.0], [-1.0, -2.0], [0.5, 3.0]], [[0.0, 0.0]] * 3, [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]],
    ],
)  # fmt: skip
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e18])
def test_degenerate_rows_are_ordinary(name, rows, scale):
    if len(rows) < LEAST.get(name, 1):
        with pytest.raises(gs.InputError, match="needs"):
            run(ready(name), torch.tensor(rows))
        return
    for dtype in (torch.float32, torch.float64):
        given = torch.tensor(rows, dtype=dtype) * scale
        found = run(ready(name), given)
        assert torch.isfinite(found).all()
        if not given.any():
            assert not found.any()


def test_stationary_points_give_zero():
    rows = torch.tensor([[3.0, -1.0], [-1.5, 0.5]], dtype=torch.float64)
    for name in ("mgda", "mmpareto", "nash-mtl", "fairgrad"):
        assert direction(name, rows).tolist() == [0.0, 0.0]
    # opposite up to the rounding of float32: noise is not lengthened
    first = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    noisy = torch.stack([first, (first * -0.3) * (1 + 0)])
    assert direction("mmpareto", noisy).abs().max() == 0


def test_closed_forms_for_two():
    rng = np.random.default_rng(1)
    for _ in range(100):
        a, b = rng.normal(size=(2, 5)) * 10.0 ** rng.uniform(-2, 2, (2, 1))
        share = np.clip((b @ b - a @ b) / ((a - b) @ (a - b)), 0, 1)
        assert np.allclose(direction("mgda", np.stack([a, b])), share * a + (1 - share) * b)
        assert np.allclose(direction("cagrad", np.stack([a, b]), c=0.0), (a + b) / 2)
        assert np.allclose(direction("cagrad", np.stack([a, b]), c=1e-9), (a + b) / 2)
        if a @ b < 0:
            expected = a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a
        else:
            expected = a + b
        assert np.allclose(direction("pcgrad", np.stack([a, b])), expected)
        assert np.allclose(direction("pcgrad", np.stack([a, b]), reduction="mean"), expected / 2)


def cagrad_by_definition(rows, c, steps=20000):
    """CAGrad's dual on a fine grid of the segment, for two rows."""
    mean = rows.mean(0)
    share = np.linspace(0, 1, steps)[:, None]
    points = share * rows[0] + (1 - share) * rows[1]
    lengths = np.linalg.norm(points, axis=1)
    best = np.argmin(points @ mean + c * np.linalg.norm(mean) * lengths)
    return mean + c * np.linalg.norm(mean) * points[best] / lengths[best]


@pytest.mark.parametrize("c", [0.2, 0.5, 1.0, 2.0])
def test_cagrad_is_its_dual(c):
    rng = np.random.default_rng(2)
    for _ in range(20):
        rows = rng.normal(size=(2, 4)) * [[1.0], [3.0]]
        expected = cagrad_by_definition(rows, c)
        found = direction("cagrad", rows, c=c).numpy()
        assert np.allclose(found, expected, atol=2e-3 * np.abs(expected).max())
        assert np.linalg.norm(found - rows.mean(0)) <= c * np.linalg.norm(rows.mean(0)) * (1 + 1e-9)
        assert (rows @ found).min() >= (rows @ expected).min() - 1e-9
        assert np.allclose(direction("cagrad", rows, c=c, rescale=1) * (1 + c**2), found)
        assert np.allclose(direction("cagrad", rows, c=c, rescale=2) * (1 + c), found)


def pcgrad_by_definition(rows, orders):
    total = np.zeros(rows.shape[1])
    for i, order in enumerate(orders):
        g = rows[i].copy()
        for j in order:
            if g @ rows[j] < 0:
                g -= (g @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
        total += g
    return total


class Ordered:
    """A stand-in for the generator that deals out given orders."""

    def __init__(self, orders):
        self.orders = orders

    def permuted(self, others, axis):
        assert axis == 1
        assert sorted(others[0].tolist()) == sorted(self.orders[0])
        return np.array(self.orders)


def test_pcgrad_is_the_papers_loop_for_every_order():
    rng = np.random.default_rng(3)
    others = [list(itertools.permutations([j for j in range(4) if j != i])) for i in range(4)]
    for orders in list(itertools.product(*others))[::37]:
        rows = rng.normal(size=(4, 3)) * 10.0 ** rng.uniform(-3, 3, (4, 1))
        weights = gs.get_strategy("pcgrad").weights(rows @ rows.T, rng=Ordered(orders))
        expected = pcgrad_by_definition(rows, orders)
        assert np.allclose(rows.T @ weights, expected, rtol=1e-9, atol=1e-9 * np.abs(rows).max())


def test_pcgrad_draws_a_fresh_order_for_each_and_each_step():
    rows = jacobian(np.random.default_rng(0), 6, "pulling apart")
    found = {
        tuple(gs.get_strategy("pcgrad").weights(rows @ rows.T, step=s).round(9)) for s in range(20)
    }
    assert len(found) > 5
    assert (
        gs.get_strategy("pcgrad").weights(rows @ rows.T, step=3).tolist()
        == gs.get_strategy("pcgrad").weights(rows @ rows.T, step=3).tolist()
    )


@pytest.mark.parametrize("normalize", ["none", "l2", "loss", "loss+"])
def test_mgda_combines_the_gradients_it_solved_on(normalize):
    rng = np.random.default_rng(4)
    for _ in range(50):
        rows = rng.normal(size=(3, 4)) * 10.0 ** rng.uniform(-2, 2, (3, 1))
        losses = rng.uniform(0.1, 5, 3)
        divisor = {
            "none": 1,
            "l2": np.linalg.norm(rows, axis=1),
            "loss": losses,
            "loss+": losses * np.linalg.norm(rows, axis=1),
        }[normalize]
        scaled = rows / np.reshape(divisor, (-1, 1))
        found = gs.get_strategy("mgda", normalize=normalize)(
            torch.as_tensor(rows), losses=losses
        ).numpy()
        # the min-norm point p of the scaled hull: ⟨ĝᵢ, p⟩ >= ‖p‖² for all i
        assert (
            scaled @ found >= found @ found - 1e-9 * np.linalg.norm(scaled, axis=1).max() ** 2
        ).all()
        assert (rows @ found > -1e-9).all()


def test_mgda_names_a_loss_that_is_not_positive():
    with pytest.raises(gs.InputError, match=r"'style'.*-0\.5"):
        gs.get_strategy("mgda", normalize="loss").weights(
            np.eye(2), losses=[1.0, -0.5], objectives=("content", "style")
        )
    with pytest.raises(gs.StrategyError, match="losses"):
        gs.get_strategy("mgda", normalize="loss").weights(np.eye(2))


def test_random_weights_are_a_softmax_of_normals():
    draws = np.array([gs.get_strategy("random").weights(np.eye(3), step=s) for s in range(3000)])
    assert np.allclose(draws.sum(1), 1)
    logs = np.log(draws[:, 0] / draws[:, 1]) / np.sqrt(2)
    assert abs(logs.mean()) < 0.1
    assert abs(logs.std() - 1) < 0.05


def test_constant_by_name_and_in_order():
    by_name = gs.get_strategy("constant", preference={"b": 2.0, "a": 1.0})
    assert by_name.weights(np.eye(2), objectives=("a", "b")).tolist() == [1.0, 2.0]
    assert gs.get_strategy("constant", preference=[1.0, 3.0]).weights(np.eye(2)).tolist() == [
        1.0,
        3.0,
    ]
    with pytest.raises(gs.InputError, match="'c'"):
        by_name.weights(np.eye(2), objectives=("a", "c"))


# ---- mmpareto


def test_mmpareto_counterexample():
    """Two scalar tensors: the official per-tensor length bends the direction into the unimodal objective; one factor does not."""
    blocks = np.array([[[4.0, -2.0], [-2.0, 1.0]], [[1.0, -1.0], [-1.0, 1.0]]])
    rows = np.array([[-2.0, -1.0], [1.0, 1.0]])
    tensor = gs.get_strategy("mmpareto", rescale="tensor", gamma=1.5).weights(
        blocks.sum(0), block_grams=blocks
    )
    bent = np.einsum("kn,nk->k", tensor, rows)
    assert bent == pytest.approx([-1.5, 9 / 13])
    assert bent @ rows[1] == pytest.approx(-1.5 + 9 / 13)  # -0.81: it hurts the unimodal objective
    group = rows.T @ gs.get_strategy("mmpareto", gamma=1.0).weights(rows @ rows.T)
    assert (rows @ group > 0).all()


def test_mmpareto_cases():
    plain = gs.get_strategy("mmpareto")
    assert plain.weights([[1.0, 0.0], [0.0, 1.0]]).tolist() == [
        1.5,
        1.5,
    ]  # orthogonal is no conflict
    assert gs.get_strategy("mmpareto", gamma_on="conflict").weights(np.eye(2)).tolist() == [
        1.0,
        1.0,
    ]
    assert direction("mmpareto", [[1.0, 2.0], [0.0, 0.0]], gamma=1.0).tolist() == [1.0, 2.0]
    assert direction("mmpareto", [[0.0, 0.0], [0.0, 0.0]]).tolist() == [0.0, 0.0]
    assert direction("mmpareto", [[1.0, 2.0], [-1.0, -2.0]]).tolist() == [0.0, 0.0]
    # a zero row leaves the others their problem
    three = direction(
        "mmpareto", torch.tensor([[1.0, 0.2], [0.0, 0.0], [-1.0, 0.3]], dtype=torch.float64)
    )
    two = direction("mmpareto", torch.tensor([[1.0, 0.2], [-1.0, 0.3]], dtype=torch.float64))
    assert torch.allclose(three, two)
    # the length is that of the sum, never shrunk, and capped
    rows = np.array([[1.0, 0.01], [-0.9, 0.01]])
    gram = rows @ rows.T
    found = rows.T @ gs.get_strategy("mmpareto", gamma=1.0).weights(gram)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(rows.sum(0)))
    none = rows.T @ gs.get_strategy("mmpareto", gamma=1.0, rescale="none").weights(gram)
    capped = rows.T @ gs.get_strategy("mmpareto", gamma=1.0, max_rescale=2.0).weights(gram)
    assert np.allclose(capped, 2 * none)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_mmpareto_group_never_conflicts(kind, n):
    rng = np.random.default_rng(n)
    for spread in (0.0, 3.0, 6.0):
        for _ in range(100):
            rows = jacobian(rng, n, kind, spread)
            found = direction("mmpareto", rows).numpy()
            allowed = (
                1e-9
                * np.linalg.norm(rows, axis=1)
                * max(np.linalg.norm(rows, axis=1).sum() * 150, 1e-300)
            )
            assert (rows @ found >= -allowed).all()


# ---- bad input


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mgda", {"normalize": "l3"}, "unknown normalize 'l3'. Did you mean 'l2'"),
        ("mgda", {"solver": "magic"}, "Known: auto, active-set"),
        ("cagrad", {"rescale": 3}, "rescale is one of 'none', 1, 2; got 3"),
        ("cagrad", {"rescale": True}, "rescale is one of"),
        ("cagrad", {"c": -1.0}, "c is a number at least 0; got -1.0"),
        ("cagrad", {"c": float("nan")}, "c is a number"),
        ("cagrad", {"c": "0.4"}, "c is a number"),
        ("mmpareto", {"max_rescale": 0.5}, "max_rescale is a number at least 1"),
        ("mmpareto", {"gamma": 0}, "gamma is a number above 0"),
        ("mmpareto", {"rescale": "layer"}, "unknown rescale 'layer'"),
    ],
)
def test_bad_options(name, options, message):
    """They are refused where they are given, not at the first step."""
    with pytest.raises(gs.StrategyError, match=message):
        gs.get_strategy(name, **options)
    with pytest.raises(gs.StrategyError, match=message):
        gs.Surgery(name, **options)


def test_options_written_behind_the_name():
    assert gs.get_strategy("cagrad(c=0.4, rescale=1)").options == {"c": 0.4, "rescale": 1}
    assert gs.Surgery("mgda(normalize='l2')").strategy.options["normalize"] == "l2"
    assert gs.get_strategy("cagrad(c=0.4)", c=0.2).options["c"] == 0.2
    for wrong, message in (
        ("cagrad(c=0.4", "write a name"),
        ("cagrad(0.4)", "by name"),
        ("cagrad(c=x)", "c='x'"),
        ("cagrad(c 1)", "are not options"),
    ):
        with pytest.raises(gs.StrategyError, match=message):
            gs.get_strategy(wrong)


@pytest.mark.parametrize("name", SHIPPED)
def test_bad_gradients(name):
    chosen = ready(name)
    one, mixed = torch.ones(2), [torch.ones(2), torch.ones(2).double()]
    for bad in (
        torch.ones(3),
        [],
        [one, torch.ones(3)],
        mixed,
        [[1.0, 2.0]],
        torch.ones(2, 2).int(),
    ):
        with pytest.raises(gs.InputError, match="gradients"):
            chosen(
                [bad] * 3 if "cross" in chosen.inputs else bad,
                **({"state": gs.State()} if "state" in chosen.inputs else {}),
            )
    for value in (float("nan"), float("inf")):
        with pytest.raises(gs.NonFiniteError, match="'1'"):
            run(chosen, torch.tensor([[1.0, 1.0], [1.0, value], [1.0, 1.0]]))
