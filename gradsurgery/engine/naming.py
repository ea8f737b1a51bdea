"""Names of parameters: the same with and without wrappers, apart where groups coincide, and found again in a saved state."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

# what torch.compile, FSDP, activation checkpointing, Lightning's Fabric and Opacus put into the names of what they wrap
PRIVATE = (
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "_module",
)
OURS = re.compile(rf"(?<![^./])(?:{'|'.join(PRIVATE)})\.")
ANY = re.compile(
    rf"(?<![^./])(?:{'|'.join((*PRIVATE, 'module'))})\."
)  # a model of one's own may have a `module` too
FIRST = re.compile(r"^((?:[^/]*/)?)module\.")
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def plain_names(module: nn.Module, names: Sequence[str]) -> Sequence[str]:
    """The names of a module's parameters without those of wrappers, wherever these stand; a name keeps them where it would else be another's."""
    if not any(map(ANY.search, names)):
        return names
    short = [ANY.sub("", name) for name in names]
    count = Counter(short)
    doubtful = [i for i, name in enumerate(short) if count[name] > 1]
    if not doubtful:
        return short
    wrappers = {
        prefix
        for prefix, part in module.named_modules(remove_duplicate=False)
        if isinstance(part, PARALLEL)
    }
    sure = {i: _without(names[i], wrappers) for i in doubtful}
    count = Counter(sure.values())
    for i, name in sure.items():
        short[i] = name if count[name] == 1 else names[i]
    return short


def _without(name: str, wrappers: set[str]) -> str:
    """A name without what only wrappers put there: names of their own, and the `module` of those in `wrappers`."""
    *owners, last = name.split(".")
    kept = []
    for i, part in enumerate(owners):
        wraps = part in PRIVATE or (part == "module" and ".".join(owners[:i]) in wrappers)
        if not wraps:
            kept.append(part)
    return ".".join((*kept, last))


def joined(group: str, name: str) -> str:
    """group/name, so that no two pairs give the same: a slash in the group's name is written \\/."""
    escaped = group.replace("\\", "\\\\").replace("/", "\\/")
    return f"{escaped}/{name}" if group else name


def found_again(
    saved: Iterable[str], own: Mapping[str, Tensor], groups: Iterable[str]
) -> dict[str, str]:
    """The names of a saved state -> those of the parameters here, as far as they are known under any way of writing.

    States saved by earlier versions have the names of wrappers in them, and slashes of groups as they are.
    """
    names = list(dict.fromkeys(saved))
    if all(name in own for name in names):
        return {name: name for name in names}
    written = {name: name for name in own}
    for group in groups:
        if (start := joined(group, "")) != f"{group}/":
            for name in own:
                if name.startswith(start):
                    written.setdefault(f"{group}/{name[len(start) :]}", name)
    best: dict[str, str] = {}
    for way in (lambda n: n, _ours, lambda n: FIRST.sub(r"\1", _ours(n)), lambda n: ANY.sub("", n)):
        found = {name: written[short] for name in names if (short := way(name)) in written}
        if len(set(found.values())) == len(found) > len(best):  # no two of them the same parameter
            best = found
    return best


def _ours(name: str) -> str:
    return OURS.sub("", name)


def apart(titles: Sequence[str], taken: Iterable[str]) -> list[str]:
    """The titles in this order, numbered where one is taken or comes again: "a+b", "a+b (2)"."""
    used, natural = set(taken), {*titles, *taken}
    out = []
    for title in titles:
        if title in used:
            title = next(
                t
                for k in range(2, len(natural) + len(titles) + 2)
                if (t := f"{title} ({k})") not in natural and t not in used
            )
        used.add(title)
        out.append(title)
    return out
