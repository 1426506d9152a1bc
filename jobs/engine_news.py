"""What the workers' engines turned out to be, said once each: device, precision, batch, code."""

from __future__ import annotations

import logging
from dataclasses import replace

from cluster.coordinator import Snapshot
from conf.schema import RunConfig
from jobs.figures import duration
from operators.engine import EngineInfo

log = logging.getLogger("imagemill")


class EngineNews:
    """Watches the snapshots of a run; ``config`` is what its workers were told."""

    def __init__(self, config: RunConfig) -> None:
        self._asked = config.engine.compile
        self._said: set[EngineInfo] = set()
        self._precisions: dict[str, str] = {}

    def show(self, snapshot: Snapshot) -> None:
        """Say what is new."""
        for engine in snapshot.engines:
            plain = replace(engine, compile_seconds=0.0)
            if plain not in self._said:
                self._said.add(plain)
                self._say(engine)
                self._compare(engine)

    def _compare(self, engine: EngineInfo) -> None:
        """Warn of each further precision among the workers."""
        if engine.precision in self._precisions:
            return
        self._precisions[engine.precision] = engine.device
        if len(self._precisions) > 1:
            log.warning(
                "the workers compute in different precisions (%s), so the same row would become "
                "different pictures; the metadata's column precision tells which; start jobs with "
                "one engine.precision other than auto to have the same everywhere",
                ", ".join(f"{name} on {device}" for name, device in self._precisions.items()),
                extra={"event": "precisions_differ"},
            )

    def _say(self, engine: EngineInfo) -> None:
        if engine.name == "triton":
            log.info(
                "engine: %s, %d at a time, each with batches of up to %d%s",
                engine.device,
                engine.devices,
                engine.max_batch,
                ", images through shared memory" if engine.shared_memory else "",
                extra={"event": "engine_ready"},
            )
            return
        code = "not compiled"
        if engine.compile != "off":
            code = f"compiled ({engine.compile}) in {duration(engine.compile_seconds)}"
        log.info(
            "engine: %s on %s, %s, batches of up to %d, %s",
            engine.name,
            engine.device,
            engine.precision,
            engine.max_batch,
            code,
            extra={"event": "engine_ready"},
        )
        if engine.compile == "off" and self._asked != "off" and not engine.simulated:
            log.warning(
                "engine.compile=%s: the denoiser cannot be compiled on %s and runs uncompiled; the "
                "worker's log says why (a C++ compiler is needed)",
                self._asked,
                engine.device,
                extra={"event": "compile_failed"},
            )
