"""A group of a Record in one line of text, beside the other groups."""

from collections.abc import Sequence

from gradsurgery.record.group import GroupRecord
from gradsurgery.record.line import line_of


def listed(group: GroupRecord, strategy: str | None, groups: Sequence[GroupRecord]) -> str:
    """The line of one group within its Record: what it says, and why it is a group of its own."""
    missing = _split_by(group, groups)
    line = f"  {line_of(group, bool(strategy))}"
    return line if missing is None else f"{line}; {missing}"


def _split_by(group: GroupRecord, groups: Sequence[GroupRecord]) -> str | None:
    """What to say of a group of one tensor that a single loss splits off, by not reaching it.

    A loss that reaches some part alone has a head there: that is how the model is meant.
    """
    own = {*group.objectives, *group.absent}
    if group.parameters != 1 or "+".join(sorted(own)) != group.name:
        return None  # others are named by the user
    reaching = [(other, {*other.objectives, *other.absent}) for other in groups]
    # inputs that require grad are among the other leaves, and no head
    reaching = [
        (other, names)
        for other, names in reaching
        if other.name.startswith("+".join(sorted(names)))
    ]
    for other, names in reaching:
        missing = names - own
        alone = any(missing & those and not own <= those for _, those in reaching)
        if other.parameters > 1 and own < names and len(missing) == 1 and not alone:
            return (
                f"its one tensor is apart from {other.name!r} only because {missing.pop()!r} "
                "does not reach it (one group for both: parameters={'net': net})"
            )
    return None
