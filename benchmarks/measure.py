"""What the benchmarks share: steps timed in turns, the machine they ran on, options checked."""

import os
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.steps import Step
from gradsurgery.errors import extra

with extra("bench", "the benchmark"):
    import typer


def wait(losses: list[Tensor]) -> None:
    """Until the device has done what it was asked to."""
    if losses[0].is_cuda:
        torch.cuda.synchronize()


def medians(
    model: nn.Module,
    forward: Callable[[], list[Tensor]],
    steps: dict[str, Step],
    rounds: int,
    seconds: float = 30.0,
    rivals: str = "torchjd",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The median time of each step in milliseconds, taken in turns.

    The order is drawn again for each turn, since a step finds what the one before left to the
    allocator. A step that raises is left out, and after the first turn a rival's setting that took
    twice as long as its best. After `seconds` three rounds are enough. On a machine that is shared
    `time.process_time` as the clock says what a step takes by itself.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    start = time.perf_counter()
    for turn in range(rounds + 2):
        for name in order.sample(list(times), len(times)):
            step = steps[name]
            for p in model.parameters():
                p.grad = None
            losses = forward()
            wait(losses)
            begin = clock()
            try:
                step(model, losses)
                wait(losses)
            except Exception as error:
                warnings.warn(f"{name}: {type(error).__name__}: {str(error)[:120]}", stacklevel=1)
                del times[name]
                continue
            times[name].append(clock() - begin)
        if turn == 0:
            best = min(
                (found[0] for name, found in times.items() if name.startswith(rivals)), default=0.0
            )
            times = {
                name: found
                for name, found in times.items()
                if not name.startswith(rivals) or found[0] <= 2 * best
            }
        if turn >= 4 and time.perf_counter() - start > seconds:
            break
    return {name: 1e3 * statistics.median(found[2:]) for name, found in times.items()}


def about(device: str = "cpu") -> dict[str, object]:
    """The machine and the versions that figures belong to."""
    cores = (
        f"{platform.machine()}, {os.cpu_count()} cores"
        if device == "cpu"
        else torch.cuda.get_device_name(device)
    )
    return {
        "machine": cores,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def numbers(option: str, given: str, least: int, several: bool = False) -> list[int]:
    """Whole numbers from `least` on, separated by commas; `several`: at least two different ones.

    Raises:
        typer.BadParameter: for something else.
    """
    try:
        found = [int(part) for part in given.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < least or (several and len(set(found)) < 2):
        raise typer.BadParameter(
            f"expected {'several ' if several else ''}whole numbers from {least} on, "
            f"separated by commas; got {given!r}.",
            param_hint=option,
        )
    return found


def need_torchjd() -> None:
    """TorchJD is no dependency.

    Raises:
        typer.BadParameter: when it is not installed.
    """
    if find_spec("torchjd") is None:
        advice = "pip install 'torchjd[full]==0.18.0', or give --no-peer"
        raise typer.BadParameter(f"TorchJD is not installed: {advice}.", param_hint="--peer")
