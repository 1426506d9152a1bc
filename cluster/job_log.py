"""The job's own records: job.json, runs, cancel marks, retries and manifests."""

from __future__ import annotations

import json
import secrets
import shlex
from dataclasses import dataclass, replace
from typing import Any

from cluster import layout
from cluster.lifetime import utc_now
from cluster.records import RetryRecord, RunRecord, retry_from_json, run_from_json, to_json
from cluster.store import Store
from conf.errors import CommitConflict, ConfigError, CorruptOutput, OutputMissing, OutputTaken
from conf.parser import parse_config
from conf.price_book import PriceBook
from conf.schema import RunConfig
from conf.secrets import without_secrets

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """job.json: what was asked and with what, written once."""

    config: RunConfig
    digest: str
    version: str
    model_revision: str
    created_at: str

    @property
    def currency(self) -> str:
        """Of all amounts of this job."""
        assert self.config.pricing.currency is not None, "a job is claimed with its currency"
        return self.config.pricing.currency


def _plain(job: JobRecord) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "kind": "Job",
        "config": _without_credentials(job.config).to_mapping(),
        "digest": job.digest,
        "version": job.version,
        "model_revision": job.model_revision,
        "created_at": job.created_at,
    }


def _without_credentials(config: RunConfig) -> RunConfig:
    """Storage options and who is alerted may hold secrets: never written; a resumed job is given
    them anew."""
    return replace(
        config,
        storage=replace(config.storage, options={}),
        budget=replace(config.budget, alert=None),
    )


def write_job(store: Store, job: JobRecord) -> None:
    """Claim the output path.

    Raises:
        OutputTaken: another job lives there.
    """
    try:
        store.put_if_absent(layout.JOB, (json.dumps(_plain(job), indent=2) + "\n").encode())
    except CommitConflict as error:
        raise output_taken(store, job.digest) from error


def output_taken(store: Store, digest: str) -> OutputTaken:
    """The error for a run into an output that holds a job, which may be this very one."""
    there = read_job(store)
    where = shlex.quote(store.url)
    if there.digest == digest:
        return OutputTaken(
            f"{store.url} already holds this job (started {there.created_at}); continue it with: "
            f"imagemill resume {where} or look at it with: imagemill status {where}"
        )
    return OutputTaken(
        f"{store.url} holds another job ('{there.config.job.name}', started {there.created_at}); "
        "nothing was changed; choose another output.path"
    )


def find_job(store: Store) -> JobRecord | None:
    """The job of this output, or None when there is none."""
    data = store.get(layout.JOB)
    if data is None:
        return None
    try:
        plain = json.loads(data)
        if plain["schema"] != _SCHEMA or plain["kind"] != "Job":
            raise ValueError(f"it is no job record of schema {_SCHEMA}")
        return JobRecord(
            config=parse_config(plain["config"]),
            digest=plain["digest"],
            version=plain["version"],
            model_revision=plain["model_revision"],
            created_at=plain["created_at"],
        )
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CorruptOutput(
            f"{store.url}/{layout.JOB} is not a job record of this version of ImageMill: {error}; "
            "use the version that its key 'version' names"
        ) from error


def read_job(store: Store) -> JobRecord:
    """The job of this output.

    Raises:
        OutputMissing: there is none.
    """
    job = find_job(store)
    if job is None:
        root = store.local_root
        gone = "nothing is there" if root is not None and not root.exists() else None
        raise OutputMissing(
            f"no job at {store.url}: {gone or f'it has no {layout.JOB}'}; expected the output.path "
            "of a job"
        )
    return job


def _numbers(store: Store, folder: str) -> list[int]:
    return [layout.epoch_of(entry.key) for entry in store.listing(folder)]


def generation(store: Store) -> int:
    """How many retries were asked for; 0 for a job as first run."""
    return max(_numbers(store, "retries/"), default=0)


def last_run(store: Store) -> RunRecord | None:
    """The newest run record."""
    numbers = _numbers(store, "runs/")
    if not numbers:
        return None
    key = layout.run(max(numbers))
    return run_from_json(store.get(key) or b"", key)


