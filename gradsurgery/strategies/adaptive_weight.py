"""adaptive-weight: the adversarial loss at the length of the reconstruction's gradient (VQGAN)."""

from typing import Annotated

import numpy as np

from gradsurgery.contract import (
    NON_NEGATIVE,
    POSITIVE,
    About,
    Citation,
    ObjectiveName,
    homogeneous,
    strategy,
    when,
)
from gradsurgery.errors import InputError
from gradsurgery.types import Array


@strategy(
    "adaptive-weight",
    paper="Esser et al. 2021, arXiv:2012.09841 (VQGAN)",
    scale="own",
    claims=(
        when("delta = 0", lambda options: options["delta"] == 0, homogeneous(1)),
        "permutation-equivariant",
        "deterministic",
    ),
    variants=({"adversarial": "0", "delta": 1e-4}, {"adversarial": "0", "factor": 0.8}),
    also=("VQGAN", "adaptive discriminator weight", "taming transformers"),
    about=About(
        family="lengths",
        use=(
            "A generator has a reconstruction loss and an adversarial one, whose gradient should "
            "be as long."
        ),
        avoid=(
            "There is no pair of losses with such roles; `balancer` or `unit-sum` bring any "
            "number to one length."
        ),
        maths=(
            r"d = \sum_i g_i + (\lambda - 1) g_{\text{adv}}, \qquad \lambda = f "
            r"\min\left(\frac{\lVert g_{\text{rec}}\rVert}{\lVert g_{\text{adv}}\rVert + \delta}, "
            r"\lambda_{\max}\right)"
        ),
        papers=(
            Citation(
                title="Taming Transformers for High-Resolution Image Synthesis",
                authors=("Patrick Esser", "Robin Rombach", "Björn Ommer"),
                year=2020,
                arxiv="2012.09841",
                source="README of github.com/CompVis/taming-transformers",
            ),
        ),
        differs=(
            (
                "The paper has δ = 1e-6, the official code 1e-4 and a limit of 1e4; here δ is 0 "
                "by default."
            ),
            (
                "The official code takes the lengths at the decoder's last weight, and its λ for "
                "all parameters: give `features=` for that."
            ),
        ),
    ),
)
def adaptive_weight(
    gram: Array,
    objectives: tuple[str, ...],
    *,
    adversarial: ObjectiveName,
    reconstruction: ObjectiveName | None = None,
    factor: Annotated[float, NON_NEGATIVE] = 1.0,
    delta: Annotated[float, NON_NEGATIVE] = 0.0,
    limit: Annotated[float, POSITIVE] = 1e4,
) -> Array:
    """The sum, with the adversarial gradient brought to the length of the reconstruction's.

    d = Σ gᵢ + (λ − 1)g_adv with λ = factor · min(‖g_rec‖/(‖g_adv‖ + δ), limit).

    The paper has δ = 1e-6, the official code 1e-4 and the limit 1e4. Gradients of 1e-5 are then
    not brought to one length, so δ is 0 here. An adversarial gradient of zero has λ = 0.

    The lengths are those of the group's gradients; in the official code they are those of the
    decoder's last weight, and its λ holds for all other parameters too. With
    `surgery.backward(losses, features=h)`, h the reconstruction or what the last layer is given,
    one λ, from the gradients at h, holds for the decoder and the encoder before it.
    A group that one of the two losses does not reach has the sum.

    Args:
        adversarial: the name of the adversarial loss of the generator.
        reconstruction: the name of the reconstruction loss; None is the sum of all others.
        factor: the official code's `disc_weight` (and `disc_factor`, 0 in its warm-up).
        delta: δ.
        limit: the largest λ before the factor.

    Raises:
        InputError: when both names are the same.

    Example:
        >>> import gradsurgery as gs
        >>> adaptive = gs.get_strategy("adaptive-weight", adversarial="1")
        >>> adaptive.weights([[4.0, 0.0], [0.0, 0.25]]).tolist()
        [1.0, 4.0]
    """
    if adversarial == reconstruction:
        raise InputError(
            "strategy 'adaptive-weight': adversarial and reconstruction are both "
            f"{adversarial!r}; give the names of two losses."
        )
    weights = np.ones(len(objectives))
    if adversarial not in objectives or len(objectives) == 1:
        return weights
    if reconstruction is not None and reconstruction not in objectives:
        return weights
    own = objectives.index(adversarial)
    chosen = np.array([name == (reconstruction or name) for name in objectives], dtype=float)
    chosen[own] = 0.0
    scale = float(np.sqrt(np.diagonal(gram)).max()) or 1.0
    length = float(np.sqrt(max(chosen @ (gram / scale / scale) @ chosen, 0.0))) * scale
    divisor = float(np.sqrt(gram[own, own])) + delta
    ratio = length / divisor if divisor > length / limit else limit
    weights[own] = factor * (ratio if gram[own, own] > 0 else 0.0)
    return weights
