"""The Gram matrix: sums in float32 where they are good enough, and again in float64 where they are
not.
"""

import numpy as np
import pytest
import torch

from gradsurgery.gradients.matrix import Objectives
from gradsurgery.gradients.precision import LARGE
from gradsurgery.gradients.transfer import to_host

SIZES = [LARGE, 255, 1, 70_001]


def rows(n, kind, seed=0, dtype=torch.float32):
    """n gradients of four tensors of `SIZES`."""
    torch.manual_seed(seed)
    base = [torch.randn(size) for size in SIZES]
    make = {
        "normal": lambda i, s: torch.randn(s),
        "constant": lambda i, s: torch.full((s,), 0.1 * (-1) ** i) + 0.1 * torch.randn(s),
        "spread": lambda i, s: 10.0 ** (3 * i) * torch.randn(s),
        "tiny": lambda i, s: 1e-20 * torch.randn(s),
        "huge": lambda i, s: 1e20 * torch.randn(s),
        "zero": lambda i, s: torch.zeros(s) if i == 0 else torch.randn(s),
    }
    if kind == "dependent":
        return [
            [((-1) ** i * b + 1e-4 * torch.randn(len(b))).to(dtype) for b in base] for i in range(n)
        ]
    return [[make[kind](i, s).to(dtype) for s in SIZES] for i in range(n)]


def exact(gradients):
    """[k, n, n] in float64."""
    flat = [
        torch.stack([row[t].double().reshape(-1) for row in gradients])
        for t in range(len(gradients[0]))
    ]
    return np.stack([(j @ j.T).numpy() for j in flat])


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize(
    "kind", ["normal", "constant", "spread", "tiny", "huge", "zero", "dependent"]
)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_gram_is_as_accurate_as_it_says(n, kind, blocks):
    gradients = rows(n, kind)
    objectives = Objectives(gradients, blocks=blocks)
    wanted = exact(gradients)
    total = wanted.sum(0)
    norms = np.sqrt(np.maximum(np.diagonal(total), 1e-300))
    assert np.abs((objectives.gram - total) / norms / norms[:, None]).max() <= max(
        objectives.eps, 1e-13
    )  # the order of float64 sums differs
    single = kind in ("normal", "constant", "spread") or (n == 1 and kind == "dependent")
    assert objectives.eps == (1e-6 if single else 1e-15)
    if blocks:
        sizes = np.sqrt(np.maximum(np.diagonal(wanted, axis1=1, axis2=2), 1e-300))
        assert np.abs(
            (objectives.block_grams - wanted) / sizes[:, None] / sizes[:, :, None]
        ).max() <= max(objectives.eps, 1e-13)


def test_float64_small_and_rounded_products_take_no_shortcut():
    double = rows(2, "normal", dtype=torch.float64)
    assert Objectives(double).eps == 1e-15
    few = [[torch.randn(100)], [torch.randn(100)]]
    assert Objectives(few).eps == 1e-15
    gradients = rows(2, "normal")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        objectives = Objectives(gradients)
        assert objectives.eps == 1e-15
    finally:
        torch.set_float32_matmul_precision(before)
    assert np.allclose(objectives.gram, exact(gradients).sum(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("setting", "single"),
    [
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", True),
        ("torch.backends.mkldnn.matmul.fp32_precision = 'bf16'", False),
        ("torch.backends.fp32_precision = 'tf32'", False),
        ("torch.set_float32_matmul_precision('high')", False),
    ],
)
def test_each_way_to_allow_fewer_bits_is_seen(fresh, setting, single):
    """In a process of its own, since torch refuses to be asked in the older way once the newer one
    was used.
    """
    if "fp32_precision" in setting and not hasattr(torch.backends.mkldnn, "matmul"):
        pytest.skip("torch < 2.9 has no such setting")
    code = (
        f"import torch; {setting}; from gradsurgery import Objectives; "
        "print(Objectives([[torch.randn(1 << 19)] for _ in range(2)]).eps)"
    )
    ran = fresh(code)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) == (1e-6 if single else 1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_summed_wider(dtype):
    gradients = rows(3, "normal", dtype=dtype)
    assert np.allclose(
        Objectives(gradients).gram,
        exact(gradients).sum(0),
        rtol=1e-6,
        atol=1e-6 * exact(gradients).sum(0).max(),
    )


def test_missing_gradients_are_zero_blocks_and_not_underflow():
    gradients = rows(2, "normal")
    gradients[0][0] = gradients[1][3] = None
    objectives = Objectives(gradients, blocks=True)
    assert objectives.eps == 1e-6
    assert objectives.block_grams[0][0, 0] == objectives.block_grams[3][1, 1] == 0
    assert objectives.gram[0, 1] == pytest.approx(
        float(sum((gradients[0][t].double() @ gradients[1][t].double()) for t in (1, 2)))
    )


def test_groups_that_need_it_are_summed_again_and_the_others_kept():
    good, bad = Objectives(rows(3, "normal")), Objectives(rows(3, "dependent"))
    (value,) = to_host([good, bad], [torch.tensor(2.0)])
    assert value == 2.0
    assert (good.eps, bad.eps) == (1e-6, 1e-15)


def test_nan_and_infinity_come_through():
    for value in (float("nan"), float("inf")):
        gradients = rows(2, "normal")
        gradients[1][3][7] = value
        assert Objectives(gradients).not_finite() == [1]


def test_a_layer_that_no_objective_reaches_adds_nothing():
    weight, bias = torch.zeros(2, 3), torch.zeros(2)
    biases = torch.randn(2, 2)
    rows = [[None, b] for b in biases]
    found = Objectives(rows, [weight, bias], inputs={0: torch.ones(4, 3)})
    assert found.gram == pytest.approx((biases @ biases.T).numpy(), rel=1e-5)
    assert found.combine(np.ones(2))[0] is None


def test_a_group_without_tensors_has_an_empty_direction():
    found = Objectives([[], []], [])
    assert found.gram.tolist() == [[0, 0], [0, 0]]
    assert found.combine(np.ones((0, 2))) == []
