"""``costs/``: what each image cost with its share of what no image has, in every output.

Derived from metadata, stamps and bill in one streaming pass at the end of a run; rebuilt at will.
Memory is bounded by some commits' metadata and one part as it is written.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from cluster import layout
from cluster.counted_metadata import metadata_of
from cluster.exact_money import nano_of
from cluster.image_columns import IMAGE_COSTS, SHARED, SHARES
from cluster.image_shares import ImageShares, pools_of
from cluster.job_log import JobRecord
from cluster.money import as_decimal
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.tables import read_parquet, to_parquet
from cluster.totals import Bill, Totals, all_lines

PART_ROWS = 2**18
_OWN = [name for name in IMAGE_COSTS.names if name not in SHARES.names]
_READ = [*_OWN, "energy_method"]
_MONEY = ["cost", *(f"cost_{kind}" for kind in SHARED), "cost_total"]


def shares_of(job: JobRecord, totals: Totals, bill: Bill) -> ImageShares:
    """The shares of a job with this bill, for one pass over its images."""
    lines = all_lines(totals, job.config.pricing.storage_months)
    return ImageShares.of(lines, bill, totals.images, job.config.energy)


def write_image_costs(store: Store, plan: PlanReader, shares: ImageShares) -> None:
    """Write the tables over those that were there.

    Raises:
        CorruptOutput: a table that a counted commit names is missing or damaged.
        StoreFull, StoreUnavailable: they could not be written.
    """
    tables = (_costs(table, shares) for table in metadata_of(store, plan, _READ))
    written = 0
    for table in tables:
        with tempfile.TemporaryFile() as file:
            with pq.ParquetWriter(file, IMAGE_COSTS, compression="zstd") as writer:
                writer.write_table(table)
                rows = table.num_rows
                while rows < PART_ROWS and (more := next(tables, None)) is not None:
                    writer.write_table(more)
                    rows += more.num_rows
            file.seek(0)
            store.put(layout.image_costs(written), file.read())
        written += 1
    for entry in store.listing(layout.IMAGE_COSTS)[written:]:
        store.put(entry.key, to_parquet(IMAGE_COSTS.empty_table()))


def _costs(table: pa.Table, shares: ImageShares) -> pa.Table:
    found = dict(zip(SHARES.names, shares.columns(table), strict=True))
    found |= {name: table[name] for name in _OWN}
    return pa.Table.from_arrays([found[name] for name in IMAGE_COSTS.names], schema=IMAGE_COSTS)


def cost_problems(store: Store, job: JobRecord, totals: Totals, bill: Bill) -> Iterator[str]:
    """Where the sums over all images are not the bill; nothing where the tables are not there."""
    keys = [entry.key for entry in store.listing(layout.IMAGE_COSTS)]
    if not keys:
        return
    sums: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    images = 0
    try:
        for key in keys:
            table = read_parquet(store.get(key) or b"", _MONEY)
            images += table.num_rows
            for name in _MONEY:
                sums[name] += sum(nano_of(table[name]).tolist())
                unknown[name] += table[name].null_count
    except (pa.ArrowException, OSError, KeyError) as error:
        yield f"{key} cannot be read ({error})"
        return
    if images != totals.images:
        yield f"{layout.IMAGE_COSTS} holds {images} images; expected {totals.images}"
        return
    for name, amount in _expected(job, totals, bill).items():
        nulls = images if amount is None else 0
        if (sums[name], unknown[name]) != (amount or 0, nulls):
            yield (
                f"{name} in {layout.IMAGE_COSTS} comes to {as_decimal(sums[name]):f} and is null "
                f"for {unknown[name]} images; expected {as_decimal(amount or 0):f} and {nulls}"
            )


def _expected(job: JobRecord, totals: Totals, bill: Bill) -> dict[str, int | None]:
    """Column -> its sum over all images, None: it is null; but for direct costs that are known of
    some images only."""
    pools = pools_of(all_lines(totals, job.config.pricing.storage_months), bill)
    found = {f"cost_{kind}": amount for kind, amount in pools.items()}
    known = all(amount is not None for amount in pools.values())
    found["cost_total"] = bill.total_amount if known else None
    return found if bill.unpriced else {"cost": bill.amount["used"], **found}
