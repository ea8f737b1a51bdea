"""unit-sum: gradients divided by a power of their lengths."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np

from gradsurgery.contract import (
    NON_NEGATIVE,
    About,
    Citation,
    PerObjective,
    Range,
    State,
    by_objective,
    homogeneous,
    strategy,
    when,
)
from gradsurgery.types import Array


def _plain(options: Mapping[str, Any]) -> bool:
    """Whether the first step's weights are those of the formula, rather than an average with 1."""
    return bool(options["beta"] == 0 or options["average"] == "norms")


@strategy(
    "unit-sum",
    paper="Bu et al. 2024, arXiv:2410.22086 (NGDiff)",
    scale="own",
    claims=(
        *when(
            "scale is not 'unit', or no weights are averaged",
            lambda options: options["scale"] != "unit" or _plain(options),
            homogeneous(
                lambda options: 1 - options["power"] if options["scale"] == "unit" else 1,
                "1 − power for scale 'unit', else 1",
            ),
        ),
        "permutation-equivariant",
        "deterministic",
        *when(
            "power = 1, no weights averaged",
            lambda options: options["power"] == 1 and _plain(options),
            "scale-invariant",
        ),
        *when(
            "n <= 2, power = 1, no preference, no weights averaged",
            lambda n, options: (
                n <= 2
                and options["power"] == 1
                and options["preference"] is None
                and _plain(options)
            ),
            "non-conflicting",
            "strict",
        ),
    ),
    inputs=lambda options: {"gram", "objectives"} | ({"state"} if options["beta"] else set()),
    variants=(
        {"scale": "total", "power": 1.5},
        {"scale": "mean", "beta": 0.9, "average": "weights"},
        {"beta": 0.9, "preference": {str(i): 1.0 + i % 2 for i in range(64)}},
    ),
    also=("NGDiff", "normalized gradient difference", "normalized gradients"),
    about=About(
        family="lengths",
        use="Losses differ by orders of magnitude: every gradient counts alike.",
        avoid=(
            "A gradient that is nearly zero is noise: it is brought to the length of the others."
        ),
        maths=r"d = c \sum_i p_i \frac{g_i}{\lVert g_i\rVert^q}",
        papers=(
            Citation(
                title=(
                    "Unlearning as multi-task optimization: A normalized gradient difference "
                    "approach with an adaptive learning rate"
                ),
                authors=(
                    "Zhiqi Bu",
                    "Xiaomeng Jin",
                    "Bhanukiran Vinzamuri",
                    "Anil Ramakrishna",
                    "Kai-Wei Chang",
                    "Volkan Cevher",
                    "Mingyi Hong",
                ),
                year=2024,
                arxiv="2410.22086",
                source="sciencestack.ai/paper/2410.22086, a copy of the arXiv page",
            ),
            Citation(
                title=(
                    "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural Tangent "
                    "Kernel Perspective"
                ),
                authors=("Xiaohan Qin", "Xiaoxing Wang", "Ning Liao", "Junchi Yan"),
                year=2025,
                arxiv="2510.18258",
                source="README of github.com/jianke0604/NTKMTL",
            ),
        ),
        related={
            "NTKMTL": (
                "as its official code runs it is unit-sum with scale='total' and power= twice its "
                "ntk_exp."
            ),
            "jaxpi": (
                "its weighting grad_norm is unit-sum with scale='mean', beta=0.9, "
                "average='weights', and Surgery(every=1000)."
            ),
        },
        differs=(
            "NTKMTL's official code clips the direction to length 1 afterwards.",
            "In jaxpi new weights act from the next step on.",
        ),
    ),
)
def unit_sum(
    gram: Array,
    objectives: tuple[str, ...],
    state: State,
    *,
    power: Annotated[float, NON_NEGATIVE] = 1.0,
    preference: Annotated[Any, PerObjective()] = None,
    scale: Literal["unit", "mean", "total"] = "unit",
    beta: Annotated[float, Range(0, 1, high_open=True)] = 0.0,
    average: Literal["norms", "weights"] = "norms",
) -> Array:
    """The sum of the gradients, each divided by a power of its length.

    d = c Σ pᵢgᵢ/nᵢ^q with nᵢ = ‖gᵢ‖, and c = 1 ("unit"), (1/n) Σⱼ nⱼ^q ("mean") or n(Σⱼ nⱼ²)^(q/2)
    ("total"). A gradient of zero stays zero.

    Published methods are settings of it:

    - NGDiff: the defaults; what is to be forgotten has preference −1, or its loss a minus sign.
    - NTKMTL as its official code runs (a scalar kernel per task): `scale="total"`. Its `ntk_exp`
      is q/2: 0.5 by default and 0.75 for NYU-v2. It clips d to a length of 1 afterwards.
    - jaxpi's weighting "grad_norm": `scale="mean", beta=0.9, average="weights"`, and
      `Surgery(every=1000)`. There new weights act from the next step on.

    Args:
        power: q; 0 is the plain sum.
        preference: p, of any sign: one number for all, a dict by name, or numbers in the order of
            the losses; None is 1 for each.
        scale: which c.
        beta: β of a running mean; 0 is none.
        average: what is averaged: "norms" (bias-corrected), or "weights" before the preference,
            which start at 1.

    Example:
        >>> import gradsurgery as gs
        >>> gram = [[4.0, 0.0], [0.0, 16.0]]
        >>> gs.get_strategy("unit-sum").weights(gram).tolist()
        [0.5, 0.25]
        >>> gs.get_strategy("unit-sum", scale="mean").weights(gram).tolist()
        [1.5, 0.75]
    """
    norms = np.sqrt(np.diagonal(gram))
    if beta and average == "norms":
        mean, seen = state.vector("norms", 0.0), state.vector("steps", 0.0)
        seen += 1
        mean += (1 - beta) * (norms - mean)
        weights = _weights(mean / (1 - beta**seen), power, scale)
    else:
        weights = _weights(norms, power, scale)
        if beta:
            running = state.vector("weights", 1.0)
            known = norms > 0  # a gradient of zero says nothing of its weight
            running[known] += (1 - beta) * (weights - running)[known]
            weights = running.copy()
    return weights * by_objective("preference", preference, objectives, 1.0)


def _weights(norms: Array, power: float, scale: str) -> Array:
    """c/nᵢ^q, zero where nᵢ is; but for "unit" from lengths beside the longest."""
    longest = float(norms.max())
    if longest == 0:
        return np.zeros(len(norms))
    lengths = norms if scale == "unit" else norms / longest
    powers = lengths**power
    factor = {
        "unit": 1.0,
        "mean": float(powers.mean()),
        "total": len(norms) * float((lengths**2).sum()) ** (power / 2),
    }[scale]
    weights: Array = np.divide(factor, powers, out=np.zeros(len(norms)), where=norms > 0)
    return weights
