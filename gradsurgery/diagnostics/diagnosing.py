"""diagnose(): is there a conflict here beyond noise, and what to try."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from gradsurgery.diagnostics.diagnosis import Diagnosis, GroupDiagnosis
from gradsurgery.diagnostics.frozen import frozen
from gradsurgery.diagnostics.judged import judge
from gradsurgery.diagnostics.moments import LossFunction, Moments, gather
from gradsurgery.errors import InputError, one_of

FEWEST = 8  # batches; below that the spread of what leaving one out does is not known
UNTRAINED = 0.95  # of the loss at the start, or at chance
SATURATED = 0.05


def diagnose(
    model: nn.Module,
    batches: Iterable[Any],
    losses: LossFunction,
    *,
    parameters: Any = None,
    count: int = 64,
    joint: str | None = None,
    modalities: int | None = None,
    start: Mapping[str, float] | None = None,
    chance: Mapping[str, float] | None = None,
    margin: float = 0.1,
    level: float = 0.95,
) -> Diagnosis:
    """Say whether objectives conflict beyond the noise of batches, at the weights as they are.

    Per group and pair of objectives: ⟨ḡᵢ, ḡⱼ⟩ of the mean gradients from pairs of different
    batches, ‖ḡ‖² = (N‖mean‖² − mean‖g‖²)/(N − 1), tr Cov, relative noise tr Cov/‖ḡ‖², each with a
    jackknife interval over the N batches. Conflict rates stand beside their control, two batches
    of one loss. Batches should be independent draws of the size that training uses.

    It takes two gradients per objective and batch, and memory for about three per objective. The
    model runs in the mode it is in. Parameters, `.grad`, buffers, modes and random numbers are as
    before at the end, also on an error. Models of one process only.

    Args:
        model: what is trained.
        batches: at least 8 batches; more than `count` are not read. They are kept, to be gone
            through twice.
        losses: (model, batch) -> two or more scalar losses by name. It may use random numbers of
            torch, numpy and random: they are repeated.
        parameters: the model's by default, grouped by the losses that reach them. A module or
            tensors: only these. A dict of name -> module or tensors: groups.
        count: how many batches to use.
        joint: the joint (fused) objective, for Assumption 1. By default the one that reaches more
            groups of several objectives than any other, where there is one.
        modalities: M, how many modalities are concatenated before the joint head. By default the
            number of the other objectives, where there is a joint one.
        start: name -> loss when training began, for the warnings.
        chance: name -> loss of a model that guesses, for example log(classes).
        margin: cosines that are smaller in size count as orthogonal.
        level: of the intervals of one quantity, of all pairs together (Bonferroni).

    Returns:
        A `Diagnosis`: group name -> figures and verdicts; `print` says it in words.

    Raises:
        InputError: for arguments or losses that cannot be used.
        NonFiniteError: for a loss or gradient that is not finite, naming the objective.

    Example:
        >>> import torch, gradsurgery as gs
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(4, 1, bias=False)
        >>> def losses(model, x):
        ...     y = model(x).mean()
        ...     return {"up": -y, "down": y + 0.1 * model.weight.pow(2).sum()}
        >>> found = gs.diagnose(model, list(1 + torch.randn(16, 8, 4)), losses)
        >>> found["down+up"].pair("up", "down").verdict
        'conflict beyond noise'
    """
    _check(model, count, margin, level)
    with frozen(model) as buffers:
        kept = list(itertools.islice(batches, count))
        if len(kept) < FEWEST:
            raise InputError(f"batches: {len(kept)} were given, and {FEWEST} or more are needed.")
        flat, groups = _parameters(model, parameters)
        moments, values = gather(model, kept, losses, groups, flat, buffers)
    joint = _joint(moments, values, joint)
    if joint is not None and modalities is None:
        modalities = len(values) - 1
    pairs = sum(len(m.objectives) * (len(m.objectives) - 1) // 2 for m in moments)
    found = {
        m.name: judge(
            m, level=1 - (1 - level) / pairs, margin=margin, joint=joint, modalities=modalities
        )
        for m in moments
    }
    warnings = tuple(_warnings(found, values, joint, modalities, start, chance))
    return Diagnosis(found, values, len(kept), level, joint, modalities, warnings)


def _check(model: Any, count: int, margin: float, level: float) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model: expected a Module, as in diagnose(model, batches, losses); "
            f"got {type(model).__name__}."
        )
    if not isinstance(count, int) or count < FEWEST:
        raise InputError(f"count: expected {FEWEST} or more batches; got {count!r}.")
    if not 0 <= margin < 1:
        raise InputError(f"margin: expected a cosine from 0 to below 1; got {margin!r}.")
    if not 0 < level < 1:
        raise InputError(f"level: expected a number between 0 and 1, as 0.95; got {level!r}.")


def _parameters(
    model: nn.Module, given: Any
) -> tuple[list[nn.Parameter], dict[str, list[nn.Parameter]] | None]:
    """The parameters that are trained, and the groups that were given by name."""
    named = given if isinstance(given, Mapping) else {"": model if given is None else given}
    groups = {
        str(name): [p for p in _tensors(name, part) if p.requires_grad]
        for name, part in named.items()
    }
    flat = list({id(p): p for own in groups.values() for p in own}.values())
    if len(flat) < sum(map(len, groups.values())):
        raise InputError("parameters: a parameter is in two groups, or twice in one.")
    if not flat:
        raise InputError("parameters: none that requires a gradient.")
    return flat, groups if isinstance(given, Mapping) else None


def _tensors(name: str, part: Any) -> Sequence[nn.Parameter]:
    if isinstance(part, nn.Module):
        return list(part.parameters())
    return [part] if isinstance(part, nn.Parameter) else list(part)


def _joint(
    moments: Sequence[Moments], values: Mapping[str, float], given: str | None
) -> str | None:
    if given is not None:
        if given not in values:
            raise InputError(one_of("objective as joint", given, values))
        return given
    counts = {name: sum(name in m.objectives for m in moments) for name in values}
    most = max(counts.values())
    first = [name for name, n in counts.items() if n == most]
    return first[0] if len(first) == 1 else None


def _warnings(
    found: Mapping[str, GroupDiagnosis],
    values: Mapping[str, float],
    joint: str | None,
    modalities: int | None,
    start: Mapping[str, float] | None,
    chance: Mapping[str, float] | None,
) -> list[str]:
    """What makes these weights a bad place to judge from: untrained heads, a loss near zero."""
    said = []
    untrained, saturated = [], []
    for name, value in values.items():
        known = [x[name] for x in (start, chance) if x is not None and name in x]
        first = min((x for x in known if x > 0), default=math.nan)
        if value >= UNTRAINED * first:
            untrained.append(name)
        if value < SATURATED * first:
            saturated.append(name)
    if untrained:
        said.append(
            f"untrained: the loss of {', '.join(untrained)} is still where it began. Gradients "
            "through a head that has not learned have nothing to do with others, and lengths are "
            "those of initialisation: train for a while first."
        )
    if saturated:
        said.append(
            f"saturated: the loss of {', '.join(saturated)} is below 5 % of where it began. Its "
            "gradient vanishes with it, so ratios of lengths and of tr Cov grow without bound: "
            "judge by relative noise, or earlier in training."
        )
    held = [p.assumption for g in found.values() for p in g.pairs if p.assumption is not None]
    as_made = bool(held) and all(one.beside_initialisation for one in held)
    if start is None and chance is None and modalities is not None and modalities > 1 and as_made:
        said.append(
            f"the lengths are as initialisation gives them (√M = {math.sqrt(modalities):.2f}): is "
            f"the model trained? Give start= or chance=, the losses before {joint!r} fell."
        )
    return said
