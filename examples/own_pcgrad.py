"""PCGrad as one might write it for a Gram matrix, with a fault that is easily made.

It does not know gradsurgery. What it is like is found out by

    gradsurgery check examples/own_pcgrad.py:pcgrad
"""

import numpy as np


def pcgrad(G):
    """Weights of PCGrad: each gradient is projected off those that it conflicts with."""
    n = len(G)
    weights = np.eye(n)  # row i: the i-th gradient, projected so far
    for i in range(n):
        for j in range(n):  # the fault: the paper shuffles the others
            if i != j and weights[i] @ G[:, j] < 0:
                weights[i, j] -= weights[i] @ G[:, j] / G[j, j]
    return weights.sum(0)
