"""Opening a job that is there: where it lies, what may be changed of it, and its next prices."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TypeVar

from cluster.job_log import (
    JobRecord,
    as_last_run,
    book_of_run,
    last_run,
    read_job,
)
from cluster.store import Store
from cluster.store_access import LOOK_S
from conf.errors import ConfigError, StoreRefused, StoreUnavailable
from conf.parser import check_project, check_together
from conf.price_book import PriceBook, at_given_price, book_of
from conf.schema import BudgetConfig, ClusterConfig, PricingConfig, RunConfig
from conf.secrets import refuse_secrets
from conf.triton_config import TritonConfig
from jobs.configure import absolute, compose
from jobs.run_keys import CHANGEABLE, refuse_run_keys

G = TypeVar("G", BudgetConfig, ClusterConfig, PricingConfig, TritonConfig)
CREW = {"cluster.workers", "cluster.min_workers", "cluster.max_workers"}


def look_at_job(output: str, overrides: Sequence[str] = ()) -> tuple[JobRecord, Store]:
    """``open_job`` for a command that begins no run.

    Raises:
        OutputMissing: no job lives there.
        ConfigError: a key of ``pricing.*`` or ``budget.*``, or one that cannot be changed.
    """
    job, store = open_job(output, overrides)
    refuse_run_keys(store, overrides)
    return job, store


def open_job(output: str, overrides: Sequence[str] = ()) -> tuple[JobRecord, Store]:
    """The job at ``output``, wherever it lay before, with ``cluster.*``, ``storage.*``,
    ``triton.*``, ``pricing.*`` and ``budget.*`` anew. What is not given of the last two is as in
    the last run.

    Raises:
        OutputMissing: no job lives there.
        ConfigError: a key that a job which has begun cannot change.
    """
    with looking_at(output, overrides) as (given, store):
        job = as_last_run(store, read_job(store))
    names = {text.partition("=")[0] for text in overrides}
    if "pricing" in names:  # short for its book
        names.add("pricing.book")
    if names & CREW:  # an exact number replaces a range, and the other way round
        names |= CREW
    patience_s = (
        given.storage.patience_s if "storage.patience_s" in names else job.config.storage.patience_s
    )
    refuse_secrets("budget.store", given.budget.store or "")
    config = replace(
        job.config,
        output=replace(job.config.output, path=given.output.path),
        cluster=_changed(job.config.cluster, "cluster", given.cluster, names),
        pricing=_changed(job.config.pricing, "pricing", given.pricing, names),
        budget=_changed(job.config.budget, "budget", with_absolute_store(given.budget), names),
        triton=_changed(job.config.triton, "triton", given.triton, names),
        storage=replace(given.storage, patience_s=patience_s),
    )
    check_project(config.budget)
    return replace(job, config=check_together(config)), store


@contextmanager
def looking_at(output: str, overrides: Sequence[str] = ()) -> Iterator[tuple[RunConfig, Store]]:
    """What was given and the store at ``output``, whatever lies there; where the store does not
    answer inside, the error says how to reach it.

    Raises:
        ConfigError: a key that a job which has begun cannot change.
        StoreRefused: the store does not answer, or not to these credentials.
    """
    for text in overrides:
        if "=" not in text:
            raise ConfigError(f"'{text}' is no key=value; expected one OUTPUT, then keys")
        if not text.startswith((*CHANGEABLE, "pricing=")) or text.startswith("pricing.currency="):
            raise ConfigError(
                f"'{text}' cannot be changed for a job that has begun; expected "
                f"{' or '.join(f'{group}*' for group in CHANGEABLE)} keys, but for pricing.currency"
            )
    refuse_secrets("OUTPUT", output)
    given = compose(["input.path=given", f"output.path={absolute(output)}", *overrides])
    with _saying_where_to_look(given), nothing_started():
        yield given, Store.of(given, patience_s=LOOK_S)


def next_book(job: JobRecord, store: Store, overrides: Sequence[str]) -> PriceBook:
    """The prices of the next run: the last run's, unless others are asked for.

    Raises:
        ConfigError: the book that was asked for is not there, or in another currency.
    """
    last = last_run(store)
    asked = {text.partition("=")[0] for text in overrides}
    given = job.config.pricing.price_per_hour
    if last is None or asked & {"pricing", "pricing.book"}:
        return book_of(job.config.pricing)
    if "pricing.price_per_hour" not in asked:
        return book_of_run(store, last)
    if given is None:
        return book_of(job.config.pricing)
    return at_given_price(book_of_run(store, last), given)


@contextmanager
def nothing_started() -> Iterator[None]:
    """Before a job is claimed, a store that does not answer is a reason not to begin."""
    try:
        yield
    except StoreUnavailable as error:
        raise StoreRefused(str(error)) from error


@contextmanager
def _saying_where_to_look(given: RunConfig) -> Iterator[None]:
    """The job's own storage keys cannot help: they lie in the store that is to be opened."""
    try:
        yield
    except StoreRefused as error:
        if not given.output.path.startswith(("s3:", "s3a:")):
            raise
        raise StoreRefused(
            f"{error}. How to reach the store cannot be read from the job, which lies in it: give "
            "storage.endpoint_url=… and storage.profile=… again, or set AWS_ENDPOINT_URL and AWS_*"
        ) from error


def with_absolute_store(budget: BudgetConfig) -> BudgetConfig:
    """The same budget; a folder that keeps it is named from the root."""
    return budget if budget.store is None else replace(budget, store=absolute(budget.store))


def _changed(before: G, group: str, given: G, names: Collection[str]) -> G:
    """A group with those of its keys anew that are named, or of which a key inside is."""
    named = {".".join(name.split(".")[:2]) for name in names}
    anew = {
        item.name: getattr(given, item.name)
        for item in fields(before)
        if f"{group}.{item.name}" in named
    }
    return replace(before, **anew)
