"""A task of the file's own that trains in milliseconds, for comparisons that are killed."""

import os
import signal
import time

from gradsurgery.tasks import task
from tests.support.protocol import losses, two_modalities


@task("grid", steps=4, lr=(0.01, 0.09), primary="fused")
def grid(data_root, seed):
    """Two modalities."""
    return two_modalities(data_root, seed)


@task("slow-grid", steps=40, lr=0.1)
def slow(data_root, seed):
    """The same, where a step takes 10 ms of waiting."""

    def waiting(model, batch):
        time.sleep(0.01)
        return losses(model, batch)

    return two_modalities(data_root, seed, losses=waiting)


@task("deadly", steps=4, lr=0.1)
def deadly(data_root, seed):
    """Ends its process, as a lack of memory does, at seed 1."""

    def ending(model, batch):
        if seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses(model, batch)

    return two_modalities(data_root, seed, losses=ending)
