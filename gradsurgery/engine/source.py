"""GradientSource: where a step's gradients come from, live or stored."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from torch import Tensor

from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.communicator import Gradients, SingleProcess
from gradsurgery.engine.compiled import ONE_PASS
from gradsurgery.engine.graph import Graph
from gradsurgery.engine.losses import Losses, root_gradients
from gradsurgery.engine.passes import gather, gather_batched, grad, merged
from gradsurgery.engine.reach import Reach
from gradsurgery.engine.retained import drop_batched
from gradsurgery.engine.trace import Trace, passes
from gradsurgery.errors import InputError
from gradsurgery.gradients.coordinates import unusual
from gradsurgery.gradients.donation import as_owned
from gradsurgery.gradients.factored import Tap
from gradsurgery.gradients.per_example.block import Mixed

Named = dict[str, Tensor]


class GradientSource:
    """The gradients of one step, live from the losses' graph or stored by `accumulate`.

    Args:
        trace: what each loss reaches.
        losses: the losses; without graph where the gradients are stored.
        communicator: what is exchanged with other processes.
        graph: their graph; None where the gradients are stored.
        scale: the GradScaler's factor, or None.
        retain_graph: whether the graph is needed after the step.

    Attributes:
        rows: per loss parameter -> gradient, times the scale if there is one; filled by `per_loss`.
        factored: the weights for which `rows` holds the gradients at the layer's outputs.
        apart: which losses reach the parameters whose gradients are not in `rows`; one weighted
            pass gives their direction. None where there are none.
        grams: the Gram matrices of those whose gradients were there and not kept (memory="low").
        writable: per parameter the gradient of the loss that reached it first, where d may be
            formed in its memory, or None.
        odd: the names whose gradients are not dense real tensors of the parameter's dtype.
        sparse: those of them that are sparse, or were where `grams` has them.
        kinds: what each parameter was when its gradient was stored.
        mixed: the tensors of which the gradients of all mixtures of per-example losses follow from
            one pass; `rows` has the others.
        method: what the record says of how the gradients of `PerExample` were had.
        parts: how many micro-batches the stored gradients are sums over.
    """

    def __init__(
        self,
        trace: Trace,
        losses: Losses,
        communicator: SingleProcess,
        graph: Graph | None = None,
        scale: Tensor | None = None,
        retain_graph: bool = False,
    ) -> None:
        self.trace = trace
        self.losses = losses
        self.communicator = communicator
        self.graph = graph
        self.scale = scale
        self.retain_graph = retain_graph
        self.rows: list[Named] = []
        self.factored: MutableMapping[str, Tap] = {}
        self.apart: Reach | None = None
        self.grams: Named = {}
        self.writable: dict[str, Tensor | None] = {}
        self.odd: frozenset[str] = frozenset()
        self.sparse: frozenset[str] = frozenset()
        self.kinds: Mapping[str, Any] = {}
        self.parts = 1
        self.mixed: dict[str, Mixed] = {}
        self.method: str | None = losses.method

    def with_gradients(self, parameters: Named) -> Named:
        """Those of which gradients of single losses are formed, or Gram matrices are."""
        if not self.apart:
            return parameters
        return {n: t for n, t in parameters.items() if n in self.grams or n not in self.apart}

    def weighted(self, weights: Sequence[float], wanted: Named, retain_graph: bool) -> Named:
        """The gradient of Σ wᵢ Lᵢ for `wanted`, in one backward pass; it may become `.grad`."""
        if not wanted:
            return {}
        targets, features = list(wanted.values()), self.trace.features
        directions = [i for i, name in enumerate(wanted) if name not in features]

        def one_pass() -> Iterator[Gradients]:
            roots = root_gradients(self.losses, weights, self.scale, together=True)
            if self.graph is not None and self.graph.passes is not None:
                asked = [(range(len(roots)), wanted)]
                yield {0: self.graph.passes(self.losses.tensors, roots, asked, retain_graph)[0]}
                return
            found = grad(self.losses.tensors, targets, roots, retain_graph)
            own = as_owned(found, targets, directions)
            yield {0: {name: g for name, g in zip(wanted, own, strict=True) if g is not None}}

        return self.communicator.scatter(one_pass(), [{0: wanted}])[0][0]

    def per_loss(
        self,
        cache: TraceCache,
        factored: MutableMapping[str, Tap] | None = None,
        batched: bool = False,
    ) -> None:
        """Fill `rows`: one pass per loss, or with `batched` one for what several losses reach.

        Args:
            cache: says whether a batched pass has to clean up.
            factored: the weights of layers for whose output the gradient is wanted instead.
            batched: one pass, batched over the losses (vmap).

        Raises:
            InputError: for a compiled region that allows one pass only, or one whose passes are
                to be batched.
        """
        trace = self.trace
        wanted, together = trace.wanted, trace.together
        self.factored = {} if factored is None else factored
        if self.apart:
            wanted = [{n: t for n, t in w.items() if n not in self.apart} for w in wanted]
            together = passes(wanted)
        if batched:
            parts = self._batched(wanted, cache)
            asked = [dict(enumerate(wanted))]
        else:
            parts = self._in_turn(wanted, together)
            asked = [{i: wanted[i] for i in members} for members in together]
        scattered = self.communicator.scatter(parts, asked, self.writable)
        self.rows = merged(scattered, len(self.losses.tensors))
        self.odd, sparse = unusual(self.rows, trace.tensors, self.factored)
        self.sparse |= sparse

    def _in_turn(
        self, wanted: Sequence[Named], together: Sequence[Sequence[int]]
    ) -> Iterator[Gradients]:
        """The passes, one by one; what they raise is raised when they are asked for."""
        if self.trace.single_pass and sum(map(bool, self.trace.wanted)) > 1:
            raise InputError(ONE_PASS)
        roots = root_gradients(self.losses, None, self.scale)
        retain = self.retain_graph or bool(self.apart)
        if self.graph is not None and self.graph.passes is not None:
            asked = [
                (members, {n: t for i in members for n, t in wanted[i].items()})
                for members in together
            ]
            found = self.graph.passes(self.losses.tensors, roots, asked, retain)
            for members, given in zip(together, found, strict=True):
                yield {i: {n: given[n] for n in wanted[i] if n in given} for i in members}
            return
        own = self.losses.tensors, roots, wanted, retain
        # gradients that are sent are freed then: none is held to be written to
        writable = None if self.communicator.several else self.writable
        yield from gather(*own, self.factored, together, writable)

    def _batched(self, wanted: Sequence[Named], cache: TraceCache) -> Iterator[Gradients]:
        """All gradients as those of one pass."""
        if self.trace.single_pass and sum(map(bool, self.trace.wanted)) > 1:
            raise InputError(ONE_PASS)
        if self.trace.reach.uncertain:
            raise InputError(
                "method='batched': a region that torch.compile made cannot be batched; use "
                "method='gradients'."
            )
        roots = root_gradients(self.losses, None, self.scale)
        retain = self.retain_graph or bool(self.apart)
        try:
            rows = gather_batched(self.losses.tensors, roots, wanted, retain)
        finally:
            cache.batched_left = drop_batched(everywhere=cache.batched_left)
        yield dict(enumerate(rows))

    def shared(self, trace: Trace, losses: Losses, communicator: SingleProcess) -> "GradientSource":
        """Stored gradients, of which this process goes on with its share."""
        new = GradientSource(trace, losses, communicator, scale=self.scale)
        found = communicator.scatter([dict(enumerate(self.rows))], [dict(enumerate(trace.wanted))])
        new.rows, new.odd, new.sparse = merged(found, len(losses.tensors)), self.odd, self.sparse
        return new

    def of_chunk(self, names: frozenset[str]) -> list[Named]:
        """Per loss the gradients of these parameters alone; the graph stays."""
        wanted = [{n: t for n, t in w.items() if n in names} for w in self.trace.wanted]
        roots = root_gradients(self.losses, None, self.scale)
        together = passes(wanted)
        parts = gather(self.losses.tensors, roots, wanted, True)
        asked = [{i: wanted[i] for i in members} for members in together]
        return merged(self.communicator.scatter(parts, asked), len(wanted))

    def through(self, roots: Named, wanted: Named, retain_graph: bool) -> Named:
        """From gradients at the features those of the trunk's tensors, which may become `.grad`."""
        features = self.trace.features
        used = [name for name in features if name in roots]
        starts, own = [features[name] for name in used], [roots[name] for name in used]
        tensors = list(wanted.values())

        def one_pass() -> Iterator[Gradients]:
            owned = as_owned(grad(starts, tensors, own, retain_graph), tensors)
            yield {0: {name: g for name, g in zip(wanted, owned, strict=True) if g is not None}}

        return self.communicator.scatter(one_pass(), [{0: wanted}])[0][0]
