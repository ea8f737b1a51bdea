"""Which node of the graph is which use of a parameter.

A rule for a kind of node says, of each edge that may lead to a parameter, how the gradients of
examples at the node's output and what the node has saved make those of the parameter. A rule is one
function, and

    @rule("NodeBackward0", saved=("input",))
    def _(node, edge, asked): ...

`saved` are the saved tensors that it reads, as in `node._saved_input`; they are read before the
pass, which may free them. It returns a `Use`, or None where it does not know the node: then the
node's own backward is called (`local`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradsurgery.gradients.per_example.convolution import Convolution, How
from gradsurgery.gradients.per_example.each import Each, summed
from gradsurgery.gradients.per_example.layout import Layout
from gradsurgery.gradients.per_example.product import Product
from gradsurgery.gradients.per_example.table import Table
from gradsurgery.gradients.per_example.use import Use

# Between a parameter and the node that uses it: its gradient is the same, in another form.
FORMS = {
    *("TBackward0", "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"),
    *("ToCopyBackward0", "AliasBackward0", "UnsqueezeBackward0", "SqueezeBackward1"),
}
SAME = {"ToCopyBackward0", "AliasBackward0"}
TURNED = {"TBackward0"}
# These mix no examples themselves, but may be of something that all examples share.
SHARED = {"AddBackward0", "SubBackward0", "MulBackward0", "DivBackward0", "ExpandBackward0"}


@dataclass(frozen=True)
class Asked:
    """What a rule is asked about.

    Attributes:
        delta: the gradient at the node's first output.
        layout: where the examples are in it.
        examples: B.
        parameter: the parameter.
        shape: in which shape it comes to the node.
        forms: the kinds of the nodes between the parameter and this one.
        saved: what the node has saved, by name.
    """

    delta: Tensor
    layout: Layout
    examples: int
    parameter: Tensor
    shape: Sequence[int]
    forms: Sequence[str]
    saved: Mapping[str, Tensor]

    @property
    def parts(self) -> Tensor:
        """The gradient with the examples first [B, ...]."""
        return self.layout.split(self.delta, self.examples)

    def split(self, tensor: Tensor) -> Tensor:
        """A tensor of the output's leading dimensions, alike."""
        return self.layout.split(tensor, self.examples)

    @property
    def turned(self) -> bool | None:
        """Whether the parameter was transposed on the way; None where it was reshaped."""
        kinds = [kind for kind in self.forms if kind not in SAME]
        if any(kind not in TURNED for kind in kinds):
            return None
        return len(kinds) % 2 == 1

    def each(self, parts: Tensor, shape: Sequence[int] | None = None) -> Each | None:
        """A parameter of this shape that was broadcast over these parts."""
        if any(kind in TURNED for kind in self.forms):
            return None
        rows = summed(parts, self.shape if shape is None else shape)
        return Each(rows) if rows.shape[1] == self.parameter.numel() else None


Rule = Callable[[Any, int, Asked], Use | None]
RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {}  # with the saved tensors that each reads


def rule(*nodes: str, saved: tuple[str, ...] = ()) -> Callable[[Rule], Rule]:
    """Use a function for nodes of these class names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(nodes, (function, saved)))
        return function

    return register


@rule("AddmmBackward0", saved=("mat1",))
def addmm(node: Any, edge: int, asked: Asked) -> Use | None:
    """y = b + xW: the bias, or one of the factors."""
    if node._saved_alpha != 1 or node._saved_beta != 1:
        return None
    if edge == 0:
        return asked.each(asked.parts)
    return _product(asked, "mat1") if edge == 2 else None


@rule("MmBackward0", saved=("self",))
def mm(node: Any, edge: int, asked: Asked) -> Use | None:
    """y = xW."""
    return _product(asked, "self") if edge == 1 else None


def _product(asked: Asked, name: str) -> Use | None:
    turned, x = asked.turned, asked.saved.get(name)
    if turned is None or x is None or x.ndim != 2 or x.layout != torch.strided:
        return None
    if asked.layout.dim != 0:  # an example per output of the layer, as ℓ = y.mean(0) has
        return None
    left, right = asked.parts.transpose(1, 2), asked.split(x).transpose(1, 2)
    flat = asked.delta, x, asked.layout
    # W is [in, out] in the node: the parameter is its transpose where it was turned
    return Product(left[:, None], right[:, None], not turned, flat)


@rule("ConvolutionBackward0", saved=("input",))
def convolution(node: Any, edge: int, asked: Asked) -> Use | None:
    """A convolution's kernel or bias."""
    if edge == 2:
        parts = asked.parts  # [B, m, channels, places...], where examples are images
        if asked.layout.dim != 0 or asked.turned is None:
            return None
        dims = [1, *range(3, parts.ndim)]
        wide = torch.promote_types(parts.dtype, torch.float32)
        return Each(parts.sum(dims, dtype=wide))
    images = asked.saved.get("input")
    if edge != 1 or images is None or node._saved_transposed or asked.layout.dim != 0:
        return None
    if asked.turned is None or asked.turned or images.shape[0] != asked.delta.shape[0]:
        return None
    spatial = images.ndim - 2
    stride, padding, dilation, more = (
        tuple(map(int, getattr(node, f"_saved_{name}")))
        for name in ("stride", "padding", "dilation", "output_padding")
    )
    how = How(stride, padding, dilation, False, more, int(node._saved_groups))
    if len(how.stride) != spatial or asked.parameter.ndim != images.ndim:
        return None
    return Convolution(asked.delta, images, asked.parameter, how, asked.layout, asked.examples)


