"""The optimizers and the tasks whose steps are measured after the optimizer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradsurgery.tasks import Problem, get_task

Parameters = Any
OPTIMIZERS: dict[str, Callable[[Parameters], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=1e-3),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}
# Adam's division alone: what metric="optimizer" is about
DIVISION: dict[str, Callable[[Parameters], torch.optim.Optimizer]] = {
    "Adam without momentum": lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.0, 0.999)),
}


class Reader(nn.Module):
    """A small transformer that reads two digits from the rows of one image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(28, 32)
        self.place = nn.Parameter(0.02 * torch.randn(28, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.heads = nn.ModuleDict({side: nn.Linear(32, 10) for side in ("left", "right")})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits [n, 10] of each digit from images [n, 1, 28, 28]."""
        features = self.body(self.embed(images[:, 0]) + self.place).mean(1)
        return {side: head(features) for side, head in self.heads.items()}


def problems() -> dict[str, tuple[Problem, Callable[[], nn.Module]]]:
    """The tasks, each with its model."""
    digits, colours = get_task("multimnist").load(None), get_task("cg-mnist").load(None)
    return {
        "multimnist": (digits, digits.model),
        "transformer": (digits, Reader),
        "cg-mnist": (colours, colours.model),
    }
