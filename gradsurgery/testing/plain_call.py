"""One call of a plain function on G or J: its answer checked, what it prints and draws noted."""

import contextlib
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gradsurgery.testing.answers import UnusableAnswer
from gradsurgery.testing.calls import generators
from gradsurgery.types import Array

TOO = "models give gradients in float32 too, so take both, or begin with J = J.double()"
Kind = Literal["gram", "rows"]


@dataclass
class PlainCall:
    """A function of one argument, with what was noted of its calls.

    Attributes:
        function: takes G, numpy [n, n], or J, torch [n, d].
        printed: how many calls printed something.
        first_line: the first line that was printed.
        narrowed: the dtype of an answer with fewer digits than the input had; empty for none.
    """

    function: Callable[[Any], Any]
    printed: int = 0
    first_line: str = ""
    narrowed: str = ""

    def weights(self, gram: Array, rng: np.random.Generator | None = None) -> Array:
        """Weights [n] of the function for G [n, n].

        Args:
            gram: the function's argument.
            rng: what the global generators are seeded by; None leaves them as they are.

        Raises:
            UnusableAnswer: for anything else than n finite numbers.
        """
        asked = self._asked(gram, rng)
        answer = asked.detach().cpu().double().numpy() if isinstance(asked, Tensor) else asked
        expected = f"expected {len(gram)} weights, one per objective"
        if not isinstance(answer, np.ndarray | list | tuple):
            raise UnusableAnswer(f"it returned {_described(answer)}; {expected}")
        try:
            found = np.array(answer, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UnusableAnswer(f"it returned {_described(answer)}; {expected}") from error
        if found.shape != (len(gram),):
            raise UnusableAnswer(f"it returned shape {list(found.shape)}; {expected}")
        if not np.isfinite(found).all():
            raise UnusableAnswer(f"it returned weights that are not finite: {found.tolist()}")
        self._note(asked)
        return found

    def direction(self, rows: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """The direction [d] of the function for J [n, d].

        J comes in float64, and in float32 where low precision is checked. The arguments are those
        of `weights`.
        """
        given = rows.float() if rows.dtype is torch.bfloat16 else rows
        low = given is not rows
        try:
            answer = self._asked(given, rng)
        except Exception as error:
            if not low or isinstance(error, UnusableAnswer):
                raise
            raise UnusableAnswer(
                f"it raised {type(error).__name__} for J in float32: {error}; {TOO}"
            ) from error
        expected = f"expected a direction [d], here [{rows.shape[1]}]"
        if not isinstance(answer, np.ndarray | Tensor):
            raise UnusableAnswer(f"it returned {_described(answer)}; {expected}")
        found = answer.detach() if isinstance(answer, Tensor) else _as_tensor(answer, expected)
        if found.shape != rows.shape[1:]:
            raise UnusableAnswer(f"it returned shape {list(found.shape)}; {expected}")
        if not bool(found.isfinite().all()):
            said = f" for J in float32 ({TOO})" if low else ""
            raise UnusableAnswer(f"it returned numbers that are not finite{said}: {found.tolist()}")
        if given.dtype is torch.float64:
            self._note(answer)
        return found.to(rows.dtype)

    def draws(self, argument: Any) -> bool:
        """Whether a call on this argument draws from a global random generator."""
        with _restored(), contextlib.suppress(Exception):
            before = generators()
            try:
                self._asked(argument, None)
            finally:
                drawn = generators() != before
        return drawn

    def _asked(self, argument: Any, rng: np.random.Generator | None) -> Any:
        shown = io.StringIO()
        try:
            with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown), _seeded(rng):
                return self.function(argument)
        except SystemExit as error:
            raise UnusableAnswer(f"it returned nothing: it ended the program ({error})") from error
        finally:
            if text := shown.getvalue().strip():
                self.printed += 1
                self.first_line = self.first_line or text.splitlines()[0]

    def _note(self, answer: Any) -> None:
        dtype = str(getattr(answer, "dtype", "")).removeprefix("torch.")
        if dtype in ("float32", "float16", "bfloat16"):
            self.narrowed = dtype


def _as_tensor(answer: Array, expected: str) -> Tensor:
    try:
        return torch.from_numpy(np.array(answer, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise UnusableAnswer(f"it returned {_described(answer)}; {expected}") from error


def _described(answer: Any) -> str:
    """What came back, by its type and shape."""
    if answer is None:
        return "None (does it lack a return?)"
    shape = getattr(answer, "shape", None)
    return type(answer).__name__ if shape is None else f"{answer.dtype} {list(shape)}"


@contextlib.contextmanager
def _seeded(rng: np.random.Generator | None) -> Iterator[None]:
    """The global generators seeded, and at the end as they were."""
    if rng is None:
        yield
        return
    with _restored():
        seed = int(rng.integers(2**32))
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # of the CPU alone, where the function works
        yield


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
