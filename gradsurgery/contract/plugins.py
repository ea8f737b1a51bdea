"""Strategies of other packages, found by their entry points, and whose turn it is to load them."""

import contextlib
import threading
from collections.abc import Iterator

ENTRY_POINTS = "gradsurgery.strategies"
PATIENCE = 3.0  # seconds
_filling = threading.Lock()
_here = threading.local()  # `loading`: whether this thread loads strategies now


@contextlib.contextmanager
def turn() -> Iterator[bool]:
    """Wait for another thread that loads strategies; False within a turn of this thread.

    A plugin that registers, or asks, while it is loaded is such a turn within a turn. The wait ends
    after `PATIENCE`, since the other thread may be waiting for a module that this one is importing:
    the lock only spares work that may be done twice.
    """
    if getattr(_here, "loading", False):
        yield False
        return
    mine = False
    try:
        mine = _filling.acquire(timeout=PATIENCE)
        _here.loading = True
        yield True
    finally:
        _here.loading = False
        if mine:
            _filling.release()


def load_plugins(besides: str) -> tuple[list[str], bool]:
    """Load every entry point but that of the module `besides`.

    Returns:
        What failed, in words; and whether no entry point was left out.
    """
    from importlib.metadata import entry_points

    failures: list[str] = []
    complete = True
    try:
        points = list(entry_points(group=ENTRY_POINTS))
    except Exception as error:
        return [f"the plugins of installed packages could not be listed: {error!r}"], True
    for point in points:
        if f"{besides}.".startswith(f"{getattr(point, 'module', None)}."):
            complete = False
            continue
        try:
            point.load()
        except Exception as error:
            failures.append(f"the strategy plugin {point.value!r} could not be loaded: {error!r}")
    return failures, complete
