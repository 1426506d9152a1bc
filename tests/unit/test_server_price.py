"""Servers that make a worker's images are paid for by use, or for as long as the job has them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from shard_records import PRICE

from cluster.lifetime import Lifetime, ServerBilling
from cluster.money import bill, close_worker, estimated_ns
from cluster.price import Price
from cluster.pricing import Machine
from cluster.server_price import server_billing, server_machine, server_price
from cluster.totals import WorkerUse
from cluster.traffic import Requests
from conf.price_book import InstancePrice, PriceBook
from conf.schema import RunConfig
from jobs.configure import compose
from jobs.figures import active_seconds
from operators.engine import EngineStats

BUSY_NS = 3_000_000_000
STATS = EngineStats(
    ticks=4,
    occupied=20,
    offered=32,
    other_shapes=0,
    starved=0,
    busy_ns=BUSY_NS,
    active=0,
    waiting=0,
)


def lifetime(servers: ServerBilling | None, price: Price = PRICE) -> Lifetime:
    return Lifetime(worker="w", run=1, node="here", gpus="", price=price, servers=servers)


def lines_of(life: Lifetime, used_ns: int) -> dict[str, tuple[int | None, int | None]]:
    stamp = life.stamp(STATS, Requests())
    lines = close_worker(stamp, used_ns=used_ns, used_amount=0)
    assert used_ns + sum(line.device_ns or 0 for line in lines) == stamp.lifetime_ns
    assert sum(line.amount_nano or 0 for line in lines) == bill(stamp.price, stamp.lifetime_ns)
    return {line.kind: (line.device_ns, line.amount_nano) for line in lines}


def test_of_servers_that_others_use_too_only_the_time_of_our_images_is_paid() -> None:
    life = lifetime(ServerBilling.SHARED)
    with life.overhead():
        pass
    times = {kind: device_ns for kind, (device_ns, _) in lines_of(life, BUSY_NS - 5).items()}
    assert times == {"wasted": 5, "overhead": 0, "idle": 0}


def test_what_nobody_measured_of_the_wasted_time_has_a_line_of_its_own() -> None:
    stamp = lifetime(ServerBilling.SHARED).stamp(replace(STATS, estimated_ns=7), Requests())
    lines = close_worker(stamp, used_ns=BUSY_NS - 10, used_amount=0)
    assert [(line.line_id, line.kind, line.device_ns) for line in lines] == [
        ("w:wasted", "wasted", 3),
        ("w:estimated", "wasted", 7),
        ("w:overhead", "overhead", 0),
        ("w:idle", "idle", 0),
    ]
    # images that count are measured, so that no more than the rest can be an estimate
    assert estimated_ns(stamp, used_ns=BUSY_NS - 4) == 4


def test_servers_of_our_own_are_paid_for_each_of_their_devices_while_the_worker_lives() -> None:
    life = lifetime(ServerBilling.OWNED)
    life.serve(3)
    assert life.nano_per_hour == 3 * (PRICE.nano_per_hour or 0)
    before_ns = life.elapsed_ns
    stamp = life.stamp(None, Requests())
    after_ns = life.elapsed_ns
    assert 3 * before_ns <= stamp.lifetime_ns <= 3 * after_ns
    assert stamp.lifetime_ns == 3 * stamp.lived_ns


def test_servers_that_were_busier_than_they_lived_are_paid_for_their_work() -> None:
    life = lifetime(ServerBilling.OWNED)
    busy_ns = 10**15
    stamp = life.stamp(replace(STATS, busy_ns=busy_ns), Requests())
    lines = close_worker(stamp, used_ns=busy_ns, used_amount=0)
    assert stamp.lifetime_ns == busy_ns
    assert sum(line.device_ns or 0 for line in lines) == 0


def test_a_worker_that_makes_its_images_itself_is_paid_for_its_own_time() -> None:
    stamp = lifetime(None).stamp(STATS, Requests())
    assert (stamp.alive_ns, stamp.lived_ns) == (None, stamp.lifetime_ns)


def test_how_long_a_worker_lived_is_not_what_its_servers_took() -> None:
    life = lifetime(ServerBilling.SHARED)
    stamp = replace(life.stamp(STATS, Requests()), alive_ns=10**9)
    assert active_seconds([stamp]) == pytest.approx(1.0)
    line = close_worker(stamp, used_ns=BUSY_NS, used_amount=0)[0]
    assert line.period_end - line.period_start == 10**6


def test_the_newest_of_two_stamps_counts_though_no_time_was_paid_between_them() -> None:
    life = lifetime(ServerBilling.SHARED)
    first = life.stamp(STATS, Requests(writes=1))
    later = life.stamp(STATS, Requests(writes=2))
    use = WorkerUse()
    for stamp in (first, later, first):
        use.see(stamp)
    assert use.stamp == later


def asked(*overrides: str) -> RunConfig:
    return compose(["engine=triton", "input.path=none", "output.path=none", *overrides])


def test_who_owns_the_servers_says_how_they_are_paid() -> None:
    shared = asked("triton.url=grpc://gpu-1:8001")
    assert server_billing(shared) is ServerBilling.SHARED
    owned = asked("triton.url=grpc://gpu-1:8001", "triton.owned=true")
    assert server_billing(owned) is ServerBilling.OWNED
    assert server_billing(compose(["input.path=none", "output.path=none"])) is None


def test_servers_are_priced_by_what_is_said_of_them_never_by_the_workers_node() -> None:
    far = asked("triton.url=grpc://gpu-1:8001")
    assert server_machine(far) == Machine()
    here = asked("triton.url=grpc://127.0.0.1:8001,grpc://localhost:9001")
    assert server_machine(here).instance_type == "local"
    said = asked("triton.url=grpc://127.0.0.1:8001", "pricing.instance_type=p5")
    assert server_machine(said) == Machine(instance_type="p5")


@pytest.mark.parametrize(
    ("sizes", "nano"),
    [({"gpus": 8}, 10**9), ({"vcpus": 16}, 8 * 10**9), ({}, 8 * 10**9)],
)
def test_a_device_costs_its_gpus_part_of_the_machine_or_all_of_it(
    sizes: dict[str, int], nano: int
) -> None:
    entry = InstancePrice(
        provider=None,
        region=None,
        zone=None,
        instance_type="p5",
        purchase_option=None,
        nano_per_hour=8 * 10**9,
        **sizes,
    )
    book = PriceBook(
        version="v",
        currency="USD",
        effective_from=None,
        effective_until=None,
        instances=(entry,),
        storage=(),
    )
    config = asked("triton.url=grpc://gpu-1:8001", "pricing.instance_type=p5")
    price = server_price(config, book, at=datetime(2026, 11, 15, tzinfo=UTC))
    assert (price.nano_per_hour, price.unpriced) == (nano, "")
