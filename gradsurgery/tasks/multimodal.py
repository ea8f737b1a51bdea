"""Classification from several modalities: an encoder and a loss each, and a fused loss."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from gradsurgery.tasks.metric import Metric
from gradsurgery.tasks.problem import Batch, Problem
from gradsurgery.tasks.splits import Splits
from gradsurgery.tasks.tensors import batches

FUSED = "fused"
Measure = Callable[[Tensor, Tensor], Tensor]


class MultimodalNet(nn.Module):
    """An encoder per modality, with a head each and a fused head.

    The features of each encoder go to a head of its own and, concatenated, to the fused head.

    Args:
        encoders: modality -> its encoder, to features [n, width].
        width: of the features.
        classes: how many logits a head has.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], width: int, classes: int = 10) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.heads = nn.ModuleDict({name: nn.Linear(width, classes) for name in encoders})
        self.fused = nn.Linear(width * len(encoders), classes)

    def forward(self, *modalities: Tensor) -> dict[str, Tensor]:
        """Logits [n, classes] of each head, the fused one first."""
        pairs = zip(self.encoders.items(), modalities, strict=True)
        features = {name: encoder(given) for (name, encoder), given in pairs}
        logits = {FUSED: self.fused(torch.cat([*features.values()], 1))}
        return {**logits, **{name: self.heads[name](x) for name, x in features.items()}}


def multilayer(inputs: int, width: int) -> nn.Sequential:
    """An encoder of two layers, from tensors that have this many numbers per example."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
    )


def fused_problem(
    data: Splits,
    model: Callable[[], nn.Module],
    *,
    seed: int,
    batch: int,
    modalities: tuple[str, ...],
    classes: int = 10,
) -> Problem:
    """The problem of a `MultimodalNet`: a loss and an accuracy of each head.

    Args:
        data: tensors of each modality, in order, then the labels.
        model: makes the net.
        seed: of the order of the examples.
        batch: examples per step.
        modalities: their names, in order.
        classes: how many labels there are.
    """

    def evaluate(model: nn.Module, split: str) -> dict[str, float]:
        return accuracies(model, getattr(data, split))

    def measures(model: nn.Module, batch: Batch, strategy: str) -> dict[str, float]:
        return scores(model, batch, strategy, modalities)

    accuracy = Metric("accuracy", unit="%", chance=100 / classes)
    return Problem(
        model=model,
        optimizer=sgd,
        batches=lambda: batches(data.train, batch, seed),
        losses=losses,
        evaluate=evaluate,
        metrics=dict.fromkeys((FUSED, *modalities), accuracy),
        alone={**{name: [name] for name in modalities}, "joint": [FUSED]},
        scores=measures,
    )


def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """SGD with momentum, what MMPareto's experiments take."""
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The cross-entropy of each head, from tensors of the modalities and the labels."""
    *modalities, labels = batch
    return {name: cross_entropy(logits, labels) for name, logits in model(*modalities).items()}


def accuracies(model: nn.Module, examples: Batch) -> dict[str, float]:
    """The accuracy of each head in percent."""
    *modalities, labels = examples
    return {
        name: 100 * (logits.argmax(1) == labels).float().mean().item()
        for name, logits in model(*modalities).items()
    }


def _probability(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over the batch of the true class's probability."""
    return logits.softmax(1).gather(1, labels[:, None]).sum()


MEASURES: dict[str, Measure] = {"agm": cross_entropy, "ogm-ge": _probability}


def scores(
    model: nn.Module, batch: Batch, strategy: str, modalities: tuple[str, ...]
) -> dict[str, float]:
    """Each encoder's measure: what `agm` takes is a cross-entropy, what `ogm-ge` takes is not.

    The model's buffers stay as they are.
    """
    *inputs, labels = batch
    # BatchNorm, in training, would take each batch into its running statistics a second time
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        logits = functional_call(model, buffers, tuple(inputs))
    measure = MEASURES.get(strategy, _probability)
    return {name: float(measure(logits[name], labels)) for name in modalities}
