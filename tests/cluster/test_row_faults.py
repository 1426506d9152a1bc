"""Rows that cannot become images cost themselves and nothing else, with the model that ships."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.cluster.job_process import imagemill, images_by_id

GOOD = {"prompt": "a small red circle on a black background", "steps": 3.0}
FAULTS: list[tuple[dict[str, object], str]] = [
    ({"prompt": None}, "empty_prompt"),
    ({"prompt": ""}, "empty_prompt"),
    ({"prompt": " \t\n"}, "empty_prompt"),
    ({"width": 63.0}, "bad_size"),
    ({"width": 0.0}, "bad_size"),
    ({"height": -8.0}, "bad_size"),
    ({"height": 8_000_000.0}, "bad_size"),
    ({"steps": 0.0}, "bad_steps"),
    ({"steps": 1001.0}, "bad_steps"),
    ({"steps": 2.5}, "bad_steps"),
    ({"guidance_scale": math.nan}, "bad_guidance_scale"),
    ({"guidance_scale": math.inf}, "bad_guidance_scale"),
    ({"guidance_scale": -1.0}, "bad_guidance_scale"),
    ({"guidance_scale": 1e38}, "nan_image"),
    ({"sampler": "magic"}, "unknown_sampler"),
    ({"seed": -1.0}, "bad_seed"),
    ({"seed": float(2**63)}, "bad_seed"),
    ({"num_images": 0.0}, "bad_num_images"),
]
FINE: list[dict[str, object]] = [
    {},
    {"steps": 1.0},
    {"prompt": "\N{GRINNING FACE}\N{BLACK STAR}"},
    {"prompt": "word " * 2000},
    {"num_images": 3.0},
    {"seed": float(2**53)},
]
COLUMNS = pa.schema(
    [
        ("prompt", pa.large_string()),
        ("width", pa.float64()),
        ("height", pa.float64()),
        ("steps", pa.float64()),
        ("guidance_scale", pa.float64()),
        ("sampler", pa.dictionary(pa.int8(), pa.string())),
        ("seed", pa.float64()),
        ("num_images", pa.float64()),
        ("note", pa.list_(pa.struct([("a", pa.int8())]))),
    ]
)


def test_bad_rows_and_a_broken_file_are_isolated_and_recorded(tmp_path: Path) -> None:
    folder, output = tmp_path / "prompts", tmp_path / "out"
    folder.mkdir()
    rows = [{**GOOD, **change} for change, _ in FAULTS] + [{**GOOD, **more} for more in FINE]
    pq.write_table(pa.Table.from_pylist(rows, schema=COLUMNS), folder / "a.parquet")
    (folder / "b.parquet").write_bytes(b"PAR1 this was a Parquet file once")
    pq.write_table(pa.table({"prompt": ["a large blue star"], "steps": [2]}), folder / "c.parquet")
    status, text = imagemill("run", f"input.path={folder}", f"output.path={output}")
    assert status == 1, text
    assert "b.parquet" in text
    status, checked = imagemill("verify", str(output))
    assert status == 0, checked
    tables = [pq.read_table(path) for path in (output / "quarantine").glob("*.parquet")]
    found = {row["row_id"]: row for table in tables for row in table.to_pylist()}
    assert {number: row["reason"] for number, row in found.items()} == {
        number: reason for number, (_, reason) in enumerate(FAULTS)
    }
    assert {row["stage"] for row in found.values()} == {"read", "check"}
    assert all(row["message"] and row["file"].endswith("a.parquet") for row in found.values())
    extra_images = 2
    assert len(images_by_id(output)) == len(FINE) + extra_images + 1


def test_an_empty_table_is_a_finished_job_without_images(tmp_path: Path) -> None:
    source, output = tmp_path / "empty.parquet", tmp_path / "out"
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), source)
    status, text = imagemill(
        "run", f"input.path={source}", f"output.path={output}", "engine=simulated"
    )
    assert status == 0, text
    assert (output / "report.html").exists()
    assert (output / "contact_sheet.png").exists()
    status, text = imagemill("verify", str(output))
    assert status == 0, text
    assert "finished" in text
