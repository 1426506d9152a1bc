"""Configurations and input files for the tests of planning and reading."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from conf.parser import parse_config
from conf.schema import ColumnsConfig, RunConfig
from operators.request import RowDefaults

CONF = Path(__file__).parents[2] / "conf"

DEFAULTS = RowDefaults(
    negative_prompt="",
    width=64,
    height=64,
    steps=20,
    guidance_scale=4.0,
    sampler="ddim",
    num_images=1,
    job_seed=0,
    max_pixels=512 * 512,
)


def _yaml(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CONF / name).read_text()))


def job_config(path: object, output: object = "memory://out", **changes: Any) -> RunConfig:
    """The shipped configuration with this input; ``changes`` are ``input.*`` keys or columns."""
    plain = copy.deepcopy(_yaml("config.yaml"))
    plain.pop("defaults")
    plain["model"] = _yaml("model/shapes.yaml")
    plain["engine"] = _yaml("engine/stepwise.yaml")
    plain["pricing"]["currency"] = "USD"
    plain["input"]["path"] = str(path)
    plain["output"]["path"] = str(output)
    plain["input"]["columns"].update(changes.pop("columns", {}))
    plain["input"].update(changes)
    return parse_config(plain)


def columns(**changes: str) -> ColumnsConfig:
    """The default column names, with changes."""
    return job_config("x", columns=changes).input.columns


def write_rows(path: Path, table: pa.Table | dict[str, Any], **options: Any) -> Path:
    """A Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(table, dict):
        table = pa.table(table)
    pq.write_table(table, path, **options)
    return path


def prompts(count: int, start: int = 0) -> dict[str, Any]:
    """A plain input: ``count`` prompts."""
    return {"prompt": [f"a red circle {start + i}" for i in range(count)]}


class Counting(io.FileIO):
    """A file that counts the bytes read from it."""

    total = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size)
        Counting.total += len(data)
        return data
