"""Strategies called on gradients: scales, dtypes, degenerate rows, and bad options."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.shipped import LEAST, SHIPPED, ready
from tests.support.shipped import direction as run
from tests.support.strategies import direction, jacobian

HOMOGENEOUS = [
    n
    for n in SHIPPED
    if any(
        c.name == "homogeneous" and c.degree_under(ready(n).options) == 1 and not c.condition
        for c in ready(n).claims
    )
]


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
            # in float32 a factor of 1e-20 rounds, and opposite rows are opposite no more: see the
            # next test
            continue
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
    # the large row loses its part along the small one, and the small one its part along the large
    # one
    assert torch.allclose(gs.get_strategy("pcgrad")(rows), torch.tensor([0.0, 1e20]))
    found = gs.get_strategy("mgda")(rows).double()
    assert torch.allclose(
        found, torch.tensor([0.8e-20, 0.4e-20], dtype=torch.float64), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(
    "rows",
    [
        [[0.0, 0.0]], [[1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [1.0, 2.0]],
        [[1.0, 2.0], [-1.0, -2.0]], [[1.0, 2.0], [0.0, 0.0]],
        [[1.0, 1.0]] * 5, [[1.0, 2.0], [-1.0, -2.0], [0.5, 3.0]], [[0.0, 0.0]] * 3,
        [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]],
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


def test_mgda_names_a_loss_that_is_not_positive():
    with pytest.raises(gs.InputError, match=r"'style'.*-0\.5"):
        gs.get_strategy("mgda", normalize="loss").weights(
            np.eye(2), losses=[1.0, -0.5], objectives=("content", "style")
        )
    with pytest.raises(gs.StrategyError, match="losses"):
        gs.get_strategy("mgda", normalize="loss").weights(np.eye(2))


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
    written = gs.get_strategy("cagrad(c=0.4, rescale=1)").options
    assert written == {"c": 0.4, "rescale": 1, "preference": None}
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
