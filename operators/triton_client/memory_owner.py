"""Whose a region of shared memory is, told by its name, and whether that process still lives.

A process that dies takes its socket with it, however it died: whoever can take the socket's address
knows that nobody has it any more. Process numbers would tell less: they come again, and those of
another container mean nothing here.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import secrets
import socket
from contextlib import ExitStack, closing, suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
"""Where a server finds a region by its name."""
_PREFIX = "imagemill"
_NAME = re.compile(rf"{_PREFIX}-(?P<network>[0-9a-f]+-\d+)-(?P<owner>[0-9a-f]+)-\d+")
_KERNEL = Path("/proc/sys/kernel/random/boot_id")


class MemoryOwner:
    """Makes names that no other owner makes. It is seen to live until ``close``, or until the end
    of its process.

    Raises:
        OSError: this machine has no such sockets.
    """

    def __init__(self) -> None:
        self._network = _network()
        self._token = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._socket = _socket(self._token)

    def name(self) -> str:
        """A name for a region, new each time."""
        return f"{_PREFIX}-{self._network}-{self._token}-{next(self._numbers)}"

    def close(self) -> None:
        """What has a name of this owner's is nobody's any more."""
        self._socket.close()


def is_abandoned(name: str) -> bool:
    """Whether a region's name was made by an owner that is gone. Names that others than we make
    never were, nor those of other machines and of containers with another network, whose sockets
    cannot be seen here."""
    found = _NAME.fullmatch(name)
    if found is None or found["network"] != _network():
        return False
    try:
        with closing(_socket(found["owner"])):
            return True
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise


def remove_abandoned() -> None:
    """Remove the files of owners that died while a server was opening them. Another user's stay:
    they are that user's to remove."""
    for file in FOLDER.glob(f"{_PREFIX}-*"):
        if is_abandoned(file.name):
            with suppress(PermissionError):
                file.unlink(missing_ok=True)


def _network() -> str:
    """The network in which sockets are seen: kernels number theirs alike, so that it takes the name
    of the kernel, too."""
    kernel, _, _ = _KERNEL.read_text().partition("-")
    return f"{kernel}-{os.stat('/proc/self/ns/net').st_ino}"


def _socket(token: str) -> socket.socket:
    """A socket at the token's address, which is no file and goes with the process."""
    with ExitStack() as unless_bound:
        made = unless_bound.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        made.bind(f"\0{_PREFIX}-{token}")
        unless_bound.pop_all()
    return made
