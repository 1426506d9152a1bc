"""An output opens with `datasets` by its folder's name, and carried columns survive on the way."""

from __future__ import annotations

import base64
import datetime
import decimal
import io
import json
import re
import tarfile
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import layout
from cluster.carried_values import json_rows, json_value
from cluster.job_log import JobRecord, write_job
from cluster.lifetime import utc_now
from cluster.plan_file import PlanReader, write_plan
from cluster.store import Store
from cluster.tables import METADATA
from jobs.figures import ReportFacts
from jobs.plan import make_plan
from jobs.report import image_list, write_report
from tests.small_jobs import SmallJob, run_small_job, small_config, work_on
from tests.stores import ONCE

FORMATS = ("files", "webdataset", "parquet")
ROWS = 10
ODD = pa.table(
    {
        "prompt": [f"picture {i}" for i in range(ROWS)],
        "id": [f"é{i}" for i in range(ROWS)],
        "late": [None] * 5 + [float("nan"), 1.0, 2.0, 3.0, float("-inf")],
        "raw": [b"\xff\x00"] * ROWS,
        "when": [datetime.datetime(2026, 1, 2)] * ROWS,
        "price": [decimal.Decimal("1.50")] * ROWS,
        "pairs": pa.array([[("a", 1)], None] * 5, pa.map_(pa.string(), pa.int64())),
        "list": [[1.5, 2.0]] * ROWS,
        "struct": [{"a": 1, "b": [{"c": "x"}]}] * ROWS,
        "ø \U0001f600\x85": ["z"] * ROWS,
        "source_file_name": ["q.png"] * ROWS,
        "nothing": pa.nulls(ROWS),
        "kind": pa.array(["a"] * ROWS).dictionary_encode(),
        "took": [datetime.timedelta(1)] * ROWS,
        "day": [datetime.date(2020, 1, 1)] * ROWS,
    }
)
OTHER = pa.table({"prompt": ["b"] * 3, "other": [1, 2, 3], "list": [[1], [2], [3]]})


def run_on(tmp_path: Path, output_format: str, *tables: pa.Table) -> SmallJob:
    """A finished small job with its report, one input file a table."""
    (tmp_path / "input").mkdir()
    for place, table in enumerate(tables):
        pq.write_table(table, tmp_path / "input" / f"{place}.parquet")
    config = small_config(tmp_path, {"output.format": output_format})
    store = Store(config.output.path, ONCE)
    planned = make_plan(config, store)
    job = JobRecord(
        config=config,
        digest=config.digest(),
        version="0.0.0",
        model_revision="simulated",
        created_at=utc_now(),
    )
    write_job(store, job)
    write_plan(store, planned.inputs, planned.shards)
    small = SmallJob(store=store, config=config, plan=PlanReader(store), job=job, outcomes=())
    small = work_on(small)
    assert small.outcomes[-1].error is None, small.outcomes[-1].message
    report(small)
    return small


def report(small: SmallJob) -> str:
    """Write the report; returns the note."""
    totals, facts = small.totals(), ReportFacts()
    write_report(small.store, small.job, small.plan, totals, small.bill(), facts)
    return (small.store.get(layout.README) or b"").decode()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``load(folder)``: `datasets.load_dataset` without a network, as a list of rows."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def rows(folder: str) -> list[dict[str, Any]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            splits = datasets.load_dataset(folder, cache_dir=str(tmp_path / "cache"))
            assert list(splits) == ["train"]
            return list(splits["train"])

    return rows


def by_prompt(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["prompt"]: row for row in rows}


@pytest.mark.parametrize("output_format", ["files", "parquet"])
@pytest.mark.parametrize("tables", [[ODD], [ODD, OTHER]], ids=["one file", "files that differ"])
def test_datasets_loads_pictures_with_their_columns(
    tmp_path: Path, load: Any, output_format: str, tables: list[pa.Table]
) -> None:
    small = run_on(tmp_path, output_format, *tables)
    rows = load(small.config.output.path)
    assert len(rows) == sum(table.num_rows for table in tables)
    row = by_prompt(rows)["picture 0"]
    assert row["image"].size == (64, 64)
    assert (row["id"], row["late"], row["raw"]) == ("é0", None, b"\xff\x00")
    assert row["pairs"] == [{"key": "a", "value": 1}]
    assert row["price"] == decimal.Decimal("1.50")
    assert row["ø \U0001f600\x85"] == "z"
    name = "source_filename" if output_format == "files" else "source_file_name"
    assert row[name] == "q.png"
    if len(tables) == 2:
        other = by_prompt(rows)["b"]
        assert (other["other"], other["late"]) in {(1, None), (2, None), (3, None)}


