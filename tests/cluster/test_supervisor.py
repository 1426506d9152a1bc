"""The supervisor on a real local Ray: who is hired, who is replaced, and when nobody can start."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray
import yaml

from cluster import layout
from cluster.coordinator import Snapshot
from cluster.crew import Assignment
from cluster.nodes import Shape, nodes_now
from cluster.ray_session import Resources, ray_session
from cluster.setbacks import Loss
from cluster.supervisor import RunEnd, Supervisor
from conf.errors import CoordinatorLost, NoWorkers
from conf.price_book import book_of
from conf.schema import PricingConfig
from jobs.run import run
from jobs.verify import verify
from tests.cluster.job_process import titled, wait_until
from tests.small_jobs import (
    SmallJob,
    begin_run,
    prepare_small_job,
    small_config,
    write_input,
)

ROWS = [{"prompt": f"picture {n}", "width": 16, "height": 16, "steps": 2} for n in range(8)]
HERE = Resources(shape=Shape(gpus=0.0), least=1, most=1, per_node=None, workers=1, threads=1)
NOWHERE = replace(HERE, shape=Shape(gpus=64.0))


class Control:
    """``drain`` is asked for once ``after`` questions were answered with no."""

    abort = False

    def __init__(self, after: float = float("inf")) -> None:
        self._left = after

    @property
    def drain(self) -> str | None:
        self._left -= 1
        return "interrupted" if self._left < 0 else None

    def cancelled(self) -> str | None:
        return None


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of this module, which every test leaves without actors."""
    with ray_session(small_config(tmp_path_factory.mktemp("ray"))):
        yield


@pytest.fixture
def small(connected: None, tmp_path: Path) -> SmallJob:
    return prepare_small_job(tmp_path, ROWS, **{"job.max_attempts": 1})


def supervise(
    small: SmallJob, size: Resources, control: Control, *, start_timeout_s: float | None = None
) -> RunEnd:
    cluster = replace(small.config.cluster, start_timeout_s=start_timeout_s)
    config = replace(small.config, cluster=cluster)
    return Supervisor(config, assigned(small), size).run(control, lambda snapshot: None)


def assigned(small: SmallJob) -> Assignment:
    return Assignment(
        run=begin_run(small.store).run,
        generation=0,
        model_revision="simulated",
        total=small.plan.shards,
        shards=None,
        book=book_of(small.config.pricing),
    )


def workers() -> list[psutil.Process]:
    """The worker actors that have begun their work."""
    return titled("ray::WorkerActor.run", os.getpid())


class Hog:
    """An actor of somebody else's."""

    def here(self) -> bool:
        return True


def test_ray_begins_no_process_but_for_the_actors_of_a_run(connected: None) -> None:
    actor = ray.remote(Hog).options(num_cpus=0).remote()
    assert ray.get(actor.here.remote())
    assert titled("ray::Hog", os.getpid())
    assert titled("ray::IDLE", os.getpid()) == []


def test_a_job_that_no_worker_could_start_on_says_how_to_go_on(
    connected: None, tmp_path: Path
) -> None:
    write_input(tmp_path, ROWS)
    output = tmp_path / "an output"
    cpus = ray.cluster_resources()["CPU"]
    hog = ray.remote(Hog).options(num_cpus=cpus).remote()
    try:
        assert ray.get(hog.here.remote())
        with pytest.raises(NoWorkers) as raised:
            run(
                [
                    f"input.path={tmp_path / 'input'}",
                    f"output.path={output}",
                    "engine=simulated",
                    "cluster.start_timeout_s=1",
                ]
            )
    finally:
        ray.kill(hog)
    assert f"imagemill resume '{output}'" in str(raised.value)
    free = "free in the cluster: 0 CPU, 0 GPU on 1 node; in all: "
    assert f"{free}{cpus:g} CPU" in str(raised.value)
    assert "free some, or change cluster.*" in str(raised.value)


def test_when_no_worker_can_start_it_is_said_what_is_missing(small: SmallJob) -> None:
    with pytest.raises(NoWorkers) as raised:
        supervise(small, NOWHERE, Control(), start_timeout_s=1.0)
    message = str(raised.value)
    assert "cluster.start_timeout_s=1: each needs 1 CPU and 64 GPUs; free in the" in message
    assert message.endswith("free some, or change cluster.*")


