"""The strategies' claims on rows in conflict, and every name of the field."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.contract.registry import registered
from tests.support.shipped import SHIPPED, direction


@pytest.mark.parametrize(
    "name",
    [
        "mgda",
        "upgrad",
        "dualproj",
        "nash-mtl",
        "fairgrad",
        "cagrad(c=1)",
        "mmpareto",
        "config",
        "mgda(normalize='l2')",
    ],
)
@pytest.mark.parametrize("sigma", [0.5, 1, 2, 3])
def test_no_conflict_on_rows_in_conflict_with_log_normal_norms(name, sigma):
    """60 draws: six rows that pull against each other in ten dimensions, with log-normal lengths;
    in both precisions.
    """
    chosen = gs.get_strategy(name)
    rng = np.random.default_rng(int(10 * sigma))
    conflicts = 0
    for _ in range(60):
        rows = rng.normal(size=(6, 10))
        rows = (rows - 0.9 * rows.mean(0)) * np.exp(sigma * rng.normal(size=(6, 1)))
        cosines = (rows @ rows.T) / np.outer(*[np.linalg.norm(rows, axis=1)] * 2)
        assert cosines.min() < -0.1
        for dtype in (torch.float64, torch.float32):
            given = torch.as_tensor(rows).to(dtype)
            found = direction(chosen, given).double().numpy()
            exact = given.double().numpy()
            worst = (exact @ found / np.linalg.norm(exact, axis=1) / np.linalg.norm(found)).min()
            conflicts += worst < -1e-6
    assert conflicts == 0


def test_every_name_of_the_field_is_there():
    assert len(SHIPPED) >= 40
    assert all(registered(name).paper and registered(name).claims for name in SHIPPED)
