"""Workers on nodes of different kinds cost what their nodes cost, by Ray's labels of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.dataset as ds
import yaml

from tests.cluster.job_process import JobProcess, imagemill, write_prompts
from tests.cluster.many_nodes import ManyNodes

TYPE, MARKET = "node.kubernetes.io/instance-type", "ray.io/market-type"
BOOK = {
    "version": "two-kinds",
    "currency": "EUR",
    "instances": [
        {"instance_type": "big", "purchase_option": "spot", "price_per_hour": 8, "gpus": 2},
        {"instance_type": "big", "purchase_option": "on-demand", "price_per_hour": 20, "gpus": 2},
    ],
}


def test_the_workers_on_one_machine_pay_for_it_once(tmp_path: Path) -> None:
    rows = [{"prompt": f"number {n}", "steps": 4} for n in range(32)]
    prompts = write_prompts(tmp_path / "prompts.parquet", rows)
    output = tmp_path / "out"
    workers = 2 * (os.cpu_count() or 1)
    words = (f"input.path={prompts}", f"output.path={output}", "input.shard_rows=4")
    job = JobProcess("run", *words, "engine=simulated", f"cluster.workers={workers}")
    assert job.finish() == 0, job.output
    prices = [json.loads(file.read_text())["price"] for file in (output / "workers").glob("*.json")]
    assert len(prices) == workers
    assert {price["share"] for price in prices} == {f"1/{workers}"}
    assert sum(price["nano_per_hour"] for price in prices) == 10**8, "0.10 USD an hour, as the book"


def test_each_worker_is_priced_by_its_own_node_and_what_has_no_price_is_said(
    tmp_path: Path,
) -> None:
    rows = [{"prompt": f"number {n}", "steps": 4} for n in range(96)]
    prompts = write_prompts(tmp_path / "prompts.parquet", rows)
    book, output = tmp_path / "prices.yaml", tmp_path / "out"
    book.write_text(yaml.safe_dump(BOOK))
    with ManyNodes() as cluster:
        for kind, market in (("big", "spot"), ("big", "on-demand"), ("odd", "spot")):
            cluster.add_node(cpus=1, gpus=1, labels={TYPE: kind, MARKET: market})
        job = JobProcess(
            "run",
            f"input.path={prompts}",
            f"output.path={output}",
            "engine=simulated",
            "input.shard_rows=4",
            "cluster.workers=3",
            f"cluster.address={cluster.address}",
            f"pricing={book}",
        )
        assert job.finish() == 0, job.output
    lines = ds.dataset(output / "ledger").to_table().to_pylist()
    hourly = {
        (line["instance_type"], line["purchase_option"]): line["price_nano_per_hour"]
        for line in lines
    }
    assert hourly == {
        ("big", "spot"): 4 * 10**9,
        ("big", "on-demand"): 10 * 10**9,
        ("odd", "spot"): None,
    }
    assert {line["currency"] for line in lines} == {"EUR"}
    assert all((line["amount_nano"] is None) == (line["instance_type"] == "odd") for line in lines)
    assert "has no price: prices two-kinds have no entry for a node of which is known" in job.output
    assert "unpriced   1 of 3 workers: prices two-kinds have no entry for a node of" in job.output
    assert json.loads((output / "manifest.json").read_text())["workers_unpriced"] == 1
    assert imagemill("verify", str(output))[0] == 0
