"""The same definitions beside TorchJD 0.18 on 200 random Jacobians each; `nox -s peers` installs
it.
"""

import warnings

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.shipped import direction

jd = pytest.importorskip(
    "torchjd.aggregation", reason="torchjd is not installed: nox -s peers installs and compares it"
)
scalars = pytest.importorskip(
    "torchjd.scalarization",
    reason="torchjd is not installed: nox -s peers installs and compares it",
)

# ours -> (TorchJD's, relative tolerance in d). Its tolerance where it is an iterative solver: the
# figures are its errors, not ours.
SAME = {
    "sum": (lambda n: jd.Sum(), 1e-12),
    "mean": (lambda n: jd.Mean(), 1e-12),
    "constant(preference=[1.0, 2.0, 0.5, 3.0])": (
        lambda n: jd.Constant(torch.tensor([1.0, 2.0, 0.5, 3.0]).double()[:n]),
        1e-12,
    ),
    "mgda": (lambda n: jd.MGDA(epsilon=1e-12, max_iters=20_000), 1e-2),
    "upgrad": (lambda n: jd.UPGrad(), 2e-3),
    "dualproj": (lambda n: jd.DualProj(), 2e-3),
    "cagrad(c=0.4)": (lambda n: jd.CAGrad(c=0.4, norm_eps=1e-12), 2e-4),
    "imtl-g": (lambda n: jd.IMTLG(), 1e-8),
    "config": (lambda n: jd.ConFIG(), 1e-8),
    "aligned-mtl": (lambda n: jd.AlignedMTL(), 1e-8),
    "aligned-mtl(scale='median')": (lambda n: jd.AlignedMTL(scale_mode="median"), 1e-8),
    "aligned-mtl(scale='rmse')": (lambda n: jd.AlignedMTL(scale_mode="rmse"), 1e-8),
    "fairgrad(alpha=2.0)": (lambda n: jd.FairGrad(alpha=2.0), 1e-4),
    "trimmed-mean": (lambda n: jd.TrimmedMean(trim_number=1), 1e-12),
    "krum(selected=2)": (
        lambda n: jd.Krum(n_byzantine=1, n_selected=2),
        1e-12,
    ),  # of equal scores it may choose another one first
    "pcd": (lambda n: jd.PCD(eps=0.0), 1e-6),
}


def jacobians(n=4):
    """200 of them: Gaussian rows in 3 to 30 dimensions, with lengths that differ by up to 3."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        d = int(rng.integers(n, 30))
        yield torch.as_tensor(rng.normal(size=(n, d)) * rng.uniform(1, 3, (n, 1)))


@pytest.mark.parametrize("name", SAME)
def test_agreement(name):
    make, tolerance = SAME[name]
    errors = []
    for rows in jacobians():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own
            theirs = make(len(rows))(rows)
        ours = direction(gs.get_strategy(name), rows)
        errors.append(float((ours - theirs).norm() / max(ours.norm(), 1e-12)))
    assert np.quantile(errors, 0.98) <= tolerance, np.quantile(errors, [0.5, 0.9, 0.98, 1])


def test_nash_mtl_has_the_same_direction():
    """It clips to length 1 and stops after 20 rounds of its own approximation, so only the
    direction can agree, and roughly.
    """
    cosines = []
    for rows in jacobians():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = jd.NashMTL(n_tasks=4, max_norm=0.0)(rows)
        ours = direction(gs.get_strategy("nash-mtl"), rows)
        cosines.append(float(ours @ theirs / ours.norm() / theirs.norm()))
    assert np.median(cosines) > 0.999


@pytest.mark.parametrize(
    ("name", "make"),
    [("pcgrad", lambda: jd.PCGrad()), ("gradvac(beta=0.5)", lambda: jd.GradVac(beta=0.5))],
)
def test_random_orders_agree_in_the_mean(name, make):
    torch.manual_seed(0)
    for rows in list(jacobians(3))[:6]:
        theirs = torch.stack([make()(rows) for _ in range(300)])
        ours = torch.stack([direction(gs.get_strategy(name), rows, step=k) for k in range(300)])
        error = ((theirs.var(0) + ours.var(0)) / 300).sqrt() + 1e-9
        assert ((theirs.mean(0) - ours.mean(0)).abs() / error).max() < 5


def test_graddrop_agrees_in_the_mean():
    torch.manual_seed(0)
    rows = torch.randn(4, 20, dtype=torch.float64)
    theirs = torch.stack([jd.GradDrop()(rows) for _ in range(2000)]).mean(0)
    ours = torch.stack(
        [direction(gs.get_strategy("graddrop"), rows, step=k) for k in range(2000)]
    ).mean(0)
    spread = rows.abs().sum(0)
    assert ((ours - theirs).abs() / spread).max() < 0.06


def test_cr_mogm_modo_and_sdmgrad():
    rng = np.random.default_rng(1)
    smoothed = jd.CRMOGMWeighting(jd.UPGradWeighting(), alpha=0.8)
    modo, state, steady = jd.MoDoWeighting(gamma=0.05, rho=0.1), gs.State(), gs.State()
    for _ in range(20):
        rows = torch.as_tensor(rng.normal(size=(4, 6)))
        gram = rows @ rows.T
        ours = gs.get_strategy("cr-mogm", base="upgrad", alpha=0.8).weights(gram, state=steady)
        assert ours == pytest.approx(smoothed(gram).numpy(), abs=2e-3)
        other = torch.as_tensor(rng.normal(size=(4, 6)))
        between = rows @ other.T
        cross = np.stack([np.stack([gram, between]), np.stack([between.T, other @ other.T])])
        cross = np.pad(cross, ((0, 1), (0, 1), (0, 0), (0, 0)))
        found = gs.get_strategy("modo", gamma=0.05).weights(np.eye(4), cross=cross, state=state)[2]
        assert found == pytest.approx(modo(between).numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("gls", lambda: scalars.GeometricMean()),
        ("stch(window=0, mu=0.5)", lambda: scalars.STCH(mu=0.5)),
        (
            "cosmos(lam=1.5)",
            lambda: scalars.COSMOS(1.5, torch.full((3,), 1 / 3, dtype=torch.float64)),
        ),
        ("pbi", lambda: scalars.PBI(5.0, torch.ones(3, dtype=torch.float64))),
        ("uw", lambda: scalars.UW(3)),
        ("imtl-l", lambda: scalars.IMTLL(3)),
        ("famo", lambda: scalars.FAMO(3)),
    ],
)
def test_scalarisations(name, make):
    rng = np.random.default_rng(2)
    for _ in range(200):
        losses = torch.tensor(rng.uniform(0.2, 3, 3), requires_grad=True)
        expected = torch.autograd.grad(make()(losses), losses)[0].numpy()
        chosen = gs.get_strategy(name)
        extra = {"state": gs.State()} if "state" in chosen.inputs else {}
        assert chosen.weights(np.eye(3), losses=losses.tolist(), **extra) == pytest.approx(
            expected, rel=1e-5, abs=1e-7
        )