def test_when_no_machine_was_added_in_time_the_autoscaler_is_named(
    small: SmallJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an hour is as a second here, and only machines that are to come are given so long."""
    monkeypatch.setattr("cluster.start_timeout._TO_COME_S", 1.0)
    with pytest.raises(NoWorkers) as raised:
        supervise(small, replace(NOWHERE, grows=True), Control())
    message = str(raised.value)
    assert message.startswith("no worker could start within cluster.start_timeout_s=1: each needs")
    assert "no autoscaler added what was waited for; see what it says, or give it" in message


def half_a_machine(small: SmallJob, book: Path) -> PricingConfig:
    """Prices of a machine with twice the CPUs of the node here."""
    (node,) = nodes_now()
    entry = {"instance_type": "tower", "price_per_hour": "1", "vcpus": int(2 * node.cpus)}
    plain = {"version": "t", "currency": "USD", "instances": [entry]}
    book.write_text(yaml.safe_dump(plain))
    return replace(small.config.pricing, book=str(book), instance_type="tower")


def test_where_an_autoscaler_may_add_nodes_workers_wait_for_them(
    small: SmallJob, tmp_path: Path
) -> None:
    """The second one has no room by our own count; Ray, which nobody tells to wait, starts it. Each
    takes, and pays, all threads of the node that it finds itself on. The first stands still until
    the second is there."""
    slow = replace(small.config.engine, simulated_speed=0.03)
    pricing = half_a_machine(small, tmp_path / "book.yaml")
    small = replace(small, config=replace(small.config, engine=slow, pricing=pricing))
    growing = replace(HERE, most=2, per_node=1, threads=None, grows=True)
    begun: set[psutil.Process] = set()

    def look(_: Snapshot) -> None:
        begun.update(workers())
        for worker in workers():
            worker.suspend() if len(begun) < 2 else worker.resume()

    end = Supervisor(small.config, assigned(small), growing).run(Control(), look)
    assert (end.finished, end.restarts) == (True, 0)
    stamps = [small.store.get(entry.key) or b"" for entry in small.store.listing(layout.WORKERS)]
    assert [json.loads(stamp)["price"]["share"] for stamp in stamps] == ["1/2", "1/2"]


def test_who_waits_for_a_machine_is_dropped_when_no_shard_is_left_for_it(small: SmallJob) -> None:
    """Two fit; the first of them takes both shards, and works on them until that was seen."""
    slow = replace(small.config.engine, simulated_speed=0.001)
    config = replace(small.config, engine=slow)
    growing = replace(HERE, most=2, shape=Shape(gpus=0.0, cpus=2.0), grows=True)
    supervisor = Supervisor(config, assigned(small), growing)
    control = Control()
    seen: list[tuple[int, int]] = []

    def look(_: Snapshot) -> None:
        if (staffing := supervisor.staffing) is not None:
            seen.append((staffing.wish.workers, staffing.waiting))
            control.abort = seen[-1] == (1, 0)

    assert not supervisor.run(control, look).finished
    assert list(dict.fromkeys(seen)) == [(2, 1), (1, 0)]
    assert len(small.store.listing(layout.WORKERS)) == 1


@pytest.mark.parametrize("after", [0, 2])
def test_a_drain_before_any_worker_is_up_ends_the_run(small: SmallJob, after: int) -> None:
    """With 0 it was asked for before anybody is hired, with 2 while the first one is awaited."""
    end = supervise(small, NOWHERE, Control(after))
    assert (end.finished, end.reason, end.restarts) == (False, "interrupted", 0)


def endless(path: Path) -> None:
    """Whoever reads or writes here is told of too many links: an error that may pass."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.name)


def test_a_worker_that_a_store_error_ended_is_replaced_and_the_job_finishes(
    small: SmallJob,
) -> None:
    root = small.store.local_root
    assert root is not None
    trap = root / layout.opening(1, 1)
    endless(trap)

    class Heals(Control):
        @property
        def drain(self) -> str | None:
            if len(list((root / "workers").glob("*.json"))) > 1:
                trap.unlink(missing_ok=True)
            return None

    end = supervise(small, HERE, Heals())
    assert end.finished, end.reason
    assert end.restarts >= 1
    assert verify(small.store).problems == ()


def test_a_store_error_that_does_not_pass_ends_the_run_after_some_workers(small: SmallJob) -> None:
    root = small.store.local_root
    assert root is not None
    endless(root / layout.opening(0, 1))
    end = supervise(small, HERE, Control())
    assert not end.finished
    assert end.restarts == 4
    assert end.snapshot.lost == {Loss.STOPPED: 5}
    assert end.reason.startswith("5 workers in a row were lost without a commit; the last")
    assert "Too many levels of symbolic links" in end.reason


def test_a_run_whose_checkpoints_cannot_be_written_finishes_all_the_same(small: SmallJob) -> None:
    small.store.put("checkpoints", b"in the way")
    end = supervise(small, HERE, Control())
    assert end.finished, end.reason
    assert end.restarts == 0
    assert verify(small.store).problems == ()


def is_lost(supervisor: Supervisor) -> bool:
    try:
        supervisor._staff.snapshot()
    except CoordinatorLost:
        return True
    return False


def test_a_coordinator_that_dies_at_the_last_checkpoint_costs_only_a_warning(
    small: SmallJob, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Supervisor(small.config, assigned(small), HERE)
    supervisor._staff.snapshot()
    ray.kill(supervisor._coordinator)
    wait_until(lambda: is_lost(supervisor), "the coordinator's death")
    with caplog.at_level(logging.WARNING):
        supervisor._checkpoint()
    assert "the last checkpoint is missing: the run's coordinator died" in caplog.text


def test_an_option_that_only_a_worker_can_refuse_makes_going_on_futile(small: SmallJob) -> None:
    engine = replace(small.config.engine, simulated_speed=1.0, simulated_seconds={})
    end = supervise(replace(small, config=replace(small.config, engine=engine)), HERE, Control())
    assert not end.finished
    assert end.futile
    assert end.reason.startswith("engine.simulated_seconds is empty")
