"""Memory: what a Surgery knows between steps; immutable, so that a failed step changes nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gradsurgery.contract.state import State
from gradsurgery.contract.stored import as_name, as_names, as_numbers
from gradsurgery.engine.grouping import GroupKey
from gradsurgery.engine.reach import Reach
from gradsurgery.errors import InputError

LOSSES = "losses"  # what the state and weights of a strategy that acts on losses are kept under


@dataclass(frozen=True)
class History:
    """The step, the reach of each parameter so far, and the state of each group.

    `waiting` holds loaded states of groups that have not been met yet (without given parameters there are no names by
    which to know a parameter again; the set of objectives tells the group). `known` gives those parameters, by id, a
    name for as long as the process lives. `observed` holds what `Surgery.observe` was given since the last step, `weights` the user's
    own weights of that step, which the observed losses are multiplied by too. `replay` are the weights of each group as they were
    solved in step `solved`, if they are to be used again. `numbered` counts the steps in which `known` grew.
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

    def replays(self, every: int) -> bool:
        """Whether this step uses the weights of an earlier one: solved ones are good for `every` steps."""
        return bool(self.replay) and self.step - self.solved < every

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """A copy knows the copied tensors by their own ids."""
        known = {id(tensor): (name, tensor) for name, tensor in saved["known"].values()}
        self.__dict__.update({**saved, "known": known})

    def state_of(self, key: GroupKey, parameters: Iterable[str]) -> State:
        """The group's state: its own, or a copy of the one its parameters had before a later loss split their group."""
        names = list(parameters)
        if key in self.states:
            return self.states[key].copy()
        if key in self.waiting:
            return self.waiting[key].copy()
        ancestors = list(
            dict.fromkeys(self.reach[n] for n in names if self.reach.get(n) in self.states)
        )
        if ancestors:
            state = self.states[ancestors[0]].copy(names)
            for ancestor in ancestors[1:]:  # groups that a new loss made one
                state.absorb(self.states[ancestor].copy(names))
            return state
        wider = [
            k
            for k in self.waiting
            if isinstance(k, frozenset) and isinstance(key, frozenset) and k > key
        ]
        return (
            self.waiting[min(wider, key=lambda k: (len(k), sorted(k)))].copy() if wider else State()
        )

    def check_resumable(self, objectives: Sequence[str]) -> None:
        """Without given parameters, loaded rows find theirs by number, which the first step counts: it needs every loss.

        Raises:
            InputError: when a loss is missing from the first step after loading such a state, or when the numbers were given in more steps than one.
        """
        if not self.known and any(state.has_rows for state in self.waiting.values()):
            if self.numbered > 1:
                raise InputError(
                    "the saved gradients are of parameters that were first reached in different steps, in an order that cannot be known again: "
                    "make the Surgery with parameters=model, before and after saving."
                )
            missing = sorted(
                frozenset().union(*(k for k in self.waiting if isinstance(k, frozenset)))
                - frozenset(objectives)
            )
            if missing:
                raise InputError(
                    f"the first step after load_state_dict lacks the losses {', '.join(map(repr, missing))}, by which the saved gradients find "
                    "their parameters: give all losses in that step, or make the Surgery with parameters=model."
                )

    def advance(
        self,
        reach: Reach,
        states: Mapping[GroupKey, State],
        weights: Mapping[str, float],
        replay: Mapping[GroupKey, dict[str, float]] | None = None,
    ) -> "History":
        """The memory once a step stands: groups that no parameter belongs to any more are forgotten.

        Args:
            reach: the objectives that have reached each parameter so far.
            states: the new state of each group that has one.
            weights: the user's own weights.
            replay: the weights solved in this step, if they are to be used again; None where earlier ones were used.
        """
        alive = set(reach.values())
        kept = {
            k: s
            for k, s in {**self.states, **states}.items()
            if not isinstance(k, frozenset) or k in alive
        }
        waiting = {k: s for k, s in self.waiting.items() if k not in kept}
        solved, again = (self.solved, self.replay) if replay is None else (self.step, dict(replay))
        return History(
            self.step + 1,
            reach,
            kept,
            waiting,
            self.known,
            {},
            dict(weights),
            solved,
            again,
            self.numbered,
        )

    def state_dict(self, named: bool) -> dict[str, Any]:
        """Strings, numbers, tuples and tensors only."""
        return {
            "step": self.step,
            "reach": {name: tuple(sorted(objectives)) for name, objectives in self.reach.items()}
            if named
            else {},
            "groups": tuple(
                (key if isinstance(key, str) else tuple(sorted(key)), state.state_dict())
                for key, state in {**self.waiting, **self.states}.items()
            ),
            "observed": dict(self.observed),
            "weights": dict(self.weights),
            "solved": self.solved,
            "numbered": self.numbered,
            "replay": tuple(
                (key if isinstance(key, str) else tuple(sorted(key)), dict(weights))
                for key, weights in self.replay.items()
            ),
        }

    @property
    def objectives(self) -> set[str]:
        """The names of all losses so far."""
        return set(self.weights).union(*self.reach.values())

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters whose gradients are kept."""
        return list(
            dict.fromkeys(
                name
                for state in (*self.states.values(), *self.waiting.values())
                for name, _ in state.shapes()
            )
        )

    @classmethod
    def from_state_dict(
        cls, saved: Mapping[str, Any], whole: bool = False, finite: bool = False
    ) -> "History":
        """The inverse of `state_dict`.

        Args:
            saved: what it gave.
            whole: whether a NaN among the strategy's numbers is an error.
            finite: whether an infinity is.
        """
        try:
            step, solved, numbered = saved["step"], saved.get("solved", 0), saved.get("numbered", 0)
            for name, count in (("step", step), ("solved", solved), ("numbered", numbered)):
                if type(count) is not int or not 0 <= count < 1 << 62:
                    raise InputError(
                        f"load_state_dict: {name} is a whole number that is not negative; got {count!r}."
                    )
            if solved > step:
                raise InputError(
                    f"load_state_dict: the weights are of step {solved}, after step {step}."
                )
            reach = Reach.of(
                {
                    as_name(name): frozenset(as_names(objectives))
                    for name, objectives in saved["reach"].items()
                }
            )
            groups = {
                _key(key): State.from_state_dict(state, whole, finite)
                for key, state in saved["groups"]
            }
            replay = {_key(key): as_numbers(found) for key, found in saved.get("replay", ())}
            if len(groups) < len(saved["groups"]) or len(replay) < len(saved.get("replay", ())):
                raise InputError("load_state_dict: a group comes twice.")
            observed, weights = (
                as_numbers(saved.get("observed", {})),
                as_numbers(saved.get("weights", {})),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(
                f"load_state_dict: expected what state_dict() returned; {error!r}."
            ) from error
        known = set(reach.values())
        here = {k: s for k, s in groups.items() if isinstance(k, str) or k in known}
        return cls(
            step,
            reach,
            here,
            {k: s for k, s in groups.items() if k not in here},
            {},
            observed,
            weights,
            solved,
            replay,
            numbered,
        )


def _key(saved: str | Sequence[str]) -> GroupKey:
    return saved if isinstance(saved, str) else frozenset(as_names(saved))
