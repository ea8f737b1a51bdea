"""One adversarial Jacobian, with its Gram matrices and what is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.types import Array


@dataclass(frozen=True, eq=False)
class Sample:
    """One adversarial Jacobian: rows of a prescribed geometry, with prescribed norms.

    Attributes:
        kind: how it was built, one of `KINDS`, or "given".
        units: the directions of the rows [n, d]; each of length one, or zero.
        norms: ‖gᵢ‖ [n].
        splits: how many of the d coordinates belong to each of the k parameter tensors.
        names: the objectives' names, which move with the rows.
        draw: which random numbers a randomised strategy is given on it.

    Example:
        >>> from gradsurgery.testing import Sample
        >>> Sample.of([[3.0, 4.0], [0.0, 2.0]]).norms.tolist()
        [5.0, 2.0]
    """

    kind: str
    units: Array
    norms: Array
    splits: tuple[int, ...]
    names: tuple[str, ...] = ()
    draw: int = 0

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", tuple(map(str, range(len(self.norms)))))

    @classmethod
    def of(
        cls, jacobian: Any, splits: Sequence[int] | None = None, kind: str = "given", draw: int = 0
    ) -> "Sample":
        """A sample from a Jacobian [n, d], which it holds to the last bit."""
        rows = np.array(jacobian, dtype=np.float64)
        if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
            got = rows.tolist() if rows.size < 20 else list(rows.shape)
            raise InputError(f"jacobian: expected finite numbers [n, d]; got {got}.")
        largest = np.abs(rows).max(axis=1)
        safe = np.where(largest > 0, largest, 1.0)  # so that squares stay in range
        norms = safe * np.linalg.norm(rows / safe[:, None], axis=1)
        units = rows / np.where(norms > 0, norms, 1.0)[:, None]
        made = cls(
            kind, units, norms, tuple(splits) if splits is not None else (rows.shape[1],), draw=draw
        )
        made.__dict__["jacobian"] = rows  # not the product of directions and norms, which rounds
        return made

    @property
    def count(self) -> int:
        """n, the number of objectives."""
        return len(self.norms)

    @cached_property
    def jacobian(self) -> Array:
        """J [n, d]."""
        return self.units * self.norms[:, None]

    @cached_property
    def gram(self) -> Array:
        """G = JJᵀ [n, n], from the cosines and the norms."""
        cosines = self.units @ self.units.T
        np.fill_diagonal(cosines, 1.0)
        return (cosines + cosines.T) / 2 * np.outer(self.norms, self.norms)

    @cached_property
    def block_grams(self) -> Array:
        """[k, n, n], one Gram matrix per parameter tensor."""
        pieces = np.split(self.units, np.cumsum(self.splits)[:-1], axis=1)
        return np.stack([p @ p.T for p in pieces]) * np.outer(self.norms, self.norms)

    @cached_property
    def rank(self) -> int:
        """The rank of J, found on rows of length one; below 1e-6 lies the rounding of float32."""
        return int(np.linalg.matrix_rank(self.units, tol=1e-6))

    @cached_property
    def clear(self) -> bool:
        """Whether float32 tells the rank too.

        So where no eigenvalue of the cosines lies between its rounding and what is real.
        """
        values = np.linalg.svd(self.units, compute_uv=False) ** 2
        return not ((values > 1e-12) & (values < 1e-2)).any()

    def hull(self, divisors: Array | None = None) -> tuple[float, float]:
        """‖d‖² and Σ wⱼnⱼ at the min-norm point d = Jᵀw of the rows' convex hull.

        Found on the rows by non-negative least squares, apart from the library's own solvers.

        Args:
            divisors: cᵢ > 0 [n]: ask it of the rows gᵢ/cᵢ.
        """
        # kept, as samples serve many strategies
        found: dict[bytes, tuple[float, float]] = self.__dict__.setdefault("_hulls", {})
        key = b"" if divisors is None else divisors.tobytes()
        if key not in found:
            found[key] = self._hull(divisors)
        return found[key]

    def _hull(self, divisors: Array | None) -> tuple[float, float]:
        from scipy.optimize import nnls

        norms = self.norms / (1.0 if divisors is None else divisors)
        if (norms == 0).any():
            return 0.0, 0.0
        shares = norms.min() / norms
        target = np.zeros(self.units.shape[1] + 1)
        target[-1] = 1.0
        rows, limit = np.vstack([self.units.T, shares]), 100 * self.count + 100
        try:
            found = nnls(rows, target, maxiter=limit)[0]
        except RuntimeError:  # the limit: taken for stationary, so that nothing is judged on it
            return 0.0, 0.0
        total = float(shares @ found)
        if total <= 0:
            return 0.0, 0.0
        scaled = found * (norms.min() / total)
        point = self.units.T @ scaled
        return float(point @ point), float(scaled.sum())

    def distance(self, divisors: Array | None = None) -> float:
        """‖d‖² / (Σ wⱼnⱼ)² at that point: 0 where Pareto stationary, 1 where all rows agree."""
        squared, size = self.hull(divisors)
        return squared / size**2 if size > 0 else 0.0

    @cached_property
    def conditioning(self) -> float:
        """How well a common descent direction is determined.

        The smaller `distance` of the rows and of the rows at length one.
        """
        safe = np.where(self.norms > 0, self.norms, 1.0)
        return min(self.distance(), self.distance(safe))

    def __str__(self) -> str:
        live = self.norms[self.norms > 0]
        ratio = f"norms {live.min():.0e} to {live.max():.0e}" if len(live) else "all zero"
        return (
            f"{self.kind}, n = {self.count}, d = {self.units.shape[1]}, rank {self.rank}, {ratio}"
        )