def open_run(
    store: Store,
    *,
    after: int,
    generation: int,
    workers: int,
    version: str,
    config: RunConfig,
    book: PriceBook,
) -> RunRecord:
    """Record a driver's start, as the run that follows number ``after``, its prices
    and its budget.

    Raises:
        OutputTaken: another driver did so first.
    """
    record = RunRecord(
        run=after + 1,
        generation=generation,
        started_at=utc_now(),
        workers=workers,
        version=version,
        pricing=config.pricing,
        prices=book.digest,
        budget=_without_credentials(config).budget,
        nonce=secrets.token_hex(8),
    )
    store.put_if_absent(layout.prices(book.digest), book.to_json())
    try:
        store.put_if_absent(layout.run(record.run), to_json(record))
    except CommitConflict as error:
        where = shlex.quote(without_secrets(store.url))
        raise OutputTaken(
            f"run {record.run} has begun on {where} at this very time; nothing was started; look "
            f"at it with: imagemill status {where}"
        ) from error
    return record


def as_last_run(store: Store, job: JobRecord) -> JobRecord:
    """The job with the prices and the budget of its last run, if there was one."""
    last = last_run(store)
    if last is None:
        return job
    return replace(job, config=replace(job.config, pricing=last.pricing, budget=last.budget))


def book_of_run(store: Store, run: RunRecord) -> PriceBook:
    """The price book of a run.

    Raises:
        CorruptOutput: it is missing or damaged.
    """
    key = layout.prices(run.prices)
    try:
        return PriceBook.from_json(store.get(key) or b"")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptOutput(f"{key} is no price book: {error}") from error


def run_opened(store: Store, run: int) -> bool:
    """Whether run number ``run`` has begun."""
    return store.exists(layout.run(run))


def write_run_end(store: Store, run: int, reason: str) -> None:
    """Record that run number ``run`` is over. A run that was killed has no such record."""
    ended = {"ended_at": utc_now(), "reason": reason}
    store.put(layout.run_end(run), (json.dumps(ended) + "\n").encode())


def run_ended(store: Store, run: int) -> bool:
    """Whether run number ``run`` said that it is over."""
    return store.exists(layout.run_end(run))


def end_reason(store: Store, run: int) -> str | None:
    """Why run number ``run`` ended, in its own words; None: it did not say, or not yet."""
    data = store.get(layout.run_end(run))
    if data is None:
        return None
    try:
        return str(json.loads(data)["reason"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptOutput(f"{layout.run_end(run)} is damaged: {error}") from error


def ask_cancel(store: Store, run: int) -> None:
    """Ask run number ``run`` to stop."""
    store.put(layout.cancel(run), (json.dumps({"asked_at": utc_now()}) + "\n").encode())


def cancel_asked(store: Store, run: int) -> bool:
    """Whether run number ``run`` was asked to stop."""
    return store.exists(layout.cancel(run))


def take_back_cancel(store: Store, run: int) -> None:
    """Ask run number ``run`` to stop no more; one that has stopped stays so."""
    store.delete(layout.cancel(run))


def open_retry(store: Store, shards: tuple[int, ...], *, after: int) -> RetryRecord:
    """Release the quarantined rows of these shards: the next generation of the job.

    Args:
        after: the finished generation in which ``shards`` were seen to hold such rows.

    Raises:
        OutputTaken: that generation has another successor already.
    """
    record = RetryRecord(
        generation=after + 1,
        requested_at=utc_now(),
        shards=shards,
        nonce=secrets.token_hex(8),
    )
    try:
        store.put_if_absent(layout.retry(record.generation), to_json(record))
    except CommitConflict as error:
        raise OutputTaken(
            f"another retry of {store.url} was asked for first, so nothing was started; look at it "
            f"with: imagemill status {shlex.quote(store.url)}"
        ) from error
    return record


def read_retry(store: Store, number: int) -> RetryRecord:
    """The retry that opened generation ``number``."""
    key = layout.retry(number)
    return retry_from_json(store.get(key) or b"", key)


def is_finished(store: Store, number: int) -> bool:
    """Whether the manifest of generation ``number`` exists."""
    return store.exists(layout.manifest(number))
