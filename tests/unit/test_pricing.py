"""A worker is priced by what is known of its node, and by nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from cluster.price import Price
from cluster.pricing import Machine, Takes, machine_of, price_on
from conf.price_book import InstancePrice, PriceBook, StoragePrice
from conf.schema import RunConfig
from jobs.configure import compose

AT = datetime(2026, 11, 15, 12, tzinfo=UTC)
ONE_GPU = Takes(gpus=1, threads=4)
HOUR = 10**9


def entry(amount: int = 8 * HOUR, **changes: Any) -> InstancePrice:
    named = {
        "provider": "aws",
        "region": "us-east-1",
        "zone": None,
        "instance_type": "p5",
        "purchase_option": "spot",
        **changes,
    }
    return InstancePrice(nano_per_hour=amount, **named)


def book(*entries: InstancePrice) -> PriceBook:
    return PriceBook(
        version="v7",
        currency="USD",
        effective_from=None,
        effective_until=None,
        instances=entries,
        storage=(),
    )


P5 = Machine(region="us-east-1", instance_type="p5", purchase_option="spot")


def priced(found: PriceBook, machine: Machine = P5, takes: Takes = ONE_GPU) -> Price:
    return price_on(found, machine, takes, at=AT)


def test_the_entry_of_the_node_holds_and_the_ledger_says_whose_it_is() -> None:
    of_both = book(entry(purchase_option="on-demand", amount=9 * HOUR), entry())
    assert priced(of_both) == Price(
        nano_per_hour=8 * HOUR,
        currency="USD",
        version="v7",
        digest=of_both.digest,
        provider="aws",
        region="us-east-1",
        instance_type="p5",
        purchase_option="spot",
    )


def test_a_worker_pays_for_its_share_of_the_machine() -> None:
    eight = book(entry(gpus=8.0, vcpus=192.0))
    assert priced(eight).nano_per_hour == HOUR
    assert priced(eight).share == "1/8"
    assert priced(eight, takes=Takes(gpus=0.5, threads=1)).nano_per_hour == HOUR // 2
    assert priced(eight, takes=Takes(gpus=3, threads=1)).nano_per_hour == 3 * HOUR
    assert priced(eight, takes=Takes(gpus=0, threads=48)).nano_per_hour == 2 * HOUR
    assert priced(eight, takes=Takes(gpus=16, threads=1)).nano_per_hour == 8 * HOUR
    third = priced(book(entry(amount=10**9, gpus=3.0)))
    assert third.nano_per_hour == 333_333_333
    assert priced(book(entry())).nano_per_hour == 8 * HOUR


def test_a_worker_without_a_gpu_on_a_machine_of_gpus_has_no_share_that_is_known() -> None:
    found = priced(book(entry(gpus=8.0)), takes=Takes(gpus=0, threads=4))
    assert found.nano_per_hour is None
    assert found.unpriced.startswith("a worker without a GPU on p5: the price book says no vcpus")


def test_a_worker_with_a_gpu_on_a_machine_of_cpus_alone_has_no_share_that_is_known() -> None:
    found = priced(book(entry(vcpus=8.0)), takes=Takes(gpus=0.5, threads=4))
    assert found.nano_per_hour is None
    assert found.unpriced == (
        "a worker with a GPU on p5: the price book says no gpus of it, so that the worker's share "
        "is not known"
    )
    assert priced(book(entry(vcpus=8.0)), takes=Takes(gpus=0, threads=4)).share == "1/2"


def test_workers_on_a_shared_machine_pay_for_what_they_take_of_what_their_node_has() -> None:
    shared = book(entry(shared=True))

    def share(gpus: float, threads: int, node: tuple[float, float]) -> tuple[int | None, str]:
        takes = Takes(gpus=gpus, threads=threads, node_gpus=node[0], node_cpus=node[1])
        found = priced(shared, takes=takes)
        return found.nano_per_hour, found.share

    assert share(0, 1, (0, 2)) == (4 * HOUR, "1/2")
    assert share(0, 2, (0, 2)) == (8 * HOUR, "1")
    assert share(0, 9, (0, 2)) == (8 * HOUR, "1")
    assert share(1, 4, (8, 96)) == (HOUR, "1/8")
    assert share(0.5, 4, (4, 96)) == (HOUR, "1/8")
    assert share(0, 12, (8, 96)) == (HOUR, "1/8")
    assert share(0, 1, (0, 0)) == (8 * HOUR, "1"), "of a node that is not known all is paid"


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (replace(P5, instance_type="g7"), "have no entry for a node of which is known: region us-"),
        (replace(P5, instance_type="g7"), "; the book has the instance types p5; pric"),
        (replace(P5, purchase_option="on-demand"), "purchase_option on-demand; pricing.provider=…"),
        (
            replace(P5, region=None, purchase_option=None),
            "; an entry of the book asks for pricing.region=us-east-1 "
            "pricing.purchase_option=spot: give that where it is so",
        ),
        (replace(P5, provider="gcp"), "have no entry for a node of which is known: provider gcp"),
        (Machine(), "have no entry for a node of which is known: nothing; pricing.provider=…"),
    ],
)
def test_no_price_is_guessed(machine: Machine, says: str) -> None:
    found = priced(book(entry()), machine)
    assert found.nano_per_hour is None
    assert found.unpriced.startswith("prices v7 ")
    assert says in found.unpriced
    assert found.instance_type == machine.instance_type


def test_a_type_that_no_entry_has_names_a_few_that_the_book_has() -> None:
    g7 = replace(P5, instance_type="g7")
    many = book(*(entry(instance_type=name) for name in ("d", "b", "a", "c")))
    end = "; the book has the instance types {}; pricing.book=… takes another"
    assert priced(many, g7).unpriced.endswith(end.format("a, b, c, …"))
    assert priced(book(), g7).unpriced.endswith(end.format("(none)"))
    elsewhere = priced(book(entry(instance_type=None, region="eu")), g7).unpriced
    assert elsewhere.endswith("pricing.provider=… would tell more")


def test_of_entries_that_hold_the_one_that_names_most_does_and_two_alike_do_not() -> None:
    anywhere, zone = entry(region=None, amount=1), entry(zone="us-east-1a", amount=2)
    both = book(anywhere, entry(amount=3), zone)
    assert priced(both).nano_per_hour == 3
    assert priced(both, replace(P5, zone="us-east-1a")).nano_per_hour == 2
    assert priced(both, replace(P5, region="eu")).nano_per_hour == 1
    doubtful = priced(book(entry(), entry(provider="reseller")))
    assert doubtful.nano_per_hour is None
    assert "have 2 entries for a node" in doubtful.unpriced


def test_a_price_that_was_given_holds_for_any_node() -> None:
    given = book(InstancePrice(
        provider=None, region=None, zone=None, instance_type=None, purchase_option=None,
        nano_per_hour=5,
    ))  # fmt: skip
    assert priced(given, Machine()).nano_per_hour == 5
    assert priced(given).instance_type == "p5"


def test_a_book_holds_between_its_dates() -> None:
    dated = replace(
        book(entry()), effective_from=date(2026, 11, 1), effective_until=date(2026, 12, 1)
    )

    def at(*day: int) -> Price:
        return price_on(dated, P5, ONE_GPU, at=datetime(*day, tzinfo=UTC))  # type: ignore[misc]

    assert at(2026, 11, 1).nano_per_hour == at(2026, 11, 30).nano_per_hour == 8 * HOUR
    assert at(2026, 10, 31).unpriced == "prices v7 hold only from 2026-11-01 on"
    assert at(2026, 12, 1).unpriced == "prices v7 ended on 2026-12-01"


def config(*overrides: str) -> RunConfig:
    return compose(["input.path=x", "output.path=y", "cluster.address=auto", *overrides])


def test_a_machine_is_known_by_configuration_then_labels_then_environment() -> None:
    labels = {
        "node.kubernetes.io/instance-type": "p5",
        "topology.kubernetes.io/region": "eu-west-1",
        "ray.io/availability-region": "eu-central-1",
        "ray.io/market-type": "spot",
        "ray.io/availability-zone": "eu-central-1b",
    }
    environment = {"IMAGEMILL_INSTANCE_TYPE": "g6", "IMAGEMILL_PROVIDER": "aws"}
    found = machine_of(config("pricing.purchase_option=reserved"), labels, environment)
    assert found == Machine(
        provider="aws",
        region="eu-central-1",
        zone="eu-central-1b",
        instance_type="p5",
        purchase_option="reserved",
    )
    assert machine_of(config(), {}, environment).instance_type == "g6"
    assert machine_of(config(), {}, {"RAY_NODE_REGION": "r"}).region == "r"


@pytest.mark.parametrize(
    ("label", "said", "means"),
    [
        ("eks.amazonaws.com/capacityType", "ON_DEMAND", "on-demand"),
        ("karpenter.sh/capacity-type", "spot", "spot"),
        ("cloud.google.com/gke-provisioning", "standard", "on-demand"),
        ("ray.io/market-type", "on-demand", "on-demand"),
    ],
)
def test_every_word_for_how_a_node_is_paid_is_understood(label: str, said: str, means: str) -> None:
    assert machine_of(config(), {label: said}, {}).purchase_option == means


def test_only_the_machine_that_a_run_starts_ray_on_is_known_unasked() -> None:
    assert machine_of(config(), {}, {}) == Machine()
    here = machine_of(config("cluster.address=local"), {}, {})
    assert here == Machine(provider="local", instance_type="local", purchase_option="owned")
    told = machine_of(config("cluster.address=local", "pricing.instance_type=p5"), {}, {})
    assert told == Machine(instance_type="p5")


def test_of_several_stores_the_longest_beginning_of_the_url_holds() -> None:
    def store(url: str) -> StoragePrice:
        return StoragePrice(
            url=url,
            nano_per_gb_month=1,
            nano_per_1000_writes=2,
            nano_per_1000_reads=3,
            nano_per_gb_egress=4,
        )

    both = replace(book(entry()), storage=(store("s3://"), store("s3://cheap/"), store("gs://")))

    def at(output: str) -> str | None:
        found = price_on(both, P5, ONE_GPU, at=AT, output=output).storage
        return found.url if found else None

    assert at("s3://dear/job") == "s3://"
    assert at("s3://cheap/job") == "s3://cheap/"
    assert at("/home/me/job") is None
