"""Aliases of types that several parts share."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]  # on the host
