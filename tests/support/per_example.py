"""Mixtures of per-example losses, from one pass and from a pass each."""

import numpy as np
import torch

import gradsurgery as gs

CLOSE = 1e-5  # in float32, relative to the norms


def mixtures(factors):
    """A [n, B] or [n, B, T] by name."""
    return {f"o{i}": torch.as_tensor(row) for i, row in enumerate(factors)}


def apart(losses, named):
    """The same objectives as scalars."""
    return {name: (row.to(losses) * losses).sum() for name, row in named.items()}


def gradients(model):
    """`.grad` by name."""
    return {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


def gradients_of(model, losses, named, strategy="unit-sum", **settings):
    """A step's `.grad` by name, and its record."""
    model.zero_grad()
    surgery = gs.Surgery(strategy, model, **settings)
    record = surgery.backward(gs.PerExample(losses, named))
    return gradients(model), record


def plain_gradients_of(model, losses, named, strategy="unit-sum", **settings):
    """The same with a pass per objective."""
    model.zero_grad()
    record = gs.Surgery(strategy, model, **settings).backward(apart(losses, named))
    return gradients(model), record


def distance(found, expected):
    """‖found − expected‖ of two directions, and ‖expected‖."""
    assert found.keys() == expected.keys()
    far = [
        (found[k].to_dense() - g.to_dense()).double().square().sum() for k, g in expected.items()
    ]
    size = sum(g.to_dense().double().square().sum() for g in expected.values())
    return float(sum(far) ** 0.5), float(size**0.5)


def gram_error(record, expected):
    """The largest error of a Gram matrix's entry, relative to its two norms."""
    worst = 0.0
    assert list(record.groups) == list(expected.groups)
    for key, group in expected.groups.items():
        norms = np.sqrt(np.diag(group.gram))
        sizes = np.outer(norms, norms)
        far = np.abs(record[key].gram - group.gram)
        assert (far[sizes == 0] == 0).all()
        worst = max([worst, *(far[sizes > 0] / sizes[sizes > 0])])
    return worst


def check(model, losses_of, factors, strategy="unit-sum", close=CLOSE, **settings):
    """Gram matrix and direction against autograd's; gives both errors and the record's method.

    Args:
        model: the model.
        losses_of: gives the per-example losses of a fresh forward pass.
        factors: A.
        strategy: of the direction; by default one that conflicts between gradients do not shorten.
        close: what both errors may be.
        **settings: Surgery's.
    """
    named = mixtures(factors)
    seen = gs.inspect(gs.PerExample(losses_of(), named), model)
    error = gram_error(seen, gs.inspect(apart(losses_of(), named), model))
    found, record = gradients_of(model, losses_of(), named, strategy, **settings)
    expected, _ = plain_gradients_of(model, losses_of(), named, strategy, **settings)
    far, size = distance(found, expected)
    norms = [gradient for key in record.groups for gradient in seen[key].norms]
    far /= max(size, *norms) or 1.0  # a sum of conflicting gradients may be short
    assert error <= close, f"Gram {error}: {seen.method}"
    assert far <= close, f"direction {far}: {record.method}"
    return error, far, seen.method
