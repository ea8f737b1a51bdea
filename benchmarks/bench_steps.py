"""pytest-benchmark: whole steps, from the losses to `.grad`, beside the plain sum."""

import pytest

from benchmarks.models import CASES
from benchmarks.steps import passes, plain, surgery

STEPS = {
    "sum().backward()": plain,
    "n passes": passes,
    "sum": surgery("sum"),
    "mgda": surgery("mgda"),
    "upgrad": surgery("upgrad"),
    "upgrad, gradients": surgery("upgrad", method="gradients"),
    "upgrad, every=4": surgery("upgrad", every=4),
    "upgrad, memory=low": surgery("upgrad", memory="low"),
    "famo": surgery("famo"),
    "graddrop": surgery("graddrop"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("model", [name for name in CASES if "resnet" not in name])
def test_step(benchmark, model, step):
    n = 4 if len(CASES[model].objectives) > 1 else 3
    benchmark.group = f"steps, {model}, n = {n}"
    made, forward = CASES[model].build(n)

    def fresh():
        made.zero_grad()
        return (made, forward()), {}

    benchmark.pedantic(STEPS[step], setup=fresh, rounds=7, warmup_rounds=2)
