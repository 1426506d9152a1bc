"""Whether compiling the denoiser pays for a job: what ``engine.compile=auto`` becomes.

The driver decides, from rates that were measured on this machine; the workers obey. Where nothing
of the compiled model was measured yet, the numbers are assumptions and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from conf.schema import RunConfig
from jobs import rates
from jobs.figures import duration
from jobs.measured import device_name, is_cpu, precision_here, rate_key
from jobs.preview import Preview
from operators.engine import EngineInfo
from operators.remembered import RememberedNumbers

_FILE = "compile_seconds"
ASSUMED_SECONDS = {"full": 90.0, "regional": 45.0}
"""What compiling costs a worker that has no compiled code in its cache."""
ASSUMED_SPEEDUP = {"cpu-float32": 1.15, "cpu-bfloat16": 1.25, "gpu": 1.2}
"""How much faster compiled steps are; on CPUs as docs/engine.md measured, on GPUs not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileChoice:
    """``how``: off, regional or full. ``why``: a line for people, beginning with it."""

    how: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSize:
    """What a job asks of the denoiser: ``pixel_steps`` as in ``Preview``, ``usual`` the share of
    them at the model's own size, which is the one that is compiled; ``workers`` share the work."""

    pixel_steps: float
    usual: float
    workers: int

    @classmethod
    def of(cls, preview: Preview, config: RunConfig, *, rows: int, workers: int) -> JobSize:
        """The size of a job of ``rows`` rows that are like those of the preview."""
        usual = preview.shapes.get((config.model.width, config.model.height), 0)
        return cls(
            pixel_steps=preview.pixel_steps * rows / max(1, preview.rows),
            usual=usual / max(1, preview.images),
            workers=workers,
        )


def choose_compile(
    config: RunConfig, revision: str, measure: Callable[[], JobSize]
) -> CompileChoice:
    """What ``engine.compile`` means for a job; ``measure`` tells its size if that is asked for."""
    asked = config.engine.compile
    if config.engine.name != "stepwise":
        return CompileChoice(how="off", why="off: this engine compiles nothing")
    if asked != "auto":
        return CompileChoice(how=asked, why=f"{asked}, as engine.compile says")
    if config.engine.offload != "off":
        return CompileChoice(how="off", why="off: weights that come and go are not compiled")
    if config.cluster.address != "local":
        return CompileChoice(
            how="off",
            why="off: how fast the cluster's workers are is not known here; give "
            "engine.compile=regional or full to compile",
        )
    how = "full" if is_cpu(device_name()) else "regional"
    if rates.estimate(rate_key(_with(config, "off"), revision), 1) is None:
        return CompileChoice(
            how="off", why="off: no run of this model was measured here yet to tell whether it pays"
        )
    size = measure()
    plain_s = _seconds(config, revision, size, "off") or 0.0
    compiled_s = _seconds(config, revision, size, how)
    cost_s = RememberedNumbers(_FILE).get(*rate_key(_with(config, how), revision).parts())
    if compiled_s is None or cost_s is None:
        saved_s = plain_s * size.usual * (1 - 1 / _assumed_speedup(config))
        return _weighed(how, ASSUMED_SECONDS[how], saved_s, "assumed, never measured here")
    return _weighed(how, cost_s, plain_s - compiled_s, "measured here")


def remember_compilation(
    config: RunConfig, revision: str, engines: Sequence[EngineInfo]
) -> RunConfig:
    """Keep what compiling cost the slowest worker; the configuration as the workers obeyed it."""
    if len({engine.compile for engine in engines}) != 1:
        return config
    ran = _with(config, engines[0].compile)
    seconds = max(engine.compile_seconds for engine in engines)
    if ran.engine.compile != "off" and config.cluster.address == "local" and seconds > 0:
        RememberedNumbers(_FILE).keep(seconds, *rate_key(ran, revision).parts())
    return ran


def _seconds(config: RunConfig, revision: str, size: JobSize, how: str) -> float | None:
    key = rate_key(_with(config, how), revision)
    return rates.estimate(key, size.pixel_steps, workers=size.workers)


def _assumed_speedup(config: RunConfig) -> float:
    if not is_cpu(device_name()):
        return ASSUMED_SPEEDUP["gpu"]
    return ASSUMED_SPEEDUP.get(f"cpu-{precision_here(config.engine)}", 1.0)


def _weighed(how: str, cost_s: float, saved_s: float, basis: str) -> CompileChoice:
    cost, saved = duration(cost_s), duration(max(0.0, saved_s))
    if saved_s > cost_s:
        return CompileChoice(how=how, why=f"{how}: costs {cost}, saves {saved} ({basis})")
    return CompileChoice(how="off", why=f"off: {how} would cost {cost} and save {saved} ({basis})")


def _with(config: RunConfig, how: str) -> RunConfig:
    return replace(config, engine=replace(config.engine, compile=how))
