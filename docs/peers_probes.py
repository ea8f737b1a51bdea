"""What other libraries do, measured: each probe runs one of them and says what came out.

A probe is a function without arguments that returns a phrase for a cell of the table. Nothing is
kept for a library that is not installed.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gradsurgery.solvers import min_norm

DRAWS = 60
STEPS = 55
CONFLICT = -1e-6  # a cosine below this


class TwoEncoders(nn.Module):
    """An encoder for each of two modalities, and three heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.ear, self.eye = nn.Linear(8, 16), nn.Linear(8, 16)
        self.fused, self.audio, self.visual = nn.Linear(32, 4), nn.Linear(16, 4), nn.Linear(16, 4)
        self.sound, self.image = torch.randn(2, 64, 8)
        self.label = torch.randint(4, (64,))

    def losses(self) -> list[Tensor]:
        """The fused loss, that of the sound, that of the image."""
        a, v = self.ear(self.sound).relu(), self.eye(self.image).relu()
        outputs = self.fused(torch.cat([a, v], 1)), self.audio(a), self.visual(v)
        return [cross_entropy(output, self.label) for output in outputs]


def spread_rows(n: int, d: int) -> list[Tensor]:
    """Gaussian rows whose lengths differ by a factor of 6, DRAWS of them."""
    rng = np.random.default_rng([0, n, d])
    sizes = np.linspace(1, 6, n)[:, None]
    return [torch.from_numpy(rng.normal(size=(n, d)) * sizes) for _ in range(DRAWS)]


def conflicts(combine: Callable[[Tensor], Tensor], n: int = 5, d: int = 5) -> str:
    """In how many draws the direction conflicts with some gradient."""
    found = 0
    for rows in spread_rows(n, d):
        direction = combine(rows).to(rows)
        cosines = rows @ direction / rows.norm(dim=1) / direction.norm()
        found += bool((cosines < CONFLICT).any())
    return f"a conflict in {found} of {DRAWS} draws"


def excess(weights: Callable[[Tensor], Any], n: int = 30, d: int = 60) -> str:
    """By how much the norm of its min-norm point is above the least one."""
    ratios = []
    for rows in spread_rows(n, d)[:10]:
        gram = (rows @ rows.T).numpy()
        best, w = min_norm(gram).value, np.asarray(weights(rows), dtype=float)
        least = np.sqrt(best @ gram @ best)
        ratios.append(np.sqrt(w @ gram @ w) / least - 1)
    return f"{100 * np.median(ratios):.2g} % above it" if np.median(ratios) > 1e-6 else "exact"


def adam() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small network and Adam."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    return net, torch.optim.Adam(net.parameters(), lr=1e-2)


