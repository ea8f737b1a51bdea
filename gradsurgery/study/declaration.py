"""What a study says before it runs: its parts, what decides, and what is expected."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from gradsurgery.errors import InputError, one_of

TIERS = ("fast", "conv", "cross", "once")
FIRST_SEED = 100  # pilots used the low ones


@dataclass(frozen=True)
class Part:
    """One task with one optimizer: a comparison with a folder of its own.

    Attributes:
        name: of the folder.
        tier: "fast", "conv", "cross" or "once".
        task: its registered name.
        seeds: how many.
        strategies: what is compared.
        primary: the figure that verdicts are about.
        delta: the difference of it below which two strategies count as equivalent.
        optimizer: "sgd" or "adam"; None is the task's own.
        rates: the range that tuning begins with; empty is the task's.
        tune: whether rates are searched; otherwise all run at the middle of the range.
        baselines: "auto" or "none", as of a `Plan`.
        guarded: strategies that are also trained with guard="correct" (`Surgery.step`).
        joint: the label that is trained on the joint loss alone; None where there is no such loss.
        modalities: figures of single encoders.
        hard: the figure of the harder of two objectives, where one was made so.
        measured: what is measured besides: "flatness", "diagnosis".
        piloted: whether pilots have seen this task.
        steps: of a run; None is the task's own.
        first: the first seed.
    """

    name: str
    tier: str
    task: str
    seeds: int
    strategies: tuple[str, ...]
    primary: str
    delta: float
    optimizer: str | None = None
    rates: tuple[float, ...] = ()
    tune: bool = True
    baselines: str = "auto"
    guarded: tuple[str, ...] = ()
    joint: str | None = None
    modalities: tuple[str, ...] = ()
    hard: str | None = None
    measured: tuple[str, ...] = ()
    piloted: bool = False
    steps: int | None = None
    first: int = FIRST_SEED

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise InputError(one_of("tier", self.tier, TIERS))

    @property
    def reported(self) -> tuple[int, ...]:
        """The seeds of the runs that are reported."""
        return tuple(range(self.first, self.first + self.seeds))


@dataclass(frozen=True)
class Prediction:
    """A verdict against `sum` that is expected.

    Attributes:
        verdict: "equivalent", "worse" or "better".
        strategies: their labels; "joint-only" stands for the label of each part.
        parts: the names of the parts that it is about.
    """

    verdict: str
    strategies: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """What is measured besides, and how.

    Attributes:
        seeds: how many, the first of those of a part.
        flat: the strategies whose flatness is measured.
        loss: flatness is measured where the summed training loss has come down to this share of
            what it is for an untrained model.
        examples: of the training data, for flatness and for that loss.
        steps: of a `sum` trajectory, as shares of its length, at which gradients are diagnosed.
        batches: of each diagnosis.
    """

    seeds: int
    flat: tuple[str, ...]
    loss: float
    examples: int
    steps: tuple[float, ...]
    batches: int


@dataclass(frozen=True)
class Declaration:
    """The whole of it.

    Attributes:
        parts: in the order in which they run.
        selection: by which rule a learning rate is chosen.
        rules: how verdicts come about, a sentence each.
        predictions: what is expected.
        measured: what is measured besides.
        limits: what the study cannot say, a sentence each.
    """

    parts: tuple[Part, ...]
    selection: str
    rules: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    measured: Measured
    limits: tuple[str, ...]

    def of(self, tiers: Iterable[str]) -> list[Part]:
        """The parts of these tiers.

        Raises:
            UnknownNameError: for a tier that there is not.
        """
        wanted = list(tiers)
        for tier in wanted:
            if tier not in TIERS:
                raise InputError(one_of("tier", tier, TIERS))
        return [part for part in self.parts if part.tier in wanted]

    @property
    def digest(self) -> str:
        """A hash of all that it says."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
