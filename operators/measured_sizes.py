"""Batch sizes that are found by measuring, kept for the next run on this machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from conf.schema import EngineConfig
from operators.batch_size import BatchSizes
from operators.batcher import Shape
from operators.device import Device
from operators.device_memory import Headroom
from operators.engine import EngineInfo
from operators.remembered import RememberedNumbers

_log = logging.getLogger("imagemill")
_FILE = "batch_sizes"


def remembered_slots(info: EngineInfo, engine: EngineConfig, shape: Shape) -> int | None:
    """What another run found for this model, device, options and shape, if any."""
    found = RememberedNumbers(_FILE).get(*_key(info, engine), *shape)
    return None if found is None else max(1, int(found))


def measured_sizes(
    info: EngineInfo, engine: EngineConfig, device: Device, *, fixed: Mapping[Shape, int]
) -> BatchSizes:
    """Batch sizes by measuring, remembered for this model and options on this kind of device.

    The shapes of ``fixed`` have theirs already.
    """
    remembered = RememberedNumbers(_FILE)
    key = _key(info, engine)

    def first(shape: Shape) -> int | None:
        return fixed.get(shape) or remembered_slots(info, engine, shape)

    def keep(shape: Shape, slots: int) -> None:
        remembered.keep(slots, *key, *shape)
        message = "a batch of %d is best for images of %d x %d pixels"
        _log.info(message, slots, shape[1], shape[0], extra={"event": "batch_size_found"})

    return BatchSizes(
        most=info.max_batch, may_double=Headroom(device).may_double, first=first, found=keep
    )


def _key(info: EngineInfo, engine: EngineConfig) -> tuple[object, ...]:
    """What decides how much fits and how long it takes, beside the shape."""
    cores = "" if info.device != "cpu" else torch.get_num_threads()
    options = (engine.offload, engine.attention)
    return (info.model_revision, info.device, cores, info.precision, *options)
