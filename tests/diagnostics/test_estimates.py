"""The estimates: no bias, and intervals that cover, against known Gaussian gradients."""

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.diagnostics.jackknife import estimates, interval, ratio
from gradsurgery.diagnostics.moments import Moments


def moments(g):
    """The moments of given gradients [N, n, d], by their definitions."""
    total = g.sum(0)
    return Moments(
        "a+b",
        ("a", "b"),
        1,
        grams=np.einsum("tid,tjd->tij", g, g),
        next=np.einsum("tid,tjd->tij", g[:-1], g[1:]),
        total=total @ total.T,
        against=np.einsum("id,tjd->tij", total, g),
    )


def drawn(rng, means, noise, shared, batches):
    """Gradients [N, 2, d] around means [2, d], with tr Cov = noise² and correlated noise."""
    d = means.shape[1]
    own = rng.standard_normal((batches, 2, d)) * noise / d**0.5
    own[:, 1] = shared * own[:, 0] + (1 - shared**2) ** 0.5 * own[:, 1]
    return means + own


def test_leaving_one_out_is_what_the_other_batches_give():
    g = np.random.default_rng(0).standard_normal((9, 2, 5))
    found = estimates(moments(g))
    for t in range(9):
        rest = estimates(moments(np.delete(g, t, 0)))
        np.testing.assert_allclose(found.inner[t + 1], rest.inner[0], atol=1e-12)
        np.testing.assert_allclose(found.squares[t + 1], rest.squares[0], atol=1e-12)
    pairs = [g[s] @ g[t].T for s in range(9) for t in range(9) if s != t]
    np.testing.assert_allclose(found.inner[0], np.mean(pairs, 0), atol=1e-12)
    n, mean = 9, g.mean(0)
    norms = (n * (mean**2).sum(1) - (g**2).sum(2).mean(0)) / (n - 1)
    np.testing.assert_allclose(found.norms[0], norms, atol=1e-12)


def simulated(cosine, noise, shared, batches, repetitions, seed=0):
    """Estimates and coverage of ⟨ḡ₁, ḡ₂⟩, its cosine, tr Cov and relative noise over draws."""
    rng = np.random.default_rng(seed)
    means = np.zeros((2, 100))
    means[0, 0] = 1.0
    means[1, :2] = 2 * cosine, 2 * (1 - cosine**2) ** 0.5
    truth = np.array([2 * cosine, cosine, noise**2, noise**2 / 4])
    values, inside, naive = [], [], []
    for _ in range(repetitions):
        drawing = moments(drawn(rng, means, noise, shared, batches))
        found = estimates(drawing)
        norms = found.norms
        known = [
            interval(found.inner[:, 0, 1], 0.95),
            interval(found.inner[:, 0, 1] / np.sqrt(norms[:, 0] * norms[:, 1]), 0.95),
            interval(found.covariance[:, 1], 0.95),
            ratio(found.covariance[:, 1], norms[:, 1], 0.95),
        ]
        values.append([one.value for one in known])
        inside.append([one.low <= x <= one.high for one, x in zip(known, truth, strict=True)])
        naive.append(drawing.total[0, 1] / batches**2)
    return np.array(values), np.array(inside), truth, np.array(naive)


def test_no_estimate_is_biased_where_the_inner_product_of_the_means_is():
    values, _, truth, naive = simulated(0.2, 3.0, -0.9, 24, 200)
    error = values.std(0) / 200**0.5
    for at in (0, 2):  # the linear ones; cosine and relative noise are ratios of them
        assert abs(values[:, at].mean() - truth[at]) < 4 * error[at]
    assert naive.mean() < truth[0] - 15 * error[0]  # noise within a batch has the other sign


@pytest.mark.exhaustive
@pytest.mark.parametrize("batches", [16, 32, 64])
@pytest.mark.parametrize(("cosine", "noise", "shared"), [(0, 2, 0), (-0.3, 2, 0.5), (0.5, 3, -0.9)])
def test_intervals_cover(cosine, noise, shared, batches):
    _, inside, _, _ = simulated(cosine, noise, shared, batches, 1000, seed=batches)
    coverage = inside.mean(0)
    print(cosine, noise, shared, batches, coverage)
    assert (coverage > 0.925).all(), coverage
    assert (coverage[[0, 1, 2]] < 0.985).all(), coverage


def test_a_network_gives_what_the_gradients_themselves_give():
    """Two groups, several tensors each, a loss that does not reach one of them."""
    torch.manual_seed(0)
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    model = nn.ModuleList([first, second])

    def losses(model, x):
        y = second(first(x).tanh())
        return {"a": y[:, 0].mean(), "b": y[:, 1].pow(2).mean(), "c": first.weight.pow(2).sum()}

    given = torch.randn(9, 5, 3).unbind()
    found = gs.diagnose(model, given, losses)
    assert {name: group.parameters for name, group in found.items()} == {"a+b+c": 1, "a+b": 3}
    parts = {"a+b+c": [first.weight], "a+b": [first.bias, second.weight, second.bias]}
    for name, parameters in parts.items():
        rows = []
        for x in given:
            values = losses(model, x)
            each = [
                torch.autograd.grad(values[o], parameters, retain_graph=True)
                for o in found[name].objectives
            ]
            rows.append(torch.stack([torch.cat([g.flatten() for g in one]) for one in each]))
        g = torch.stack(rows).double().numpy()
        pairs = [g[s] @ g[t].T for s in range(9) for t in range(9) if s != t]
        np.testing.assert_allclose(found[name].inner, np.mean(pairs, 0), rtol=1e-5, atol=1e-7)
        pair = found[name].pair("a", "b")
        grams = np.einsum("tid,tjd->tij", g, g)
        assert pair.conflict == (grams[:, 0, 1] < 0).mean()
        assert pair.control[0] == (np.einsum("td,td->t", g[:-1, 0], g[1:, 0]) < 0).mean()
        assert pair.length_ratio.value == pytest.approx(
            (grams[:, 0, 0].mean() / grams[:, 1, 1].mean()) ** 0.5, rel=1e-5
        )
