"""`Surgery.step`: the losses' gradients combined, the optimizer's step, and what it did."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch

from gradsurgery.engine import micro_batches
from gradsurgery.engine.accepted import check_held, check_optimizer
from gradsurgery.engine.after_optimizer import optimize, settings_of
from gradsurgery.engine.changes import counts_of
from gradsurgery.engine.in_metric import metric_setting
from gradsurgery.engine.parsing import AnyLosses
from gradsurgery.engine.scaler import check_scaled, is_on
from gradsurgery.errors import InputError, one_of
from gradsurgery.record import Record

GIVEN = "losses=None combines what accumulate gathered, and takes no {}: give it to accumulate."


def step(
    self: Any,
    losses: AnyLosses | None,
    optimizer: torch.optim.Optimizer,
    *,
    guard: Literal["report", "correct", "off"] = "report",
    guard_on: Literal["all", "protected"] | Iterable[str] = "all",
    bound: float = 10.0,
    metric: Literal["euclidean", "optimizer"] = "euclidean",
    scaler: Any = None,
    between: Callable[[], object] | None = None,
    features: Any = None,
    scores: Mapping[str, float] | None = None,
    weights: Any = None,
    count: Any = None,
    retain_graph: bool = False,
) -> Record:
    """`backward(losses)` and `optimizer.step()`, and what the step does to each objective.

    What a strategy promises of its direction d ends at `.grad`: momentum, Adam's division and
    weight decay make another step u of it. Measured is ⟨gᵢ, u⟩ for each loss, its change to first
    order. With `guard="correct"` a step that raises an objective is replaced by the nearest one
    that raises none::

        u' = argmin ½ (u' − u)ᵀ P⁻¹ (u' − u)   s.t.   ⟨gᵢ, u'⟩ <= 0 for all i,

    with P the learning rate times the optimizer's own scaling, so that u' = u − PJᵀλ, λ >= 0. The
    promise then holds to first order, on this batch, in groups of several objectives. Heads and
    encoders of one objective are measured, and never corrected.

    In this order: gradients into `.grad`; `scaler.unscale_`; `between()`; a copy of the
    parameters; the optimizer's step, through the scaler if there is one; the measurement and the
    correction. `optimizer.zero_grad()`, `scaler.update()` and schedulers stay the caller's.

    Args:
        losses: as for `backward`; None combines what `accumulate` gathered.
        optimizer: a `torch.optim.Optimizer`. Its state stays as it wrote it, also where the step
            is corrected. Parameters that it does not hold do not move here. Hooks on its step, as
            of a moving average, see the step before it is corrected. "correct" is not for those
            that ascend (`maximize=True`, a negative learning rate).
        guard: "report" measures and changes nothing. "correct" also corrects: `sum` or `pcgrad`
            become another method by it. It makes one more backward pass per loss for strategies
            that form no gradients. "off" only steps.
        guard_on: the objectives that may not rise with "correct": "all", "protected" (the one of
            `protect=`), or names.
        bound: the most by which P exceeds its median in a group. What then is longer than u
            itself is corrected in the identity metric instead.
        metric: "optimizer": the strategy solves on JPJᵀ in place of JJᵀ, with P from the state
            before this step, and d = Jᵀw of the weights that it finds. What it promises of
            ⟨gᵢ, d⟩ then holds of ⟨gᵢ, Pd⟩.
        scaler: as for `backward`; `.grad` is unscaled when `between` is called.
        between: called before the optimizer's step, to clip gradients for example.
        features: as for `backward`, like all that follow. The change is then not known.
        scores: the user's measure per modality.
        weights: the user's own weight per loss; the change is that of the weighted losses.
        count: how many examples this process's mean losses are of.
        retain_graph: keep the graph for another pass.

    Returns:
        The `Record`, with `change`; and with `change`, `risen`, `corrected` and `metric` per group.
        Where the gradients of single losses are not at hand, `unmeasured` says why.

    Raises:
        InputError: for settings, losses or an optimizer that cannot be used; nothing is changed.
        NonFiniteError: as for `backward`.
        OptimizerError: where the optimizer's step raises, or what follows it; the message says
            what stands.

    Example:
        >>> import torch, gradsurgery as gs
        >>> model = torch.nn.Linear(3, 2)
        >>> surgery = gs.Surgery("upgrad", model)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> first, second = model(torch.ones(3)).pow(2)
        >>> losses = {"first": first, "second": second}
        >>> record = surgery.step(losses, optimizer, guard="correct")
        >>> record["first+second"].risen
        ()
    """
    settings = settings_of(self._config, guard, guard_on, bound, scaler, between, features)
    check_optimizer(optimizer, guard, metric)
    check_scaled(scaler, optimizer)
    check_held(optimizer, self._config.parameters)
    solved_in = metric_setting(metric, optimizer, settings.bound, self._config, features)
    if losses is None:
        given = {"features": features, "weights": weights, "count": count}
        if found := [name for name, value in given.items() if value is not None]:
            raise InputError(GIVEN.format(f"{found[0]}="))
        stored = micro_batches.complete(self._gathered, self._config.parameters)
        if is_on(scaler) != (stored.scale is not None):
            raise InputError(
                "scaler: give step(None, ...) the one that accumulate was given, or none to both: "
                "the gathered gradients are scaled by it."
            )
        parsed, call = stored.losses, {"stored": stored}
    else:
        parsed, call = self._prepared(losses, weights, count, features, scaler, retain_graph)
    if not isinstance(settings.on, str):
        everything = {*parsed.names, *self._history.objectives}
        if odd := [name for name in settings.on if name not in everything]:
            raise InputError("guard_on: " + one_of("objective", odd[0], sorted(everything)))
    result = self._step(parsed, scores, guard=guard, metric=solved_in, **call)
    kept = None if guard == "off" else result.kept
    record = optimize(result.record, kept, optimizer, settings, self._config, self._communicator)
    self.corrections += counts_of(record.values())
    return record
