"""The YAML at the top of an output's README.md that tells `datasets` which files are the dataset.

Pure. Documented at https://huggingface.co/docs/hub/datasets-manual-configuration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from jobs.report.columns import Columns
from jobs.report.image_list import IMAGE_LIST

_PATHS = {
    "files": [IMAGE_LIST, "images/**"],
    "webdataset": ["shards/*.tar"],
    "parquet": ["data/*.parquet"],
}
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_JSON_NUMBERS = {"halffloat": "float64", "float": "float64", "double": "float64"}
_NATIVE = {
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    "date32[day]": "date32",
    "date64[ms]": "date64",
}
"""Arrow types that `datasets` calls otherwise."""


def front_matter(output_format: str, extension: str, columns: Columns) -> str:
    """The lines between the marks; every line's value is JSON, which YAML takes as it is.

    Features are written out where ``datasets`` would guess wrong: those of a WebDataset from five
    samples, in which a column may be null, those of Parquet from the first file.
    """
    data_files = [{"split": "train", "path": _PATHS[output_format]}]
    lines = ["configs:", "- config_name: default", f"  data_files: {_yaml(data_files)}"]
    if output_format == "webdataset":
        features: list[dict[str, Any]] = [
            {"name": extension, "dtype": "image"},
            {"name": "json", "struct": [_feature(c, _as_json) for c in columns.schema]},
            {"name": "txt", "dtype": "string"},
            {"name": "__key__", "dtype": "string"},
            {"name": "__url__", "dtype": "string"},
        ]
        lines += _info(features)
    elif output_format == "parquet" and columns.mixed:
        own = [_feature(column, _as_arrow) for column in columns.schema]
        lines += _info([{"name": "image", "dtype": "image"}, *own])
    return "\n".join(lines)


def _info(features: list[dict[str, Any]]) -> list[str]:
    head = ["dataset_info:", "  config_name: default", "  features:"]
    return head + [f"  - {_yaml(feature)}" for feature in features]


def _yaml(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _feature(column: pa.Field, plain: Callable[[pa.DataType], str]) -> dict[str, Any]:
    return {"name": column.name, **_described(column.type, plain)}


def _described(kind: pa.DataType, plain: Callable[[pa.DataType], str]) -> dict[str, Any]:
    """A type as `datasets` writes it in YAML; ``plain`` names those without parts."""
    if pa.types.is_struct(kind):
        return {"struct": [_feature(part, plain) for part in kind]}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _described(kind.value_type, plain)
        return {"list": inner.get("dtype") or inner.get("struct") or inner}
    return {"dtype": plain(kind)}


def _as_json(kind: pa.DataType) -> str:
    """What ``cluster.carried_values`` makes of it."""
    if pa.types.is_boolean(kind):
        return "bool"
    return str(kind) if pa.types.is_integer(kind) else _JSON_NUMBERS.get(str(kind), "string")


def _as_arrow(kind: pa.DataType) -> str:
    return _NATIVE.get(str(kind), str(kind))
