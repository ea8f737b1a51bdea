"""What a GroupRecord says, in one line of text."""

from typing import Any

import numpy as np


def line_of(group: Any, named: bool = True) -> str:
    """Weights or the least cosine, conflicts, and what else there is.

    Args:
        group: a `GroupRecord`, which prints itself by this.
        named: whether the strategy is part of the line.
    """
    again = ", replayed" if group.replayed else ""
    what = f", {group.strategy}{again}" if named else ""
    line = f"{group.name} ({group.parameters} tensors{what})"
    if group.weights is not None and group.objectives:
        line += ": " + ", ".join(f"{o} {w:.3g}" for o, w in group.named_weights().items())
    elif group.cosines is not None and len(group.objectives) > 1:
        i, j = np.unravel_index(np.argmin(group.cosines), group.cosines.shape)
        pair = f"{group.objectives[i]}/{group.objectives[j]}"
        line += f": least cosine {group.cosines[i, j]:.3g} ({pair})"
    if _apart(group):
        pass  # their cosine is zero because no parameter is shared
    elif group.mean_cosine is not None:
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
    return line


def _apart(group: Any) -> bool:
    """Whether gradients were only added, and no two of them have a parameter in common.

    So it is with the heads that explicit groups leave over. Gradients that do share parameters are
    next to never orthogonal to the last bit.
    """
    if group.strategy != "plain" or group.gram is None or group.weights is None:
        return False
    return not np.any(group.gram - np.diag(np.diagonal(group.gram)))
