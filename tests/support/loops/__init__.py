"""Training loops as people write them: `LOOPS` x every strategy is the table of docs/loops.rst.

A loop takes a strategy and checks `.grad` (or the parameters) itself, on a model whose gradients
are known by hand. `note` says for which strategies it works with a note, `error` for which it is a
clear error, and what that error says.
"""

from tests.support.loops import graphs, precision, several, updates
from tests.support.loops.base import REGISTERED

LOOPS = {
    name: loop
    for part in (precision, updates, graphs, several)  # the table's order
    for name, loop in REGISTERED.items()
    if loop.run.__module__ == part.__name__
}
