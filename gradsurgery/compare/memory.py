"""The peak memory of a run: of this process, and of its GPU where it trains on one."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch

MB = 2**20


class Peak:
    """The largest memory from here on.

    Linux can begin a new peak; elsewhere it is that of the whole process, earlier runs included.
    """

    def __init__(self) -> None:
        self._since = "process"
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM and nothing else
            self._since = "run"

    def as_dict(self, device: Any = None) -> dict[str, Any]:
        """The peak in MB, and since when: "run" or "process"; empty where it cannot be had.

        Args:
            device: where the run trains, for the memory of a GPU.
        """
        found = _resident() if self._since == "run" else _of_process()
        said = {} if found is None else {"peak_mb": round(found, 1), "since": self._since}
        if device is not None and torch.device(device).type == "cuda":
            said["cuda_mb"] = round(torch.cuda.max_memory_allocated(device) / MB, 1)
        return said


def _resident() -> float | None:
    """The peak that Linux kept since the last reset."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def _of_process() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / MB if sys.platform == "darwin" else size / 1024
