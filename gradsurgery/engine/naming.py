"""Names of parameters and groups: without wrappers, distinct, and known in saved states."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

# What torch.compile, FSDP, activation checkpointing, Lightning's Fabric and Opacus put into the
# names of what they wrap.
PRIVATE = (
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "_module",
)
PRIVATE_PART = re.compile(rf"(?<![^./])(?:{'|'.join(PRIVATE)})\.")
# DataParallel and DDP call it `module`, which may be in a name of the user's too.
ANY_PART = re.compile(rf"(?<![^./])(?:{'|'.join((*PRIVATE, 'module'))})\.")
FIRST_MODULE = re.compile(r"^((?:[^/]*/)?)module\.")
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def plain_names(module: nn.Module, names: Sequence[str]) -> Sequence[str]:
    """The names of a module's parameters without those of wrappers, wherever these stand.

    A name keeps them where it would else be another's.
    """
    if not any(map(ANY_PART.search, names)):
        return names
    short = [ANY_PART.sub("", name) for name in names]
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
    """A name without what only wrappers put there; `wrappers` are those that add a `module`."""
    *owners, last = name.split(".")
    kept = []
    for i, part in enumerate(owners):
        wraps = part in PRIVATE or (part == "module" and ".".join(owners[:i]) in wrappers)
        if not wraps:
            kept.append(part)
    return ".".join((*kept, last))


def in_group(group: str, name: str) -> str:
    """group/name, with slashes in the group's name as \\/, so that no two pairs give the same."""
    escaped = group.replace("\\", "\\\\").replace("/", "\\/")
    return f"{escaped}/{name}" if group else name


def own_names(
    saved: Iterable[str], own: Mapping[str, Tensor], groups: Iterable[str]
) -> dict[str, str]:
    """The names of a saved state -> those of the parameters here, as far as they are the same.

    States saved by earlier versions have the names of wrappers in them, and slashes in the names of
    groups as they are.
    """
    names = list(dict.fromkeys(saved))
    if all(name in own for name in names):
        return {name: name for name in names}
    spelled = {name: name for name in own}
    for group in groups:
        if (start := in_group(group, "")) != f"{group}/":
            for name in own:
                if name.startswith(start):
                    spelled.setdefault(f"{group}/{name[len(start) :]}", name)
    best: dict[str, str] = {}
    for without in (str, _without_private, _without_first_module, _without_any):
        found = {name: spelled[short] for name in names if (short := without(name)) in spelled}
        if len(set(found.values())) == len(found) > len(best):  # no two of them the same parameter
            best = found
    return best


def _without_private(name: str) -> str:
    return PRIVATE_PART.sub("", name)


def _without_first_module(name: str) -> str:
    return FIRST_MODULE.sub(r"\1", _without_private(name))


def _without_any(name: str) -> str:
    return ANY_PART.sub("", name)


def distinct(titles: Sequence[str], taken: Iterable[str]) -> list[str]:
    """The titles in this order, numbered where one is taken or comes again: "a+b", "a+b (2)"."""
    used, natural = set(taken), {*titles, *taken}
    out = []
    for title in titles:
        if title in used:
            numbered = (f"{title} ({k})" for k in range(2, len(natural) + len(titles) + 2))
            title = next(t for t in numbered if t not in natural and t not in used)
        used.add(title)
        out.append(title)
    return out
