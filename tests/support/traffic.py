"""What a step sends: the collectives counted where the package calls them."""

import torch
import torch.distributed

NAMES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_gather_single",
    "all_reduce",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "reduce_scatter_single",
    "reduce_scatter_tensor",
)


class Traffic:
    """Within it every collective is noted, in `events` beside what a test adds.

    Attributes:
        events: (name, bytes, async_op) of each, in order.
    """

    def __init__(self):
        self.events = []

    def __enter__(self):
        self.before = {
            n: getattr(torch.distributed, n) for n in NAMES if hasattr(torch.distributed, n)
        }
        for name, function in self.before.items():
            setattr(torch.distributed, name, self._noting(name, function))
        return self

    def __exit__(self, *_):
        for name, function in self.before.items():
            setattr(torch.distributed, name, function)

    def _noting(self, name, function):
        def call(*given, **named):
            # the larger of both sides: what all ranks have of it
            sizes = [t.numel() * t.element_size() for t in given if isinstance(t, torch.Tensor)]
            self.events.append((name, max(sizes, default=0), named.get("async_op", False)))
            return function(*given, **named)

        return call

    @property
    def names(self):
        return [name for name, *_ in self.events]

    def halves(self, parameters):
        """Bytes on gloo's wire in halves of an all-reduce of the parameters in float32."""
        twice = {"all_reduce": 2, "reduce_scatter_tensor": 2, "reduce_scatter_single": 2}
        sent = sum(size * twice.get(name, 1) for name, size, _ in self.events)
        return sent / (4 * parameters)
