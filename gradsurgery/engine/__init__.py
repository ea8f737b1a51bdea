"""From losses to .grad."""

from gradsurgery.engine.compiled import allow_several_passes
from gradsurgery.engine.functional import backward, inspect
from gradsurgery.engine.surgery import Surgery

__all__ = ["Surgery", "backward", "inspect"]

allow_several_passes()
