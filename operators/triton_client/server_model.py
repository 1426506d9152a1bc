"""What a Triton server says of a model, and whether it is one that we can ask for images. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conf.errors import ServerUnfit
from operators.triton_signature import (
    INPUTS,
    MODEL_PARAMETER,
    OUTPUTS,
    REVISION_PARAMETER,
    VERSION,
    VERSION_PARAMETER,
    Tensor,
)

_UNKNOWN = "unknown"
_SIMULATED = "simulated"
_EXPORT = "write the repository anew with 'imagemill triton export' of this version of ImageMill"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerModel:
    """A model that fits. ``streams``: it is decoupled, so that it is asked through streams.

    ``instances`` is how many run at a time on the server, ``gpus`` whether each has one;
    ``priority_levels`` is 0 where its queue has none. ``model``
    and ``revision`` are what was exported; ``unknown`` where the export did not write it down.
    """

    model: str
    revision: str
    max_batch: int
    streams: bool
    instances: int
    gpus: bool
    priority_levels: int

    def __str__(self) -> str:
        return f"{self.model} of revision {self.revision}"

    @property
    def identity(self) -> tuple[str, str]:
        """What decides the pictures."""
        return self.model, self.revision

    @property
    def mode(self) -> str:
        """For people."""
        return "continuous" if self.streams else "dynamic batching"

    @property
    def simulated(self) -> bool:
        """Whether the server draws its pictures without a model."""
        return self.revision == _SIMULATED


def read_model(config: Any, *, server: str) -> ServerModel:
    """What a ``ModelConfig`` of Triton means for us.

    Raises:
        ServerUnfit: the model has another signature; what was expected and found.
    """
    name = config.name
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    version = parameters.get(VERSION_PARAMETER)
    if version is None:
        raise ServerUnfit(
            f"model '{name}' on {server} was not exported by ImageMill: it has no parameter "
            f"'{VERSION_PARAMETER}'; expected signature {VERSION}; {_EXPORT}"
        )
    if version != VERSION:
        raise ServerUnfit(
            f"model '{name}' on {server} has signature {version}; this client expected {VERSION}: "
            f"server and client are of different versions of ImageMill; {_EXPORT}"
        )
    _compare(config.input, INPUTS, "input", name, server)
    _compare(config.output, OUTPUTS, "output", name, server)
    groups = config.instance_group
    return ServerModel(
        model=parameters.get(MODEL_PARAMETER, name),
        revision=parameters.get(REVISION_PARAMETER, _UNKNOWN),
        max_batch=max(1, config.max_batch_size),
        streams=config.model_transaction_policy.decoupled,
        instances=max(1, sum(max(1, group.count) * max(1, len(group.gpus)) for group in groups)),
        gpus=any(group.gpus for group in groups),
        priority_levels=config.dynamic_batching.priority_levels,
    )


def check_priority(priority: int, model: ServerModel, *, server: str) -> None:
    """See that the server has a level of this priority: it takes any other for its own default.

    Raises:
        ServerUnfit: it has not.
    """
    if priority > model.priority_levels:
        levels = model.priority_levels
        expected = f"1 to {levels}, or 0 for the server's own" if levels else "0"
        raise ServerUnfit(
            f"job.priority={priority}, but {server} has {levels or 'no'} priority levels for this "
            f"model; expected {expected}; export it with more triton.priority_levels, or change "
            "job.priority"
        )


def _compare(
    found: Any, expected: Mapping[str, Tensor], what: str, model: str, server: str
) -> None:
    there = {
        tensor.name: Tensor(
            # a DataType's name is TYPE_STRING, TYPE_INT32, …
            datatype=_datatype(tensor),
            dims=tuple(tensor.dims),
        )
        for tensor in found
    }
    for name, tensor in expected.items():
        if there.get(name) != tensor:
            raise ServerUnfit(
                f"model '{model}' on {server} has {_shown(there.get(name), what, name)}; expected "
                f"{_shown(tensor, what, name)}; {_EXPORT}"
            )
    for name in there:
        if name not in expected and what == "input":
            raise ServerUnfit(
                f"model '{model}' on {server} wants the input '{name}', which this client does not "
                f"know; expected {', '.join(expected)}; {_EXPORT}"
            )


def _datatype(tensor: Any) -> str:
    named: str = (
        tensor.DESCRIPTOR.fields_by_name["data_type"]
        .enum_type.values_by_number[tensor.data_type]
        .name
    )
    plain = named.removeprefix("TYPE_")
    return "BYTES" if plain == "STRING" else plain


def _shown(tensor: Tensor | None, what: str, name: str) -> str:
    if tensor is None:
        return f"no {what} '{name}'"
    return f"the {what} '{name}' of type {tensor.datatype} and dims {list(tensor.dims)}"
