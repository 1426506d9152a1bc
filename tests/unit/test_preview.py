"""What --dry-run counts, and the remembered rates behind its estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from input_tables import DEFAULTS, Counting, columns, job_config, write_rows

from cluster.input_files import InputFiles
from jobs import rates
from jobs.plan import make_plan
from jobs.preview import Preview, make_preview
from jobs.rates import RateKey

KEY = RateKey(engine="stepwise", model="shapes", revision="r1", device="cpu-2", max_batch=8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imagemill" / "rates.json"


def preview_of(path: Path, **changes: Any) -> Preview:
    config = job_config(path, **changes)
    planned = make_plan(config, None)
    return make_preview(
        planned.inputs, config.input.columns, DEFAULTS, InputFiles().open, planned.shard_rows
    )


def test_counts_by_shape_steps_sampler_and_guidance(tmp_path: Path) -> None:
    table = {
        "prompt": ["a", "b", "c", "", None],
        "width": [None, 128, 128, None, None],
        "steps": [None, 10, 10, None, None],
        "sampler": [None, "heun", "euler", None, None],
        "guidance_scale": [None, 1.0, 3.0, None, None],
        "num_images": [2, 1, 3, None, None],
    }
    found = preview_of(write_rows(tmp_path / "p.parquet", table))
    assert (found.rows, found.images, found.guided, found.unguided) == (5, 6, 5, 1)
    assert found.shapes == {(64, 64): 2, (128, 64): 4}
    assert found.steps == {10: 4, 20: 2}
    assert found.samplers == {"ddim": 2, "euler": 3, "heun": 1}
    assert found.rejected == {"empty_prompt": 2}
    assert found.examples == {"empty_prompt": "the prompt is empty; expected some text"}
    assert found.weighted_steps == 2 * 40 + 19 + 3 * 20
    assert found.pixel_steps == 64 * 64 * (2 * 40) + 128 * 64 * (19 + 3 * 20)


def test_guidance_adds_nothing_with_a_model_that_sees_each_row_once(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.parquet", {"prompt": ["a", "b"], "guidance_scale": [9.0, 1.0]})
    config = job_config(path)
    planned = make_plan(config, None)
    given = (planned.inputs, config.input.columns, DEFAULTS, InputFiles().open)
    twice, once = make_preview(*given), make_preview(*given, two_pass_guidance=False)
    assert (twice.guided, twice.weighted_steps) == (1, 3 * 20)
    assert (once.guided, once.unguided, once.weighted_steps) == (0, 2, 2 * 20)


def test_rejections_by_reason(tmp_path: Path) -> None:
    table = {"prompt": ["a", "b", "c"], "width": [63, 64, 8192], "sampler": ["ddim", "no", "ddim"]}
    found = preview_of(write_rows(tmp_path / "p.parquet", table))
    assert found.rejected == {"bad_size": 2, "unknown_sampler": 1}
    assert found.images == 0


def test_only_the_needed_columns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = [f"{i}".zfill(100_000)[::-1] for i in range(200)]
    table = {"prompt": ["x"] * 200, "wide": wide}
    path = write_rows(tmp_path / "p.parquet", table, compression="none", use_dictionary=False)
    planned = make_plan(job_config(path), None)
    Counting.total = 0
    found = make_preview(planned.inputs, columns(), DEFAULTS, Counting)
    assert found.images == 200
    assert Counting.total < 1_000_000 < path.stat().st_size


def test_unreadable_rows_are_counted_by_shard(tmp_path: Path) -> None:
    table = {"prompt": [f"{i:0100d}" for i in range(200)]}
    path = write_rows(
        tmp_path / "p.parquet", table, row_group_size=50, use_dictionary=False, compression="none"
    )
    chunk = pq.ParquetFile(path).metadata.row_group(2).column(0)
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset)
        file.write(b"\xff" * (chunk.total_compressed_size // 2))
    found = preview_of(path, shard_rows=25)
    assert found.rows == 200
    assert found.rejected == {"unreadable_rows": 50}
    assert found.images == 150
    assert "p.parquet is damaged" in found.examples["unreadable_rows"]


def test_csv_is_previewed_too(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,steps\na,5\nb,x\n")
    found = preview_of(path)
    assert (found.steps, found.rejected) == ({5: 1}, {"bad_steps": 1})


def test_empty_input(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,steps\n")
    found = preview_of(path)
    assert (found.rows, found.images, found.pixel_steps, found.shapes) == (0, 0, 0, {})


def test_estimate_from_a_remembered_rate(tmp_path: Path, cache: Path) -> None:
    found = preview_of(write_rows(tmp_path / "p.parquet", {"prompt": ["x"] * 10}))
    assert found.seconds(KEY) is None
    rates.remember(KEY, pixel_steps=found.pixel_steps * 2, seconds=10)
    assert found.seconds(KEY) == pytest.approx(5)
    assert found.seconds(KEY, workers=5) == pytest.approx(1)
    other = RateKey(engine="stepwise", model="shapes", revision="r2", device="cpu-2", max_batch=8)
    assert found.seconds(other) is None
    assert cache.exists()


def test_newer_rates_replace_older_ones_and_keep_the_others() -> None:
    other = RateKey(engine="simulated", model="m", revision="r", device="cpu-2", max_batch=1)
    rates.remember(other, pixel_steps=1, seconds=1)
    rates.remember(KEY, pixel_steps=100, seconds=10)
    rates.remember(KEY, pixel_steps=200, seconds=10)
    assert rates.estimate(KEY, 40) == 2
    assert rates.estimate(other, 40) == 40


def test_nothing_is_learned_from_nothing(cache: Path) -> None:
    rates.remember(KEY, pixel_steps=0, seconds=1)
    rates.remember(KEY, pixel_steps=1, seconds=0)
    assert not cache.exists()
