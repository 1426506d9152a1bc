"""Memory that a Triton server on this machine writes images into. Knows nothing of the server.

A server that goes on with a request which was given up writes its image whenever it likes. So no
byte of a region is lent twice: what comes late lands where nobody reads any more.
"""

from __future__ import annotations

import mmap
import os
import secrets
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from operators.engine import Pixels
from operators.triton_client.memory_owner import FOLDER

REGION_BYTES = 256 * 2**20
"""Of addresses, not of memory: that is taken as it is lent."""
_SEAL_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Room for one image. ``seal`` is what its last bytes are until an image is written there."""

    region: MemoryRegion
    offset: int
    size: int
    seal: bytes

    def read(self, shape: tuple[int, ...]) -> Pixels | None:
        """A copy of the image that was written here; None: there was none."""
        memory = self.region.memory
        if memory[self.offset + self.size - len(self.seal) : self.offset + self.size] == self.seal:
            return None
        written = np.frombuffer(memory, np.uint8, self.size, self.offset)
        return written.reshape(shape).copy()


class MemoryRegion:
    """A file in /dev/shm, open here; its name is there until ``hide``.

    Invariant: ``out`` places are lent and not back.

    Raises:
        OSError: there is no such folder, or it cannot be written to.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.out = 0
        self._used = 0
        self._file = os.open(FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with ExitStack() as unless_made:
            unless_made.callback(self.hide)
            unless_made.callback(os.close, self._file)
            os.ftruncate(self._file, REGION_BYTES)
            self.memory = mmap.mmap(self._file, REGION_BYTES)
            # seen now that memory can be given back here, not when an image waits
            self.memory.madvise(mmap.MADV_REMOVE, 0, mmap.PAGESIZE)
            unless_made.pop_all()

    def hide(self) -> None:
        """Take the name away: the memory lives as long as somebody has it open."""
        (FOLDER / self.name).unlink(missing_ok=True)

    def holds(self, size: int) -> bool:
        """Whether there is room for an image of so many bytes that was never lent."""
        return self._used + size <= REGION_BYTES

    def lend(self, size: int) -> Place | None:
        """A place for an image of so many bytes; None: /dev/shm has too little memory left.

        The memory is taken now: a server that could not have it when it writes would die of that.
        Half of /dev/shm is left to the server's models and to others, where it has a limit.
        """
        state = os.fstatvfs(self._file)
        left = (state.f_bavail - state.f_blocks // 2) * state.f_frsize
        if state.f_blocks and left < size:
            return None
        offset = self._used
        try:
            os.posix_fallocate(self._file, offset, size)
        except OSError:
            return None
        self._used += _whole_pages(size)
        self.out += 1
        seal = secrets.token_bytes(min(size, _SEAL_BYTES))
        self.memory[offset + size - len(seal) : offset + size] = seal
        return Place(region=self, offset=offset, size=size, seal=seal)

    def take_back(self, place: Place, *, answered: bool) -> None:
        """A place is needed no more. Its memory goes, unless the server may still write to it."""
        self.out -= 1
        if answered:
            self.memory.madvise(mmap.MADV_REMOVE, place.offset, _whole_pages(place.size))

    def close(self) -> None:
        """Nobody reads any more."""
        self.memory.close()
        os.close(self._file)


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
