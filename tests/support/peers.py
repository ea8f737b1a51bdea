"""Stand-ins with the interface that other libraries document, for where these are not installed.

Of our own writing: what they compute is the methods' definition, on one vector of gradients.
"""

import contextlib
import importlib.util
import sys
from types import ModuleType

import torch


def vector(network, none_grad_mode="skip"):
    """`conflictfree.utils.get_gradient_vector`, with zeros for parameters without a gradient."""
    assert none_grad_mode == "zero"
    return torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1)
            for p in network.parameters()
        ]
    )


def apply(network, flat):
    """`conflictfree.utils.apply_gradient_vector`."""
    start = 0
    for p in network.parameters():
        p.grad = flat[start : start + p.numel()].view_as(p).clone()
        start += p.numel()


class ConFIGOperator:
    """d = (Σ ⟨gᵢ, u⟩) u, with u the unit vector of equal cosines (arXiv:2408.11104, equation 2)."""

    def calculate_gradient(self, grads):
        rows = torch.stack(list(grads))
        units = rows / rows.norm(dim=1, keepdim=True)
        u = torch.linalg.pinv(units) @ torch.ones(len(rows), dtype=rows.dtype)
        u = u / u.norm()
        return (rows @ u).sum() * u


def projected(rows):
    """PCGrad where no pair conflicts, or two losses: no order matters there."""
    made = rows.clone()
    for i in range(len(rows)):
        for j in torch.randperm(len(rows)).tolist():
            if j != i and made[i] @ rows[j] < 0:
                made[i] -= (made[i] @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
    return made.sum(0)


class PCGradWrapper:
    """The wrapper of WeiChengTseng/Pytorch-PCGrad, as its README calls it."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def zero_grad(self):
        self.optimizer.zero_grad()

    def step(self):
        self.optimizer.step()

    def pc_backward(self, losses):
        rows = []
        for loss in losses:
            given = torch.autograd.grad(
                loss, self.parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([g.reshape(-1) for g in given]))
        d, start = projected(torch.stack(rows)), 0
        for p in self.parameters:
            p.grad = d[start : start + p.numel()].view_as(p).clone()
            start += p.numel()


class Trainer:
    """LibMTL's trainer, by its documentation: it makes the model and has the loop."""

    def __init__(self, task_dict, weighting, architecture, encoder_class, decoders, **options):
        assert {"rep_grad", "multi_input", "optim_param", "scheduler_param"} <= set(options)
        self.tasks, self.weighting, self.options = task_dict, weighting, options
        self.model = architecture(encoder_class, decoders)

    def train(self, train_dataloaders, test_dataloaders, epochs):
        trunk = list(self.model.trunk.parameters())
        optimizer = torch.optim.SGD(self.model.parameters(), lr=self.options["optim_param"]["lr"])
        for batch in train_dataloaders:
            losses = [loss(self.model, batch) for loss in self.tasks.values()]
            optimizer.zero_grad()
            rows = [
                torch.cat([g.reshape(-1) for g in torch.autograd.grad(x, trunk, retain_graph=True)])
                for x in losses
            ]
            sum(losses).backward()
            d, start = projected(torch.stack(rows)), 0
            for p in trunk:
                p.grad = d[start : start + p.numel()].view_as(p).clone()
                start += p.numel()
            optimizer.step()


@contextlib.contextmanager
def stand_ins():
    """What is not installed can be imported, as a stand-in; at the end it is gone again."""
    parts = {
        "LibMTL": {"Trainer": Trainer},
        "LibMTL.weighting": {"PCGrad": "PCGrad"},
        "pcgrad": {"PCGrad": PCGradWrapper},
        "conflictfree": {},
        "conflictfree.grad_operator": {"ConFIGOperator": ConFIGOperator},
        "conflictfree.utils": {"get_gradient_vector": vector, "apply_gradient_vector": apply},
    }
    there = importlib.util.find_spec("conflictfree") is not None
    made = [name for name in parts if not (there and name.startswith("conflictfree"))]
    before = {name: sys.modules.get(name) for name in made}
    for name in made:
        sys.modules[name] = module = ModuleType(name)
        module.__dict__.update(parts[name])
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = old
