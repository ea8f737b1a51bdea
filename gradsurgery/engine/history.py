"""History: what a Surgery knows between steps; immutable, so that a failed step changes nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gradsurgery.contract.state import State
from gradsurgery.engine.grouping import GroupKey
from gradsurgery.engine.reach import Reach
from gradsurgery.errors import InputError

LOSSES = "losses"  # what a strategy that acts on losses has its state and weights under


@dataclass(frozen=True)
class History:
    """What was in the steps before.

    Attributes:
        step: how many steps there were.
        reach: the objectives that have reached each parameter so far.
        states: the strategy's state per group.
        waiting: loaded states of groups that no step has had yet. Without given parameters there
            are no names to find a parameter by; the set of objectives then tells the group.
        known: without given parameters the name of each parameter reached so far, by its id.
        observed: what `Surgery.observe` was given since the last step.
        weights: the user's own weights in the last step, by which observed losses are multiplied.
        solved: the step in which the weights in `replay` were solved.
        replay: weights per group that later steps may use again.
        numbered: in how many steps `known` has grown.
    """

    step: int = 0
    reach: Reach = field(default_factory=Reach)
    states: dict[GroupKey, State] = field(default_factory=dict)
    waiting: dict[GroupKey, State] = field(default_factory=dict)
    known: dict[int, tuple[str, Tensor]] = field(default_factory=dict)
    observed: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    solved: int = 0
    replay: dict[GroupKey, dict[str, float]] = field(default_factory=dict)
    numbered: int = 0

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """A copy has copies of the tensors, under ids of their own."""
        known = {id(tensor): (name, tensor) for name, tensor in saved["known"].values()}
        self.__dict__.update({**saved, "known": known})

    @property
    def objectives(self) -> set[str]:
        """The names of all losses so far."""
        return set(self.weights).union(*self.reach.values())

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters whose gradients are kept."""
        states = (*self.states.values(), *self.waiting.values())
        return list(dict.fromkeys(name for state in states for name, _ in state.shapes()))

    def replays(self, every: int) -> bool:
        """Whether this step uses the weights of an earlier one; they are good for `every` steps."""
        return bool(self.replay) and self.step - self.solved < every

    def state_of(self, key: GroupKey, parameters: Iterable[str]) -> State:
        """A copy of a group's state.

        It is the group's own; or else that which its parameters had before a later loss split
        their group; or else an empty one.
        """
        if key in self.states:
            return self.states[key].copy()
        if key in self.waiting:
            return self.waiting[key].copy()
        names = list(parameters)
        reached = (self.reach.get(name) for name in names)
        ancestors = [k for k in dict.fromkeys(reached) if k is not None and k in self.states]
        if ancestors:
            state = self.states[ancestors[0]].copy(names)
            for ancestor in ancestors[1:]:  # groups that a new loss made one
                state.absorb(self.states[ancestor].copy(names))
            return state
        if not isinstance(key, frozenset):
            return State()
        wider = [k for k in self.waiting if isinstance(k, frozenset) and k > key]
        if not wider:
            return State()
        return self.waiting[min(wider, key=lambda k: (len(k), sorted(k)))].copy()

    def advance(
        self,
        reach: Reach,
        states: Mapping[GroupKey, State],
        weights: Mapping[str, float],
        replay: Mapping[GroupKey, dict[str, float]] | None = None,
    ) -> "History":
        """The history once a step stands; groups that have no parameter any more are dropped.

        Args:
            reach: the objectives that have reached each parameter so far.
            states: the new state of each group that has one.
            weights: the user's own weights.
            replay: the weights solved in this step, if they are to be used again; None where
                earlier ones were used.
        """
        kept, waiting = {**self.states, **states}, self.waiting
        if kept:
            alive = reach.sets
            kept = {k: s for k, s in kept.items() if not isinstance(k, frozenset) or k in alive}
        if waiting:
            waiting = {k: s for k, s in waiting.items() if k not in kept}
        solved, again = (self.solved, self.replay) if replay is None else (self.step, dict(replay))
        return History(
            self.step + 1,
            reach,
            kept,
            waiting,
            self.known,
            weights=dict(weights),
            solved=solved,
            replay=again,
            numbered=self.numbered,
        )

    def check_resumable(self, objectives: Sequence[str]) -> None:
        """Loaded gradients find parameters that were not given by number.

        The first step counts these, so that it needs every loss.

        Raises:
            InputError: when a loss is missing from the first step after loading such a state, or
                when the numbers were given in more steps than one.
        """
        if self.known or not any(state.has_rows for state in self.waiting.values()):
            return
        if self.numbered > 1:
            raise InputError(
                "the saved gradients are of parameters that were first reached in different steps, "
                "in an order that cannot be known again: make the Surgery with parameters=model, "
                "before and after saving."
            )
        waiting = [k for k in self.waiting if isinstance(k, frozenset)]
        if missing := sorted(frozenset().union(*waiting) - frozenset(objectives)):
            raise InputError(
                f"the first step after load_state_dict lacks the losses {_listed(missing)}, by "
                "which the saved gradients find their parameters: give all losses in that step, or "
                "make the Surgery with parameters=model."
            )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
