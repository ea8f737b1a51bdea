"""What to compare: tasks, strategies with options, seeds, learning rates; parsed from text."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from gradsurgery import InputError, Strategy
from gradsurgery.compare.methods import control
from gradsurgery.compare.optimizers import known_optimizers
from gradsurgery.compare.parsing import listed, parse_strategy
from gradsurgery.compare.tuning import SEEDS as TUNING_SEEDS
from gradsurgery.errors import one_of
from gradsurgery.tasks import Task, get_task

BASELINE = "sum"
DEFAULT_TASKS = ("digit-halves", "digit-pairs")
DEFAULT_STRATEGIES = (BASELINE, "scaled-sum", "mgda", "pcgrad", "cagrad", "mmpareto")
DEFAULT_SEEDS = tuple(range(8))
BASELINES = ("none", "auto")
ADVICE = "as in ['sgd', 'adam']"


@dataclass(frozen=True)
class Run:
    """One training run: a task, a strategy by its label, a seed, a learning rate, and how long.

    `optimizer` is None for the task's own. `kind` says what it is for: "run" is reported, "tune"
    searches a learning rate, "control" and "alone" are baselines. `only` has the losses that a run
    alone is trained on.
    """

    task: str
    strategy: str
    seed: int
    lr: float
    epochs: int | None
    steps: int | None = None
    optimizer: str | None = None
    kind: str = "run"
    only: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data; without `only` where it is None, as in files of before."""
        return {name: x for name, x in vars(self).items() if name != "only" or x is not None}


@dataclass(frozen=True)
class Plan:
    """A comparison: every strategy on every task with every seed (and every learning rate).

    Attributes:
        tasks: the tasks.
        strategies: label -> strategy with its options bound; a label is the name, with options as
            in "cagrad(c=1.0)".
        seeds: each seeds the model's initial weights and the order of the examples.
        epochs: passes over the training data; None is each task's own number.
        lrs: learning rates to choose from by validation figures; empty is each task's own. With
            `tune` the search begins around their geometric middle, in place of the task's.
        data_root: the folder with the data; None is the digits of an installed package.
        threads: of torch, while it trains. More than one slows small steps on a busy machine.
        steps: of a run; None is what each task says.
        optimizer: by its name, "sgd" or "adam", or several; None is each task's own.
        tune: search the learning rate of every strategy on seeds of its own.
        baselines: "auto" trains the baselines of each task too, "none" does not.
        controls: labels of more methods to train: "mgda, guard=correct", "mgda, length=sum" or
            "n x mgda".
        evaluations: validation figures along each reported run, for the time to reach one. They
            change no figure, and are no part of what makes two plans one.
    """

    tasks: tuple[Task, ...]
    strategies: dict[str, Strategy]
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    epochs: int | None = None
    lrs: tuple[float, ...] = ()
    data_root: Path | None = None
    threads: int = 1
    steps: int | None = None
    optimizer: str | tuple[str, ...] | None = None
    tune: bool = False
    baselines: str = "none"
    controls: tuple[str, ...] = ()
    evaluations: int = 0

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
        optimizer: str | Sequence[str] | None = None,
        tune: bool = False,
        baselines: str | None = None,
        controls: Sequence[str] = (),
        evaluations: int = 0,
    ) -> "Plan":
        """A plan from names.

        `baselines` are "auto" with `tune` and "none" without, unless they are given.

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
        names = listed("tasks", tasks, str, "as in ['multimnist']")
        chosen = tuple(get_task(name) for name in dict.fromkeys(names))
        methods = listed("strategies", strategies, (str, Strategy), "as in ['sum', 'mgda']")
        bound = dict(map(parse_strategy, methods))
        seeds = listed("seeds", seeds, Integral, "as in [0, 1]", alone=())
        lrs = listed("lrs", lrs, Real, "as in [0.1, 0.01]", alone=())
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
        given = () if optimizer is None else optimizer
        names = known_optimizers(listed("optimizer", given, str, ADVICE))
        other = names if len(names) > 1 else next(iter(names), None)
        if baselines is None:
            baselines = "auto" if tune else "none"
        if baselines not in BASELINES:
            raise InputError(one_of("value of baselines", str(baselines), BASELINES))
        if tune and set(each) & set(TUNING_SEEDS):
            taken = ", ".join(map(str, TUNING_SEEDS))
            raise InputError(f"seeds: {taken} are those of the search of rates; give others.")
        more = tuple(dict.fromkeys(listed("controls", controls, str, "as in ['n x mgda']")))
        for label in more:
            control(label)  # an unknown one is said before any training
        if not isinstance(evaluations, Integral) or evaluations < 0:
            raise InputError(
                f"evaluations: expected a whole number, 0 or more; got {evaluations!r}."
            )
        return cls(
            *(chosen, bound, each, epochs, rates, root, threads, steps, other),
            *(bool(tune), baselines, more, int(evaluations)),
        )

    @property
    def optimizers(self) -> tuple[str | None, ...]:
        """Each optimizer by its name; None is the task's own."""
        return self.optimizer if isinstance(self.optimizer, tuple) else (self.optimizer,)

    @property
    def choosing(self) -> bool:
        """Whether learning rates are chosen by validation figures."""
        return self.tune or len(self.lrs) > 1

    def middle(self, task: Task) -> float:
        """The rate that steps are timed at, and that the search of rates begins around."""
        if self.tune and self.lrs:
            return math.sqrt(min(self.lrs) * max(self.lrs))
        return (self.lrs or (task.lr,))[0]

    def length_of(self, task: Task) -> tuple[int | None, int | None]:
        """How many epochs or steps a run takes, as far as that is said."""
        return None if self.steps else self.epochs or task.epochs, self.steps or task.steps

    def runs(self) -> list[Run]:
        """Every run; seeds come last, so that what is done early can already be compared.

        Raises:
            InputError: for a plan that is tuned or has baselines: its runs follow from figures and
                from the losses of its tasks, which nothing here knows.
        """
        if self.tune or self.baselines != "none" or self.controls:
            what = "tune, baselines or controls"
            raise InputError(f"Plan.runs: those of a plan with {what} are not known yet.")
        return [
            Run(task.name, label, seed, lr, *self.length_of(task), optimizer)
            for seed in self.seeds
            for task in self.tasks
            for optimizer in self.optimizers
            for lr in self.lrs or (task.lr,)
            for label in self.strategies
        ]


def _check_length(tasks: Iterable[Task], epochs: int | None, steps: int | None) -> None:
    if epochs is not None and steps is not None:
        raise InputError("give epochs or steps, not both.")
    for task in tasks:
        if epochs is not None and task.batch is None:
            raise InputError(f"epochs: task {task.name!r} counts steps; give steps instead.")
