"""What a step exchanges with other processes: nothing here; `parallel/` has those of several."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import torch.distributed as dist
from torch import Tensor

from gradsurgery.engine.graph import Graph
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.trace import Trace
from gradsurgery.gradients.factored import Tap
from gradsurgery.record import GroupRecord

AVAILABLE = dist.is_available()
if TYPE_CHECKING:
    from torch.distributed import ProcessGroup as Ranks
else:  # torch may have been built without it
    Ranks = getattr(dist, "ProcessGroup", type("ProcessGroup", (), {}))
ProcessGroup = Literal["auto"] | Ranks | None
Gradients = dict[int, dict[str, Tensor]]  # loss -> parameter -> gradient
Wanted = Mapping[int, Mapping[str, Tensor]]  # loss -> the parameters that a pass is to reach
Writable = dict[str, Tensor | None]
Scores = Mapping[str, float] | None
BEFORE, AGREED = "before", "agreed"


def is_group(given: Any) -> TypeGuard[Ranks]:
    """Whether a setting is a process group."""
    return AVAILABLE and isinstance(given, Ranks)


class SingleProcess:
    """The exchanges of a step that one process decides alone: each gives back what it was given.

    A step calls the methods in the order in which they stand here, each on every process.

    Attributes:
        several: whether other processes take part.
        at: how far a call is: what others wait for where this process leaves it.
    """

    several = False
    at = BEFORE

    def propose(self, found: Mapping[str, Tap], trace: Trace, graph: Graph, every: bool) -> None:
        """Before `agree`, in steps that may tap layers: those that this process could.

        Args:
            found: the layers that it could tap.
            trace: what this process's losses reach.
            graph: theirs.
            every: take all, whatever that saves.
        """

    def agree(
        self, losses: Losses, trace: Trace, scores: Scores, *compared: Any
    ) -> tuple[Losses, Trace, Scores]:
        """Before the passes: the losses, the reach and the scores on which all processes act.

        Args:
            losses: this process's losses. Those that come back add up, over the processes, to the
                losses of the joined batch: their values, and their gradients. Losses without graph
                are sums of such.
            trace: which loss reaches which parameter here.
            scores: the user's measure per modality; their mean comes back.
            *compared: what has to be the same on all processes: what is called, settings, history,
                loss scale.

        Raises:
            InputError: on every process, where they cannot act as one.
        """
        return losses, trace, scores

    def tapped(self, trace: Trace) -> dict[str, Tap]:
        """The layers that every process taps, as they are here: the passes of the next `scatter`.

        Once the passes are made it has those of the joined batch, in place.
        """
        return {}

    def scatter(
        self,
        passes: Iterable[Gradients],
        wanted: Sequence[Wanted],
        writable: Writable | None = None,
    ) -> list[Gradients]:
        """Gradients summed over the processes: this process's share of them.

        Args:
            passes: per backward pass what it gives, by loss and parameter; a weighted pass gives it
                for loss 0. The next pass begins once the last one's gradients are on their way, so
                that passes and transfers overlap. What a pass raises is raised on all processes.
            wanted: per pass what it may give.
            writable: per parameter the gradient in whose memory its direction may be formed; to be
                changed where shares come in other memory.
        """
        return list(passes)

    def held(self, groups: list[Group]) -> list[Group]:
        """The groups with the tensors that this process's gradients are of: shares of theirs."""
        return groups

    def total(self, values: list[Tensor], products: list[Tensor]) -> list[Tensor]:
        """Numbers on their way to the host, summed over the processes: both lists as one.

        Args:
            values: values of losses, and findings.
            products: of the gradients that this process holds, a tensor of any shape each.
        """
        return [*values, *products]

    def counted(self, name: str) -> float:
        """What products with this process's part of a parameter count in `total`."""
        return self.portion(name)

    def decided(self, records: Iterable[GroupRecord]) -> None:
        """Before `publish`: the weights that this process has decided on, which all share."""

    def publish(self, directions: dict[str, Tensor]) -> dict[str, Tensor]:
        """After the combination: whole directions by parameter, from each process's shares.

        Raises:
            GradSurgeryError: where a process could not make its shares.
        """
        return directions

    def gathered(self) -> None:
        """After the passes of a micro-batch: all processes have its gradients.

        Raises:
            GradSurgeryError: where one has not.
        """

    def stepping(self) -> None:
        """Before the optimizer's step, where numbers are exchanged after it."""

    def part(self, name: str, tensor: Tensor) -> Tensor:
        """This process's part of a parameter, in the form of its gradients."""
        return tensor

    def portion(self, name: str) -> float:
        """What products with that part count in `added`."""
        return 1.0

    def added(self, values: list[Tensor], products: list[Tensor]) -> list[Tensor]:
        """After the optimizer's step: numbers summed over the processes, both lists as one."""
        return [*values, *products]

    def whole(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is to be written into the parameters as this process holds them, from all parts."""
        return parts

    def writing(self) -> None:
        """Before corrected parameters are written: all processes have theirs."""

    def observed(
        self, read: Callable[[Mapping[str, float]], dict[str, float]], weights: Mapping[str, float]
    ) -> dict[str, float]:
        """Losses after a step, as means over the processes, weighted as in the step.

        Args:
            read: gives those of this process, for the user's weights by name.
            weights: the user's weight of each loss of the step.
        """
        return read(weights)

    def resumed(self, history: History) -> History:
        """Between steps this process takes another history, by loading or forgetting."""
        return history

    def failed(self, error: BaseException) -> None:
        """This process has left a step by an exception: others that wait for it are told."""
