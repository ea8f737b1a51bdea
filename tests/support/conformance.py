"""Checks of a strategy registered as `mine`, and a direction that conflicts with nothing beside one
that does.
"""

import numpy as np
import pytest

from gradsurgery.testing import ConformanceError
from gradsurgery.testing.cases import cases_of


def right(gram):
    """A direction of zero conflicts with nothing, and costs nothing; `wrong` is the sum."""
    return np.zeros(len(gram))


def wrong(gram):
    return np.ones(len(gram))


def checked(name, only):
    for bound, check, label in cases_of(name):
        if only in (None, label):
            check(bound)


def failure(name="mine", only=None):
    with pytest.raises(ConformanceError) as caught, np.errstate(all="ignore"):
        checked(name, only)
    return str(caught.value)
