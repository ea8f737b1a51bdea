"""The gradients of n objectives for one group: from rows to G, and from weights to a direction.

What the engine calls, in the order of a step:

| function | what it does |
|---|---|
| `coordinates.unusual(gradients, parameters)` | names of gradients that are not plain tensors |
| `coordinates.in_coordinates(rows, parameters, odd, tapped)` | those, in real coordinates |
| `donation.owned(gradients, like)` | per gradient a tensor that may be written to, or None |
| `donation.as_owned(gradients, like)` | the same, with copies of the others |
| `matrix.GradientMatrix(gradients, like, blocks, batches, inputs, formed, sparse, writable)` | J |
| `transfer.to_host(matrices, values)` | all Gram matrices and values, in one copy per device |
| `.gram`, `.block_grams`, `.cross`, `.rows`, `.eps`, `.finite`, `.zero`, `.bound(w)` | to decide |
| `.combine(weights)`, `.split(direction)` | d, tensor by tensor |
| `gram.grams_by_tensor(gradients, like, sparse)` | G per tensor, for gradients that are not kept |
| `precision.without_autocast(device)` | around all of it |

`blocks` says what is known of one tensor's gradients (Dense, Sparse, Factored), `factored` what a
layer's rule is, `gram` and `combine` work on blocks, `precision` says when float32 suffices.
"""
