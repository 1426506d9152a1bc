"""The environment of a worker's process: what must be set before it begins. Pure."""

from __future__ import annotations

from collections.abc import Mapping

_CPU_WORKER = {
    # Freed activations stay mapped, else each step faults them in again (docs/engine.md).
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "2147483648",
    "MALLOC_TOP_PAD_": "268435456",
    # Spinning threads starve whatever shares the cores: measured 1.28 images/s against 0.43.
    "OMP_WAIT_POLICY": "PASSIVE",
}
_ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""Two names of one variable of torch; whoever sets either means it."""
_GPU_WORKER = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


THREADS = "OMP_NUM_THREADS"
"""How many threads torch takes; read when torch is loaded."""


def worker_environment(
    given: Mapping[str, str], *, gpus: float, threads: int | None
) -> dict[str, str]:
    """The variables for a worker with so many GPUs; what ``given`` sets already stays. ``threads``
    None: the worker finds out by itself, see ``cluster.actors``."""
    environment = {} if threads is None else {THREADS: str(threads)}
    if not gpus:
        return environment | {name: given.get(name, value) for name, value in _CPU_WORKER.items()}
    chosen = {name: given[name] for name in _ALLOCATOR if name in given}
    return environment | (chosen or _GPU_WORKER)
