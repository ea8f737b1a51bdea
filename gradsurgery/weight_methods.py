"""The interface of the benchmark scripts of the nash-mtl family, over our strategies.

In such a script change one line, `from methods.weight_methods import WeightMethods`, to

    from gradsurgery.weight_methods import WeightMethods

and every strategy is a `--method`. Scripts of that family build a `WeightMethods(method, n_tasks=,
device=, **options)` and call its `backward(losses=, shared_parameters=, ...)` in each step.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradsurgery import Record, Surgery, get_strategy, strategy_names
from gradsurgery.contract.registry import registered
from gradsurgery.errors import InputError

GROUP = "shared"
# Options of their NashMTL that belong to the Surgery here, or that an exact solver does not need.
EVERY, ROUNDS = "update_weights_every", "optim_niter"
CODES = {"imtl": "imtl-g"}  # which could be one of two strategies


class WeightMethods:
    """A strategy behind the interface that nash-mtl, FAMO, FairGrad and their like share.

    All losses are one problem on the shared parameters. What is given neither there nor reached by
    several losses takes its plain gradient: heads too, where those scripts weight them with some
    methods. Directions keep the scale of our strategies (docs: "Beside other libraries").

    Args:
        method: a strategy's name, with options in brackets, or a name that those scripts have for
            one, such as "nashmtl", "imtl" or "rlw".
        n_tasks: the number of losses.
        device: not used: a strategy works where the losses are.
        **options: options of the strategy; `update_weights_every` is `Surgery(every=)`.

    Attributes:
        surgery: the Surgery, from the first step on.
        record: what the last step did.

    Raises:
        UnknownNameError: for a method or an option that there is not, with the nearest match.

    Example:
        >>> import torch
        >>> from gradsurgery.weight_methods import WeightMethods
        >>> shared = torch.nn.Parameter(torch.tensor([2.0, 1.0]))
        >>> weighting = WeightMethods("mgda", n_tasks=2, device="cpu")
        >>> loss, extra = weighting.backward(losses=shared.square(), shared_parameters=[shared])
        >>> [round(w, 3) for w in extra["weights"].tolist()]
        [0.2, 0.8]
    """

    def __init__(self, method: str, n_tasks: int, device: Any = None, **options: Any) -> None:
        self.every = int(options.pop(EVERY, 1))
        options.pop(ROUNDS, None)
        self.strategy = get_strategy(_named(method), **options)
        self.n_tasks, self.device = n_tasks, device
        self.surgery: Surgery | None = None
        self.record: Record | None = None

    def backward(
        self,
        losses: Tensor,
        shared_parameters: Iterable[Tensor] | Tensor | None = None,
        task_specific_parameters: Iterable[Tensor] | Tensor | None = None,
        last_shared_parameters: Iterable[Tensor] | Tensor | None = None,
        representation: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Accumulate the step's direction into `.grad`.

        Args:
            losses: one tensor [n_tasks], or a sequence of scalars.
            shared_parameters: what the strategy decides over, the same in each step.
            task_specific_parameters: take their plain gradient, given or not.
            last_shared_parameters: not used.
            representation: not used.
            **kwargs: not used.

        Returns:
            The weighted sum of the losses, detached, and {"weights": [n_tasks]}; None and {} for
            strategies that have no single weight per loss.

        Raises:
            InputError: when there are not n_tasks losses, or no shared parameters.
        """
        if len(losses) != self.n_tasks:
            raise InputError(f"losses: expected n_tasks={self.n_tasks} of them; got {len(losses)}.")
        if self.surgery is None:
            if shared_parameters is None:
                raise InputError("shared_parameters: give the tensors that all losses share.")
            one = shared_parameters
            shared: list[Tensor] = [one] if isinstance(one, Tensor) else list(one)
            self.surgery = Surgery(self.strategy, {GROUP: shared}, every=self.every)
        self.record = self.surgery.backward(losses)
        weights = self.record[GROUP].weights
        if weights is None or weights.ndim != 1:
            return None, {}
        values = torch.stack([loss.detach() for loss in losses])
        found = torch.as_tensor(weights, dtype=values.dtype, device=values.device)
        return (found * values).sum(), {"weights": found}

    __call__ = backward

    @property
    def method(self) -> "WeightMethods":
        """This object: scripts reach the method through it."""
        return self

    def update(self, losses: Tensor) -> None:
        """The losses of the same batch after the optimizer's step, which FAMO's scripts give."""
        if self.surgery is None:
            raise InputError("update: call backward first.")
        self.surgery.observe(losses)

    def parameters(self) -> list[Tensor]:
        """None: what a strategy learns is its own state, and its optimizer an option."""
        return []


def _named(method: str) -> str:
    """The registered name, also for the names that those scripts and the papers have."""
    name, bracket, options = method.partition("(")
    wanted = _plain(CODES.get(name, name))
    every = [registered(one) for one in strategy_names()]
    known = [s.name for s in every if wanted in map(_plain, (s.name, *s.also))]
    return f"{known[0]}{bracket}{options}" if len(known) == 1 else method


def _plain(name: str) -> str:
    return name.replace("-", "").replace(" ", "").casefold()


METHODS: Mapping[str, Any] = {name: partial(WeightMethods, name) for name in strategy_names()}
