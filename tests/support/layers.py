"""What a layer's rule has to hold: its factors make what autograd forms."""

import numpy as np
import torch

from gradsurgery.gradients.factored import find
from gradsurgery.gradients.matrix import GradientMatrix


def once(node):
    """As if every node had one use."""
    return 1


def layer_of(module, given):
    """The layer as its rule reads it from the graph, its match, and the module's output."""
    out = module(given)
    node = out.grad_fn
    while (known := find(node, once)) is None:  # a view, or the sum with a bias, comes before it
        node = node.next_functions[0][0]
    rule, match = known
    return rule.read(match, False), match, out


def check_layer(module, given):
    """Gradients, their Gram matrix, their sums and rows, in float64, with objectives left out."""
    layer, match, out = layer_of(module, given)
    weight, close = match.weight, {"rtol": 1e-11, "atol": 1e-12}
    deltas = [torch.randn_like(out) for _ in range(4)]
    formed = [torch.autograd.grad(out, weight, d, retain_graph=True)[0] for d in deltas]
    vector = torch.randn(match.shape[2], dtype=out.dtype)
    projected, squares = layer.project(vector)
    assert match.shape[0] == len(layer.rows(deltas[0])) == len(projected)
    torch.testing.assert_close(squares, layer.inner(out.dtype).diagonal(), **close)
    for delta, gradient in zip(deltas, formed, strict=True):
        torch.testing.assert_close(layer.gradient(delta), gradient, **close)
        along = layer.rows(delta).T @ projected
        torch.testing.assert_close(along, gradient.flatten(1) @ vector, **close)
    deltas[2] = formed[2] = None
    factored = GradientMatrix([[d] for d in deltas], [weight], inputs={0: layer})
    plain = GradientMatrix([[g] for g in formed], [weight])
    np.testing.assert_allclose(factored.gram, plain.gram, **close)
    torch.testing.assert_close(factored.rows, plain.rows, **close)
    for weights in ([0.5, -2.0, 1.0, 0.0], [0.0, 0.0, 3.0, 0.0]):
        (direction,), (expected,) = (m.combine(np.array(weights)) for m in (factored, plain))
        torch.testing.assert_close(direction, expected, **close)
        assert direction.stride() == weight.stride()
