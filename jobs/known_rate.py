"""How fast a worker of a run will be, as far as earlier runs have measured it, and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from cluster.job_log import JobRecord
from cluster.plan_file import PlanReader
from cluster.ray_session import Resources
from cluster.store import Store
from jobs import rates
from jobs.measured import CPU, cluster_key, measured_work, rate_key, telling

_SIMULATED = "simulated"
"""What the simulated engine calls its device: it is as fast everywhere."""
_WORDS = str.maketrans("-", " ")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRate:
    """``pixel_steps`` a second of one worker, as ``source`` measured; None: not known, and
    ``source`` says why."""

    pixel_steps: float | None
    source: str


def known_rate(
    job: JobRecord, store: Store, plan: PlanReader, size: Resources, *, resumed: bool
) -> KnownRate:
    """Of the same engine and model on the same device.

    Args:
        resumed: whether earlier runs of this very job may have made images.

    Raises:
        StoreUnavailable, CorruptOutput: what this job has made cannot be read.
    """
    config = job.config
    if config.engine.name == "triton":
        return KnownRate(pixel_steps=None, source="how fast servers are depends on who asks them")
    if config.cluster.address == "local":
        here = rates.measured_rate(rate_key(config, job.model_revision))
        why = "no run of this model with this engine was measured on this machine"
        return KnownRate(pixel_steps=here, source="earlier runs on this machine" if here else why)
    made_on = partial(_may_be_of, size)
    if resumed and (own := telling(*measured_work(store, job, plan, made_on=made_on))) is not None:
        return KnownRate(pixel_steps=own, source="earlier runs of this job")
    if config.engine.name == "simulated":
        return _remembered(job, [_SIMULATED])
    if not size.shape.gpus:
        return KnownRate(pixel_steps=None, source="nodes without GPUs are not told apart")
    if len(size.accelerators) != 1:
        which = ", ".join(sorted(size.accelerators))
        none = "the cluster has no node yet that says which GPU it has"
        why = f"its nodes have different GPUs ({which})" if which else none
        return KnownRate(pixel_steps=None, source=why)
    (accelerator,) = size.accelerators
    like = cluster_key(config, job.model_revision, device="")
    found = [one for one in rates.measured_devices(like) if is_named(one, accelerator)]
    return _remembered(job, found or [accelerator])


def _may_be_of(size: Resources, device: str) -> bool:
    """Whether a worker may have such a device, as far as its nodes tell: a resumed job may have
    been elsewhere before."""
    if device == _SIMULATED:
        return True
    if device == CPU:
        return not size.shape.gpus
    found = size.accelerators
    return size.shape.gpus > 0 and (not found or any(is_named(device, one) for one in found))


def is_named(device: str, accelerator: str) -> bool:
    """Whether a device as torch names it ("NVIDIA A100-SXM4-80GB") is one as Ray does ("A100")."""
    words = set(device.translate(_WORDS).split())
    return bool(accelerator) and words >= set(accelerator.translate(_WORDS).split())


def _remembered(job: JobRecord, devices: list[str]) -> KnownRate:
    """What earlier jobs on clusters showed of the one device that it can be."""
    if len(devices) > 1:
        why = f"it may be any of {', '.join(sorted(devices))}"
        return KnownRate(pixel_steps=None, source=why)
    (device,) = devices
    rate = rates.measured_rate(cluster_key(job.config, job.model_revision, device=device))
    where = "on a cluster" if device == _SIMULATED else f"on a cluster's {device}"
    why = f"no run of this model with this engine {where} was measured from here"
    return KnownRate(pixel_steps=rate, source=f"earlier runs {where}" if rate else why)