@rule("EmbeddingBackward0", saved=("indices",))
def embedding(node: Any, edge: int, asked: Asked) -> Use | None:
    """The rows that a batch took from a table."""
    indices = asked.saved.get("indices")
    if indices is None or node._saved_sparse or node._saved_scale_grad_by_freq or asked.forms:
        return None
    width = asked.delta.shape[-1]
    if asked.layout.dim >= indices.ndim:
        return None
    delta = asked.parts.reshape(asked.examples, -1, width)
    places = asked.split(indices).reshape(asked.examples, -1)
    padding = int(node._saved_padding_idx)
    padding -= 1 << 64 if padding >= 1 << 63 else 0  # torch shows negative ones without sign
    if padding >= 0:
        delta = delta * (places != padding)[..., None]
    return Table(delta, places, len(asked.parameter))


@rule("NativeLayerNormBackward0", saved=("input", "result1", "result2"))
def layer_norm(node: Any, edge: int, asked: Asked) -> Use | None:
    """The scale and shift of a layer norm."""
    if edge == 2:
        return asked.each(asked.parts)
    x, mean, scale = (asked.saved.get(name) for name in ("input", "result1", "result2"))
    if x is None or mean is None or scale is None:
        return None
    return asked.each(asked.parts * asked.split((x - mean) * scale))


@rule("NativeGroupNormBackward0", saved=("input", "result1", "result2"))
def group_norm(node: Any, edge: int, asked: Asked) -> Use | None:
    """The scale and shift of a group norm, one per channel."""
    channels = asked.parameter.numel()
    shape = (channels, *[1] * (asked.delta.ndim - 2))
    if edge == 2:
        return asked.each(asked.parts, shape)
    x, mean, scale = (asked.saved.get(name) for name in ("input", "result1", "result2"))
    if x is None or mean is None or scale is None:
        return None
    groups = mean.shape[1]
    flat = x.reshape(len(x), groups, -1)
    plain = ((flat - mean[..., None]) * scale[..., None]).view_as(asked.delta)
    return asked.each(asked.parts * asked.split(plain), shape)


@rule("NativeBatchNormBackward0", saved=("input", "running_mean", "running_var"))
def batch_norm(node: Any, edge: int, asked: Asked) -> Use | None:
    """The scale and shift of a batch norm that uses its running statistics."""
    if node._saved_training or asked.delta.ndim < 2 or asked.forms:
        return None
    shape = (asked.parameter.numel(), *[1] * (asked.delta.ndim - 2))
    if edge == 2:
        return asked.each(asked.parts, shape)
    x, mean, variance = (asked.saved.get(k) for k in ("input", "running_mean", "running_var"))
    if x is None or mean is None or variance is None:
        return None
    plain = (x - mean.view(shape)) * (variance.view(shape) + node._saved_eps).rsqrt()
    return asked.each(asked.parts * asked.split(plain), shape)


@rule("AddBackward0", "SubBackward0")
def add(node: Any, edge: int, asked: Asked) -> Use | None:
    """A parameter that is added to every example, as a bias or a position is."""
    factor = 1.0
    if edge == 1:
        alpha = float(node._saved_alpha)
        factor = alpha if type(node).__name__ == "AddBackward0" else -alpha
    parts = asked.parts
    return asked.each(parts if factor == 1 else parts * factor)


@rule("MulBackward0", saved=("self", "other"))
def mul(node: Any, edge: int, asked: Asked) -> Use | None:
    """A parameter that every example is multiplied with."""
    other = asked.saved.get("other" if edge == 0 else "self")
    if other is None:
        return None
    return asked.each(asked.split(asked.delta * other))


@rule("ExpandBackward0")
def expand(node: Any, edge: int, asked: Asked) -> Use | None:
    """A parameter that is given to every example, as a class token is."""
    return asked.each(asked.parts)
