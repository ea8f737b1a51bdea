"""What the study measures besides test figures: flatness, and gradients on the way."""

from gradsurgery.study.measured.cells import Cell, cells_of, measure

__all__ = ["Cell", "cells_of", "measure"]
