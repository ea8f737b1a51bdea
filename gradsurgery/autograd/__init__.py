"""From losses to .grad."""

from gradsurgery.autograd.backward import backward, inspect
from gradsurgery.autograd.compiled import allow_several_passes
from gradsurgery.autograd.surgery import Surgery

__all__ = ["Surgery", "backward", "inspect"]

allow_several_passes()
