"""balancer: EnCodec's loss balancer, a share of the direction's length for each loss."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract import (
    NON_NEGATIVE,
    POSITIVE,
    SHARE,
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
from gradsurgery.errors import InputError
from gradsurgery.types import Array


@strategy(
    "balancer",
    paper="Défossez et al. 2023, arXiv:2210.13438 (EnCodec)",
    scale="own",
    claims=(
        homogeneous(0),
        "scale-invariant",
        "permutation-equivariant",
        "deterministic",
        *when(
            "n <= 2, no preference, no items",
            lambda n, options: (
                n <= 2 and options["preference"] is None and options["items"] in (None, 1)
            ),
            "non-conflicting",
            "strict",
        ),
    ),
    inputs=lambda options: (
        {"objectives", "state"} | ({"gram"} if options["items"] is None else {"rows", "splits"})
    ),
    variants=({"items": 1}, {"preference": {str(i): 1.0 + i % 2 for i in range(64)}}),
    also=("EnCodec", "loss balancer", "audiocraft"),
    about=About(
        family="lengths",
        use=(
            "A generator has several losses on what it made, and each should have a fixed share "
            "of the gradient there."
        ),
        avoid=(
            "Gradients shrink because training converges: the direction keeps its length, so the "
            "learning rate has to fall."
        ),
        maths=r"d = R \sum_i \frac{p_i}{\sum_j p_j} \frac{g_i}{\bar n_i}",
        papers=(
            Citation(
                title="High Fidelity Neural Audio Compression",
                authors=("Alexandre Défossez", "Jade Copet", "Gabriel Synnaeve", "Yossi Adi"),
                year=2022,
                arxiv="2210.13438",
                source="README of github.com/facebookresearch/encodec",
            ),
        ),
        differs=(
            (
                "The official code adds 1e-12 to the running norm; here a gradient that was "
                "always zero stays zero."
            ),
            "The official code averages norms over the examples of a batch, which `items=` does.",
        ),
    ),
)
def balancer(
    gram: Array,
    rows: Tensor,
    splits: Sequence[int],
    objectives: tuple[str, ...],
    state: State,
    *,
    preference: Annotated[Any, PerObjective(NON_NEGATIVE)] = None,
    total_norm: Annotated[float, POSITIVE] = 1.0,
    beta: Annotated[float, SHARE] = 0.999,
    items: Annotated[int, Range(1)] | None = None,
) -> Array | Tensor:
    """The gradients, each brought to its share of one total length by its running norm.

    d = R Σᵢ (pᵢ/Σⱼpⱼ) gᵢ/n̄ᵢ, where n̄ᵢ is the mean of nᵢ = ‖gᵢ‖ over the steps, with weights β^k for
    the k-th step before this one.

    It is meant for the gradients at what the model made, in EnCodec the audio:
    `surgery.backward(losses, features=made)`. A loss that does not go through it, as the one of a
    quantizer's commitment, is left out of them: it has its own `.backward(retain_graph=True)`
    before, after `zero_grad()`.

    The official code takes for nᵢ the mean norm over the examples of the batch, which are the first
    dimension of the features; `items` says how many there are, in every batch. Without it nᵢ is the
    norm of the whole gradient, which for examples alike is larger by the root of their number. That
    code adds 1e-12 to n̄ᵢ; here a gradient that has been zero throughout stays zero.

    Args:
        preference: p, the losses' weights: one number for all, a dict by name, or numbers in the
            order of the losses; None is 1 for each.
        total_norm: R.
        beta: β, the code's `ema_decay`; 1 is the plain mean over all steps.
        items: how many examples the features have, for norms per example; None for one norm. It
            is not compared with the batch: a divisor of it takes norms over blocks of examples, so
            leave smaller last batches out (`drop_last=True`).

    Raises:
        InputError: when a gradient cannot be divided into so many items, or all of p is zero.

    Example:
        >>> import gradsurgery as gs
        >>> balancer = gs.get_strategy("balancer", preference=[1.0, 3.0])
        >>> balancer.weights([[4.0, 0.0], [0.0, 25.0]], state=gs.State()).tolist()
        [0.125, 0.15]
    """
    shares = by_objective("preference", preference, objectives, 1.0)
    if not shares.any():
        given = dict(zip(objectives, shares.tolist(), strict=True))
        raise InputError(f"strategy 'balancer': a preference above 0 is needed; got {given}.")
    norms = np.sqrt(np.diagonal(gram)) if items is None else _per_item(rows, splits, items)
    total, ages = state.vector("norms", 0.0), state.vector("powers of beta", 0.0)
    total[:] = beta * total + norms
    ages[:] = beta * ages + 1
    mean = total / ages
    weights: Array = total_norm * np.divide(
        shares / shares.sum(), mean, out=np.zeros(len(mean)), where=mean > 0
    )
    if items is None:
        return weights
    used = torch.as_tensor(weights, device=rows.device)
    return (rows.double() * used[:, None]).sum(0).to(rows.dtype)


def _per_item(rows: Tensor, splits: Sequence[int], items: int) -> Array:
    """The mean norm [n] over the examples, the first dimension of each feature tensor."""
    if any(size % items for size in splits):
        raise InputError(
            f"strategy 'balancer': items={items}, and gradients of {', '.join(map(str, splits))} "
            "entries cannot be divided into so many: give the number of examples that the "
            "features have, with features=. All batches have as many: drop_last=True."
        )
    parts = [part.reshape(len(rows), items, -1) for part in torch.split(rows, list(splits), 1)]
    found = torch.linalg.vector_norm(torch.cat(parts, 2), dim=2, dtype=torch.float64).mean(1)
    norms: Array = found.cpu().numpy()
    return norms
