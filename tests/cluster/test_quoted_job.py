"""A job from its quote to its closed books, each step as a user takes it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.cluster.job_process import imagemill, write_prompts

CLOSING = Path(__file__).parents[1] / "closing.py"
BOOK = {
    "version": "odd",
    "currency": "EUR",
    "instances": [
        {
            "provider": "local",
            "instance_type": "local",
            "purchase_option": "owned",
            "price_per_hour": "987.654321",
            "vcpus": 64,
        }
    ],
}


def test_a_job_stands_beside_its_quote_and_its_books_close_to_the_last_unit(
    tmp_path: Path,
) -> None:
    rows = [{"prompt": f"number {n}", "steps": 4 + n % 5} for n in range(48)]
    prompts = write_prompts(tmp_path / "prompts.parquet", rows)
    book, output = tmp_path / "prices.yaml", tmp_path / "out"
    book.write_text(yaml.safe_dump(BOOK))
    asked = [
        f"input.path={prompts}",
        f"output.path={output}",
        f"pricing={book}",
        "engine=simulated",
        "engine.simulated_speed=20",
        "input.shard_rows=8",
        "cluster.workers=2",
    ]
    status, text = imagemill("quote", *asked)
    assert status == 0, text
    assert not output.exists()
    began_s = time.monotonic()
    status, text = imagemill("run", *asked)
    wall_ns = round((time.monotonic() - began_s) * 1e9)
    assert status == 0, text
    quoted = [line for line in text.splitlines() if line.startswith("quoted ")]
    assert len(quoted) == 2, text
    assert "UTC, by a pilot of" in quoted[0]
    assert " of workers " in quoted[1]
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["quoted"]["compared"] is True
    assert manifest["quoted"]["cost"]["came_to"] == f"{float(manifest['cost']):.9f}"
    assert "Quoted against actual" in (output / "report.html").read_text()
    assert json.loads((output / "quote.json").read_text())["digest"] == manifest["digest"]

    told = tmp_path / "cost.json"
    status, text = imagemill("cost", str(output), "--format", "json", "--out", str(told))
    assert status == 0, text
    proof = subprocess.run(
        [sys.executable, str(CLOSING), str(output), str(told)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert proof.returncode == 0, proof.stdout
    assert "closed to the last unit" in proof.stdout
    stamps = [json.loads(path.read_text()) for path in output.glob("workers/*.json")]
    assert len(stamps) == 2
    # what is charged as a lifetime went by on the clock of somebody else
    assert all(0 < stamp["lifetime_ns"] < wall_ns for stamp in stamps)
