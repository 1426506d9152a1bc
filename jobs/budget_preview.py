"""What a dry run says of budgets: caps, what is left of the project's, why a run would be refused.

Reads a project's records and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from cluster.budget import NOTHING, Caps
from cluster.cores import usable_cores
from cluster.job_log import JobRecord
from cluster.lifetime import utc_now
from cluster.nodes import Node, Shape
from cluster.ray_session import Resources
from cluster.store import Store
from cluster.store_access import LOOK_S
from conf.alert_target import check_command
from conf.errors import ImageMillError
from conf.price_book import PriceBook, book_of
from conf.schema import RunConfig
from conf.secrets import without_secrets
from jobs.execute import version
from jobs.measured import gpu_count
from jobs.project import Project, naming_the_store
from jobs.project_purse import refuse_without_share
from jobs.spending import project_caps, refuse_too_small


def budget_lines(config: RunConfig, revision: str, shards: int) -> tuple[list[str], list[str]]:
    """Both caps in words, and why a run would be refused for them; both empty where nothing is
    capped.

    A machine of another cluster, and what it costs, is not looked at.
    """
    book, size = book_of(config.pricing), _size(config)
    caps = Caps.of(config.budget, book.currency)
    lines = [f"budget    {' and '.join(caps.limits())} for the job"] if caps.any else []
    refused: list[str] = []
    try:
        if config.budget.alert is not None:
            check_command(config.budget.alert)
        refuse_too_small(config, book, size, shards)
    except ImageMillError as error:
        refused.append(str(error))
    job = _job(config, revision)
    if project_caps(job).any:
        try:
            for line in _project_lines(job, book, size, shards):
                lines.append(line)
        except ImageMillError as error:
            refused.append(str(error))
    return lines, refused


def _project_lines(job: JobRecord, book: PriceBook, size: Resources, shards: int) -> Iterator[str]:
    """What is left of the project's budget, and whether its place was only read.

    Raises:
        ImageMillError: a run would be refused, and why.
    """
    store = Store.of(job.config, patience_s=LOOK_S)
    with naming_the_store(job):
        project = Project.of(job, store, run=1, spent=NOTHING)
        assert project is not None, "something of the project is capped"
        budget = project.records.read()
        project.records.refuse_unwritable()
    yield f"project   {job.config.job.project}: {project.left_in_words(budget)}"
    where = without_secrets(project.records.only_read)
    if where:
        yield f"project   {where} was read; whether it can be written, a run tries before it starts"
    refuse_without_share(project, book, size, shards, budget)


def _job(config: RunConfig, revision: str) -> JobRecord:
    """As it would be written."""
    return JobRecord(
        config=config,
        digest=config.digest(),
        version=version(),
        model_revision=revision,
        created_at=utc_now(),
    )


def _size(config: RunConfig) -> Resources:
    """The crew as asked for; where it is on this machine, with what that has."""
    cluster = config.cluster
    workers = cluster.workers or cluster.max_workers or cluster.min_workers
    local = cluster.address == "local"
    gpus = float(gpu_count()) if local else 0.0
    takes = float(gpus > 0) if cluster.gpus_per_worker is None else cluster.gpus_per_worker
    cpus = max(usable_cores(), workers)
    here = Node(node_id="", cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus)
    return Resources(
        shape=Shape(gpus=takes),
        least=workers,
        most=workers,
        per_node=None,
        workers=workers,
        threads=max(1, cpus // workers),
        largest=here if local else None,
    )
