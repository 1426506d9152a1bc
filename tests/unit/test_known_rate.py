"""What is known of a worker's speed before a run has one, and what is said of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.job_log import JobRecord
from cluster.nodes import Shape
from cluster.ray_session import Resources
from conf.price_book import book_of
from jobs import measured, rates
from jobs.aim import aim_of
from jobs.known_rate import KnownRate, is_named, known_rate
from jobs.measured import cluster_key, rate_key, remember_rate
from tests.small_jobs import SmallJob, run_small_job

ROWS = [{"prompt": "a", "width": 64, "height": 64, "steps": 10, "guidance_scale": 1.0}] * 4
PIXEL_STEPS = 64 * 64 * 10
GPUS = Resources(
    shape=Shape(gpus=1.0), least=1, most=8, per_node=None, workers=1, threads=None, grows=True
)
L4, A100 = "NVIDIA L4", "NVIDIA A100-SXM4-40GB"
MADE_ON = "simulated"
"""What the images of ``done`` say of their device."""


@pytest.fixture(autouse=True)
def nothing_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def done(tmp_path: Path) -> SmallJob:
    return run_small_job(tmp_path, ROWS, **{"job.deadline": "1h"})


def on_a_cluster(done: SmallJob, **engine: Any) -> JobRecord:
    config = done.job.config
    where = replace(config.cluster, address="auto")
    made = replace(config.engine, **engine)
    return replace(done.job, config=replace(config, cluster=where, engine=made))


def known(done: SmallJob, job: JobRecord, *accelerators: str, resumed: bool = False) -> KnownRate:
    size = replace(GPUS, accelerators=frozenset(accelerators))
    return known_rate(job, done.store, done.plan, size, resumed=resumed)


def measure(job: JobRecord, device: str, *, rate: float) -> None:
    key = cluster_key(job.config, job.model_revision, device=device)
    rates.remember(key, pixel_steps=rate * 10, seconds=10)


def test_a_cluster_counts_by_what_earlier_jobs_showed_of_its_gpus(done: SmallJob) -> None:
    job = on_a_cluster(done, name="stepwise")
    for device, rate in ((L4, 7.0), ("NVIDIA L40S", 20.0), (A100, 30.0)):
        measure(job, device, rate=rate)
    found = known(done, job, "L4")
    assert found.pixel_steps == pytest.approx(7)
    assert found.source == "earlier runs on a cluster's NVIDIA L4"
    other = replace(job, model_revision="another")
    assert known(done, other, "L4").source == (
        "no run of this model with this engine on a cluster's L4 was measured from here"
    )


def test_what_this_machine_showed_says_nothing_of_a_cluster_nor_the_other_way_round(
    done: SmallJob,
) -> None:
    job = on_a_cluster(done)
    rates.remember(rate_key(job.config, job.model_revision), pixel_steps=10, seconds=1)
    assert known(done, job, "L4").pixel_steps is None
    assert known(done, done.job, "L4") == KnownRate(
        pixel_steps=10.0, source="earlier runs on this machine"
    )


@pytest.mark.parametrize(
    ("accelerators", "why"),
    [
        ((), "the cluster has no node yet that says which GPU it has"),
        (("L4", "A100"), "its nodes have different GPUs (A100, L4)"),
        (("A100",), "it may be any of NVIDIA A100-PCIE-80GB, NVIDIA A100-SXM4-40GB"),
    ],
)
def test_a_device_that_is_not_certain_is_not_guessed(
    done: SmallJob, accelerators: tuple[str, ...], why: str
) -> None:
    job = on_a_cluster(done, name="stepwise")
    for device in (L4, A100, "NVIDIA A100-PCIE-80GB"):
        measure(job, device, rate=1.0)
    assert known(done, job, *accelerators) == KnownRate(pixel_steps=None, source=why)


def test_servers_and_other_machines_cpus_are_not_known(done: SmallJob) -> None:
    served = known(done, on_a_cluster(done, name="triton"))
    assert served == KnownRate(
        pixel_steps=None, source="how fast servers are depends on who asks them"
    )
    size = replace(GPUS, shape=Shape(gpus=0.0))
    job = on_a_cluster(done, name="stepwise")
    found = known_rate(job, done.store, done.plan, size, resumed=False)
    assert found == KnownRate(pixel_steps=None, source="nodes without GPUs are not told apart")


def test_a_job_that_is_resumed_counts_by_its_own_images(
    done: SmallJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = on_a_cluster(done, name="stepwise")
    none_yet = "the cluster has no node yet that says which GPU it has"
    assert known(done, job, resumed=True) == KnownRate(pixel_steps=None, source=none_yet)
    monkeypatch.setattr(measured, "_TELLING_S", 0.0)
    found = known(done, job, resumed=True)
    work, seconds = measured.measured_work(done.store, job, done.plan, made_on=lambda _: True)
    assert work == 4 * PIXEL_STEPS
    assert found == KnownRate(pixel_steps=work / seconds, source="earlier runs of this job")


@pytest.mark.parametrize(
    ("device", "gpus", "accelerators", "counts"),
    [
        (L4, 1.0, {"L4"}, True),
        (L4, 1.0, set(), True),
        (L4, 1.0, {"A100"}, False),
        (L4, 1.0, {"A100", "L4"}, True),
        (L4, 0.0, {"L4"}, False),
        ("cpu", 1.0, set(), False),
        ("cpu", 0.0, {"L4"}, True),
    ],
)
def test_of_a_resumed_job_only_images_of_devices_that_its_workers_may_have_count(
    done: SmallJob,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gpus: float,
    accelerators: set[str],
    counts: bool,
) -> None:
    """It may have begun on this machine, or on a cluster of other GPUs."""
    monkeypatch.setattr(measured, "_TELLING_S", 1e-9)
    for entry in done.store.listing("metadata/"):
        path = done.store.local_root / entry.key
        table = pq.read_table(path)
        column = table.schema.get_field_index("device")
        named = pa.array([device] * table.num_rows)
        pq.write_table(table.set_column(column, "device", named), path)
    size = replace(GPUS, shape=Shape(gpus=gpus), accelerators=frozenset(accelerators))
    job = on_a_cluster(done, name="stepwise")
    found = known_rate(job, done.store, done.plan, size, resumed=True)
    assert (found.source == "earlier runs of this job") == counts


@pytest.mark.parametrize(
    ("devices", "kept"),
    [
        ([MADE_ON], True),
        ([MADE_ON, A100], False),
        (["cpu"], False),
        ([], False),
        ([L4], False),
    ],
)
def test_a_job_on_a_cluster_leaves_its_rate_where_all_workers_had_one_kind_of_gpu(
    done: SmallJob, monkeypatch: pytest.MonkeyPatch, devices: list[str], kept: bool
) -> None:
    monkeypatch.setattr(measured, "_TELLING_S", 1e-9)
    job = on_a_cluster(done, name="stepwise")
    remember_rate(done.store, job, done.plan, devices)
    assert rates.measured_devices(cluster_key(job.config, job.model_revision, device="")) == (
        devices if kept else []
    )
    assert (known(done, job, MADE_ON).pixel_steps is not None) == kept
    assert rates.measured_rate(rate_key(job.config, job.model_revision)) is None


@pytest.mark.parametrize(
    ("device", "accelerator", "named"),
    [
        (L4, "L4", True),
        (A100, "A100", True),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000", True),
        ("NVIDIA L40S", "L4", False),
        (L4, "A100", False),
        (L4, "", False),
    ],
)
def test_torchs_name_of_a_gpu_is_held_against_rays(
    device: str, accelerator: str, named: bool
) -> None:
    assert is_named(device, accelerator) == named


def test_by_which_rate_workers_are_counted_at_first_is_said_or_why_by_none(
    done: SmallJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imagemill")
    job = on_a_cluster(done)
    book = book_of(job.config.pricing)

    def rate() -> float | None:
        asked = {"generation": 0, "resumed": False}
        return aim_of(job, done.store, done.plan, book, GPUS, **asked).rate

    assert rate() is None
    measure(job, "simulated", rate=PIXEL_STEPS / 4)
    assert rate() == pytest.approx(0.25)
    assert aim_of(job, done.store, done.plan, book, GPUS, generation=1, resumed=True).rate is None
    assert caplog.messages == [
        "job.deadline=1h: how fast a worker is, is not known before the first one is at work: no "
        "run of this model with this engine on a cluster was measured from here",
        "job.deadline=1h: until this run shows how fast its workers are, each counts with 0.25 "
        "images/s, by earlier runs on a cluster",
    ]
