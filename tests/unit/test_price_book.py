"""Price books are read to the last unit, and what is wrong in one is told by its place."""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.errors import ConfigError
from conf.price_book import PriceBook, book_names, book_of, read_book
from jobs.configure import compose

BOOK: dict[str, Any] = {
    "version": "2026-11",
    "currency": "EUR",
    "effective_from": "2026-11-01",
    "effective_until": "2026-12-01",
    "instances": [
        {
            "provider": "aws",
            "region": "us-east-1",
            "instance_type": "p5.48xlarge",
            "purchase_option": "spot",
            "price_per_hour": "31.200000001",
            "gpus": 8,
        },
        {
            "instance_type": "tower",
            "purchase_option": "owned",
            "owned": {
                "hardware": "2628",
                "years": 3,
                "watts": 500,
                "electricity_per_kwh": "0.30",
            },
        },
    ],
    "storage": [
        {
            "url": "s3://",
            "per_gb_month": "0.023",
            "per_1000_writes": 0.005,
            "per_1000_reads": 0.0004,
        }
    ],
}  # fmt: skip


def written(folder: Path, **changes: Any) -> str:
    path = folder / "prices.yaml"
    path.write_text(yaml.safe_dump({**BOOK, **changes}))
    return str(path)


def pricing(*overrides: str) -> Any:
    return compose(["input.path=x", "output.path=y", *overrides]).pricing


def test_a_book_is_read_to_the_last_unit(tmp_path: Path) -> None:
    book = read_book(written(tmp_path))
    assert (book.version, book.currency) == ("2026-11", "EUR")
    assert (book.effective_from, book.effective_until) == (date(2026, 11, 1), date(2026, 12, 1))
    spot, tower = book.instances
    assert (spot.nano_per_hour, spot.gpus, spot.region) == (31_200_000_001, 8.0, "us-east-1")
    (storage,) = book.storage
    assert storage.nano_per_gb_month == 23_000_000
    assert (storage.nano_per_1000_writes, storage.nano_per_1000_reads) == (5_000_000, 400_000)
    assert storage.nano_per_gb_egress == 0
    # 2628 over 3 years of 8760 hours is 0.10 an hour; half a kilowatt at 0.30 is 0.15
    assert (tower.nano_per_hour, tower.gpus, tower.provider) == (250_000_000, None, None)


def test_a_book_survives_json_and_its_digest_tells_it_from_others(tmp_path: Path) -> None:
    book = read_book(written(tmp_path))
    assert PriceBook.from_json(book.to_json()) == book
    dearer = read_book(written(tmp_path, storage=[]))
    assert dearer.version == book.version
    assert dearer.digest != book.digest
    assert len(book.digest) == 16


def test_a_machine_whose_workers_share_it_stays_one_and_other_books_keep_their_digest(
    tmp_path: Path,
) -> None:
    plain = read_book(written(tmp_path))
    assert b"shared" not in plain.to_json()
    book = read_book(written(tmp_path, instances=[{**OWNED, "shared": True}]))
    assert book.instances[0].shared
    assert PriceBook.from_json(book.to_json()) == book
    assert (
        not read_book(written(tmp_path, instances=[{**OWNED, "shared": False}])).instances[0].shared
    )


def test_every_shipped_book_is_sound() -> None:
    assert "local" in book_names()
    for name in book_names():
        assert read_book(name).instances


def test_pricing_name_is_short_for_a_book_and_a_price_goes_before_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert pricing(f"pricing={path}").book == path
    book = book_of(pricing(f"pricing={path}", "pricing.price_per_hour=1.5"))
    (entry,) = book.instances
    assert (book.version, book.currency, entry.nano_per_hour) == ("given", "EUR", 1_500_000_000)
    assert entry.instance_type is None
    assert book.storage == read_book(path).storage
    assert (book.effective_from, book.effective_until) == (None, None)


def test_a_book_in_another_currency_than_the_jobs_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    given = dataclasses.replace(pricing(f"pricing={path}"), currency="USD")
    with pytest.raises(ConfigError) as caught:
        book_of(given)
    assert str(caught.value) == (
        f"price book {path} is in EUR; this job is in USD (pricing.currency); choose a book in "
        "that currency"
    )


