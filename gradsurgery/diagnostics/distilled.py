"""distil(): a run's mean weights per group, to train on without a gradient per loss."""

import numpy as np

from gradsurgery.diagnostics.recorder import Recorder
from gradsurgery.errors import InputError


def distil(recorder: Recorder, *, skip: float = 0.0) -> dict[str, dict[str, float]]:
    """The mean weight of each objective over a run, group by group.

    It is what a strategy did on average, as fixed weights: a baseline that tells whether deciding
    in every step was needed. Of the samples only those with the objectives of the last one count.

    Args:
        recorder: with samples of the run.
        skip: the first share of the run that is left out, from 0 to below 1.

    Returns:
        group -> objective -> mean weight, for `Surgery("by-group", model, preference=...)`. Where
        there is one group, `Surgery("constant", preference=...)` takes its dict and acts on heads
        too.

    Raises:
        InputError: for a share that cannot be used, or where no weights were kept.

    Example:
        >>> import torch, gradsurgery as gs
        >>> from gradsurgery.diagnostics import Recorder, distil
        >>> model = torch.nn.Linear(3, 2)
        >>> surgery, recorder = gs.Surgery("mgda", model), Recorder(every=1)
        >>> for _ in range(3):
        ...     first, second = model(torch.ones(3))
        ...     record = recorder.backward(surgery, {"first": first, "second": second})
        >>> weights = distil(recorder)
        >>> weights
        {'first+second': {'first': 0.5, 'second': 0.5}}
        >>> surgery = gs.Surgery("by-group", model, preference=weights)
    """
    if not 0 <= skip < 1:
        raise InputError(f"skip: expected a share from 0 to below 1; got {skip!r}.")
    found = {}
    last = max((kept[-1].step for kept in recorder.groups.values() if kept), default=0)
    for name, kept in recorder.groups.items():
        same = [s for s in kept if s.weights is not None and s.step >= skip * last]
        if same:
            names = same[-1].objectives
            rows = [
                s.weights[[s.objectives.index(o) for o in names]]
                for s in same
                if s.weights is not None and set(s.objectives) == set(names)
            ]
            found[name] = dict(zip(names, np.mean(rows, 0).tolist(), strict=True))
    if not found:
        raise InputError(
            "distil: the Recorder has no weights: it saw no step of a strategy that returns weights"
            " on a group of several objectives."
        )
    return found
