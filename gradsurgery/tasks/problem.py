"""A task with its data at hand: a model, an optimizer, batches, losses, and figures of a split."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor, device, nn
from torch.optim import Optimizer

from gradsurgery.errors import InputError, one_of
from gradsurgery.tasks.metric import Metric, described

Batch = tuple[Tensor, ...]
Better = Literal["higher", "lower"]
BETTER = ("higher", "lower")
MEANT = {"higher": ("max", "maximise", "up"), "lower": ("min", "minimise", "down", "less")}
SPLITS = ("validation", "test")


def _missing(*given: Any) -> Any:
    """Stands for a function that was not given."""


@dataclass(frozen=True)
class Problem:
    """A task with its data at hand, in one of two forms.

    The protocol: `batches`, `losses`, `evaluate`, `metrics={name: Metric}`; any data, any loop.
    The short cut: `train`, `validation`, `test` as tensors, and `metrics` a function. Comparisons
    see the protocol alone; `gradsurgery.tasks.tensors` brings the short cut into it.

    Functions below are given as many of their arguments as they take.

    Attributes:
        train: short cut: tensors with one row per example, what a batch is cut from.
        validation: short cut: the same for choosing hyper-parameters.
        test: short cut: the same for the figures that are reported, and for nothing else.
        model: makes a fresh model from torch's random numbers.
        optimizer: (parameters, learning rate) -> optimizer.
        losses: (model, batch) -> name -> scalar loss, each an objective. A list of such dicts, one
            per independent batch, serves strategies with several batches (`modo`); others get
            their mean. Where it is one dict, as many batches as needed are drawn.
        metrics: name -> `Metric`. Short cut: (model, examples) -> objective -> figure; all examples
            of a split are given in one call, unless `at_once` says otherwise.
        chance: short cut: the figure of a model that guesses. Where `better` is given, figures no
            better than it are marked: a mean over seeds, or an accuracy within its margin.
        better: short cut: whether a "higher" or a "lower" figure is better, for all objectives or
            by objective. None says nothing: of several learning rates the one with the smallest
            sum of the validation losses is taken.
        at_once: short cut: examples per call of `metrics`. Give it only where a figure over all
            examples is the mean of those over parts, weighted by their numbers: accuracy is, R²
            and AUC are not.
        figure: short cut: what a figure is, in the words of the tables.
        batches: () -> batches of any structure, without end; what ends is begun again.
        evaluate: (model, "validation" or "test") -> name -> figure, of the whole split at once.
            The model is in eval mode, without gradients.
        alone: name -> the losses that a run with that name is trained on, and no others.
        scheduler: (optimizer, steps) -> a scheduler, stepped after each of the optimizer's steps.
        scores: (model, batch, name of the strategy) -> modality -> its measure, for `agm` and
            `ogm-ge`.
        features: (model, batch) -> the tensors at which gradients are taken, as in
            `Surgery.backward(features=)`.
        after_step: (model, batch, surgery, step) after each step.
        device: where the model and the batches are moved to; None leaves them where they are.
        steps: of a run; None takes those of `@task`.

    Raises:
        InputError: for a problem that is neither form, arrays in the place of tensors, a direction
            that is none, or a number of examples that cannot be used.
    """

    train: Batch = ()
    validation: Batch = ()
    test: Batch = ()
    model: Callable[[], nn.Module] = _missing
    optimizer: Callable[..., Optimizer] = _missing
    losses: Callable[[nn.Module, Any], Any] = _missing
    metrics: Any = _missing  # a union would make every call of the short cut a cast
    chance: float | None = None
    better: Better | Mapping[str, Better] | None = None
    at_once: int | None = None
    figure: str = "figure"
    batches: Callable[[], Iterable[Any]] | None = None
    evaluate: Callable[[nn.Module, str], Mapping[str, float | Tensor]] | None = None
    alone: Mapping[str, Sequence[str]] | None = None
    scheduler: Callable[..., Any] | None = None
    scores: Callable[..., Mapping[str, float]] | None = None
    features: Callable[..., Any] | None = None
    after_step: Callable[..., Any] | None = None
    device: str | device | None = None
    steps: int | None = None
    validation_loss: Callable[[nn.Module], float | None] | None = None  # of the short cut alone

    def __post_init__(self) -> None:
        for name in ("model", "optimizer", "losses", "metrics"):
            if getattr(self, name) is _missing:
                raise InputError(f"Problem: {name}= is missing.")
        for part in ("train", *SPLITS):
            _check_tensors(part, getattr(self, part))
        # a short cut that was brought into the protocol has both forms, and this function
        if (self.batches or self.evaluate) and self.validation_loss is None:
            _check_protocol(self)
        given = self.better.values() if isinstance(self.better, Mapping) else (self.better,)
        for word in given:
            if word is not None and word not in BETTER:
                raise InputError(one_of("value of better", str(word), BETTER, MEANT))
        for name, number in (("at_once", self.at_once), ("steps", self.steps)):
            if number is not None and (not isinstance(number, int) or number < 1):
                what = "examples" if name == "at_once" else "steps"
                raise InputError(f"{name}: expected a number of {what}, 1 or more; got {number!r}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The figures that the task declares; empty for the short cut."""
        return tuple(self.metrics) if isinstance(self.metrics, Mapping) else ()

    def metric_of(self, name: str) -> Metric:
        """What the figure of this name is.

        Raises:
            InputError: for an objective that a dict of directions leaves out.
        """
        if isinstance(self.metrics, Mapping):
            metric: Metric = self.metrics[name]
            return metric
        word = (self.better_of([name]) or {}).get(name)
        return described(self.figure, None if word is None else word == "higher", self.chance)

    def better_of(self, objectives: Iterable[str]) -> dict[str, Better] | None:
        """The direction of each objective's figure, or None where the task says nothing.

        Raises:
            InputError: for an objective that a dict of directions leaves out.
        """
        if self.better is None:
            return None
        if not isinstance(self.better, Mapping):
            return dict.fromkeys(objectives, self.better)
        if missing := [o for o in objectives if o not in self.better]:
            names = ", ".join(map(repr, missing))
            raise InputError(f"better: no direction is given for the figure of {names}.")
        return {o: self.better[o] for o in objectives}


