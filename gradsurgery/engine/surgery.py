"""Surgery: one line in the training loop, with the state that some strategies keep between steps."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from gradsurgery.contract.definition import Strategy
from gradsurgery.engine import commit
from gradsurgery.engine.accumulation import add, check_gathered, check_still_given
from gradsurgery.engine.boundary import parse_features
from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.communicator import SingleProcess
from gradsurgery.engine.compiled import eager
from gradsurgery.engine.config import Config, config_of
from gradsurgery.engine.converted import check_kinds
from gradsurgery.engine.described import described
from gradsurgery.engine.forget import without_objectives
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import LossesLike, parse_losses
from gradsurgery.engine.observed import numbers_by_name, observed_losses
from gradsurgery.engine.resumed import resumed
from gradsurgery.engine.saved import as_saved
from gradsurgery.engine.settings import takes_settings_of, with_texts
from gradsurgery.engine.source import GradientSource
from gradsurgery.engine.step import StepResult, gather_step, run_step
from gradsurgery.errors import InputError, warn
from gradsurgery.record import Record


class Surgery:
    """Gradient surgery over many steps: call `backward(losses)` where the loop had `loss.backward()`.

    Args:
        {settings}

    By default parameters are grouped by the set of losses that have reached them so far, so that a shared trunk, each
    encoder and each head is a problem of its own. Losses may come, go and be reordered from step to step.

    Raises:
        UnknownNameError: for an unknown strategy or option.
        InputError: for parameters or settings that cannot be used.

    Example:
        >>> import torch, gradsurgery as gs
        >>> model = torch.nn.Linear(3, 2)
        >>> surgery = gs.Surgery("mgda", model)
        >>> first, second = model(torch.ones(3))
        >>> record = surgery.backward({"first": first, "second": second})
        >>> record["first+second"].weights.tolist()
        [0.5, 0.5]
    """

    @takes_settings_of(config_of)
    def __init__(self, config: Config) -> None:
        self._config = config
        self.strategy: Strategy = self._config.required
        self._history = History()
        self._cache = TraceCache()
        self._communicator = SingleProcess()
        self._gathered: GradientSource | None = None

    @eager
    def backward(
        self,
        losses: LossesLike,
        *,
        features: Any = None,
        scaler: Any = None,
        scores: Mapping[str, float] | None = None,
        weights: Any = None,
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> Record:
        """Combine the losses' gradients and accumulate the result into `.grad`, like `torch.autograd.backward`.

        Args:
            losses: a dict of name -> scalar, a sequence of scalars, or one tensor of losses; for strategies that take `cross`, a list of m
                such dicts, one per independent batch. The losses of a sequence or a 1-d tensor are named "0", "1", ...; those of a
                tensor [k, l, ...] by their indices: "0,0", "0,1", ...
            features: the shared representation, a tensor or a sequence or dict of tensors from which the losses were computed. The
                strategy then looks at the gradients there, and what it decides goes through the trunk behind them in one pass
                (Sener & Koltun 2018, section 3.3, for every strategy). What a strategy claims then holds at the features only:
                no objective is hurt by a small step of theirs, which the trunk's parameters may not be able to make.
            scaler: a `torch.amp.GradScaler`; give the plain losses, not `scaler.scale(loss)`, and go on with `scaler.step(optimizer)`
                and `scaler.update()`. `.grad` is then scaled, and the strategy has seen gradients that are not. What is not finite
                reaches the scaler as infinity in every `.grad`, and the `Surgery` stays as it was.
            scores: modality -> number, the user's own measure, for strategies that take it (`ogm-ge`, `agm`).
            weights: the user's own weight per loss, applied to the losses first: a dict by name, or numbers in order
                when the losses were a sequence (in its shape when they were a tensor). A dict has all losses of this step, and
                may have losses of earlier steps. A weight of zero makes that loss's gradient zero, which to `mgda` is a
                stationary point: leave the loss out instead, or see `zero`.
            retain_graph: keep the graph for another pass.
            create_graph: not supported; differentiate a penalty on the gradients as a loss of its own.

        Returns:
            The `Record` of what was decided.

        Raises:
            InputError: for losses, weights or a graph that cannot be used.
            NonFiniteError: for NaN or inf, naming the objective and the group.

        Every exception up to the writing of `.grad` leaves `.grad`, the state and the step as they were. What a
        post-accumulate hook raises propagates, and the step stands.
        """
        if self._gathered is not None:
            raise InputError(
                "backward: gradients were accumulated before; call combine(), or discard() to drop them."
            )
        if create_graph:
            raise InputError(
                "create_graph: the direction of a surgery is not differentiable. A penalty on a loss's gradient is a loss of its own: "
                "compute it with torch.autograd.grad(..., create_graph=True) before, and give it by name."
            )
        cut = None if features is None else parse_features(features)
        parsed = parse_losses(losses, weights, self._earlier)
        result = run_step(
            self._config,
            parsed,
            self._history,
            self._communicator,
            self._cache,
            features=cut,
            scores=None if scores is None else numbers_by_name("scores", scores),
            scaler=scaler,
            retain_graph=retain_graph,
        )
        return self._write(result)

    @eager
    def accumulate(
        self,
        losses: LossesLike,
        *,
        scaler: Any = None,
        weights: Any = None,
        retain_graph: bool = False,
    ) -> None:
        """Gather the gradients of one micro-batch's losses and add them, loss by loss, to those gathered before; `.grad` stays as it is.

        As with torch, the sum is meant: for the mean over k micro-batches divide each loss by k. Losses may be missing from some
        micro-batches. It keeps one gradient per loss and parameter until `combine`.

        Args:
            losses: as for `backward`.
            scaler: as for `backward`, the same for all micro-batches of a step.
            weights: as for `backward`, the same for all micro-batches of a step.
            retain_graph: keep the graph for another pass.

        Raises:
            InputError: for losses, weights or a graph that cannot be used, or a model that was
                converted to another dtype or device since the last micro-batch.
            NonFiniteError: for NaN or inf, naming the objective; what was gathered before stays.

        Example:
            >>> import torch, gradsurgery as gs
            >>> model = torch.nn.Linear(3, 2)
            >>> surgery = gs.Surgery("upgrad", model)
            >>> for batch in torch.ones(4, 3).split(2):
            ...     first, second = model(batch).mean(0) / 2
            ...     surgery.accumulate({"first": first, "second": second})
            >>> surgery.combine()["first+second"].objectives
            ('first', 'second')
        """
        parsed = parse_losses(losses, weights, self._earlier)
        if self._config.low_memory:
            raise InputError(
                "accumulate keeps the gradient of every loss until combine(): leave memory='auto'."
            )
        if parsed.batches > 1:
            raise InputError(
                f"accumulate: strategy {self.strategy.name!r} takes losses of several batches at once; give them to backward."
            )
        if self._gathered is not None:
            check_kinds("accumulate", self._gathered.trace.tensors, self._gathered.kinds)
        new, history = gather_step(
            self._config,
            parsed,
            self._history,
            self._communicator,
            self._cache,
            scaler=scaler,
            retain_graph=retain_graph,
        )
        if self._config.check and new.scale is None:
            check_gathered(new)
        total, sums, terms = add(self._gathered, new)
        calls: list[partial[Any]] = [partial(torch._foreach_add_, sums, terms)] if sums else []
        calls += [
            partial(setattr, self, "_gathered", total),
            partial(setattr, self, "_history", history),
        ]
        commit.at_once(
            calls
        )  # so that an interrupted micro-batch is in the sum and remembered, or in neither

    @eager
    def combine(self, *, scores: Mapping[str, float] | None = None) -> Record:
        """One surgery on the gradients gathered by `accumulate`, into `.grad`; the losses are the sums over the micro-batches.

        With `every=k` the steps between use the weights again, on gradients that were gathered one by one all the same.

        Args:
            scores: as for `backward`.

        Returns:
            The `Record` of what was decided.

        Raises:
            InputError: when nothing was gathered, the scaler was updated between micro-batches, or
                the model was converted to another dtype or device.

        After an exception what was gathered is still there: call it again, or `discard()`.
        """
        if self._gathered is None:
            raise InputError(
                "combine: nothing was gathered; call accumulate(losses) for each micro-batch first."
            )
        stored = self._gathered
        given = {name: t for name, t, _ in self._config.parameters.named().values()}
        check_still_given("combine", stored.trace, given)
        check_kinds("combine", stored.trace.tensors, stored.kinds)
        result = run_step(
            self._config,
            stored.losses,
            self._history,
            self._communicator,
            self._cache,
            scores=None if scores is None else numbers_by_name("scores", scores),
            stored=stored,
        )
        return self._write(result, drop=True)

    def discard(self) -> None:
        """Drop the gradients gathered by `accumulate`."""
        self._gathered = None

    def _earlier(self) -> set[str]:
        """The names of losses of earlier steps and micro-batches."""
        return self._history.objectives.union(
            () if self._gathered is None else self._gathered.losses.names
        )

    def forget(self, *objectives: str) -> None:
        """Forget which parameters these objectives have reached, and their state.

        Groups follow from every loss that has reached a parameter so far, so that a loss of an
        earlier phase goes on splitting them. Without it the parts are one group again, with the
        states of both; other objectives keep theirs. One that comes again is new.

        Args:
            *objectives: their names.

        Raises:
            InputError: for a name that no loss has had, or between `accumulate` and `combine`;
                nothing is changed then.

        Example:
            >>> import torch, gradsurgery as gs
            >>> model = torch.nn.Linear(3, 2)
            >>> surgery = gs.Surgery("mgda", model)
            >>> list(surgery.backward({"warm-up": model.weight.pow(2).sum()}))
            ['warm-up']
            >>> surgery.forget("warm-up")
            >>> first, second = model(torch.ones(3))
            >>> list(surgery.backward({"first": first, "second": second}))
            ['first+second']
        """
        if self._gathered is not None:
            raise InputError(
                "forget: gradients were accumulated before; call combine(), or discard() to drop them."
            )
        self._history = without_objectives(self._history, objectives)

    def _write(self, result: StepResult, drop: bool = False) -> Record:
        """Make a step stand: the history and `.grad`, or neither; then the hooks."""
        gathered = None if drop else self._gathered
        commit.write(result.directions, self, _history=result.history, _gathered=gathered)
        commit.fire_hooks([parameter for parameter, _ in result.directions])
        return result.record

    @eager
    def observe(self, losses: Mapping[str, Any] | Iterable[Any]) -> None:
        """Tell it the losses on the same data after the optimizer's step; the next `backward` hands them to the strategy.

        For strategies that take `observed` (`famo`); for others it changes nothing.

        Args:
            losses: numbers or scalar tensors, in the form of those that `backward` was given last: a dict by name or a sequence.

        Raises:
            InputError: before the first step, for numbers that are not finite, or for names that no loss has.

        Example:
            >>> import torch, gradsurgery as gs
            >>> model = torch.nn.Linear(3, 2)
            >>> surgery = gs.Surgery("famo", model)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> def losses():
            ...     return dict(zip("ab", model(torch.ones(3)).pow(2), strict=True))
            >>> record = surgery.backward(losses())
            >>> optimizer.step()
            >>> with torch.no_grad():
            ...     surgery.observe(losses())
        """
        known = self._history.weights
        if not known:
            raise InputError(
                "observe: there was no step yet; call it after backward and the optimizer's step."
            )
        observed = observed_losses(losses, known)
        self._history = replace(self._history, observed=observed)

    def state_dict(self) -> dict[str, Any]:
        """What to save: the step, which objectives have reached which parameter, and the strategy's state by group.

        Tensors, strings, numbers and tuples only, so that `torch.load(..., weights_only=True)` reads it. Gradients gathered by
        `accumulate` and not yet combined are not in it, and a warning says so.
        """
        if self._gathered is not None:
            warn(
                "state_dict: gradients gathered by accumulate are not saved; the step begins anew after loading."
            )
        parameters = self._config.parameters
        return {
            **described(self.strategy, parameters),
            **as_saved(self._history, named=not parameters.discover),
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Continue from what `state_dict` gave.

        Parameters are known by name, whatever wraps the model: `torch.compile`, `DataParallel`, FSDP and activation checkpointing
        put names of their own into those of parameters, which do not count. Parameters that the state does not have start from zero.

        Args:
            state: what `state_dict` returned.
            strict: whether a state of other parameters, explicit groups or options of the strategy is an error. False drops what
                belongs to parameters and groups that are not given here, and goes on with the options given here.

        Raises:
            InputError: when it is not such a dict, belongs to another strategy, or to parameters of other shapes; under `strict`
                also when it has parameters or explicit groups that are not given here, or other options. Nothing is changed then.
        """
        self._history, self._gathered = (
            resumed(state, self.strategy, self._config.parameters, strict),
            None,
        )

    def __repr__(self) -> str:
        return f"Surgery({self.strategy!r}, step={self._history.step})"


Surgery.__doc__ = with_texts(Surgery.__doc__)
