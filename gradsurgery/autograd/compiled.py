"""Regions made by torch.compile: their backward pass has to run once per loss."""

import contextlib
from collections.abc import Iterator

from gradsurgery.errors import InputError


def allow_several_passes() -> None:
    """Have regions that are compiled from now on keep what a second backward pass needs.

    By default the compiler lets a backward pass overwrite what the forward pass saved ("donated buffers"), and a graph that is traversed
    once per loss then raises. The setting costs memory, changes no number, and can only be made before the first forward pass.
    """
    with contextlib.suppress(ImportError, AttributeError):
        import torch._functorch.config as config

        if config.donated_buffer:
            config.donated_buffer = False


@contextlib.contextmanager
def several_passes() -> Iterator[None]:
    """Say what to do where a region was compiled for one pass only.

    Raises:
        InputError: in place of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if "donated buffer" not in str(error):
            raise
        raise InputError(
            "a region that torch.compile made allows one backward pass only: import gradsurgery before the first forward pass of the compiled model, "
            "or set torch._functorch.config.donated_buffer = False there and call torch.compiler.reset()."
        ) from error