@pytest.mark.parametrize("tables", [[ODD], [ODD, OTHER]], ids=["one file", "files that differ"])
def test_datasets_loads_a_webdataset_although_its_first_rows_are_null(
    tmp_path: Path, load: Any, tables: list[pa.Table]
) -> None:
    small = run_on(tmp_path, "webdataset", *tables)
    rows = load(small.config.output.path)
    assert len(rows) == sum(table.num_rows for table in tables)
    row = next(row for row in rows if row["txt"] == "picture 6")
    assert row["png"].size == (64, 64)
    described = row["json"]
    assert (described["late"], described["raw"]) == (1.0, base64.b64encode(b"\xff\x00").decode())
    assert (described["price"], described["when"]) == ("1.50", "2026-01-02T00:00:00")
    assert described["pairs"] == [{"key": "a", "value": 1}]


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_notes_lines_for_datasets_run_in_the_output_folder(
    tmp_path: Path, load: Any, output_format: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    small = run_on(tmp_path, output_format, ODD)
    monkeypatch.chdir(small.config.output.path)
    lines = re.findall(r"```python\n(.*?)```", report(small), re.DOTALL)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(lines, "README.md", "exec"), {})
    assert "(64, 64) picture" in capsys.readouterr().out


def test_a_list_of_images_that_would_be_too_large_is_left_out_and_the_note_has_a_way(
    tmp_path: Path, load: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    small = run_on(tmp_path, "files", ODD.drop_columns("pairs"))
    assert small.store.exists(image_list.IMAGE_LIST)
    monkeypatch.setattr(image_list, "LARGEST_LIST", 10)
    note = report(small)
    assert not small.store.exists(image_list.IMAGE_LIST)
    assert not note.startswith("---")
    monkeypatch.chdir(small.config.output.path)
    lines = re.findall(r"```python\n(.*?)```", note, re.DOTALL)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(lines, "README.md", "exec"), {})
    assert "(64, 64) picture" in capsys.readouterr().out


def test_a_job_without_images_promises_no_dataset(tmp_path: Path) -> None:
    small = run_on(tmp_path, "files", pa.table({"prompt": ["", " "]}))
    assert not report(small).startswith("---")
    assert not small.store.exists(image_list.IMAGE_LIST)


def test_a_column_that_two_files_hold_in_types_that_do_not_meet_is_left_out_of_the_list(
    tmp_path: Path, load: Any
) -> None:
    clash = pa.table({"prompt": ["b"], "list": ["text"]})
    small = run_on(tmp_path, "files", ODD, clash)
    rows = by_prompt(load(small.config.output.path))
    assert len(rows) == ROWS + 1
    assert "list" not in rows["b"]


def test_the_json_of_a_webdataset_is_json_whatever_the_columns_hold(tmp_path: Path) -> None:
    small = run_on(tmp_path, "webdataset", ODD)
    found = {}
    for entry in small.store.listing("shards/"):
        data = small.store.get(entry.key) or b""
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".json"):
                    file = tar.extractfile(member)
                    assert file is not None
                    row = json.loads(file.read(), parse_constant=_refused)
                    found[row["prompt"]] = row
    assert len(found) == ROWS
    assert [found[f"picture {i}"]["late"] for i in (5, 6, 9)] == [None, 1.0, None]
    assert found["picture 0"]["pairs"] == [{"key": "a", "value": 1}]
    assert found["picture 1"]["pairs"] is None
    assert found["picture 0"]["day"] == "2020-01-01"


def _refused(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_the_metadata_keep_maps_as_maps(tmp_path: Path) -> None:
    small = run_on(tmp_path, "parquet", ODD)
    (table, *_) = [
        pq.read_table(io.BytesIO(small.store.get(entry.key) or b""))
        for entry in small.store.listing("metadata/")
    ]
    assert pa.types.is_map(table.schema.field("pairs").type)


def test_the_metadata_say_in_which_precision_and_on_which_device(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "device": "mine"}]
    small = run_small_job(tmp_path, rows, **{"engine.precision": "bfloat16"})
    (key,) = [entry.key for entry in small.store.listing("metadata/")]
    (row,) = pq.read_table(io.BytesIO(small.store.get(key) or b"")).to_pylist()
    assert (row["engine"], row["precision"], row["device"]) == (
        "simulated",
        "bfloat16",
        "simulated",
    )
    assert row["input_device"] == "mine"


def test_a_time_that_python_cannot_hold_becomes_null() -> None:
    far = pa.array([2**60, 0], pa.int64()).cast(pa.timestamp("s"))
    rows = list(json_rows(pa.table({"far": far, "n": [1, 2]})))
    assert rows == [{"far": None, "n": 1}, {"far": "1970-01-01T00:00:00", "n": 2}]


def test_values_without_a_json_type_become_text() -> None:
    assert json_value(datetime.time(1, 2)) == "01:02:00"
    assert json_value({"a": [b"x", float("inf")]}) == {"a": ["eA==", None]}


def test_own_columns_named_like_a_picture_keep_apart() -> None:
    extra = [("file_name", pa.string()), ("filename", pa.string())]
    inside = pa.struct([("file_name", pa.string())])
    schema = pa.schema([*METADATA, *extra, pa.field("deep", pa.list_(inside))])
    names = image_list.listed_names(schema)
    assert (names["filename"], names["file_name"]) == ("filename", "input_filename")
    assert "deep" not in names
