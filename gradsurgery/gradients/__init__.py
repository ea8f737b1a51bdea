"""The gradients of n objectives for one group: from rows to G, and from weights to a direction.

What the engine calls, in the order of a step:

| function | what it does |
|---|---|
| `factored.find(node, uses)`, `factored.pays(...)` | the rule that knows a layer; whether it pays |
| `donation.owned(gradients, like, places)` | per gradient what may be written to, or None |
| `donation.as_owned(gradients, like, places)` | gradients that may become `.grad`, or copies |
| `agreement.compared(deltas, given, layers)` | whether factors make what autograd gave |
| `coordinates.unusual(gradients, parameters)` | names of gradients that are not plain tensors |
| `coordinates.in_coordinates(rows, parameters, odd, tapped)` | those, in real coordinates |
| `matrix.GradientMatrix(gradients, like, blocks, batches, inputs, formed, sparse, writable)` | J |
| `transfer.to_host(matrices, values, ...)` | Gram matrices and values, in one copy per device |
| `.gram`, `.block_grams`, `.cross`, `.rows`, `.eps`, `.finite`, `.zero`, `.bound(w)` | to decide |
| `.combine(weights, reuse)`, `.split(direction)` | d, tensor by tensor |
| `gram.grams_by_tensor(gradients, like, sparse)` | G per tensor, for gradients that are not kept |
| `precision.without_autocast(device)` | around all of it |

`blocks` says what is known of one tensor's gradients (Dense, Sparse, Factored), `factored` what a
layer's rule is, `gram` and `combine` work on blocks, `precision` says when float32 suffices.
"""
