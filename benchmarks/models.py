"""The models of the benchmarks: made-up data of the right shapes, n losses each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Heads(nn.Module):
    """A trunk and a linear head per objective; `features` keeps what the trunk gave last."""

    def __init__(self, trunk: nn.Module, width: int, n: int, classes: int = 10) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(width, classes) for _ in range(n))
        self.features: list[Tensor] = []

    def losses(self, x: Tensor, labels: Tensor) -> list[Tensor]:
        z = self.trunk(x)
        self.features = [z]
        return [F.cross_entropy(head(z), y) for head, y in zip(self.heads, labels, strict=True)]


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
        )
        self.second = nn.Sequential(
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        )
        same = stride == 1 and inside == outside
        self.short = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.short(x))


def resnet18() -> nn.Module:
    """ResNet-18 for images of 32 x 32."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    inside = 64
    for outside, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(inside, outside, stride), Block(outside, outside, 1)]
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def lenet() -> nn.Module:
    """The trunk of MultiMNIST, 36 x 36."""
    convolutions = [
        nn.Conv2d(1, 10, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(10, 20, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
    ]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(720, 50), nn.ReLU())


def mlp() -> nn.Module:
    """Four layers of 1,024."""
    return nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(1024, 1024), nn.ReLU())])


class Encoder(nn.Module):
    """Two transformer layers on 32 tokens of 128 numbers; the mean over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = self.body(x).mean(1)
        return mean


class TwoEncoders(nn.Module):
    """Two convolutional encoders, a fusion head and a head each: three losses."""

    def __init__(self) -> None:
        super().__init__()

        def encoder(channels: int) -> nn.Module:
            layers: list[nn.Module] = []
            for inside, outside in ((channels, 32), (32, 64), (64, 128)):
                layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.ReLU()]
            return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

        self.audio, self.visual = encoder(1), encoder(3)
        self.fusion, self.audio_head, self.visual_head = (
            nn.Linear(256, 10),
            nn.Linear(128, 10),
            nn.Linear(128, 10),
        )
        self.features: list[Tensor] = []

    def losses(self, x: Tensor, labels: Tensor) -> list[Tensor]:
        a, v = self.audio(x[:, :1]), self.visual(x[:, 1:])
        self.features = [a, v]
        heads = (self.fusion(torch.cat([a, v], 1)), self.audio_head(a), self.visual_head(v))
        return [F.cross_entropy(out, y) for out, y in zip(heads, labels, strict=True)]


@dataclass(frozen=True)
class Case:
    """A model with the shape of its input."""

    make: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    objectives: tuple[int, ...] = (2, 4, 8, 16)

    def build(self, n: int, device: str = "cpu") -> tuple[nn.Module, Callable[[], list[Tensor]]]:
        """The model, and a function that makes one forward pass."""
        torch.manual_seed(0)
        model = self.make(n).to(device)
        x, labels = (
            torch.randn(self.shape).to(device),
            torch.randint(10, (n, self.shape[0])).to(device),
        )
        return model, lambda: model.losses(x, labels)


CASES = {
    "lenet, batch 256": Case(lambda n: Heads(lenet(), 50, n), (256, 1, 36, 36)),
    "mlp, batch 64": Case(lambda n: Heads(mlp(), 1024, n), (64, 1024)),
    "mlp, batch 512": Case(lambda n: Heads(mlp(), 1024, n), (512, 1024)),
    "resnet-18, batch 32": Case(lambda n: Heads(resnet18(), 512, n), (32, 3, 32, 32)),
    "transformer, batch 16": Case(lambda n: Heads(Encoder(), 128, n), (16, 32, 128)),
    "two encoders, batch 64": Case(lambda n: TwoEncoders(), (64, 4, 32, 32), (3,)),
}
