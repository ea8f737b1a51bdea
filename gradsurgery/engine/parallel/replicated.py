"""Replicated parameters: every rank has the whole model, and holds a share of each gradient.

A share is a smaller model. The ranks agree, sum each objective's gradients to shares while the
next pass runs, sum all numbers that come to the host once, and solve the same problem from the
same bits. Each combines its own shares; one gather makes whole directions of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from torch import Tensor

from gradsurgery.engine.commit import check_takes
from gradsurgery.engine.communicator import (
    AGREED,
    BEFORE,
    Gradients,
    Scores,
    SingleProcess,
    Wanted,
    Writable,
)
from gradsurgery.engine.config import Config
from gradsurgery.engine.graph import Graph
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.parallel import totals
from gradsurgery.engine.parallel.agreement import Said, agree, compare
from gradsurgery.engine.parallel.deciding import NOTHING, check_close, weights_of, words_of
from gradsurgery.engine.parallel.describing import Describing, digest_of_state
from gradsurgery.engine.parallel.factors import Factors
from gradsurgery.engine.parallel.failures import error_of, failure_of, group_works, name_ranks
from gradsurgery.engine.parallel.layout import part_of, share_like
from gradsurgery.engine.parallel.publishing import publish
from gradsurgery.engine.parallel.sending import send
from gradsurgery.engine.parallel.tapping import Tapping
from gradsurgery.engine.parallel.union import act_on
from gradsurgery.engine.parallel.wire import Wire
from gradsurgery.engine.trace import Trace
from gradsurgery.errors import NonFiniteError
from gradsurgery.gradients.factored import Tap
from gradsurgery.record import GroupRecord
from gradsurgery.types import Array

MORE = "guard='correct'", "metric="  # in what is called: with exchanges of its own in a step
LOCAL, DECIDED, OVER = "local", "decided", "over"


class Replicated(SingleProcess):
    """The exchanges of a step over a process group.

    Args:
        group: the group.
    """

    several = True
    sharded = False

    def __init__(self, group: Any) -> None:
        self.wire = Wire(group)
        self._describing = Describing()
        self._factors: dict[str, float] = {}  # loss -> this rank's part of it, in the last step
        self._proposed: Tapping | None = None
        self._begin("", None, {})

    def __deepcopy__(self, _: Any) -> "Replicated":
        new = type(self)(self.wire.group)
        new._factors = dict(self._factors)
        return new

    def _begin(self, call: str, config: Config | None, local: Mapping[str, Tensor]) -> None:
        strategy = None if config is None else config.strategy
        self._silent = strategy is None  # nothing is published
        self._whole = strategy is not None and "rows" in strategy.inputs
        self._local = local
        later = () if config is None else (config.low_memory, config.decide_on, config.measure)
        self._careful = bool(local) or any(word in call for word in MORE) or any(later)
        self._sent: dict[str, Tensor] = {}
        self._odd: dict[int, set[int]] = {}
        self._values: list[list[float]] = []
        self._decided: dict[str, Array] = {}
        self._words = NOTHING
        self._names: tuple[str, ...] = ()
        self._tapping, self._proposed = self._proposed, None
        self._taps: dict[str, Tap] = {}
        self._rows: dict[str, int] = {}  # of the layers that the next passes tap
        self._weights: dict[str, Tensor] = {}  # of which every rank has the whole direction

    def propose(self, found: Mapping[str, Tap], trace: Trace, graph: Graph, every: bool) -> None:
        self._proposed = Tapping(found, trace, graph, every, self.wire.world)

    def agree(
        self, losses: Losses, trace: Trace, scores: Scores, *compared: Any
    ) -> tuple[Losses, Trace, Scores]:
        call, config, history, scale = compared
        given = config.parameters.named()
        if trace.features:
            trunk = {id(tensor) for tensor in trace.trunk}  # in an order that all ranks have
            trace = replace(trace, trunk=[t for key, (_, t, _) in given.items() if key in trunk])
        own = self._describing.said(losses, trace, scores, call, config, history, scale)
        self._begin(call, config, trace.features)
        with self._exchange(LOCAL if call == "accumulate" else AGREED, "agreeing on a step"):
            taps = 0 if self._tapping is None else self._tapping.digest
            state = partial(digest_of_state, history)
            found, self._alike = agree(self.wire, *own, taps, state)
            both = act_on(found, losses, trace, given, self.wire.rank, self.sharded)
        losses, trace, scores, self._factors = both
        self._names = losses.names * losses.batches
        return losses, trace, scores

    def tapped(self, trace: Trace) -> dict[str, Tap]:
        if self._tapping is None:
            return {}
        self._ready()
        with self._exchange(self.at, "saying which layers are tapped"):
            self._taps, self._rows = self._tapping.agreed(self.wire, trace, self._alike)
        self._weights = {name: trace.tensors[name] for name in self._rows}
        return self._taps

    def scatter(
        self,
        passes: Iterable[Gradients],
        wanted: Sequence[Wanted],
        writable: Writable | None = None,
    ) -> list[Gradients]:
        self._ready()
        names = self._names if self.at == AGREED else ()
        with self._exchange(self.at, "sending gradients"):
            factors = None
            if self._rows:
                factors = Factors(self.wire, self._rows, self._weights, self._taps)
            sent = send(self.wire, passes, wanted, self._local, self._whole, names, factors)
        if sent.failed:
            self._raise(sent.error)
        if factors is not None:
            self._weights = {n: t for n, t in self._weights.items() if n in self._taps}
        self._taps, self._rows = {}, {}
        if writable is not None:
            writable.clear()
        self._sent |= sent.tensors
        for loss, ranks in sent.odd.items():
            self._odd.setdefault(loss, set()).update(ranks)
        return sent.passes

    def held(self, groups: list[Group]) -> list[Group]:
        if self._whole:
            return groups
        sent, world = self._sent, self.wire.world
        return [
            replace(
                group,
                parameters={
                    name: share_like(tensor, world) if name in sent else tensor
                    for name, tensor in group.parameters.items()
                },
            )
            for group in groups
        ]

    def total(self, values: list[Tensor], products: list[Tensor]) -> list[Tensor]:
        self._ready()
        with self._exchange(DECIDED, "adding Gram matrices and losses"):
            # of whole gradients those of one rank count
            counted = not (self._whole and self.wire.rank)
            by_rank, sums = totals.added_apart(self.wire, values, products, counted)
        self._values = self._values if by_rank is None else by_rank
        return sums

    def decided(self, records: Iterable[GroupRecord]) -> None:
        self._decided = weights_of(records)
        self._words = words_of(self._decided)

    def publish(self, directions: dict[str, Tensor]) -> dict[str, Tensor]:
        self._ready()
        error = None
        try:
            for name, tensor in (self._weights | self._sent).items():
                if name in directions and (grad := tensor.grad) is not None:
                    check_takes(grad, tensor.detach())
        except BaseException as found:
            error = found
        return self._publish(directions, error)

    def gathered(self) -> None:
        self._status(None)
        self.at = OVER

    writing = gathered

    def stepping(self) -> None:
        self.at = LOCAL

    def part(self, name: str, tensor: Tensor) -> Tensor:
        if self._whole or name not in self._sent:
            return tensor
        return part_of(tensor, self.wire.world, self.wire.rank)

    def portion(self, name: str) -> float:
        return 1 / self.wire.world if self._whole or name not in self._sent else 1.0

    def added(self, values: list[Tensor], products: list[Tensor]) -> list[Tensor]:
        self._status(None)
        with self._exchange(LOCAL, "adding what the optimizer's step does"):
            return totals.added(self.wire, [*values, *products])

    def whole(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        self._status(None)
        sent = {} if self._whole else {n: t for n, t in self._sent.items() if n in parts}
        with self._exchange(LOCAL, "gathering the corrected parameters"):
            found = publish(self.wire, parts, sent, NOTHING)
        return {**parts, **found.directions}

    def observed(
        self, read: Callable[[Mapping[str, float]], dict[str, float]], weights: Mapping[str, float]
    ) -> dict[str, float]:
        here = {n: w for n, w in weights.items() if self._factors.get(n, 1.0)}
        own = read(here) if here or not weights else {}
        with self._exchange(OVER, "taking the means of what was observed"):
            compare(agree(self.wire, Said((("what is called", "observe"),), ()))[0])
            factors = [self._factors.get(n, 1 / self.wire.world) for n in weights]
            mine = [own.get(n, 0.0) * f for n, f in zip(weights, factors, strict=True)]
            found = self.wire.floats(mine)
        return dict(zip(weights, map(sum, zip(*found, strict=True)), strict=True))

    def resumed(self, history: History) -> History:
        self._describing.resumed(history)
        return history

    def failed(self, error: BaseException) -> None:
        at, self.at = self.at, OVER
        if isinstance(error, NonFiniteError):
            name_ranks(error, self.wire.ranks, self._values, self._odd)
        with suppress(Exception):  # the caller's own error is the one that counts
            if at == BEFORE:
                agree(self.wire, error)
            elif at == LOCAL or (at == DECIDED and self._careful):
                self.at = at
                self._status(error)
            elif at == DECIDED:
                self._publish({}, error)
        self.at = OVER
        self._release()

    def _release(self) -> None:
        """Nothing of the graph is held on to: features, and layers that were or might be tapped."""
        self._local, self._taps = {}, {}
        self._tapping = self._proposed = None

    @contextmanager
    def _exchange(self, then: str, doing: str) -> Iterator[None]:
        """An exchange: where it fails, all ranks know, or none can be told any more."""
        self.at = OVER
        with group_works(doing):
            yield
        self.at = then

    def _ready(self) -> None:
        """In steps whose exchanges follow from what was found: all ranks come to the next one."""
        if self._careful and self.at == DECIDED:
            self._status(None)

    def _status(self, error: BaseException | None) -> None:
        """Every rank says whether it goes on."""
        with self._exchange(self.at, "saying that all goes well"):
            words = self.wire.integers([error is not None])
        if any(word for (word,) in words):
            self._raise(error)

    def _publish(
        self, directions: dict[str, Tensor], error: BaseException | None
    ) -> dict[str, Tensor]:
        tensors = {} if self._silent or self._whole else self._sent
        self._release()
        given, words = (None, NOTHING) if error else (directions, self._words)
        with self._exchange(OVER, "gathering the directions"):
            found = publish(self.wire, given, tensors, words)
        if found.failed:
            self._raise(error)
        if not found.alike:
            with self._exchange(OVER, "comparing weights"):
                check_close(self.wire, self._decided)
        return {**directions, **found.directions}

    def _raise(self, own: BaseException | None) -> NoReturn:
        """Tell all ranks why some cannot go on, and raise: this one's own exception, or theirs."""
        if isinstance(own, NonFiniteError):
            name_ranks(own, self.wire.ranks, self._values, self._odd)
        number = self.wire.ranks[self.wire.rank]
        with self._exchange(OVER, "telling of a failure"):
            found = self.wire.objects(None if own is None else failure_of(own, number))
        error = own or error_of(found)
        assert error is not None
        raise error
