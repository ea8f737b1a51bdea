"""From losses to .grad."""

from gradsurgery.engine.compiled import allow_several_passes
from gradsurgery.engine.functional import backward, inspect
from gradsurgery.engine.per_example.given import PerExample
from gradsurgery.engine.surgery import Surgery

__all__ = ["PerExample", "Surgery", "backward", "inspect"]

allow_several_passes()
