"""What `Surgery.step` costs beside `backward` and `optimizer.step()`.

`python -m benchmarks.optimizer_cost --out FILE` takes steps in turns: guard="off", "report", and
"correct", and "correct" where every step is corrected, since the optimizer's step is turned round.
Peak memory beyond the model and the forward pass is that of a process of its own (Linux).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

import gradsurgery as gs
from benchmarks.after_optimizer import Guard
from benchmarks.measure import about, medians
from benchmarks.memory import status
from benchmarks.models import CASES
from gradsurgery.errors import extra

with extra("bench", "the benchmark"):
    import typer

MODELS = ("resnet-18, batch 32", "mlp, batch 64", "mlp, batch 512", "transformer, batch 16")
OBJECTIVES = (2, 4)
METHODS = ("gradients", "auto")


class Turned(torch.optim.Optimizer):
    """Gradient ascent, so that every step raises some objective: every step is corrected."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 1e-2})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # torch's is overloaded
        """θ + lr · d."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=group["lr"])


def steps_of(
    model: nn.Module, method: str
) -> dict[str, Callable[[nn.Module, list[Tensor]], object]]:
    """The steps that are compared, each with its own Surgery and optimizer."""
    made: dict[str, Callable[[nn.Module, list[Tensor]], object]] = {}

    def add(name: str, guard: Guard, optimizer: torch.optim.Optimizer) -> None:
        surgery = gs.Surgery("upgrad", model, method=method)

        def step(_: nn.Module, losses: list[Tensor]) -> object:
            return surgery.step(losses, optimizer, guard=guard)

        made[name] = step

    surgery = gs.Surgery("upgrad", model, method=method)
    plain = torch.optim.Adam(model.parameters(), lr=1e-5)

    def backward(_: nn.Module, losses: list[Tensor]) -> object:
        surgery.backward(losses)
        return plain.step()

    made["backward, step"] = backward
    guards: tuple[Guard, ...] = ("off", "report", "correct")
    for guard in guards:
        add(guard, guard, torch.optim.Adam(model.parameters(), lr=1e-5))
    add("all corrected", "correct", Turned(model.parameters()))
    return made


def memory(model_name: str, n: int, method: str, name: str) -> float:
    """Megabytes at the peak of a second step, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.optimizer_cost", "--one"]
    given = json.dumps([model_name, n, method, name])
    # freed memory goes back to the system at once
    allocator = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    found = subprocess.run(
        [*command, given, "--out", os.devnull],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **allocator},
    )
    return float(found.stdout.strip().splitlines()[-1])


def main(
    out: Annotated[Path, typer.Option(help="file of the figures")],
    rounds: Annotated[int, typer.Option(help="turns")] = 15,
    one: Annotated[str, typer.Option(help="internal: one step's memory", hidden=True)] = "",
) -> None:
    """Time and memory of the steps."""
    torch.set_num_threads(1)
    if one:
        case, n, method, name = json.loads(one)
        model, forward = CASES[case].build(n)
        step = steps_of(model, method)[name]
        for _ in range(2):
            step(model, forward())
            model.zero_grad()
        losses = forward()
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
        before = status("VmRSS")
        step(model, losses)
        print((status("VmHWM") - before) / 1e6)
        return
    rows = []
    for case in MODELS:
        for n in OBJECTIVES:
            for method in METHODS:
                model, forward = CASES[case].build(n)
                steps = steps_of(model, method)
                size = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6
                row = {
                    "model": case, "n": n, "method": method, "megabytes of parameters": size,
                    "milliseconds": medians(model, forward, steps, rounds, clock=time.process_time),
                    "megabytes": {name: memory(case, n, method, name) for name in steps},
                }  # fmt: skip
                rows.append(row)
                out.write_text(json.dumps({**about(), "rounds": rounds, "figures": rows}, indent=1))


if __name__ == "__main__":
    typer.run(main)
