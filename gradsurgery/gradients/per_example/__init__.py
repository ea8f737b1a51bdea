"""Gradients of objectives that are mixtures of per-example losses, from one backward pass.

Objective i is Lᵢ = Σ_b Aᵢ_b ℓ_b. The pass of Σ_b ℓ_b brings to each layer's output a gradient Δ
whose part b belongs to example b alone, and Lᵢ's is that with part b times Aᵢ_b. So what a
parameter gets from Lᵢ follows from Δ and from what the layer has saved.

| file | what it is |
|---|---|
| `layout.py` | where the examples are in a tensor |
| `use.py` | one use of a parameter, from which the gradients of all mixtures follow |
| `product.py` | Δ_bᵀx_b: linear layers; `convolution.py`, `table.py`: convolutions, embeddings |
| `each.py` | parameters so small that every example's gradient is formed |
| `local.py` | any other node: its own backward, once per objective |
| `through.py` | parameters that are used only through what is computed from them, once for all |
| `rules.py` | which node of the graph is which use |
| `block.py` | all uses of one tensor: its Gram matrix and its direction |
"""
