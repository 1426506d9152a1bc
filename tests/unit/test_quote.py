"""``imagemill quote``: what it tells, from what, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import yaml
from input_tables import prompts, write_rows

from conf.errors import ConfigError, InputError
from conf.price_book import parse_book
from jobs import measured, rates
from jobs.cli import main
from jobs.measured import rate_key
from jobs.quote.ask import Quote, quote
from jobs.quote.estimate import (
    Crew,
    Group,
    Size,
    Work,
    by_pilot,
    by_rates,
    student_95,
    worker_seconds,
)
from jobs.quote.offers import speed_of
from jobs.quote.pilot import run_pilot
from jobs.quote.show import quote_lines
from jobs.run import prepare
from tests.random_jobs import OUTPUT, TABLE, some_rows, strata_of
from tests.virtual_engine import VirtualEngine

HERE = {
    "provider": "local",
    "instance_type": "local",
    "purchase_option": "owned",
    "price_per_hour": "36",
}
STATED = {
    "instance_type": "fast",
    "purchase_option": "spot",
    "price_per_hour": "80",
    "gpus": 8,
    "speed": 4,
    "speed_of": "local",
}
UNKNOWN = {"instance_type": "other", "purchase_option": "on-demand", "price_per_hour": "7"}


@pytest.fixture(autouse=True)
def nothing_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(measured, "_GPUS", tmp_path / "gpus")


def book_at(tmp_path: Path, **more: object) -> Path:
    path = tmp_path / "book.yaml"
    plain = {"version": "t", "currency": "USD", "instances": [HERE, STATED, UNKNOWN], **more}
    path.write_text(yaml.safe_dump(plain))
    return path


def words(tmp_path: Path, *more: str) -> list[str]:
    places = [f"input.path={tmp_path / 'in'}", f"output.path={tmp_path / 'out'}"]
    fast = ["engine=simulated", "engine.simulated_speed=200", f"pricing={tmp_path / 'book.yaml'}"]
    return [*places, *fast, *more]


def asked(tmp_path: Path, *more: str, rows: int = 40) -> Quote:
    write_rows(tmp_path / "in" / "a.parquet", prompts(rows))
    book_at(tmp_path)
    return quote(words(tmp_path, *more))


def test_each_machine_of_the_book_is_offered_and_no_speed_is_invented(tmp_path: Path) -> None:
    found = asked(tmp_path)
    by_type = {offer.entry.instance_type: offer for offer in found.offers}
    here, stated, other = by_type["local"], by_type["fast"], by_type["other"]
    assert here.seconds is not None
    assert here.cost is not None
    assert here.speed == 1
    assert here.cost.middle == pytest.approx(here.seconds.middle * 36e9 / 3600)
    assert stated.speed == 4
    assert stated.nano_per_hour == 10 * 10**9
    assert other.cost is None
    text = "\n".join(quote_lines(found))
    assert (
        "other on-demand: 7.00 USD an hour of a worker; speed not known here: measure there or "
        "state it" in text
    )
    assert "at the stated speed of 4 of this machine" in text
    assert "SIMULATED" in text
    assert "how runs on this machine differ from each other is not known" in text


def test_a_quote_writes_nothing_to_the_output(tmp_path: Path) -> None:
    asked(tmp_path)
    assert not (tmp_path / "out").exists()


def test_storage_and_requests_are_in_the_cost(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(40))
    storage = {"per_gb_month": "1000000", "per_1000_writes": "1000", "per_1000_reads": "0"}
    book_at(tmp_path, storage=[{"url": "s3://", **storage}])
    found = quote(words(tmp_path, "pricing.storage_months=2", "output.path=s3://bucket/out"))
    offer = next(one for one in found.offers if one.speed == 1)
    assert offer.cost is not None
    assert offer.seconds is not None
    assert offer.storage_nano
    assert found.pilot is not None
    image_bytes = found.pilot.bytes_per_pixel * 40 * 64 * 64
    assert offer.storage_nano == pytest.approx(image_bytes * 2 * 10**6, rel=1e-6)
    # 40 images, 3 for each of 2 commits, 2 for each of 2 shards, the worker's first and last stamp
    assert offer.requests_nano == pytest.approx(10**9 * (40 + 6 + 4 + 3), abs=10**9)
    paid = offer.seconds.middle * 10**7 + offer.storage_nano + offer.requests_nano
    assert offer.cost.middle == pytest.approx(paid)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_requests_to_a_local_output_are_in_no_cost_as_in_no_bill(
    tmp_path: Path, scheme: str
) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(40))
    output = f"output.path={scheme}{tmp_path / 'out'}"
    storage = {"per_gb_month": "1", "per_1000_writes": "1000", "per_1000_reads": "1000"}
    book_at(tmp_path, storage=[{"url": f"{scheme}/", **storage}])
    found = quote(words(tmp_path, output))
    offer = next(one for one in found.offers if one.speed == 1)
    assert offer.cost is not None
    assert offer.seconds is not None
    assert (offer.requests_nano, offer.storage_nano) == (0, 0)
    assert offer.cost.middle == pytest.approx(offer.seconds.middle * 10**7)
    book_at(tmp_path)
    assert not any("storage" in note for note in quote(words(tmp_path, output)).notes)


def test_storage_without_a_price_is_told(tmp_path: Path) -> None:
    found = asked(tmp_path, "pricing.storage_months=2")
    assert any(
        note.startswith("no storage price for") and note.endswith("are in no cost")
        for note in found.notes
    )
    assert not any("storage" in note for note in asked(tmp_path).notes)


def test_a_book_without_this_machine_knows_no_speed(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(8))
    book_at(tmp_path, instances=[UNKNOWN])
    found = quote(words(tmp_path))
    assert [offer.cost for offer in found.offers] == [None]
    assert any("no entry for this machine" in note for note in found.notes)
    book_at(tmp_path, effective_until="2020-01-01")
    late = quote(words(tmp_path))
    assert any("ended on 2020-01-01: a run today would be unpriced" in note for note in late.notes)


def test_remembered_rates_of_two_runs_give_an_interval(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(40))
    book_at(tmp_path)
    given = words(tmp_path)
    with pytest.raises(ConfigError, match="measured on this machine yet; leave --remembered out"):
        quote(given, remembered=True)
    key = rate_key(prepare(given), "simulated")
    rates.remember(key, pixel_steps=1000, seconds=1)
    once = quote(given, remembered=True)
    assert once.work.relative is None
    assert "(spread not known)" in "\n".join(quote_lines(once))
    rates.remember(key, pixel_steps=1100, seconds=1)
    twice = quote(given, remembered=True)
    assert len(twice.earlier.used) == 2
    assert "nothing now; by 2 earlier runs of today on this machine (cpu-" in "\n".join(
        quote_lines(twice)
    )
    assert twice.work.relative is not None
    assert "starting up is in no time" in "\n".join(twice.notes)


def test_json_has_every_offer_with_its_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(40))
    book_at(tmp_path)
    assert main(["quote", *words(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["confidence"] == 0.9
    assert told["images"] == 40
    by_type = {offer["instance_type"]: offer for offer in told["offers"]}
    cost = {name: float(end) for name, end in by_type["local"]["cost"].items()}
    assert cost["low"] < cost["middle"] < cost["high"]
    assert by_type["other"]["cost"] is None
    assert by_type["other"]["price_per_hour"] == "7.000000000"


def test_an_input_without_a_sound_row_cannot_be_quoted(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", {"prompt": ["", " "]})
    book_at(tmp_path)
    with pytest.raises(InputError, match=r"nothing can be quoted: no row of .* 'imagemill plan'"):
        quote(words(tmp_path))


def test_a_pilot_of_no_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--pilot-seconds is 0; expected"):
        quote(words(tmp_path), pilot_seconds=0)


def test_a_model_that_needs_a_gpu_is_not_tried_without_one(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(3))
    book_at(tmp_path)
    given = [text for text in words(tmp_path) if not text.startswith("engine")]
    with pytest.raises(ConfigError, match=r"needs a GPU .* this machine has none"):
        quote([*given, "model.needs_gpu=true"])


def test_what_is_said_of_a_clusters_nodes_is_not_said_of_this_machine(tmp_path: Path) -> None:
    found = asked(tmp_path, "cluster.address=auto", "pricing.instance_type=other")
    speeds = {offer.entry.instance_type: offer.speed for offer in found.offers}
    assert speeds == {"local": 1, "fast": 4, "other": None}


@pytest.mark.parametrize(
    ("more", "threads"),
    [
        (["cluster.address=auto"], 12),
        (["cluster.address=auto", "cluster.autoscaled=true"], 3),
        (["cluster.address=local"], 3),
    ],
)
def test_a_worker_on_a_node_that_an_autoscaler_adds_has_and_pays_its_share_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], threads: int
) -> None:
    monkeypatch.setattr("jobs.quote.ask.usable_cores", lambda: 12)
    write_rows(tmp_path / "in" / "a.parquet", prompts(40))
    book_at(tmp_path, instances=[HERE | {"vcpus": 12}])
    (offer,) = quote(words(tmp_path, "cluster.max_workers=4", *more)).offers
    assert offer.nano_per_hour == 3 * threads * 10**9


def test_a_pilot_that_makes_nothing_says_why() -> None:
    random = Random(1)
    strata = strata_of(some_rows(random), random)
    failing = VirtualEngine(TABLE, random, fails=lambda _: True)
    with pytest.raises(ConfigError, match=r"none of .* rows that the pilot tried .* not finite"):
        run_pilot(strata, lambda: failing, OUTPUT, limit_s=1e9, random=random, clock=failing.clock)
    slow = VirtualEngine({1: 1e6}, random)
    with pytest.raises(ConfigError, match="finished no image in 1 s; give it longer"):
        run_pilot(strata, lambda: slow, OUTPUT, limit_s=1, random=random, clock=slow.clock)


def test_a_pilot_tries_a_quarter_of_a_small_job_at_most() -> None:
    random = Random(2)
    rows = [replace(row, width=64, height=64) for row in some_rows(random)[:60]]
    engine = VirtualEngine(TABLE, random)
    pilot = run_pilot(
        strata_of(rows, random),
        lambda: engine,
        OUTPUT,
        limit_s=1e9,
        random=random,
        clock=engine.clock,
    )
    assert 15 <= pilot.tried <= 15 + engine.info.max_batch


def test_students_quantile_is_that_of_the_tables() -> None:
    for freedom, expected in ((1, 6.314), (2, 2.920), (3, 2.353), (5, 2.015), (30, 1.697)):
        assert student_95(freedom) == pytest.approx(expected, rel=2e-3)


def test_seconds_are_work_times_rate_over_the_sizes() -> None:
    groups = (Group(seconds=1, pixel_steps=10), Group(seconds=3, pixel_steps=10))
    sizes = [
        Size(images=8, pixel_steps=1000, slots=4, groups=groups),
        Size(images=8, pixel_steps=500, slots=0, groups=()),
    ]
    work = by_pilot(sizes)
    assert work is not None
    assert work.seconds == pytest.approx(0.2 * 1500)
    assert work.untried == pytest.approx(1 / 3)
    # one size alone does not tell how sizes differ
    assert work.relative is None
    assert by_pilot([sizes[1]]) is None
    known = by_pilot(sizes[:1])
    drifting = by_pilot(sizes[:1], [1.0, 2.0])
    assert known is not None
    assert drifting is not None
    assert known.variance is not None
    assert drifting.variance is not None
    assert drifting.variance > known.variance


def test_rates_of_earlier_runs_differ_or_are_not_known_to() -> None:
    assert by_rates(100, []) is None
    alone = by_rates(100, [4.0])
    several = by_rates(100, [4.0, 1.0])
    assert alone is not None
    assert several is not None
    assert (alone.seconds, alone.relative) == (25, None)
    assert several.seconds == pytest.approx(50)
    assert several.relative is not None


def test_more_workers_share_the_work_but_each_starts_up() -> None:
    work = Work(seconds=1000, variance=0.01, freedom=5)
    one = worker_seconds(work, Crew(workers=1, shards=100, load_s=10))
    ten = worker_seconds(work, Crew(workers=10, shards=100, load_s=10))
    assert one.middle == 1010
    assert ten.middle == 10 + 100 + 1000 / 100 / 2
    fast = worker_seconds(work, Crew(workers=1, shards=100, load_s=10), speed=4)
    assert fast.middle == 260


def test_speeds_compare_by_a_common_reference_only() -> None:
    plain = {"version": "t", "currency": "USD"}
    entries = [
        {"instance_type": "a", "price_per_hour": "1", "speed": 2, "speed_of": "ref"},
        {"instance_type": "b", "price_per_hour": "1", "speed": 6, "speed_of": "ref"},
        {"instance_type": "c", "price_per_hour": "1", "speed": 6, "speed_of": "else"},
        {"instance_type": "ref", "price_per_hour": "1"},
    ]
    a, b, c, ref = parse_book({**plain, "instances": entries}, "book").instances
    assert speed_of(b, a) == 3
    assert speed_of(c, a) is None
    assert speed_of(ref, a) == 0.5
    assert speed_of(a, None) is None


def test_a_speed_without_its_reference_is_refused() -> None:
    entry = {"instance_type": "a", "price_per_hour": "1", "speed": 2}
    with pytest.raises(ConfigError, match="entry 1: expected speed and speed_of together"):
        parse_book({"version": "t", "currency": "USD", "instances": [entry]}, "book")
    wrong = {**entry, "speed": 0, "speed_of": "b"}
    with pytest.raises(ConfigError, match="entry 1: speed is 0; expected a number above 0"):
        parse_book({"version": "t", "currency": "USD", "instances": [wrong]}, "book")


def test_entries_that_hold_alike_for_this_machine_are_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", prompts(4))
    alike = [
        {"provider": "local", "instance_type": "local", "price_per_hour": "1"},
        {"instance_type": "local", "purchase_option": "owned", "price_per_hour": "2"},
    ]
    book_at(tmp_path, instances=[UNKNOWN, *alike])
    assert quote(words(tmp_path)).notes[0] == (
        "entries 2, 3 of the price book hold alike for this machine, so that no speed is known for "
        "any; name more of it in the one that is meant"
    )
    book_at(tmp_path, instances=[UNKNOWN])
    assert (
        quote(words(tmp_path))
        .notes[0]
        .startswith(
            "the price book has no entry for this machine, so that no speed is known for any; "
        )
    )


def test_a_quote_above_a_cap_is_told(tmp_path: Path) -> None:
    rest = ", so that the run would stop before its end (status 3); give more, or fewer rows"
    cheap = asked(tmp_path, "budget.max_cost=0.000000001", "budget.max_hours=1000")
    cost = "budget.max_cost=0.000000001 USD"
    assert f"2 of 2 offers: the quote is above {cost}{rest}" in cheap.notes
    brief = asked(tmp_path, "budget.max_hours=0.000000001")
    assert f"2 of 2 offers: the quote is above budget.max_hours=1e-09{rest}" in brief.notes
    assert not any("above" in note for note in asked(tmp_path, "budget.max_cost=900").notes)
