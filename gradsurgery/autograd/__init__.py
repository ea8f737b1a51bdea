"""From losses to .grad."""

from gradsurgery.autograd.backward import backward, inspect
from gradsurgery.autograd.surgery import Surgery

__all__ = ["Surgery", "backward", "inspect"]
