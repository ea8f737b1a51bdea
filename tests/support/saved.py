"""A trunk and two heads, in float64, whose states are saved under other names."""

import copy
import io

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
)

import gradsurgery as gs


class Two(nn.Module):
    """A trunk and two heads."""

    def __init__(self, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, width), nn.Tanh())
        self.a, self.b = nn.Linear(width, 1), nn.Linear(width, 1)
        self.double()

    def forward(self, x):
        z = self.trunk(x)
        return {
            "a": (self.a(z) - 1).pow(2).mean(),
            "b": (self.b(z) + x.sum(1, keepdim=True)).pow(2).mean(),
        }


def data(seed):
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_part(model):
    model.trunk = compiled(model.trunk)
    model.b = nn.DataParallel(model.b)
    return model


def checkpointed(model):
    apply_activation_checkpointing(model, check_fn=lambda m: isinstance(m, nn.Linear))
    return model


class Averaged(nn.Module):
    """A wrapper of a user's own."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


WRAPPERS = {
    "plain": lambda m: m,
    "compile": compiled,
    "DataParallel": nn.DataParallel,
    "both": lambda m: nn.DataParallel(compiled(m)),
    "in part": compiled_in_part,
    "checkpoint": checkpointed,
    "own": Averaged,
}


def trained(strategy, how="plain", steps=4):
    """A Surgery after some steps on a wrapped model."""
    model = WRAPPERS[how](Two())
    surgery = gs.Surgery(strategy, model)
    for seed in range(steps):
        surgery.backward(model(data(seed)))
    return surgery


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def renamed(state, rename):
    """A state with other names of parameters, as an earlier version saved it: without options and
    groups, its reach a dict.
    """
    state = copy.deepcopy({k: v for k, v in state.items() if k not in ("options", "explicit")})
    state["reach"] = {rename(name): found for name, found in state["reach"]}
    for _, group in state["groups"]:
        for name, pieces in group["tensors"].items():
            group["tensors"][name] = tuple(((o, rename(p)), x) for (o, p), x in pieces)
    return state


def assert_unchanged(surgery, before):
    assert str(surgery.state_dict()) == str(before)
