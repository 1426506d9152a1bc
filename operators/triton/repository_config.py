"""The text of ``config.pbtxt``: what Triton is told of an exported model. Pure.

Inputs and outputs are exactly those of ``operators.triton_signature``. Fields are described in
Triton's ``model_config.proto``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from conf.schema import ModelConfig
from conf.triton_server import TritonServerConfig
from operators.triton_signature import (
    INPUTS,
    MODEL_PARAMETER,
    OUTPUTS,
    REVISION_PARAMETER,
    VERSION,
    VERSION_PARAMETER,
    Tensor,
)

_WARM_UP_STEPS = 2
_TYPES = {"BYTES": "TYPE_STRING"}
"""Where the configuration names a type otherwise than ``TYPE_`` and the protocol's name."""
_PACKED = {"INT32": "<i", "INT64": "<q", "FP64": "<d"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model as a server sees it. ``gpus``: None for all of the server's, 0 for the CPU."""

    name: str
    model: ModelConfig
    revision: str
    max_batch: int
    gpus: int | None


def config_text(served: Served, config: TritonServerConfig) -> str:
    """``config.pbtxt``."""
    continuous = config.mode == "continuous"
    blocks = [
        f"name: {_quoted(served.name)}",
        'backend: "python"',
        f"max_batch_size: {served.max_batch}",
        _tensors("input", INPUTS),
        _tensors("output", OUTPUTS),
        _instances(served.gpus),
        _batching(served, config),
        "model_transaction_policy { decoupled: true }" if continuous else "",
        "version_policy { latest { num_versions: 1 } }",
        _warm_up(served),
        _parameter(VERSION_PARAMETER, VERSION),
        _parameter(MODEL_PARAMETER, served.model.name),
        _parameter(REVISION_PARAMETER, served.revision),
    ]
    return "\n".join(block for block in blocks if block) + "\n"


def warm_up_files(served: Served) -> dict[str, bytes]:
    """What each input of the warm-up request holds: the model's own size, sampler and guidance."""
    model = served.model
    values: dict[str, str | float] = {
        "prompt": "a picture to warm up with",
        "negative_prompt": "",
        "seed": 0,
        "steps": _WARM_UP_STEPS,
        "guidance_scale": model.guidance_scale,
        "sampler": model.sampler,
        "width": model.width,
        "height": model.height,
    }
    return {name: _packed(tensor, values[name]) for name, tensor in INPUTS.items()}


def _packed(tensor: Tensor, value: str | float) -> bytes:
    if isinstance(value, str):
        text = value.encode()
        return struct.pack("<I", len(text)) + text
    return struct.pack(_PACKED[tensor.datatype], value)


def _tensors(kind: str, tensors: Mapping[str, Tensor]) -> str:
    entries = [
        f"  {{ name: {_quoted(name)} {_type_and_dims(tensor)} }}"
        for name, tensor in tensors.items()
    ]
    return "\n".join([f"{kind} [", ",\n".join(entries), "]"])


def _type_and_dims(tensor: Tensor) -> str:
    kind = _TYPES.get(tensor.datatype, f"TYPE_{tensor.datatype}")
    return f"data_type: {kind} dims: [ {', '.join(map(str, tensor.dims))} ]"


def _instances(gpus: int | None) -> str:
    if gpus == 0:
        return "instance_group [ { count: 1 kind: KIND_CPU } ]"
    which = "" if gpus is None else f" gpus: [ {', '.join(map(str, range(gpus)))} ]"
    return f"instance_group [ {{ count: 1 kind: KIND_GPU{which} }} ]"


def _batching(served: Served, config: TritonServerConfig) -> str:
    lines = ["dynamic_batching {"]
    if config.mode == "dynamic":
        lines += [
            f"  preferred_batch_size: [ {served.max_batch} ]",
            f"  max_queue_delay_microseconds: {round(config.delay_ms * 1e3)}",
        ]
    timeout_s = config.queue_timeout_s or 0
    lines += [
        f"  priority_levels: {config.priority_levels}",
        f"  default_priority_level: {(config.priority_levels + 1) // 2}",
        "  default_queue_policy {",
        f"    timeout_action: {config.timeout_action.upper()}",
        f"    default_timeout_microseconds: {round(timeout_s * 1e6)}",
        "    allow_timeout_override: true",
        f"    max_queue_size: {config.max_queue}",
        "  }",
        "}",
    ]
    return "\n".join(lines)


def _warm_up(served: Served) -> str:
    inputs = [
        f"    inputs {{ key: {_quoted(name)}\n"
        f"      value {{ {_type_and_dims(tensor)} input_data_file: {_quoted(name)} }} }}"
        for name, tensor in INPUTS.items()
    ]
    head = f'  {{ name: "a full batch" batch_size: {served.max_batch} count: 1'
    return "\n".join(["model_warmup [", head, *inputs, "  }", "]"])


def _parameter(name: str, value: str) -> str:
    return f"parameters {{ key: {_quoted(name)} value {{ string_value: {_quoted(value)} }} }}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
