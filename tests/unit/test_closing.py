"""The closing proof holds for an output as it was made, and fails for each thing that is forged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from cluster.coordinator import Snapshot
from cluster.supervisor import RunEnd
from jobs.cli import main
from jobs.finish import finish
from tests import closing
from tests.closing import Folder, Proof, prove
from tests.small_jobs import run_small_job, work_on

ROWS = [{"prompt": f"number {n}", "steps": 2 + n % 3, "num_images": 1 + n % 2} for n in range(12)]
BOOK = {
    "version": "odd",
    "currency": "USD",
    "instances": [
        {
            "instance_type": "local",
            "price_per_hour": "98765.432109876",
            "vcpus": 3,
        }
    ],
    "storage": [
        {"url": "/", "per_gb_month": "0.023", "per_1000_writes": "0.005", "per_1000_reads": "1"}
    ],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of two runs, finished, with what it costs as ``imagemill cost`` tells it."""
    folder = tmp_path_factory.mktemp("made")
    book = folder / "book.yaml"
    book.write_text(yaml.safe_dump(BOOK))
    prices = {"pricing.book": str(book), "pricing.storage_months": 3}
    small = work_on(run_small_job(folder, ROWS, shards=[0], **prices))
    end = RunEnd(finished=True, reason="", snapshot=cast(Snapshot, None), restarts=0)
    finish(small.store, small.job, small.plan, generation=0, end=end, wall_s=1.0)
    output = folder / "output"
    words = ["cost", str(output), "--format", "json", "--out", str(folder / "cost.json")]
    assert main(words) == 0
    shutil.move(folder / "cost.json", output / "told.json")
    return output


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    """A copy of the output, to be forged."""
    return shutil.copytree(made, tmp_path / "output")


def proven(output: Path) -> Proof:
    return prove(Folder(output), json.loads((output / "told.json").read_text()))


def test_price_times_lifetime_is_what_cost_tells(output: Path) -> None:
    proof = proven(output)
    assert proof.problems == []
    assert proof.workers == 2
    assert proof.lifetimes_nano > 0
    assert proof.storage_nano > 0
    assert proof.told_nano == proof.whole_nano
    stamps = [json.loads(path.read_text()) for path in output.glob("workers/*.json")]
    assert proof.lived_ns == sum(stamp["lifetime_ns"] for stamp in stamps)


def test_the_proof_imports_nothing_of_what_it_proves() -> None:
    path = Path(closing.__file__)
    script = f"import runpy, sys; runpy.run_path({str(path)!r}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=path.parent
    )
    rooms = {"conf", "operators", "cluster", "jobs", "tests"}
    assert rooms & {name.partition(".")[0] for name in done.stdout.split()} == set()


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


def change_lines(output: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = output / "ledger/workers.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def tell_a_unit_more(output: Path) -> None:
    def more(told: dict[str, Any]) -> None:
        total = told["totals"][0]
        total["cost"] = str(Decimal(total["cost"]) + Decimal("1e-9"))

    change_json(output / "told.json", more)


def shift_a_unit_between_kinds(output: Path) -> None:
    def shift(told: dict[str, Any]) -> None:
        total = told["totals"][0]
        total["used"], total["idle"] = total["idle"], total["used"]

    change_json(output / "told.json", shift)


def live_longer(output: Path) -> None:
    path = min(output.glob("workers/*.json"))
    change_json(path, lambda stamp: stamp.update(lifetime_ns=stamp["lifetime_ns"] + 10**6))


def charge_a_unit_more(output: Path) -> None:
    def more(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("amount_nano")
        return table.set_column(place, table.schema.field(place), pc.add(table["amount_nano"], 1))

    change_lines(output, more)


def lose_a_line(output: Path) -> None:
    change_lines(
        output, lambda table: table.filter(pc.not_equal(table["kind"].cast(pa.string()), "idle"))
    )


def repeat_a_line(output: Path) -> None:
    change_lines(output, lambda table: pa.concat_tables([table, table.slice(0, 1)]))


def lower_the_prices(output: Path) -> None:
    path = next(iter(output.glob("prices/*.json")))
    path.write_text(path.read_text().replace("98765432109876", "98765432109870"))


def forge_the_workers_price(output: Path) -> None:
    path = min(output.glob("workers/*.json"))
    change_json(path, lambda stamp: stamp["price"].update(nano_per_hour=1))


def forget_a_worker(output: Path) -> None:
    for path in output.glob("commits/*/*/*.json"):
        path.unlink()
    min(output.glob("workers/*.json")).unlink()


def make_an_image_vanish(output: Path) -> None:
    change_json(output / "told.json", lambda told: told["totals"][0].update(images=1))


def count_in_two_currencies(output: Path) -> None:
    change_json(output / "told.json", lambda told: told.update(totals=told["totals"] * 2))


def lose_the_ledger(output: Path) -> None:
    (output / "ledger/workers.parquet").unlink()


def keep_it_for_nothing(output: Path) -> None:
    def free(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        for row in rows:
            if row["kind"] == "storage":
                row["amount_nano"] -= 2
        return pa.Table.from_pylist(rows, schema=table.schema)

    change_lines(output, free)


@pytest.mark.parametrize(
    ("forge", "named"),
    [
        (tell_a_unit_more, "nano; lifetimes and requests come to"),
        (shift_a_unit_between_kinds, "used; the lines hold"),
        (live_longer, "ns; its lines hold"),
        (charge_a_unit_more, "price x lifetime is"),
        (lose_a_line, "ns; its lines hold"),
        (repeat_a_line, "is there twice"),
        (lower_the_prices, "is not what it was"),
        (forge_the_workers_price, "nano an hour, which is not in its book"),
        (forget_a_worker, "lines of workers that never lived"),
        (make_an_image_vanish, "it tells 1 images"),
        (count_in_two_currencies, "it tells 2 totals; expected one currency"),
        (lose_the_ledger, "ledger/workers.parquet is missing"),
        (keep_it_for_nothing, "storage is charged to nobody, or not at its price"),
    ],
)
def test_what_is_forged_is_found_out(
    output: Path, forge: Callable[[Path], None], named: str
) -> None:
    forge(output)
    problems = proven(output).problems
    assert any(named in problem for problem in problems), problems


def test_the_script_says_what_it_added_up_and_ends_with_1_where_it_does_not_close(
    output: Path,
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, closing.__file__, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = run(str(output), str(output / "told.json"))
    assert good.returncode == 0, good.stderr
    assert good.stdout.startswith("workers: 2; they lived ")
    assert good.stdout.endswith("closed to the last unit\n")
    live_longer(output)
    bad = run(str(output), str(output / "told.json"))
    assert bad.returncode == 1
    assert "its lines hold" in bad.stdout
    assert run().returncode == 2