def opposed(net: nn.Module, k: int) -> list[Tensor]:
    """Two losses that pull one output apart, on the batch of a step."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(k)).double()
    return [(net(x) - y).pow(2).mean() for y in (1.0, -1.0)]


def rises(gradient: Sequence[Tensor], moves: Sequence[Tensor]) -> bool:
    """Whether a move raises the loss of a gradient to first order, by more than rounding."""
    g, m = (torch.cat([t.reshape(-1).double() for t in every]) for every in (gradient, moves))
    return bool(g @ m > 1e-6 * g.norm() * m.norm())


def torchjd() -> dict[str, Callable[[], str]]:
    """TorchJD's probes."""
    jd = importlib.import_module("torchjd.aggregation")
    autojac = importlib.import_module("torchjd.autojac")

    def step(losses: list[Tensor], parameters: list[Tensor], aggregator: Any, **how: Any) -> None:
        autojac.backward(losses, inputs=parameters, **how)
        autojac.jac_to_grad(parameters, aggregator)

    def groups() -> str:
        model = TwoEncoders()
        ear = list(model.ear.parameters())
        step(model.losses(), ear, jd.MGDA())
        length = float(sum(p.grad.norm() for p in ear if p.grad is not None))
        zero = "is zero" if length == 0 else f"has length {length:.2g}"
        return f"one problem; on one encoder MGDA's gradient {zero}"

    def nan() -> str:
        model = TwoEncoders()
        losses, parameters = model.losses(), list(model.ear.parameters())
        losses[1] = losses[1] * float("nan")
        step(losses, parameters, jd.UPGrad())
        spoilt = any(bool(p.grad.isnan().any()) for p in parameters if p.grad is not None)
        return "no error, NaN in ``.grad``" if spoilt else "no error"

    def compiled() -> str:
        said = {}
        for chunk in (None, 1):
            torch.compiler.reset()
            model = TwoEncoders()
            losses = torch.compile(lambda: torch.stack(model.losses()), backend="aot_eager")()  # noqa: B023
            try:
                step(
                    list(losses), list(model.ear.parameters()), jd.Mean(), parallel_chunk_size=chunk
                )
                said[chunk] = True
            except RuntimeError:
                said[chunk] = False
        one = "works with" if said[1] else "an error also with"
        return ("works" if said[None] else "an error") + f"; {one} ``parallel_chunk_size=1``"

    def halves() -> str:
        rows, good, bad = torch.randn(4, 9), 0, 0
        made = {"CAGrad": {"c": 0.4}, "NashMTL": {"n_tasks": 4}, "FairGrad": {"alpha": 2.0}}
        made |= {"Krum": {"n_byzantine": 1}, "TrimmedMean": {"trim_number": 1}}
        for name in (
            "UPGrad",
            "DualProj",
            "MGDA",
            "PCGrad",
            "IMTLG",
            "AlignedMTL",
            "ConFIG",
            *made,
        ):
            aggregator = getattr(jd, name)(**made.get(name, {}))
            try:
                aggregator(rows.bfloat16())
                good += 1
            except (TypeError, RuntimeError):
                bad += 1
        return f"{good} of {good + bad} aggregators take it"

    def small() -> str:
        rows = 1e-3 * torch.tensor([[1.0, 0.0], [-4.0, 1.0]], dtype=torch.float64)
        same = torch.allclose(jd.UPGrad()(rows), rows.mean(0), rtol=1e-6)
        return "UPGrad is the mean" if same else "UPGrad keeps its direction"

    def after() -> str:
        (net, optimizer), raised = adam(), 0
        parameters = list(net.parameters())
        for k in range(STEPS):
            losses = opposed(net, k)
            given = [torch.autograd.grad(one, parameters, retain_graph=True) for one in losses]
            optimizer.zero_grad()
            step(losses, parameters, jd.UPGrad())
            before = [p.detach().clone() for p in parameters]
            optimizer.step()
            moves = [p.detach() - old for p, old in zip(parameters, before, strict=True)]
            raised += any(rises(one, moves) for one in given)
        return f"UPGrad, then Adam: some loss rises in {raised} of {STEPS} steps"

    names = [n for n in jd.__all__ if not n.endswith("Weighting") and "Aggregator" not in n]
    scalars = importlib.import_module("torchjd.scalarization").__all__
    return {
        "groups": groups,
        "methods": lambda: f"{len(names)} aggregators, {len(scalars) - 1} scalarizers, as classes",
        "exact": lambda: excess(lambda rows: jd.MGDAWeighting()(rows @ rows.T)),
        "conflict": lambda: "UPGrad: " + conflicts(jd.UPGrad()),
        "nan": nan,
        "compile": compiled,
        "bfloat16": halves,
        "small": small,
        "after": after,
        "jacobians": lambda: "``autojac.jac``, of any tensors",
    }


def libmtl() -> dict[str, Callable[[], str]]:
    """Probes of LibMTL's weightings, without its trainer, which needs torchvision."""
    found = importlib.util.find_spec("LibMTL")
    assert found is not None
    assert found.submodule_search_locations is not None
    plain = types.ModuleType("LibMTL")
    plain.__path__ = list(found.submodule_search_locations)  # its __init__ imports the trainer
    sys.modules["LibMTL"] = plain
    weighting = importlib.import_module("LibMTL.weighting")
    names = [n for n in weighting.__all__ if n != "AbsWeighting"]
    folder = Path(plain.__path__[0]) / "architecture"
    models = [path.stem for path in folder.glob("*.py") if path.stem[0] not in "_a"]

    def weights(rows: Tensor) -> Any:
        return weighting.MGDA()._find_min_norm_element(rows.float())

    return {
        "groups": lambda: "one problem for what ``get_share_params()`` names",
        "methods": lambda: f"{len(names)} weightings, as classes",
        "exact": lambda: excess(weights),
        "models": lambda: f"{len(models)} architectures",
    }


def conflictfree() -> dict[str, Callable[[], str]]:
    """Probes of ConFIG's own package."""
    grads = importlib.import_module("conflictfree.grad_operator")
    momentum = importlib.import_module("conflictfree.momentum_operator")

    def nan() -> str:
        rows = torch.ones(3, 4)
        rows[1] = float("nan")
        try:
            made = grads.ConFIGOperator().calculate_gradient(rows)
        except RuntimeError as error:
            return f"an error: {type(error).__name__}"
        return "no error, NaN in the gradient" if made.isnan().any() else "no error"

    one = grads.ConFIGOperator()
    return {
        "groups": lambda: "one vector of the network's gradient",
        "methods": lambda: "ConFIG, PCGrad and IMTL-G",
        "conflict": lambda: (
            "ConFIG: " + conflicts(lambda rows: one.calculate_gradient(rows.float()))
        ),
        "nan": nan,
        "per step": lambda: (
            "M-ConFIG, ``PseudoMomentumOperator``"
            if hasattr(momentum, "PseudoMomentumOperator")
            else "not found"
        ),
    }


PROBES = {"torchjd": torchjd, "LibMTL": libmtl, "conflictfree": conflictfree}


def measured() -> dict[str, dict[str, str]]:
    """Library -> row -> what came out, for those that are installed."""
    found = {}
    for name, probes in PROBES.items():
        if importlib.util.find_spec(name) is not None:
            found[name] = {row: probe() for row, probe in probes().items()}
    return found
