"""Surgery: one line in the training loop, with the state that some strategies keep."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from gradsurgery.contract.definition import Strategy
from gradsurgery.engine import commit, micro_batches, optimized
from gradsurgery.engine.boundary import parse_features
from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.collective import collective, communicator_of
from gradsurgery.engine.config import Config, config_of
from gradsurgery.engine.counts import counted
from gradsurgery.engine.described import described
from gradsurgery.engine.forget import without_objectives
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.not_losses import check_first_order
from gradsurgery.engine.observed import numbers_by_name, observed_losses
from gradsurgery.engine.parsing import AnyLosses, parse
from gradsurgery.engine.resumed import resumed
from gradsurgery.engine.saved import as_saved, counts_in
from gradsurgery.engine.settings import takes_settings_of, with_texts
from gradsurgery.engine.source import GradientSource
from gradsurgery.engine.step import StepResult, run_step
from gradsurgery.errors import warn
from gradsurgery.record import Record


class Surgery:
    """Gradient surgery over many steps, with `backward(losses)` in place of `loss.backward()`.

    Args:
        {settings}

    By default parameters are grouped by the set of losses that have reached them so far, so that a
    shared trunk, each encoder and each head is a problem of its own. Losses may come, go and be
    reordered from step to step.

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
        self.strategy: Strategy = config.required
        self._history = History()
        self._cache = TraceCache()
        self._communicator = communicator_of(config)
        self._gathered: GradientSource | None = None
        self.corrections = Counter[str]()  # by `step`: groups measured, risen, corrected, ...

    @collective
    def backward(
        self,
        losses: AnyLosses,
        *,
        features: Any = None,
        scaler: Any = None,
        scores: Mapping[str, float] | None = None,
        weights: Any = None,
        count: Any = None,
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> Record:
        """Combine the losses' gradients and accumulate the result into `.grad`, as torch does.

        Args:
            losses: a dict of name -> scalar, a sequence of scalars, one tensor, or `PerExample`;
                for strategies that take `cross`, a list of m such dicts, one per independent batch.
                Losses without names are named by their indices: "0", ...; "0,0", ...
            features: the shared representation from which the losses were computed: a tensor, or a
                sequence or dict of tensors. The strategy decides on the gradients there, and its
                direction is propagated through the trunk in one pass (Sener & Koltun 2018, section
                3.3, for every strategy). Its claims then hold at the features only.
            scaler: a `torch.amp.GradScaler`; give the plain losses, and go on with
                `scaler.step(optimizer)` and `scaler.update()`. `.grad` is then scaled, and the
                strategy is given gradients that are not. What is not finite reaches the scaler as
                infinity in every `.grad`, and the `Surgery` stays as it was.
            scores: modality -> number, the user's own measure (for `ogm-ge`, `agm`).
            weights: the user's own weight per loss, applied to the losses first: a dict by name, or
                numbers in the losses' order or shape. A dict has all losses, and may have earlier
                ones. With a weight of zero a gradient is zero, which to `mgda` is a stationary
                point: leave the loss out, or see `zero`.
            count: how many examples this process's mean losses are of, a number or a dict by name.
                The joined loss is Σ count·loss / Σ count over the processes that have it; without
                counts they count alike. A process without examples gives {} as losses.
            retain_graph: keep the graph for another pass.
            create_graph: not supported; a penalty on the gradients is a loss.

        Returns:
            The `Record` of what was decided.

        Raises:
            InputError: for losses, weights or a graph that cannot be used.
            NonFiniteError: for NaN or inf, naming the objective and the group.

        An exception before the writing of `.grad` leaves `.grad`, state and step as they were. What
        a post-accumulate hook raises propagates, and the step stands.
        """
        check_first_order(create_graph)
        parsed, call = self._prepared(losses, weights, count, features, scaler, retain_graph)
        return self._step(parsed, scores, **call).record

    step = collective(optimized.step)

    @collective
    def accumulate(
        self,
        losses: AnyLosses,
        *,
        scaler: Any = None,
        weights: Any = None,
        count: Any = None,
        retain_graph: bool = False,
    ) -> None:
        """Add the gradients of a micro-batch's losses to those gathered before, loss by loss.

        `.grad` stays as it is until `combine`; one gradient is kept per loss and parameter. As with
        torch, the sum is meant: for the mean over k micro-batches divide each loss by k. Losses may
        be missing from some micro-batches.

        Args:
            losses: as for `backward`, like all that follow.
            scaler: the same for all micro-batches of a step.
            weights: the same for all micro-batches of a step.
            count: as for `backward`, of this micro-batch.
            retain_graph: keep the graph for another pass.

        Raises:
            InputError: for losses, weights or a graph that cannot be used, or a converted model.
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
        parsed = self._parsed(losses, weights, count)
        shared = self._config, parsed, self._history, self._communicator, self._cache
        calls, total, history = micro_batches.add(self._gathered, *shared, scaler, retain_graph)
        # An interrupted micro-batch is in the sum and in the history, or in neither.
        calls.append(partial(self.__dict__.update, _gathered=total, _history=history))
        commit.at_once(calls)

    @collective
    def combine(self, *, scores: Mapping[str, float] | None = None) -> Record:
        """One surgery on the gradients gathered by `accumulate`, into `.grad`.

        The losses are the sums over the micro-batches. With `every=k` the steps between use the
        weights again, on gradients that were gathered one by one all the same.

        Args:
            scores: as for `backward`.

        Returns:
            The `Record` of what was decided.

        Raises:
            InputError: when nothing was gathered, the scaler was updated between, or the model was
                converted.

        After an exception what was gathered is still there: call it again, or `discard()`.
        """
        stored = micro_batches.complete(self._gathered, self._config.parameters)
        return self._step(stored.losses, scores, stored=stored).record

    def discard(self) -> None:
        """Drop the gradients gathered by `accumulate`."""
        self._gathered = None

    def forget(self, *objectives: str) -> None:
        """Forget which parameters these objectives have reached, and their state.

        Groups follow from every loss that has reached a parameter so far. Without those of an
        earlier phase the parts are one group again, with the states of both; other objectives keep
        theirs. One that comes again is new.

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
        micro_batches.check_none(self._gathered, "forget")
        self._history = self._communicator.resumed(without_objectives(self._history, objectives))

    @collective
    def observe(self, losses: Mapping[str, Any] | Iterable[Any]) -> None:
        """Take the losses on the same data after the optimizer's step, for the next `backward`.

        For strategies that take `observed` (`famo`); for others it changes nothing. `losses` are
        numbers or scalar tensors, in the form in which `backward` had them last.

        Raises:
            InputError: before the first step, for numbers that are not finite, or other names.

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
        weights, communicator = self._history.weights, self._communicator
        observed = communicator.observed(partial(observed_losses, losses), weights)
        self._history = replace(self._history, observed=observed)

    def state_dict(self) -> dict[str, Any]:
        """What to save: step, reach of the objectives, the strategy's state by group, corrections.

        Strings, numbers, tuples and tensors on the host, for `torch.load(..., weights_only=True)`
        and `dcp.save({"surgery": surgery}, ...)`. Gathered gradients are not in it.
        """
        if self._gathered is not None:
            warn("state_dict: gradients gathered by accumulate are not saved: gather them again.")
        parameters = self._config.parameters
        saved = as_saved(self._history, not parameters.discover, self.corrections.items())
        return {**described(self.strategy, parameters), **saved}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Continue from what `state_dict` gave.

        Parameters are known by name, whatever wraps the model: names that `torch.compile`,
        `DataParallel`, FSDP and activation checkpointing put into those of parameters do not count.
        Parameters that the state does not have start from zero.

        Args:
            state: what `state_dict` returned.
            strict: whether a state of other parameters, explicit groups or options of the strategy
                is an error. False drops what belongs to none here, and keeps the options given.

        Raises:
            InputError: when it is no such dict, or of another strategy or of other shapes; under
                `strict` also of other parameters, groups or options. Nothing is changed then.
        """
        history = resumed(state, self.strategy, self._config.parameters, strict)
        self.corrections, history = counts_in(state), self._communicator.resumed(history)
        self._history, self._gathered = history, None

    def __repr__(self) -> str:
        return f"Surgery({self.strategy!r}, step={self._history.step})"

    def _parsed(self, losses: Any, weights: Any, count: Any) -> Losses:
        def earlier() -> set[str]:
            gathered = () if self._gathered is None else self._gathered.losses.names
            return self._history.objectives.union(gathered)

        return counted(parse(losses, weights, earlier, self._communicator.several), count)

    def _prepared(
        self, losses: Any, weights: Any, count: Any, features: Any, scaler: Any, retain: bool
    ) -> tuple[Losses, dict[str, Any]]:
        micro_batches.check_none(self._gathered, "backward")
        parsed, step = self._parsed(losses, weights, count), {"retain_graph": retain}
        return parsed, {"features": parse_features(features), "scaler": scaler, **step}

    def _step(self, losses: Losses, scores: Any, **call: Any) -> StepResult:
        """Decide a step and make it stand: the history and `.grad`, or neither; then the hooks."""
        scores = None if scores is None else numbers_by_name("scores", scores)
        shared = self._config, losses, self._history, self._communicator, self._cache
        result = run_step(*shared, scores=scores, **call)
        commit.write(result.directions, self, _history=result.history, _gathered=None)
        commit.fire_hooks([parameter for parameter, _ in result.directions])
        return result


Surgery.__doc__ = with_texts(Surgery.__doc__)
