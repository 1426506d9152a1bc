"""The words of ``imagemill cost``: what it prints, where it writes, what it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from tests.made_ledgers import image_line, made_output, worker_line
from tests.small_jobs import run_small_job


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What the command prints, with errors; it ends with ``status``."""
    capsys.readouterr()
    found = main(["cost", *words])
    printed = capsys.readouterr()
    assert found == status, printed
    return printed.out if status == 0 else printed.out + printed.err


def two_models(folder: Path) -> str:
    lines = [image_line(0), image_line(1, model="sd3", amount_nano=3_000_000)]
    made_output(folder / "a", lines, [worker_line("wasted"), worker_line()])
    return str(folder / "a" / "output")


def test_the_table_shows_the_dearest_first_then_the_total_and_what_it_is_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, two_models(tmp_path), "--by", "model").splitlines()
    assert lines[0].split() == [
        *("model", "cost", "images", "per", "image", "per", "1,000", "waste", "GPU", "hours")
    ]
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["sd3", "0.003", "USD"],
        ["–", "0.002", "USD"],
        ["sdxl", "0.001", "USD"],
        ["total", "0.006", "USD"],
    ]
    assert lines[4].split()[3:8] == ["2", "0.003", "USD", "3.00", "USD"]
    assert "16.7 %" in lines[4]
    assert lines[6] == (
        "of it      used 0.004 USD (66.7 %), wasted 0.001 USD (16.7 %), idle 0.001 USD (16.7 %)"
    )
    assert len(lines) == 8, "that the engine is simulated is said too"


def test_without_a_question_there_is_one_line_a_currency(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_output(tmp_path, [image_line(0), image_line(1, currency="EUR")])
    lines = said(capsys, str(tmp_path)).splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["0.001", "EUR"], ["0.001", "USD"]]


def test_what_has_no_price_is_told_in_the_table_and_beside_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_output(tmp_path, [image_line(0), image_line(1, amount_nano=None)])
    text = said(capsys, str(tmp_path))
    assert "unpriced   1 line with 0.000278 GPU hours: no price is known" in text
    assert text.splitlines()[0].endswith("unpriced")
    main(["cost", str(tmp_path), "--format", "csv"])
    printed = capsys.readouterr()
    assert "unpriced   1 line" in printed.err
    (row,) = csv.DictReader(io.StringIO(printed.out))
    assert (row["cost"], row["cost_per_image"], row["unpriced_lines"]) == ("0.001000000", "", "1")


def test_json_keeps_every_digit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(said(capsys, two_models(tmp_path), "--by", "model,day", "--format", "json"))
    assert told["by"] == ["model", "day"]
    assert told["totals"][0]["cost"] == "0.006000000"
    assert {row["day"] for row in told["rows"]} == {"2026-03-01"}
    assert told["simulated"] == told["outputs"]


def test_parquet_goes_to_a_file_and_never_to_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = two_models(tmp_path)
    refused = said(capsys, where, "--format", "parquet", status=2)
    assert "--format parquet is not for a terminal; say where to: --out costs.parquet" in refused
    path = tmp_path / "costs.parquet"
    said(capsys, where, "--by", "model", "--format", "parquet", "--out", str(path))
    assert set(pq.read_table(path)["model"].to_pylist()) == {"sdxl", "sd3", None}


def test_a_file_that_cannot_be_written_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = two_models(tmp_path)
    for path, reason in (
        (f"{tmp_path}/none/c.csv", f"there is no folder {tmp_path}/none; make it first"),
        (f"{tmp_path}", "it is a folder, or may not be written"),
        ("s3://bucket/c.csv", "is a URL; expected a file on this machine"),
    ):
        assert reason in said(capsys, where, "--format", "csv", "--out", path, status=2)
        assert reason in said(capsys, where, "--focus", path, status=2)


def test_focus_goes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = two_models(tmp_path)
    path = str(tmp_path / "f.parquet")
    assert f"wrote {path}: 4 charges, 0.006 USD" in said(capsys, where, "--focus", path)
    text = said(capsys, where, "--focus", path, "--by", "model", status=2)
    assert "--focus writes all charges and goes with none of --by, --spread, --html" in text


def test_focus_that_lacks_lines_ends_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_output(tmp_path, [image_line(0), image_line(1, amount_nano=None)])
    text = said(capsys, str(tmp_path), "--focus", str(tmp_path / "f.csv"), status=1)
    assert "unpriced   1 line with 0.000278 GPU hours have no price" in text


def test_storage_keys_may_stand_among_the_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = two_models(tmp_path)
    assert "0.006 USD" in said(capsys, where, "storage.patience_s=1")
    text = said(capsys, "storage.patience_s=1", status=2)
    assert "imagemill cost needs an OUTPUT" in text
    for word in ("pricing.book=mine", "pricing=mine", "cluster.workers=2"):
        text = said(capsys, where, word, status=2)
        assert f"'{word}' is not for imagemill cost, which reads what is on the ledger" in text
    assert "storage.region is for S3 alone" in said(capsys, where, "storage.region=eu", status=2)


def test_a_job_at_work_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = run_small_job(tmp_path, [{"prompt": f"p{i}"} for i in range(8)], shards=[0])
    text = said(capsys, small.store.url)
    assert "unfinished 1 of 1 output: these are the costs so far" in text
    assert "SIMULATED  1 of 1 output: no model ran" in text
    text = said(capsys, small.store.url, "--focus", str(tmp_path / "f.csv"))
    assert "unfinished 1 of 1 output" in text
    assert "SIMULATED  1 of 1 output" in text


def test_more_rows_than_a_terminal_takes_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_output(tmp_path, [image_line(n, steps=n + 1) for n in range(63)])
    lines = said(capsys, str(tmp_path), "--by", "steps").splitlines()
    assert "and 3 rows more; --format csv, json or parquet has all" in lines
