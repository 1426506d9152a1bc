"""How many threads a training step gets, on a machine that others use too.

Owns one decision. Threads of a parallel region wait for the slowest of them: where another process
holds a core, steps with two threads took ten times as long as steps with one.
"""

from pathlib import Path

import torch

FORGETTING = 0.3
BUSY = 0.5
"""Other running processes, on average, from which on one thread is faster than several."""


class Pace:
    """Follows how many other processes run; several threads only while the machine is ours."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._others = 0.0

    def choose(self, others: int) -> int:
        """The threads of the next step, given how many other processes run right now."""
        self._others += FORGETTING * (others - self._others)
        return 1 if self._others > BUSY else self._threads

    def apply(self) -> None:
        """Look at the machine and set the threads of the next step."""
        torch.set_num_threads(self.choose(others_running()))


def others_running(statistics: Path = Path("/proc/stat")) -> int:
    """Runnable processes besides this one; none where the system does not say."""
    if not statistics.exists():
        return 0
    for line in statistics.read_text(encoding="ascii").splitlines():
        if line.startswith("procs_running"):
            return max(0, int(line.split()[1]) - 1)
    return 0