def _check_tensors(part: str, given: Any) -> None:
    """Arrays would fail in the first step of every run, where nothing says where they are from.

    They are not converted: whether numbers are float32 or float64 is the user's to say.
    """
    if isinstance(given, np.ndarray):
        raise InputError(
            f"Problem: {part} is a numpy array: give a tuple of tensors, one row per example, as "
            f"in {part}=(torch.from_numpy(x).float(), torch.from_numpy(y))."
        )
    for place, array in enumerate(given if isinstance(given, tuple | list) else ()):
        if isinstance(array, np.ndarray):
            cast = ".float()" if array.dtype.kind == "f" else ""
            raise InputError(
                f"Problem: {part}[{place}] is a numpy array of {array.dtype}: give a tensor, "
                f"torch.from_numpy({part}[{place}]){cast}."
            )


def _check_protocol(problem: Problem) -> None:
    other = "batches" if problem.batches is None else "evaluate"
    if getattr(problem, other) is None:
        raise InputError(f"Problem: {other}= is missing; batches= and evaluate= go together.")
    metrics = problem.metrics
    named = isinstance(metrics, Mapping) and metrics
    if not named or not all(isinstance(metric, Metric) for metric in metrics.values()):
        raise InputError(
            "Problem: with evaluate=, metrics= says what each of its figures is, as in "
            f"{{'audio': Metric('accuracy', unit='%')}}; got {metrics!r}."
        )
    if problem.train or problem.validation or problem.test:
        raise InputError(
            "Problem: give batches= and evaluate=, or train=, validation= and test=; not both."
        )
    for name, losses in (problem.alone or {}).items():
        if isinstance(losses, str) or not losses or not all(isinstance(x, str) for x in losses):
            raise InputError(
                f"Problem: alone={{{name!r}: ...}} is a list of the names of losses, "
                f"as in ['audio']; got {losses!r}."
            )
