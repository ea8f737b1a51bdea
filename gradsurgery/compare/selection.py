"""By which validation figure a learning rate is chosen, and the sentence that says so."""

import statistics
from dataclasses import dataclass

from gradsurgery.compare.choice import Line, directions, metric_of

RULE = (
    "the rate with the best {what}, mean over the tuning seeds {{seeds}}; "
    "a rate at which a run failed counts below all others, and test data choose nothing"
)


@dataclass(frozen=True)
class Selection:
    """A rule that gives each row one number.

    Attributes:
        names: the validation figures of which the mean is taken; none is the sum of the losses.
        higher: whether a higher number is better.
        what: the number, in words.
    """

    names: tuple[str, ...]
    higher: bool
    what: str

    @property
    def rule(self) -> str:
        """The sentence, with a place for the seeds."""
        return RULE.format(what=self.what)

    def figure(self, line: Line) -> float | None:
        """The number of a row; None where the run failed."""
        if "error" in line:
            return None
        if not self.names:
            loss = line.get("validation_loss")
            return None if loss is None else float(loss)
        values = [line["validation"].get(name) for name in self.names]
        return None if None in values else statistics.fmean(values)


def selection_of(line: Line) -> Selection | None:
    """The rule for rows such as this one; None where they have no figure at all.

    The primary figure where there is one. Otherwise the mean of the figures if all are of one
    kind, else the first. Where the task does not say which are better, the validation losses.
    Figures that are null, of heads that an alone run does not train, are left out.
    """
    there = [name for name, value in line["validation"].items() if value is not None]
    better = directions(line)
    if better is None:
        return Selection((), False, "sum of the validation losses (lower is better)")
    if not there:
        return None
    primary = line.get("primary")
    kinds = {(metric_of(line, name).label, better[name]) for name in there}
    if isinstance(primary, str) and primary in there:
        names = [primary]
    else:
        names = there if len(kinds) == 1 else there[:1]
    word, label = better[names[0]], metric_of(line, names[0]).label
    which = ", ".join(map(repr, names))
    if len(names) > 1:
        said = f"mean of the validation figures of {which} ({label}, {word} is better)"
    else:
        said = f"validation figure of {which} ({label}, {word} is better)"
        if primary not in there and len(there) > 1:
            said += ", the first one, since the figures are of several kinds"
    return Selection(tuple(names), word == "higher", said)
