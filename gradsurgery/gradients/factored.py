"""Layers whose weight gradients need not be formed, and what a rule for a kind of layer is.

The gradient of objective i for the weight of such a layer is a product of two factors, Wᵢ = Δᵢᵀx:
Δᵢ [rows, out] is the gradient at the layer's output, and x [rows, in] its input, which the graph
keeps. So ⟨Wᵢ, Wⱼ⟩ = ⟨(xxᵀ)Δᵢ, Δⱼ⟩ and Σ wᵢWᵢ = (Σ wᵢΔᵢ)ᵀx need no Wᵢ.

A rule for another kind of layer is one file in `rules/`: a class that derives from `Layer` for
what is computed, three functions, and

    RULE = register(Rule(nodes=(...), match=match, cost=cost, read=read))

- `nodes`: the class names of the autograd nodes that may be such a layer, as `type(y.grad_fn)` has
  them. The gradient at the layer's output is the first that the node is given.
- `match(node, uses)`: the layer as the graph shows it, a `Match`, or None where the node is
  another thing, or its weight has another use. It reads no saved tensor.
- `cost(match, n)`: the multiplications with n gradients formed, and with none. `multiplications`
  counts them for products of two factors.
- `read(match, unpack)`: the `Layer` with what the node saved, or None. `saved` reads it.
- `bias_apart`: whether autograd forms the bias's gradient without the weight's. Otherwise the
  bias's is the sum of Δᵢ over the rows, and the layer's input has to need a gradient, by which a
  pass finds its way.
- `copied`: whether x has to be made in memory of its own, and is no saved tensor. Such a layer is
  taken only where the cost says that it pays; others are always taken with method="taps".

What the class has to say is x in four forms: `rows`, `inner`, `project`, and `gradient`. `Layer`
forms the Gram matrix and the sum from them, and `agreement` compares them with autograd's own
gradient when a weight is new. A rule with a better way has its own `gram` or `combine`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from gradsurgery.gradients.precision import in_pieces

READS = 4  # what it costs to read one entry of a gradient, in multiplications
Edge = tuple[Any, int]  # a node and which of its outputs
Uses = Callable[[Any], int]  # how many edges lead to a node in the graphs of all losses


class Layer(ABC):
    """What is computed of one layer in one step, from the gradients Δᵢ at its output."""

    @abstractmethod
    def rows(self, delta: Tensor) -> Tensor:
        """Δᵢ [rows, out] from the gradient at the output, as the graph gave it."""

    @abstractmethod
    def inner(self, dtype: torch.dtype) -> Tensor:
        """The inner products xxᵀ [rows, rows] in this dtype."""

    @abstractmethod
    def project(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """For a vector v [in] xv [rows], and ‖xᵣ‖² of each row [rows], in v's dtype."""

    @abstractmethod
    def gradient(self, delta: Tensor) -> Tensor:
        """Wᵢ of the weight's shape, formed after all, in Δᵢ's dtype."""

    def image(self, weight: Tensor) -> Tensor | None:
        """What the layer gives for another weight, without its bias, in the form of Δᵢ.

        ⟨Wᵢ, U⟩ = ⟨Δᵢ, image of U⟩ for any U. None where only Wᵢ itself tells.
        """
        return None

    def bias(self, delta: Tensor) -> Tensor:
        """The bias's gradient, where autograd would form the weight's with it."""
        return self.rows(delta).sum(0)

    @torch.no_grad()
    def gram(self, deltas: Sequence[Tensor | None], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """⟨Wᵢ, Wⱼ⟩ [n, n] in float64, and ‖x‖²‖Δᵢ‖² [n].

        The error of float32 products is relative to the latter.

        Args:
            deltas: per objective the gradient at the output, or None where it does not reach.
            dtype: what the products are made in.
        """
        found = [None if delta is None else self.rows(delta).to(dtype) for delta in deltas]
        some = next(rows for rows in found if rows is not None)
        stacked = torch.stack([torch.zeros_like(some) if r is None else r for r in found])
        inner, flat = self.inner(dtype), stacked.flatten(1)  # [rows, rows], [n, rows · out]
        images = torch.empty_like(stacked)
        for rows, image in zip(stacked, images, strict=True):
            torch.mm(inner, rows, out=image)
        product = in_pieces(images.flatten(1), flat)
        return (product + product.T) / 2, (inner.trace() * flat.square().sum(1)).double()

    @torch.no_grad()
    def combine(
        self,
        deltas: Sequence[Tensor | None],
        weights: Sequence[float],
        like: Tensor,
        precise: bool,
    ) -> Tensor | None:
        """Σ wᵢWᵢ in the weight's dtype and layout; None where no objective reaches the layer.

        Args:
            deltas: per objective the gradient at the output, or None.
            weights: w [n].
            like: the weight.
            precise: form it in float64.
        """
        terms = [(w, delta) for w, delta in zip(weights, deltas, strict=True) if delta is not None]
        if not terms:
            return None
        dtype = torch.float64 if precise else torch.promote_types(like.dtype, torch.float32)
        total = torch.zeros_like(terms[0][1], dtype=dtype)
        for weight, delta in terms:
            if weight != 0:
                total.add_(delta.to(dtype), alpha=weight)
        out = self.gradient(total)
        if out.dtype == like.dtype and out.stride() == like.stride():
            return out
        return torch.empty_like(like).copy_(out)


@dataclass(frozen=True, eq=False)
class Match:
    """A layer as the graph shows it.

    Attributes:
        node: the layer's node.
        weight: its weight, a leaf of which this is the only use.
        shape: how many rows Δ and x have, and their widths: (rows, out, in).
        before: the edge to the layer's input; (None, 0) where that needs no gradient.
        bias: the bias, where it is a leaf; for a rule without `bias_apart` one of a single use.
        between: what registers hooks that act between the layer's output and the weight.
        passed: the node's saved tensor that lies between them, and may have hooks as a tensor.
    """

    node: Any
    weight: Tensor
    shape: tuple[int, int, int]
    before: Edge
    bias: Tensor | None
    between: tuple[Callable[[Callable[..., None]], Any], ...]
    passed: str | None = None

    def hooked(self, unpack: bool) -> bool | None:
        """Whether a hook acts between the output and the weight; None where it cannot be known."""
        if any(_has_hooks(register) for register in self.between):
            return True
        if self.passed is None:
            return False
        kept = saved(self.node, self.passed, unpack)
        return None if kept is None else bool(kept._backward_hooks)


@dataclass(frozen=True)
class Rule:
    """What is known of one kind of layer; the file's first lines say how to write one."""

    nodes: tuple[str, ...]
    match: Callable[[Any, Uses], Match | None]
    cost: Callable[[Match, int], tuple[int, int]]
    read: Callable[[Match, bool], Layer | None]
    bias_apart: bool = True
    copied: bool = False


RULES: dict[str, list[Rule]] = {}  # by the class name of an autograd node


def register(rule: Rule) -> Rule:
    """Use a rule from now on, where no rule before it matches."""
    for name in rule.nodes:
        RULES.setdefault(name, []).append(rule)
    return rule


def find(node: Any, uses: Uses) -> tuple[Rule, Match] | None:
    """The first rule that a node matches, and the layer."""
    for rule in RULES.get(type(node).__name__, ()):
        if (match := rule.match(node, uses)) is not None:
            return rule, match
    return None


def multiplications(match: Match, n: int) -> tuple[int, int]:
    """What n gradients, their Gram matrix and their sum take, and what the factors take.

    The factors take xxᵀ, its product with each Δᵢ, and one gradient.
    """
    rows, out, inside = match.shape
    entries = out * inside
    formed = n * rows * entries + READS * n * (n + 1) // 2 * entries
    return formed, rows * rows * (inside + n * out) + n * n * rows * out + rows * entries


def pays(rule: Rule, match: Match, n: int, every: bool, low_memory: bool) -> bool:
    """Whether a layer that n objectives reach is taken.

    Args:
        rule: its rule.
        match: the layer.
        n: the number of objectives.
        every: take it whatever it costs, unless its x is copied.
        low_memory: take it too where what is kept is at most half of a gradient per objective.
    """
    rows, out, inside = match.shape
    if every and not rule.copied:
        return True
    kept = rows * max(out, inside) if rule.copied else rows * out
    if low_memory and 2 * kept <= out * inside:
        return True
    formed, factored = rule.cost(match, n)
    return factored < formed


def leaf_of(edge: Edge, uses: Uses) -> Tensor | None:
    """The leaf tensor that an edge leads to, where that is its only use and it has no hooks."""
    node = edge[0]
    if node is None or type(node).__name__ != "AccumulateGrad" or uses(node) != 1:
        return None
    leaf: Tensor = node.variable
    # A kind of tensor with products of its own has gradients of its own.
    ordinary = type(leaf).__torch_dispatch__ is Tensor.__torch_dispatch__
    return leaf if ordinary and not leaf._backward_hooks else None


def saved(node: Any, name: str, unpack: bool) -> Tensor | None:
    """What a node has saved; None where it was freed or changed in place, as the pass will say.

    Args:
        node: the node.
        name: the saved tensor's, as in `node._saved_mat1`.
        unpack: read it too where it comes back through hooks. That recomputes a checkpointed
            region, or copies what was offloaded.
    """
    raw = getattr(node, f"_raw_saved_{name}")
    if not unpack and getattr(raw, "unpack_hook", None) is not None:  # torch < 2.7 does not tell
        return None
    try:
        found: Tensor | None = getattr(node, f"_saved_{name}")
    except (RuntimeError, AttributeError):
        return None
    return found


def _has_hooks(register: Callable[[Callable[..., None]], Any]) -> bool:
    """Whether a node has hooks of this kind: the list is had by adding one, and taking it out."""
    handle = register(_nothing)
    hooks = handle.hooks_dict_ref()
    handle.remove()
    return hooks is None or len(hooks) > 0


def _nothing(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Tap:
    """A layer whose weight's gradient is not formed.

    Attributes:
        node: its node of the graph, which is given the gradient at its output in a backward pass.
        layer: the layer.
        through: where a gradient has to be asked for so that the node is visited at all; None where
            that of the bias is asked for anyway. A gradient asked for at the node itself would
            lack what hooks on the output do to it.
        bias: the name of the bias. With `through` its gradient follows from that at the output.
        proved: by name, whether the factors and autograd's own gradient agreed.
        compare: whether they are to be compared, unless `proved` has the weight.
    """

    node: Any
    layer: Layer
    through: GradientEdge | None
    bias: str | None = None
    proved: dict[str, bool] = field(default_factory=dict)
    compare: bool = True
