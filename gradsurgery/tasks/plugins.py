"""Tasks of other packages, found by their entry points."""

import functools

from gradsurgery.errors import warn

ENTRY_POINTS = "gradsurgery.tasks"


@functools.cache
def load_plugins() -> None:
    """Import what installed packages name in the entry point group `gradsurgery.tasks`, once.

    What cannot be imported is a warning, and the others are there.
    """
    from importlib.metadata import entry_points

    failures = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            failures.append(f"the task plugin {point.value!r} could not be loaded: {error!r}")
    for failure in failures:  # after all: warnings may be errors
        warn(failure)