@pytest.mark.parametrize("text", ["", "cheap", "-1", "NaN", "Infinity", "0.0000000001", "1,50"])
def test_a_price_that_is_no_price_is_refused_by_name(text: str) -> None:
    given = dataclasses.replace(pricing(), price_per_hour=text)
    with pytest.raises(ConfigError) as caught:
        book_of(given)
    assert str(caught.value) == (
        f"pricing.price_per_hour is '{text}'; expected a decimal number >= 0 with at most 9 digits "
        "after the point"
    )


@pytest.mark.parametrize("text", ["10000000.000000001", "20000000000", "1e999999"])
def test_a_price_whose_sums_would_not_fit_a_ledger_is_refused(text: str) -> None:
    most = dataclasses.replace(pricing(), price_per_hour="10000000")
    assert book_of(most).instances[0].nano_per_hour == 10**16
    given = dataclasses.replace(pricing(), price_per_hour=text)
    with pytest.raises(ConfigError) as caught:
        book_of(given)
    assert str(caught.value) == (
        f"pricing.price_per_hour is '{text}'; expected at most 10,000,000: amounts are kept as "
        "integers of 1e-9 in 64 bits, and sums of more would not fit; correct it, or use a "
        "currency of larger units"
    )


@pytest.mark.parametrize("key", ["budget.max_cost", "budget.project_max_cost"])
def test_a_cap_that_no_ledger_could_reach_is_refused(key: str) -> None:
    pricing("budget.store=/x", f"{key}=9000000000")
    with pytest.raises(
        ConfigError, match=rf"^{key} is '9000000001'; expected at most 9,000,000,000:"
    ):
        pricing("budget.store=/x", f"{key}=9000000001")


def test_keeping_images_for_more_than_a_century_is_refused() -> None:
    assert pricing("pricing.storage_months=1200").storage_months == 1200
    with pytest.raises(ConfigError) as caught:
        pricing("pricing.storage_months=1201")
    assert str(caught.value) == (
        "pricing.storage_months is 1201; expected at most 1,200, which are 100 years"
    )


