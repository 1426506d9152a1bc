"""``imagemill cost --focus``: the ledger as charges of FOCUS, the FinOps cost specification.

Every line with a price is in exactly one charge, so BilledCost sums exactly to the ledger.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from cluster.ledger import PRICE_COLUMNS
from conf.errors import ConfigError
from jobs.cost.ask import now_is
from jobs.cost.dimensions import DAY_US
from jobs.cost.focus_columns import columns, derived
from jobs.cost.lines import Wanted, ledger
from jobs.cost.outputs import Output
from jobs.figures import format_money, number, plural

DETAILS = ("charge", "image")
_SUFFIXES = {".parquet": "FORMAT parquet, COMPRESSION zstd", ".csv": "FORMAT csv, HEADER true"}
_ORIGIN = ("output", "project", "node", "day", *PRICE_COLUMNS)
"""What a charge that is split has in common with the others of its origin."""
_GROUP = ("output", "job", "project", "node", "kind", "model", "unit", *PRICE_COLUMNS)
_READ = ("tags", "corrects", "period_start", "gpu_ns", "quantity", "amount_nano")
_CHARGED = "priced AND (amount_nano <> 0 OR gpu_ns <> 0 OR quantity_nano <> 0)"
_OF_IMAGE = ("line_id", "image_id", "worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusExport:
    """What was written. ``amounts`` is (currency, sum in 1e-9 units); lines without a price are not
    in the file, since FOCUS has no charge without a cost. ``to_come`` is what of the amounts lies
    on days after this one."""

    path: Path
    charges: int
    amounts: tuple[tuple[str, int], ...]
    to_come: tuple[tuple[str, int], ...]
    unpriced_lines: int
    unpriced_gpu_hours: float


def export_focus(outputs: Sequence[Output], path: Path, detail: str = DETAILS[0]) -> FocusExport:
    """Write the charges of the outputs to a local file, whole or not at all.

    Args:
        path: ends in .parquet or .csv.
        detail: ``charge`` sums up a job's lines by day, node, kind, tags and price; ``image`` has a
            charge for each line.

    Raises:
        ConfigError: another kind of file, or it cannot be written.
        CorruptOutput: a line that counts cannot be read.
    """
    options = _SUFFIXES.get(path.suffix.lower())
    if options is None:
        raise ConfigError(f"--focus {path} ends in '{path.suffix}'; expected .parquet or .csv")
    image = detail == "image"
    wanted = Wanted(
        columns=(*_GROUP, *_READ, *(_OF_IMAGE if image else ())),
        by_day=True,
    )
    # before any line is read: a job that finishes meanwhile may be in the file as it stood before
    finished = [output.url for output in outputs if output.finished]
    with ledger(outputs, wanted) as db:
        db.execute(_charges(image, finished))
        _copy(db, path, options, image)
        return _told(db, path)


def _charges(image: bool, finished: Sequence[str]) -> str:
    """The one pass over the lines: what becomes a row, priced or not."""
    listed = ", ".join(f"'{url.replace(chr(39), chr(39) * 2)}'" for url in finished)
    tags = "coalesce(CAST(to_json(tags) AS VARCHAR), '{}')"
    days = f"epoch_us(period_start) // {DAY_US}"
    nano = "CAST(CAST(quantity AS DECIMAL(28, 9)) * CAST(1000000000 AS DECIMAL(10, 0)) AS HUGEINT)"
    keys = (
        f"{', '.join(_GROUP)}, {tags} AS tags, {days} AS day, corrects IS NOT NULL AS corrects, "
        f"amount_nano IS NOT NULL AS priced, list_contains([{listed}], output) AS finished"
    )
    if image:
        chosen = (
            f"{keys}, {', '.join(_OF_IMAGE)}, gpu_ns, amount_nano, {nano} AS quantity_nano, "
            "CAST(kind = 'used' AS BIGINT) AS images, "
            "CAST(part = 0 AS BIGINT) AS lines"
        )
        return f"CREATE TEMP TABLE charges AS SELECT {chosen} FROM lines"
    sums = (
        f"sum(gpu_ns) AS gpu_ns, sum(amount_nano) AS amount_nano, sum({nano}) AS quantity_nano, "
        "count(*) FILTER (kind = 'used') AS images, count(*) FILTER (part = 0) AS lines"
    )
    return f"CREATE TEMP TABLE charges AS SELECT {keys}, {sums} FROM lines GROUP BY ALL"


def _copy(db: duckdb.DuckDBPyConnection, path: Path, options: str, image: bool) -> None:
    chosen = ", ".join(
        f"{sql} AS {name}" for name, sql in columns(image=image, text_times=path.suffix == ".csv")
    )
    order = ", ".join(
        ("day", "output", "line_id") if image else ("day", "tags", "corrects", *_GROUP)
    )
    same = " AND ".join(f"c.{name} IS NOT DISTINCT FROM o.{name}" for name in _ORIGIN)
    query = f"""
        WITH origins AS (
            SELECT {", ".join(_ORIGIN)}, sum(gpu_ns) AS origin_ns FROM charges GROUP BY ALL
        ), joined AS (
            SELECT c.*, o.origin_ns FROM charges c JOIN origins o ON {same} WHERE {_CHARGED}
        ), measured AS (SELECT *, {derived()} FROM joined)
        SELECT {chosen} FROM measured ORDER BY {order}"""
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, suffix=path.suffix)
    os.close(handle)
    try:
        db.execute(f"COPY ({query}) TO '{name.replace(chr(39), chr(39) * 2)}' ({options})")
        Path(name).replace(path)
    except duckdb.IOException as error:
        raise ConfigError(f"cannot write {path}: {error}") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _told(db: duckdb.DuckDBPyConnection, path: Path) -> FocusExport:
    amounts = db.execute(
        "SELECT currency, CAST(sum(amount_nano) AS HUGEINT), count(*) FROM charges "
        f"WHERE {_CHARGED} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    to_come = db.execute(
        "SELECT currency, CAST(sum(amount_nano) AS HUGEINT) FROM charges "
        f"WHERE {_CHARGED} AND make_timestamp(day * {DAY_US}) > TIMESTAMP '{now_is('day')}' "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    left_out = db.execute(
        "SELECT coalesce(sum(lines), 0), coalesce(sum(gpu_ns), 0) FROM charges WHERE NOT priced"
    ).fetchone()
    assert left_out is not None
    return FocusExport(
        path=path,
        charges=sum(count for _, _, count in amounts),
        amounts=tuple((currency, int(amount)) for currency, amount, _ in amounts),
        to_come=tuple((currency, int(amount)) for currency, amount in to_come),
        unpriced_lines=int(left_out[0]),
        unpriced_gpu_hours=float(left_out[1]) / 3.6e12,
    )


def focus_lines(done: FocusExport) -> list[str]:
    """What was written, for the terminal."""
    sums = ", ".join(format_money(amount, currency) for currency, amount in done.amounts)
    lines = [f"wrote {done.path}: {plural(done.charges, 'charge')}, {sums or 'no amount'}"]
    if done.to_come:
        ahead = ", ".join(format_money(amount, currency) for currency, amount in done.to_come)
        lines.append(
            f"to come    {ahead} of it is storage that is charged ahead, on the days for which "
            "images are kept: leave out charges that begin after today for what was spent until now"
        )
    if done.unpriced_lines:
        lines.append(
            f"unpriced   {plural(done.unpriced_lines, 'line')} with "
            f"{number(done.unpriced_gpu_hours)} GPU hours have no price and are not in the file, "
            "since FOCUS has no charge without a cost"
        )
    return lines
