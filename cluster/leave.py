"""Takes the Ray node of this machine out of its cluster in order: ``python -m cluster.leave``.

For whoever is told first that a machine goes: a pod's preStop hook, a provider's shutdown script.
Ray hears that the node goes, so that nobody is hired on it any more; our workers get SIGTERM, upon
which they commit what is finished; and the call waits until they have left. Processes are found in
/proc, since a hook has neither a connection to Ray nor the time to make one.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION
from ray.exceptions import RayError

log = logging.getLogger("imagemill")
_TITLE = "ray::WorkerActor"
_POLL_S = 0.2
_DRAIN_S = 5.0
"""How long Ray's control plane may take to hear of it; it may be gone already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    pid: int
    parent: int
    words: tuple[str, ...]

    def flag(self, name: str) -> str:
        """The value of ``--name=value`` on its command line; "" without it."""
        found = [word for word in self.words if word.startswith(f"--{name}=")]
        return found[0].partition("=")[2] if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    """A Ray node that lives on this machine."""

    node_id: str
    gcs_address: str
    raylet_pid: int


def nodes_here() -> tuple[RayNode, ...]:
    """The Ray nodes of this machine; a pod has one, or none yet."""
    return tuple(
        RayNode(
            node_id=process.flag("node_id"),
            gcs_address=process.flag("gcs-address"),
            raylet_pid=process.pid,
        )
        for process in _processes()
        if process.words[0].endswith("/raylet") and process.flag("node_id")
    )


def leave(node: RayNode, *, notice_s: float) -> bool:
    """Have a node's workers leave; returns whether all have left within ``notice_s``.

    What has not left by then is killed with the machine: what it had committed counts.
    """
    until_s = time.monotonic() + notice_s
    hearing = threading.Thread(target=_drain, args=(node, notice_s), daemon=True)
    hearing.start()
    hearing.join(min(_DRAIN_S, notice_s))
    for pid in _workers(node):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    while _workers(node):
        if time.monotonic() > until_s:
            return False
        time.sleep(_POLL_S)
    return True


def _drain(node: RayNode, notice_s: float) -> None:
    """Tell Ray; where it cannot be told, the workers' SIGTERM has to do."""
    deadline_ms = int((time.time() + notice_s) * 1000)
    try:
        accepted, why = ray._raylet.GcsClient(address=node.gcs_address).drain_node(
            node.node_id, DRAIN_NODE_REASON_PREEMPTION, "its machine is taken away", deadline_ms
        )
    except (RayError, RuntimeError, OSError, ValueError) as error:
        accepted, why = False, str(error)
    if not accepted:
        log.warning("Ray was not told that its node goes: %s", why, extra={"event": "not_drained"})


def _workers(node: RayNode) -> list[int]:
    """Our worker actors below a node's raylet that have begun."""
    processes = {process.pid: process for process in _processes()}
    return [
        process.pid
        for process in processes.values()
        if process.words[0].startswith(_TITLE) and node.raylet_pid in _ancestors(process, processes)
    ]


def _ancestors(process: _Process, processes: dict[int, _Process]) -> Iterator[int]:
    while process.parent in processes:
        process = processes[process.parent]
        yield process.pid


def _processes() -> Iterator[_Process]:
    """All processes that say what they are; those that end meanwhile are left out."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            # 'pid (name) state parent …', where the name may hold anything
            parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
        except OSError:
            continue
        if words[0]:
            yield _Process(pid=int(folder.name), parent=int(parent), words=tuple(words))


def build_parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.leave",
        description="Take this machine's Ray node out of its cluster: workers commit what is "
        "finished and leave.",
    )
    parser.add_argument("--notice-s", type=float, required=True, help="how long they have; seconds")
    parser.add_argument("--node-id", help="only this node, where the machine has several")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Leave with every node of this machine, or the one that is named; returns the exit status: 1
    where a worker had not left in time."""
    given = build_parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    found = [node for node in nodes_here() if given.node_id in (None, node.node_id)]
    if not found:
        log.info("no Ray node is here; nothing to leave", extra={"event": "no_node"})
    left = [leave(node, notice_s=given.notice_s) for node in found]
    if not all(left):
        log.warning(
            "a worker had not left after %g s; what it had committed counts",
            given.notice_s,
            extra={"event": "not_left"},
        )
    return 0 if all(left) else 1


if __name__ == "__main__":
    sys.exit(main())
