"""What was quoted: in this user's cache until the job begins, then in the job's output.

A quote writes nothing to an output. A run that claims one takes the newest quote of this very job
with it, so that whoever reads the output can hold it against what the job came to.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from cluster import layout
from cluster.job_log import JobRecord
from cluster.server_price import server_billing
from cluster.store import Store
from jobs.figures import plural
from jobs.quote.estimate import Interval
from operators.cache_files import cache_folder, read_cached, write_cached

log = logging.getLogger("imagemill")
_FOLDER = "quotes"
_SCHEMA = 1
_MOST = 200
"""Quotes in the cache; those that were asked for longest ago go first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOffer:
    """An offer that had a cost: ``seconds`` is the life of each of the ``workers``, ``cost`` is
    everything, in 1e-9 currency units. ``instance_type`` None: whatever the machine. ``paid`` is
    the time that is paid for, all together; None: the workers' lives."""

    name: str
    instance_type: str | None
    nano_per_hour: int
    workers: int
    seconds: Interval
    cost: Interval
    paid: Interval | None = None

    @property
    def paid_seconds(self) -> Interval:
        """The time that is paid for."""
        return self.seconds.times(self.workers) if self.paid is None else self.paid


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptQuote:
    """What was told, when (ISO 8601, UTC), of which job: ``digest`` of its configuration, revision
    of its model, rows of its input; by a pilot of ``tried`` images, or (0) by ``earlier`` runs.
    ``servers``: how Triton servers are paid for that make the images; None: workers make them."""

    asked_at: str
    digest: str
    model_revision: str
    rows: int
    tried: int
    earlier: int
    currency: str
    offers: tuple[KeptOffer, ...]
    servers: str | None = None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Read what ``to_mapping`` made.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        if plain["schema"] != _SCHEMA or plain["kind"] != "Quote":
            raise ValueError(f"it is no quote of schema {_SCHEMA}")
        known = {item.name: plain[item.name] for item in fields(cls) if item.name in plain}
        return cls(**known | {"offers": tuple(map(_offer, plain["offers"]))})

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"schema": _SCHEMA, "kind": "Quote", **asdict(self)}


def remember_quote(quote: KeptQuote) -> None:
    """Keep a quote in this user's cache, in the place of the one before of the same job."""
    folder = cache_folder() / _FOLDER
    write_cached(folder / f"{quote.digest}.json", quote.to_mapping())
    with suppress(OSError):
        for old in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-_MOST]:
            old.unlink()


def remembered_quote(job: JobRecord, rows: int) -> KeptQuote | None:
    """The newest quote of this very job that was asked for here; None, and the log says why, where
    its input or its model is another one since.

    Args:
        rows: of the job's input.
    """
    path = cache_folder() / _FOLDER / f"{job.digest}.json"
    quote = read_cached(path, _SCHEMA, KeptQuote.of)
    if quote is None:
        return None
    billing = server_billing(job.config)
    if quote.rows != rows:
        changed = f"had {plural(quote.rows, 'row')} and now has {rows:,}"
    elif quote.model_revision != job.model_revision:
        changed = f"had a model of revision {quote.model_revision}"
    elif quote.servers != (billing.value if billing else None):
        changed = f"was to pay for {quote.servers} servers (triton.owned)"
    else:
        return quote
    log.info(
        "the quote of %s is not held against this job, which %s",
        quote.asked_at,
        changed,
        extra={"event": "quote_outdated"},
    )
    return None


def write_quote(store: Store, quote: KeptQuote) -> None:
    """Put a quote beside the job that it was for."""
    store.put(layout.QUOTE, (json.dumps(quote.to_mapping(), indent=2) + "\n").encode())


def quote_of(store: Store) -> KeptQuote | None:
    """What was quoted for the job of an output; None where nothing was, or, with a warning, where
    it cannot be read."""
    data = store.get(layout.QUOTE)
    if data is None:
        return None
    try:
        return KeptQuote.of(json.loads(data))
    except (ValueError, KeyError, TypeError) as error:
        log.warning(
            "%s is no quote and is left out: %s",
            store.path(layout.QUOTE),
            error,
            extra={"event": "quote_unread"},
        )
        return None


def _offer(plain: Mapping[str, Any]) -> KeptOffer:
    names = [name for name in ("seconds", "cost", "paid") if plain.get(name) is not None]
    intervals = {name: Interval(**plain[name]) for name in names}
    return KeptOffer(**{**plain, **intervals})
