"""Benchmarks: `python -m benchmarks.peers`, and so on; `nox -s bench` runs the small ones."""

import os

# Small problems only lose by more threads; all sides run under the same setting. It has to be made
# before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
