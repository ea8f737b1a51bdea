"""What to compare: tasks, strategies with options, seeds, learning rates; parsed from text."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from gradsurgery import InputError, Strategy, get_strategy
from gradsurgery.compare.optimizers import known_optimizers
from gradsurgery.tasks import Task, get_task

BASELINE = "sum"
DEFAULT_TASKS = ("multimnist", "cg-mnist")
DEFAULT_STRATEGIES = (BASELINE, "scaled-sum", "mgda", "pcgrad", "cagrad", "mmpareto")
DEFAULT_SEEDS = (0, 1)


@dataclass(frozen=True)
class Run:
    """One training run: a task, a strategy by its label, a seed, a learning rate, and how long.

    `optimizer` is None for the task's own. `kind` says what it is for: "run" is reported.
    """

    task: str
    strategy: str
    seed: int
    lr: float
    epochs: int | None
    steps: int | None = None
    optimizer: str | None = None
    kind: str = "run"


@dataclass(frozen=True)
class Plan:
    """A comparison: every strategy on every task with every seed (and every learning rate).

    Attributes:
        tasks: the tasks.
        strategies: label -> strategy with its options bound; a label is the name, with options as
            in "cagrad(c=1.0)".
        seeds: each seeds the model's initial weights and the order of the examples.
        epochs: passes over the training data; None is each task's own number.
        lrs: learning rates to choose from by validation figures; empty is each task's own.
        data_root: the folder with the data; None is the digits of an installed package.
        threads: of torch, while it trains. More than one slows small steps on a busy machine.
        steps: of a run; None is what each task says.
        optimizer: by its name, "sgd" or "adam"; None is each task's own.
    """

    tasks: tuple[Task, ...]
    strategies: dict[str, Strategy]
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    epochs: int | None = None
    lrs: tuple[float, ...] = ()
    data_root: Path | None = None
    threads: int = 1
    steps: int | None = None
    optimizer: str | None = None

    @classmethod
    def of(
        cls,
        tasks: str | Sequence[str] = DEFAULT_TASKS,
        strategies: str | Sequence[str | Strategy] = DEFAULT_STRATEGIES,
        seeds: Sequence[int] = DEFAULT_SEEDS,
        *,
        epochs: int | None = None,
        lrs: Sequence[float] = (),
        data_root: Path | str | None = None,
        threads: int = 1,
        steps: int | None = None,
        optimizer: str | None = None,
    ) -> "Plan":
        """A plan from names.

        Raises:
            UnknownNameError: for a task, a strategy or an option that does not exist, with the
                nearest match.
            InputError: for nothing to do, or numbers that cannot be used.

        Example:
            >>> from gradsurgery.compare import Plan
            >>> plan = Plan.of(["multimnist"], ["sum", "cagrad(c=1.0)"], seeds=[0])
            >>> [run.strategy for run in plan.runs()]
            ['sum', 'cagrad(c=1.0)']
        """
        names = _listed("tasks", tasks, str, "as in ['multimnist']")
        chosen = tuple(get_task(name) for name in dict.fromkeys(names))
        methods = _listed("strategies", strategies, (str, Strategy), "as in ['sum', 'mgda']")
        bound = dict(map(parse_strategy, methods))
        seeds = _listed("seeds", seeds, Integral, "as in [0, 1]", alone=())
        lrs = _listed("lrs", lrs, Real, "as in [0.1, 0.01]", alone=())
        for what, number in (("epochs", epochs), ("steps", steps), ("threads", threads)):
            whole = isinstance(number, Integral) and not isinstance(number, bool)
            if not whole and not (what != "threads" and number is None):
                raise InputError(f"{what}: expected a whole number, 1 or more; got {number!r}.")
        if not chosen or not bound or not seeds:
            raise InputError("a comparison needs at least one task, one strategy and one seed.")
        for what, number in (("epochs", epochs), ("steps", steps)):
            if number is not None and number < 1:
                raise InputError(f"{what}: expected 1 or more; got {number}.")
        _check_length(chosen, epochs, steps)
        if any(seed < 0 for seed in seeds) or any(not 0 < lr < float("inf") for lr in lrs):
            got = f"{list(seeds)} and {list(lrs)}"
            raise InputError(f"seeds are 0 or more and learning rates positive; got {got}.")
        if threads < 1:
            raise InputError(f"threads: expected 1 or more; got {threads}.")
        root = None if data_root is None else Path(data_root)
        each = tuple(dict.fromkeys(map(int, seeds)))
        rates = tuple(dict.fromkeys(map(float, lrs)))
        (other,) = known_optimizers([optimizer]) if optimizer is not None else (None,)
        return cls(chosen, bound, each, epochs, rates, root, threads, steps, other)

    def runs(self) -> list[Run]:
        """Every run; seeds come last, so that what is done early can already be compared."""
        return [
            Run(
                task.name,
                label,
                seed,
                lr,
                None if self.steps else self.epochs or task.epochs,
                self.steps or task.steps,
                self.optimizer,
            )
            for seed in self.seeds
            for task in self.tasks
            for lr in self.lrs or (task.lr,)
            for label in self.strategies
        ]


def _check_length(tasks: Iterable[Task], epochs: int | None, steps: int | None) -> None:
    if epochs is not None and steps is not None:
        raise InputError("give epochs or steps, not both.")
    for task in tasks:
        if epochs is not None and task.batch is None:
            raise InputError(f"epochs: task {task.name!r} counts steps; give steps instead.")


def _listed(
    what: str, given: Any, kind: Any, example: str, alone: Any = (str, Strategy)
) -> tuple[Any, ...]:
    """What was given as a list; a name alone is a list of one.

    Raises:
        InputError: for no list, or one of other things.
    """
    if alone and isinstance(given, alone):
        return (given,)
    wrong = f"{what}: give a list, {example}; got {given!r}."
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InputError(wrong)
    found = tuple(given)
    if kind is not str and not all(isinstance(x, kind) and not isinstance(x, bool) for x in found):
        raise InputError(wrong)
    return found


def parse_strategy(text: str | Strategy) -> tuple[str, Strategy]:
    """The label and the strategy for "name" or "name(option=value, ...)".

    Values are Python literals.

    Raises:
        UnknownNameError: for a name or an option that does not exist, with the nearest match.
        StrategyError: for text that cannot be read, or a value that an option does not take.

    Example:
        >>> from gradsurgery.compare import parse_strategy
        >>> parse_strategy(" mgda(normalize='l2')")[0]
        "mgda(normalize='l2')"
    """
    strategy = get_strategy(text)
    options = ", ".join(f"{name}={value!r}" for name, value in strategy.given)
    return f"{strategy.name}({options})" if options else strategy.name, strategy


def split_list(values: Sequence[str]) -> list[str]:
    """Flatten values that may each be a comma-separated list.

    Commas within brackets do not separate.

    Example:
        >>> from gradsurgery.compare import split_list
        >>> split_list(["sum,cagrad(c=1.0, rescale=1)", "mgda"])
        ['sum', 'cagrad(c=1.0, rescale=1)', 'mgda']
    """
    pieces = [piece.strip() for value in values for piece in re.split(r",(?![^(]*\))", value)]
    return [piece for piece in pieces if piece]


def parse_seeds(values: Sequence[str]) -> list[int]:
    """Seeds from a command line.

    One number N is the seeds 0 to N − 1; a list, as in "0,7", is those seeds.

    Raises:
        InputError: when these are not numbers, or there are none.

    Example:
        >>> from gradsurgery.compare import parse_seeds
        >>> parse_seeds(["3"]), parse_seeds(["5,7"]), parse_seeds(["5,"])
        ([0, 1, 2], [5, 7], [5])
    """
    pieces = split_list(values)
    if not pieces or not all(re.fullmatch(r"\d+", piece) for piece in pieces):
        raise InputError(
            "seeds: give how many, as in 3, or which, as in 0,7; "
            f"got {', '.join(values) or 'nothing'}."
        )
    numbers = [int(piece) for piece in pieces]
    if len(numbers) > 1 or "," in values[0]:
        return numbers
    if numbers[0] == 0:
        raise InputError(
            "seeds: 0 seeds is no comparison; give how many, as in 3, or which, as in 0,7 "
            "(only the seed 0: 0,)."
        )
    return list(range(numbers[0]))


def parse_rates(values: Sequence[str]) -> list[float]:
    """Learning rates from a command line.

    Raises:
        InputError: when these are not positive numbers.

    Example:
        >>> from gradsurgery.compare import parse_rates
        >>> parse_rates(["0.1,0.01", "1e-3"])
        [0.1, 0.01, 0.001]
    """
    try:
        rates = [float(piece) for piece in split_list(values)]
    except ValueError as error:
        raise InputError(
            f"lr: give learning rates as in 0.1,0.01; got {', '.join(values)}."
        ) from error
    if not all(0 < rate < float("inf") for rate in rates):
        raise InputError(f"lr: learning rates are positive; got {', '.join(values)}.")
    return rates
