"""The code blocks of the README and the docs, and what each needs to be run as it stands."""

import json
import re
import textwrap
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

import gradsurgery as gs
from gradsurgery.diagnostics import Recorder
from tests.support.models import TwoEncoders
from tests.support.paths import DOCS, ROOT
from tests.support.shared_trunk import SharedTrunk

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
DIRECTIVE = re.compile(r"^\.\. code-block:: *(\w+)\n\n((?:   .*\n|\n)+)", re.M)


class Block(NamedTuple):
    """A block of code, with the file and the number of its first line."""

    file: str
    line: int
    language: str
    code: str


def blocks():
    """Every block of README.md and docs/*.rst; >>> examples are doctests, which run elsewhere."""
    found = []
    for path in (ROOT / "README.md", *sorted(DOCS.glob("*.rst"))):
        text = path.read_text()
        pattern = FENCED if path.suffix == ".md" else DIRECTIVE
        for match in pattern.finditer(text):
            number = text.count("\n", 0, match.start()) + 1
            code = textwrap.dedent(match[2]) if path.suffix != ".md" else match[2]
            found.append(Block(path.name, number, match[1], code))
    return found


class Fresh(dict):
    """Names of a block; those in `makers` are new each time, as the losses of a pass are."""

    def __init__(self, makers, **given):
        super().__init__(given)
        self.makers = makers

    def __getitem__(self, name):
        return self.makers[name]() if name in self.makers else super().__getitem__(name)


def two_encoders():
    """A model of two encoders in a loop that has everything."""
    model = TwoEncoders()
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    losses_of = lambda model, *batch: model.losses(int(batch[-1]))  # noqa: E731
    return Fresh(
        {"losses": model.losses},
        gs=gs,
        torch=torch,
        model=model,
        optimizer=optimizer,
        surgery=gs.Surgery("upgrad", model),
        scaler=torch.amp.GradScaler("cpu", init_scale=4.0),
        scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer),
        losses_of=losses_of,
        loader=[(0, seed) for seed in range(3)],
    )


def shared_trunk(names=("a", "b", "c")):
    """A trunk with heads, whose losses have these names."""
    model, last = SharedTrunk(), {}

    def losses():
        found, last["z"] = model.losses()
        return dict(zip(names, found.values(), strict=False))

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return Fresh(
        {"losses": losses, "z": lambda: last["z"], **dict.fromkeys(LOSSES, losses)},
        gs=gs,
        torch=torch,
        model=model,
        optimizer=optimizer,
        surgery=gs.Surgery("upgrad", model),
        scaler=torch.amp.GradScaler("cpu", init_scale=4.0),
        encoders={"audio": model.trunk[0], "visual": model.trunk[2]},
        s=2.0,
        t=1.0,
        loader=range(16),
        losses_of=lambda model, seed: model.losses(seed)[0],
    )


LOSSES = ("losses_1", "losses_2", "losses_3")


def two_tasks():
    """The same with two losses, left and right."""
    return shared_trunk(("left", "right"))


def diagnosed():
    """For `gs.diagnose`: a loader, and a function of a model and a batch."""
    found = shared_trunk()
    found.makers.clear()
    found["losses"] = found["losses_of"]
    return found


def recorded(folder):
    """A Recorder with two steps in it, and what records go to."""
    model, recorder = TwoEncoders(), Recorder()
    for seed in range(2):
        recorder.add(gs.backward(model.losses(seed), model, "mgda"))
    seen = []
    sink = lambda step, values: seen.append(step)  # noqa: E731
    return Fresh({}, Recorder=Recorder, recorder=recorder, sink=sink, tensorboard=lambda name: sink)


def examples_of(rows=6):
    """Losses per example, and weights of three objectives."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    a, b, c = torch.rand(3, rows)
    x, y = torch.randn(rows, 4), torch.arange(rows) % 3
    names = {"model": model, "x": x, "y": y, "a": a, "b": b, "c": c}
    return Fresh({}, gs=gs, cross_entropy=cross_entropy, surgery=gs.Surgery("mgda", model), **names)


def checkpointed(folder):
    """A model and a Surgery to be saved."""
    model = SharedTrunk()
    surgery = gs.Surgery("moco", model)
    surgery.backward(model.losses()[0])
    return Fresh({}, gs=gs, torch=torch, model=model, surgery=surgery, folder=folder)


def stepped():
    """What most pages speak of, after a step: for blocks that name no other."""
    found = two_encoders()
    found["losses"] = found.makers.pop("losses")()
    return Fresh({}, **found, json=json, record=gs.inspect(found["losses"], found["model"]))
