"""bloop: bilevel optimization with orthogonal projection."""

from typing import Annotated

import torch
from torch import Tensor

from gradsurgery.contract import (
    NON_NEGATIVE,
    About,
    Citation,
    ObjectiveName,
    Range,
    State,
    equivariant_when_named,
    homogeneous,
    strategy,
)


@strategy(
    "bloop",
    paper="Hsieh et al. 2024, arXiv:2402.02998",
    scale="own",
    claims=(
        homogeneous(1),
        "deterministic",
        equivariant_when_named("main", "the main objective"),
    ),
    variants=({"main": "0"}, {"main": "0", "lam": 1.0, "current": True}),
    also=("bilevel optimization with orthogonal projection",),
    about=About(
        family="auxiliary",
        use=(
            "One main loss must fall as it would alone, with an auxiliary one trained in what "
            "freedom is left."
        ),
        avoid=(
            "The auxiliary losses have to improve too, or the group is small: nothing is left "
            "beside the main gradient."
        ),
        maths=(
            r"d = g_1 + \lambda \left(g - \frac{\langle g, m\rangle}{\lVert m\rVert^2} m\right), "
            r"\qquad g = \sum_{j \ge 2} g_j, \quad m \gets (1 - \rho) m + \rho g_1"
        ),
        papers=(
            Citation(
                title="Careful with that Scalpel: Improving Gradient Surgery with an EMA",
                authors=(
                    "Yu-Guan Hsieh",
                    "James Thornton",
                    "Eugene Ndiaye",
                    "Michal Klein",
                    "Marco Cuturi",
                    "Pierre Ablin",
                ),
                year=2024,
                venue="ICML",
                arxiv="2402.02998",
                source="README of github.com/apple/ml-bloop",
            ),
        ),
        differs=(
            (
                "The official code moves the running mean before it projects (`current=True`) and "
                "adds 1e-7 to ‖m‖²."
            ),
            "The paper also orders auxiliary losses among themselves; here they are one.",
        ),
    ),
)
def bloop(
    rows: Tensor,
    objectives: tuple[str, ...],
    state: State,
    *,
    main: ObjectiveName | None = None,
    lam: Annotated[float, NON_NEGATIVE] = 0.1,
    rho: Annotated[float, Range(0, 1, low_open=True)] = 0.1,
    current: bool = False,
) -> Tensor:
    """The main gradient, and what of the auxiliary ones is orthogonal to its running mean.

    d = g₁ + λ π(Σⱼ gⱼ; m) over the auxiliary objectives j, with π(g; m) = g − ⟨g, m⟩/‖m‖² m
    (equation 5). Then m ← (1 − ρ)m + ρg₁ (Algorithm 1); before the first step m = g₁.

    To first order the main loss falls as it would alone, where m is near its whole gradient. The
    mean over batches matters: projected off the batch's own gradient, d is on average nearly
    g₁ + λ Σⱼ gⱼ. Where m is zero nothing is projected. On a group that the named main objective
    does not reach d is the sum.

    The official code moves m before it projects, which `current` does, and has a constant of 1e-7
    beside ‖m‖², which is left out here. The paper also orders auxiliary losses among themselves;
    here they are one.

    Args:
        main: the main objective's name; None is the first.
        lam: λ, the weight of the auxiliary gradients; the official code's 0.1.
        rho: ρ, how fast the mean follows; the official code's 0.1.
        current: whether m takes in the step's own gradient before it is projected on.

    Example:
        >>> import torch, gradsurgery as gs
        >>> bloop = gs.get_strategy("bloop", lam=1.0)
        >>> bloop(torch.tensor([[1.0, 0.0], [-3.0, 2.0]]), state=gs.State())
        tensor([1., 2.])
    """
    if main is not None and main not in objectives:
        return rows.sum(0)
    first = 0 if main is None else objectives.index(main)
    gradient, mean = rows[first], state.rows("mean", of=objectives[first : first + 1])[0]
    steps = state.vector("steps", 0.0)
    if steps[first] == 0:
        mean.copy_(gradient)
    elif current:
        mean.lerp_(gradient, rho)
    steps[first] += 1
    others = torch.zeros_like(gradient)
    for i, row in enumerate(rows):
        if i != first:
            others += row
    wide = mean.double()  # squares may leave the range of the gradients' dtype
    square = wide @ wide
    along = torch.where(square > 0, others.double() @ wide / square, 0.0)
    found = gradient + lam * others.sub_(mean * along.to(mean.dtype))
    if not current:
        mean.lerp_(gradient, rho)
    return found