ENTRY = BOOK["instances"][0]
OWNED = BOOK["instances"][1]
STORE = BOOK["storage"][0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": None}, "version is None; expected text"),
        ({"prices": []}, "has the key 'prices'; expected version, currency, effective_from,"),
        ({"effective_from": "soon"}, "effective_from is 'soon'; expected a date, such as 2026-"),
        ({"instances": {}}, ""),
        ({"version": True}, "version is True; expected text; quotes around what YAML reads as"),
        ({"version": " "}, "version is ' '; expected text"),
        ({"currency": "usd"},
         "currency is 'usd'; expected a code of ISO 4217, such as USD, EUR or CNY; did you mean U"),
        ({"currency": "Taler"}, "currency is 'Taler'; expected a code of ISO 4217, such as"),
        ({"currency": None}, "currency is None; expected a code of ISO 4217"),
        *[({"effective_from": "2026-12-02", "effective_until": until},
           f"effective_from is 2026-12-02 and effective_until {until}, so that it never holds; exp")
          for until in ("2026-12-01", "2026-12-02")],
        ({"instances": [ENTRY, {**ENTRY, "instance_type": ["a", "b"]}]},
         "instances entry 2: instance_type is ['a', 'b']; expected text"),
        ({"instances": [{**ENTRY, "region": ""}]}, "instances entry 1: region is ''; expected"),
        ({"instances": [{**ENTRY, "speed": 2, "speed_of": None}]},
         "instances entry 1: speed_of is None; expected text"),
        ({"instances": [ENTRY, OWNED, {**ENTRY, "price_per_hour": "1"}]},
         "instances entries 1 and 3 are both for provider aws, region us-east-1, instance_type "
         "p5.48xlarge, purchase_option spot; expected one; remove one, or name what tells them"),
        ({"instances": [{"price_per_hour": 1}, {"price_per_hour": 1}]},
         "instances entries 1 and 2 are both for any machine; expected one"),
        ({"storage": [STORE, STORE]}, "storage entries 1 and 2 are both for url s3://; expected"),
        ({"instances": {"a": 1}}, "instances is {'a': 1}; expected a list of entries"),
        ({"instances": ["x"]}, "instances entry 1 is 'x'; expected the keys provider, region"),
        ({"instances": [ENTRY, {**ENTRY, "purchase_option": "borrowed"}]},
         "instances entry 2: purchase_option is 'borrowed'; expected one of on-demand, spot,"),
        ({"instances": [{**ENTRY, "price_per_hour": None}]},
         "instances entry 1: price_per_hour is 'None'; expected a decimal number >= 0 with at"),
        ({"instances": [{**ENTRY, **OWNED}]}, "expected either price_per_hour or owned"),
        ({"instances": [{"instance_type": "x"}]}, "expected either price_per_hour or owned"),
        ({"instances": [{**ENTRY, "gpus": 0}]}, "gpus is 0; expected a number above 0 (0.000001"),
        *[({"instances": [{**ENTRY, "vcpus": vcpus}]},
           f"instances entry 1: vcpus is {vcpus}; expected a number above 0 (0.000001 to")
          for vcpus in (float("inf"), float("nan"), -4, 1e300, 1e-300, True)],
        ({"instances": [{**ENTRY, "speed": float("inf"), "speed_of": "x"}]},
         "instances entry 1: speed is inf; expected a number above 0"),
        ({"instances": [{**ENTRY, "price_per_hour": "20000000000"}]},
         "instances entry 1: price_per_hour is '20000000000'; expected at most 10,000,000: am"),
        ({"instances": [{"owned": {**OWNED["owned"], "hardware": "1e11", "years": 0.5}}]},
         "owned: the price of an hour is '22831050.38'; expected at most 10,000"),
        ({"instances": [{"owned": {**OWNED["owned"], "watts": "1e999999"}}]},
         "owned.watts is '1e999999'; expected at most"),
        ({"instances": [{"owned": {**OWNED["owned"], "years": "1e-999"}}]},
         "owned.years is 1e-999; expected how many years the hardware is used, at least 0.01"),
        ({"storage": [{**STORE, "per_gb_egress": 10_000_001}]},
         "storage entry 1: per_gb_egress is '10000001'; expected at most 10,000,000"),
        ({"instances": [{**ENTRY, "shared": "yes"}]}, "shared is 'yes'; expected true or false"),
        ({"instances": [{**ENTRY, "shared": True}]},
         "expected either shared: true, which looks up what the node has, or gpus and vcpus"),
        ({"instances": [{"owned": {**OWNED["owned"], "years": 0}}]},
         "owned.years is 0; expected how many years the hardware is used"),
        ({"instances": [{"owned": {**OWNED["owned"], "watts": "much"}}]},
         "owned.watts is 'much'; expected a decimal number >= 0"),
        ({"storage": [{**STORE, "url": None}]}, "storage entry 1: url is None; expected text"),
        ({"storage": [{**STORE, "per_1000_reads": None}]},
         "storage entry 1: per_1000_reads is 'None'; expected a decimal number"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_book_is_told_by_its_place(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    path = written(tmp_path, **changes)
    if not says:
        assert read_book(path).instances == ()
        return
    with pytest.raises(ConfigError) as caught:
        read_book(path)
    assert str(caught.value).startswith(f"price book {path}")
    assert says in str(caught.value)


def test_a_book_that_is_not_there_or_no_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read price book /nowhere\.yaml: No such"):
        read_book("/nowhere.yaml")
    with pytest.raises(ConfigError, match=r"pricing\.book=aws does not exist; .* of .*local"):
        read_book("aws")
    path = tmp_path / "bad.yaml"
    path.write_text("a: [")
    with pytest.raises(ConfigError, match=r"price book .*bad.yaml is no YAML: "):
        read_book(str(path))
    path.write_text("effective_from: 2026-02-30")
    with pytest.raises(ConfigError, match=r"price book .*bad.yaml is no YAML: day is out of range"):
        read_book(str(path))
    path.write_text("- 1")
    with pytest.raises(ConfigError, match=r"is \[1\]; expected the keys version, currency"):
        read_book(str(path))


def test_a_key_that_is_there_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    entry = "  - instance_type: a\n    price_per_hour: 1\n"
    whole = f"version: v\ncurrency: EUR\ninstances:\n{entry}"
    path.write_text(f"{whole}{entry.replace(': a', ': b')}")
    assert len(read_book(str(path)).instances) == 2
    for text, key, lines in [
        (f"{whole}    price_per_hour: 2\n", "price_per_hour", (5, 6)),
        (f"{whole}version: w\n", "version", (1, 6)),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_book(str(path))
        assert str(caught.value) == (
            f"price book {path} has the key '{key}' on line {lines[0]} and once more on line "
            f"{lines[1]}; expected each key of an entry once; remove one"
        )
