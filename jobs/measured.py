"""How fast this machine was, or a cluster's workers: the rate that a finished run shows, remembered
for later estimates."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from cluster.cores import usable_cores
from cluster.job_log import JobRecord
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.tables import read_parquet
from cluster.totals import counted, states
from conf.schema import EngineConfig, RunConfig
from jobs import rates
from jobs.preview import Preview
from operators.engines.simulated import CALIBRATED_PIXELS, step_seconds
from operators.guidance import guidance_passes, has_two_pass_guidance

_GPUS = Path("/proc/driver/nvidia/gpus")
_GPU_TIMEOUT_S = 10
_SIMULATED_BATCH = 8
_MEASURED_COMMITS = 64
_TELLING_S = 5.0
"""A job that kept the device busy for less tells more of its first steps than of the machine."""
_ON_A_CLUSTER = "a cluster's "
CPU = "cpu"
"""What engines call a device that is no GPU."""
_COLUMNS = ["width", "height", "steps", "guidance_scale", "sampler", "gpu_seconds", "device"]


def cluster_key(config: RunConfig, revision: str, *, device: str) -> rates.RateKey:
    """Under what the rate of a cluster's workers on such a device is remembered: apart from those
    of this machine, which may have one like it, and other CPUs."""
    return rates.RateKey(
        engine=_engine_name(config.engine, config.engine.precision),
        model=config.model.name,
        revision=revision,
        device=f"{_ON_A_CLUSTER}{device}",
        max_batch=config.engine.max_batch or 0,
    )


def rate_key(config: RunConfig, revision: str) -> rates.RateKey:
    """Under what this machine's rate for a configuration is remembered."""
    return rates.RateKey(
        engine=_engine_name(config.engine, precision_here(config.engine)),
        model=config.model.name,
        revision=revision,
        device=device_name(),
        max_batch=config.engine.max_batch or 0,
    )


def _engine_name(engine: EngineConfig, precision: str) -> str:
    """A simulated engine is as fast as it was told to be, so its speed and table belong to it."""
    name = f"{engine.name}-{precision}"
    if engine.name != "simulated":
        name = name if engine.compile in {"auto", "off"} else f"{name}-{engine.compile}"
        return name if engine.offload == "off" else f"{name}-offload-{engine.offload}"
    table = json.dumps(sorted(engine.simulated_seconds.items())).encode()
    return f"{name}-x{engine.simulated_speed:g}-{hashlib.sha256(table).hexdigest()[:12]}"


def precision_here(engine: EngineConfig) -> str:
    """The precision that ``engine.precision`` means on this machine; on a GPU ``auto`` stays."""
    asked_auto = engine.precision == "auto"
    return "float32" if asked_auto and is_cpu(device_name()) else engine.precision


def is_cpu(device: str) -> bool:
    """Whether a ``device_name`` is that of a machine without a GPU."""
    return device.startswith("cpu-")


def device_name() -> str:
    """The name of this machine's first GPU, or ``cpu-<cores>``."""
    for information in sorted(_GPUS.glob("*/information")):
        with suppress(OSError, UnicodeDecodeError):
            for line in information.read_text(encoding="utf-8").splitlines():
                if line.startswith("Model:"):
                    return line.removeprefix("Model:").strip()
    return _listed_gpu() or f"cpu-{usable_cores()}"


def gpu_count() -> int:
    """How many GPUs this machine has."""
    return 0 if is_cpu(device_name()) else max(1, len(list(_GPUS.glob("*"))))


def _listed_gpu() -> str:
    """What ``nvidia-smi -L`` calls the first GPU ("GPU 0: NAME (UUID: …)"); empty without one."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_GPU_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    _, found, name = listed.partition("\n")[0].partition(": ")
    return name.partition(" (UUID")[0].strip() if found else ""


def simulated_seconds(config: RunConfig, preview: Preview) -> float:
    """How long one simulated worker waits by its table when its batch is full."""
    engine = config.engine
    if engine.simulated_speed == 0 or not engine.simulated_seconds or not preview.images:
        return 0.0
    rows = (engine.max_batch or _SIMULATED_BATCH) * (1 + preview.guided / preview.images)
    per_row = step_seconds(engine.simulated_seconds, rows) / rows
    return per_row * preview.pixel_steps / CALIBRATED_PIXELS / engine.simulated_speed


def remember_rate(
    store: Store, job: JobRecord, plan: PlanReader, devices: Collection[str] = ()
) -> None:
    """Remember the rate that the first commits of a job show, for later estimates: of this machine,
    or of a cluster whose workers all had the same of ``devices``. What other devices made, in
    earlier runs of a job that was resumed, does not count. CPUs of other machines are not told
    apart, and servers belong to others too."""
    config, revision = job.config, job.model_revision
    if config.engine.name == "triton":
        return
    key = rate_key(config, revision)
    if config.cluster.address != "local":
        if len(set(devices)) != 1 or CPU in devices:
            return
        key = cluster_key(config, revision, device=next(iter(devices)))
    pixel_steps, seconds = measured_work(
        store, job, plan, made_on=lambda device: not devices or device in devices
    )
    if telling(pixel_steps, seconds) is not None:
        rates.remember(key, pixel_steps=pixel_steps, seconds=seconds)


def telling(pixel_steps: float, seconds: float) -> float | None:
    """The rate of so much work; None where it was too little to tell."""
    return pixel_steps / seconds if seconds >= _TELLING_S else None


def measured_work(
    store: Store, job: JobRecord, plan: PlanReader, *, made_on: Callable[[str], bool]
) -> tuple[float, float]:
    """Pixel-steps of the first commits of a job, and the seconds that their devices took; of the
    images only that were ``made_on`` such a device."""
    twice = has_two_pass_guidance(job.config.model)
    pixel_steps = seconds = 0.0
    seen = 0
    for state in states(store, plan):
        for commit, _ in counted(state):
            data = store.get(commit.metadata.key) if commit.metadata else None
            if data is None:
                continue
            for row in read_parquet(data, _COLUMNS).to_pylist():
                if not made_on(row["device"]):
                    continue
                weight = rates.weighted_steps(
                    sampler=row["sampler"],
                    steps=row["steps"],
                    passes=guidance_passes(row["guidance_scale"], two_pass_guidance=twice),
                )
                pixel_steps += weight * row["width"] * row["height"]
                seconds += row["gpu_seconds"]
            seen += 1
        if seen >= _MEASURED_COMMITS:
            break
    return pixel_steps, seconds
