"""A composed mapping becomes a ``RunConfig``, or is refused in words.

Hydra composes a plain mapping at the edge; ``parse_config`` checks it against the classes of
``conf.schema``, and nothing behind it ever sees Hydra.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from conf.alert_target import check_alert
from conf.amounts import MOST_BUDGET, nano
from conf.deadline import parse_deadline
from conf.errors import ConfigError
from conf.keys import type_name, unknown_key
from conf.schema import MISSING, BudgetConfig, RunConfig
from conf.triton_config import check_triton

T = TypeVar("T")
_MOST_MONTHS = 1200


def parse_config(mapping: Mapping[str, Any]) -> RunConfig:
    """Check a composed mapping against the schema.

    Raises:
        UnknownKey: a key that does not exist.
        ConfigError: a missing or wrong value, with the key, what was expected and what was found.
    """
    config = _parse_dataclass(RunConfig, mapping, "")
    assert isinstance(config, RunConfig)
    return check_together(config)


def parse_group(cls: type[T], mapping: Mapping[str, Any], name: str) -> T:
    """Check one group of the configuration alone.

    Raises:
        ConfigError: as ``parse_config``.
    """
    parsed = _parse_dataclass(cls, mapping, name)
    assert isinstance(parsed, cls)
    return parsed


def check_together(config: RunConfig) -> RunConfig:
    """Check what one key alone cannot tell; returns the configuration.

    Raises:
        ConfigError: the keys, what was expected and what was found.
    """
    if config.output.quality > 100:
        raise ConfigError(f"output.quality is {config.output.quality}; expected 1 to 100")
    if config.job.max_quarantined > 1:
        raise ConfigError(
            f"job.max_quarantined is {config.job.max_quarantined}; expected a share from 0 to 1"
        )
    if "@" in (config.storage.endpoint_url or ""):
        raise ConfigError(
            "storage.endpoint_url carries credentials, which would be written to the output; "
            "expected http(s)://host:port alone"
        )
    if config.cluster.heartbeat_s * 3 > config.cluster.lease_s:
        raise ConfigError(
            f"cluster.lease_s is {config.cluster.lease_s}; expected at least three times "
            f"cluster.heartbeat_s ({config.cluster.heartbeat_s})"
        )
    if config.budget.max_cost is not None:
        nano(config.budget.max_cost, "budget.max_cost", MOST_BUDGET)
    if config.pricing.storage_months > _MOST_MONTHS:
        raise ConfigError(
            f"pricing.storage_months is {config.pricing.storage_months:g}; expected at most "
            f"{_MOST_MONTHS:,}, which are 100 years"
        )
    if config.budget.alert is not None:
        check_alert(config.budget.alert)
    if config.budget.project_max_cost is not None:
        nano(config.budget.project_max_cost, "budget.project_max_cost", MOST_BUDGET)
    if config.job.deadline is not None:
        parse_deadline(config.job.deadline)
    _check_crew(config)
    if config.engine.name == "triton":
        check_triton(config.triton)
        _check_owner(config)
        _check_servers_options(config)
    return config


def check_project(budget: BudgetConfig) -> None:
    """Check that a project's budget has a place; what is given anew of a job need not name it.

    Raises:
        ConfigError: which key needs it.
    """
    cost, hours = budget.project_max_cost, budget.project_max_hours
    if budget.store is None and (cost is not None or hours is not None):
        name = "budget.project_max_cost" if cost is not None else "budget.project_max_hours"
        raise ConfigError(
            f"{name} needs budget.store: one folder or URL for all jobs of the project, in which "
            "they say what they reserve, such as budget.store=s3://bucket/budgets"
        )


def _check_crew(config: RunConfig) -> None:
    cluster = config.cluster
    least, most = cluster.min_workers, cluster.max_workers or "null"
    if cluster.workers is not None and (
        cluster.min_workers != 1 or cluster.max_workers is not None
    ):
        raise ConfigError(
            f"cluster.workers is {cluster.workers}, an exact number, beside "
            f"cluster.min_workers={least} and cluster.max_workers={most}; expected one or the "
            "other; give cluster.workers=null for a range"
        )
    if cluster.autoscaled and cluster.address == "local":
        raise ConfigError(
            "cluster.autoscaled is true and cluster.address=local: the Ray of this machine has no "
            "autoscaler; give the cluster.address of the cluster that has one"
        )
    if cluster.max_workers is not None and cluster.max_workers < cluster.min_workers:
        raise ConfigError(
            f"cluster.max_workers is {cluster.max_workers}; expected at least cluster.min_workers "
            f"({cluster.min_workers})"
        )
    gpus = cluster.gpus_per_worker
    if gpus is not None and gpus > 1 and not gpus.is_integer():
        raise ConfigError(
            f"cluster.gpus_per_worker is {gpus}; expected a whole number, or a part of one GPU"
        )
    if config.model.needs_gpu and gpus == 0 and config.engine.runs_a_model:
        raise ConfigError(
            f"cluster.gpus_per_worker is 0, and the model {config.model.name} needs a GPU "
            "(model.needs_gpu); give each worker one, or choose another model"
        )


def _check_owner(config: RunConfig) -> None:
    """One worker keeps the servers that a job pays for: with several, each of their lifetimes would
    be charged for the same servers."""
    cluster = config.cluster
    asked = {
        "workers": cluster.workers,
        "min_workers": cluster.min_workers,
        "max_workers": cluster.max_workers,
    }
    many = [f"cluster.{name} is {value}" for name, value in asked.items() if (value or 1) > 1]
    if config.triton.owned and many:
        raise ConfigError(
            f"{many[0]}; expected 1: with triton.owned=true one worker asks all servers of "
            "triton.url, and its lifetime is what is paid for them"
        )


def _check_servers_options(config: RunConfig) -> None:
    """What a server decides when it loads its model cannot be asked for here."""
    engine = config.engine
    asked = {
        "precision": engine.precision != "auto",
        "compile": engine.compile not in ("auto", "off"),
        "attention": engine.attention != "sdpa",
        "channels_last": engine.channels_last,
        "vae_tiling": engine.vae_tiling,
        "vae_slicing": engine.vae_slicing,
        "offload": engine.offload != "off",
        "allow_tf32": engine.allow_tf32,
        "max_batch": engine.max_batch is not None,
    }
    given = [name for name, is_given in asked.items() if is_given]
    if given:
        value = str(getattr(engine, given[0])).lower()
        raise ConfigError(
            f"engine.{given[0]}={value} is nothing that engine=triton can do: a Triton server "
            "loads its model as it was exported; leave the key out, and give it to 'imagemill "
            "triton export' where that takes it"
        )


def _parse_dataclass(cls: type, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"'{path}' is {value!r}; expected a group of keys")
    hints = typing.get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(cls)]
    for name in value:
        if name not in names:
            raise unknown_key(f"{path}.{name}".lstrip("."))
    parsed: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        where = f"{path}.{item.name}".lstrip(".")
        if item.name not in value or value[item.name] == MISSING:
            raise ConfigError(f"{where} is not set; give it as {where}=…")
        parsed[item.name] = _parse_value(hints[item.name], value[item.name], where, item.metadata)
    return cls(**parsed)


def _parse_value(kind: Any, value: Any, path: str, metadata: Mapping[str, Any]) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _parse_dataclass(kind, value, path)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None:
            return None
        kind = next(arm for arm in typing.get_args(kind) if arm is not type(None))
    if typing.get_origin(kind) is dict:
        return _parse_dict(kind, value, path)
    parsed = _parse_scalar(kind, value, path)
    _check_limits(parsed, path, metadata)
    return parsed


def _parse_dict(kind: Any, value: Any, path: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} is no key itself; expected {path}.NAME=VALUE")
    key_kind, value_kind = typing.get_args(kind)
    return {
        _parse_scalar(key_kind, k, path): v
        if value_kind is Any
        else _parse_scalar(value_kind, v, f"{path}.{k}")
        for k, v in value.items()
    }


def _parse_scalar(kind: type, value: Any, path: str) -> Any:
    wrong = ConfigError(f"{path} is {value!r}; expected {type_name(kind)}")
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if kind is str:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise wrong
        return str(value)
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        raise wrong from None
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise wrong
    return int(value) if kind is int else number


def _check_limits(value: Any, path: str, metadata: Mapping[str, Any]) -> None:
    choices = metadata.get("choices", ())
    if choices and value not in choices:
        raise ConfigError(f"{path} is {value!r}; expected one of {', '.join(choices)}")
    low = metadata.get("low")
    if low is not None and value < low:
        raise ConfigError(f"{path} is {value!r}; expected at least {low}")
