"""A group of a Record in one line of text."""

from collections.abc import Sequence

import numpy as np

from gradsurgery.record.group import GroupRecord


def line_of(group: GroupRecord, strategy: str | None, groups: Sequence[GroupRecord]) -> str:
    """The line of one group: weights or the least cosine, conflicts, and what else there is."""
    again = ", replayed" if group.replayed else ""
    what = f", {group.strategy}{again}" if strategy else ""
    line = f"  {group.name} ({group.parameters} tensors{what})"
    if group.weights is not None and group.objectives:
        flat = group.weights if group.weights.ndim == 1 else group.weights.mean(0)
        pairs = zip(group.objectives, flat.tolist(), strict=True)
        line += ": " + ", ".join(f"{o} {w:.3g}" for o, w in pairs)
    elif group.cosines is not None and len(group.objectives) > 1:
        i, j = np.unravel_index(np.argmin(group.cosines), group.cosines.shape)
        pair = f"{group.objectives[i]}/{group.objectives[j]}"
        line += f": least cosine {group.cosines[i, j]:.3g} ({pair})"
    if group.mean_cosine is not None:
        conflicts = ", ".join("/".join(pair) for pair in group.conflicts or ())
        none = "no conflict" if np.isfinite(group.mean_cosine) else "not finite"
        line += f"; mean cosine {group.mean_cosine:.3g}, "
        line += f"conflicts {conflicts}" if conflicts else none
    elif group.gram is None and len(group.objectives) > 1:
        line += "; conflicts not measured"
    if group.absent:
        line += f"; absent, with a gradient of zero: {', '.join(group.absent)}"
    if group.solved_in is not None:
        line += f"; solved in the metric {group.solved_in!r}"
    if group.risen:
        line += f"; raised by the optimizer's step: {', '.join(group.risen)}"
    if group.corrected is not None:
        line += f"; corrected to {group.corrected:.3g} of its length ({group.metric})"
    if group.unmeasured is not None:
        line += f"; step not measured: {group.unmeasured}"
    missing = _split_by(group, groups)
    return line if missing is None else f"{line}; {missing}"


def _split_by(group: GroupRecord, groups: Sequence[GroupRecord]) -> str | None:
    """What to say of a group of one tensor that a single loss splits off, by not reaching it.

    A loss that reaches some part alone has a head there: that is how the model is meant.
    """
    own = {*group.objectives, *group.absent}
    if group.parameters != 1 or "+".join(sorted(own)) != group.name:
        return None  # others are named by the user
    reaching = [(other, {*other.objectives, *other.absent}) for other in groups]
    # inputs that require grad are among the other leaves, and no head
    reaching = [
        (other, names)
        for other, names in reaching
        if other.name.startswith("+".join(sorted(names)))
    ]
    for other, names in reaching:
        missing = names - own
        alone = any(missing & those and not own <= those for _, those in reaching)
        if other.parameters > 1 and own < names and len(missing) == 1 and not alone:
            return (
                f"its one tensor is apart from {other.name!r} only because {missing.pop()!r} "
                "does not reach it (one group for both: parameters={'net': net})"
            )
    return None
