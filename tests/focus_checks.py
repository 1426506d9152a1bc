"""What must hold row by row in a FOCUS file and the validator does not look at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

Row = Mapping[str, Any]
ENUMS: dict[str, set[str | None]] = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {None, "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning"},
    "ServiceSubcategory": {"Generative AI"},
    "ConsumedUnit": {"GPU-Hours", "GB-Months", "1000 Requests", "GB"},
    "PricingUnit": {"GPU-Hours", "GB-Months", "1000 Requests", "GB"},
}
COSTS = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
_NEEDED = (
    *COSTS,
    *("BillingAccountId", "BillingAccountName", "BillingCurrency", "ChargeDescription"),
    *("InvoiceIssuerName", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName"),
    *("ServiceName", "SkuId", "SkuPriceId", "ListUnitPrice", "Tags"),
)
_LAST_DIGIT = Decimal("0.0000000001")
_ROUNDED = Decimal("0.000000002")
"""A line's amount is price times time rounded once in the ledger, and the quantity once more."""
_DATE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
_PERIODS = ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")


def violations(rows: Iterable[Row]) -> list[str]:
    """One sentence a broken rule, with the number of the row."""
    return [
        f"row {number}: {found}"
        for number, row in enumerate(rows)
        for check in CHECKS
        for found in check(row)
    ]


def _needed(row: Row) -> Iterator[str]:
    yield from (f"{name} is null" for name in _NEEDED if row[name] is None)


def _enums(row: Row) -> Iterator[str]:
    for name, allowed in ENUMS.items():
        if row[name] not in allowed:
            yield f"{name} is {row[name]!r}"


def _numbers(row: Row) -> Iterator[str]:
    for name in (*COSTS, "ListUnitPrice", "PricingQuantity", "ConsumedQuantity"):
        if not isinstance(row[name], Decimal):
            yield f"{name} is {row[name]!r}, no decimal"


def _products(row: Row) -> Iterator[str]:
    for kind in ("List", "Contracted"):
        product = row[f"{kind}UnitPrice"] * row["PricingQuantity"]
        if abs(product - row[f"{kind}Cost"]) > _LAST_DIGIT:
            yield f"{kind}Cost is {row[f'{kind}Cost']}, price times quantity {product}"


def _issuer(row: Row) -> Iterator[str]:
    if row["ProviderName"] != row["InvoiceIssuerName"] and row["BilledCost"]:
        yield "billed by another than the provider"


def _periods(row: Row) -> Iterator[str]:
    times = [_time(row[name]) for name in _PERIODS]
    if None in times:
        yield f"a period is no time in UTC: {[row[name] for name in _PERIODS]}"
        return
    month, month_end, start, end = times
    if not month <= start < end <= month_end:  # type: ignore[operator]
        yield f"charge period {start} to {end} is not within {month} to {month_end}"
    if month.day != 1 or month_end.day != 1:  # type: ignore[union-attr]
        yield f"billing period {month} to {month_end} is no month"


def _time(value: Any) -> datetime | None:
    if isinstance(value, str):
        return datetime.fromisoformat(value) if _DATE.match(value) else None
    return value if isinstance(value, datetime) and value.utcoffset() is not None else None


def _json(row: Row) -> Iterator[str]:
    for name in ("Tags", "SkuPriceDetails"):
        plain = json.loads(row[name])
        if not all(value is None or isinstance(value, str | int) for value in plain.values()):
            yield f"{name} is not flat"
    if not all(key.startswith("x_") for key in json.loads(row["SkuPriceDetails"])):
        yield "SkuPriceDetails has a key that is neither FOCUS's nor x_"


def _together(row: Row) -> Iterator[str]:
    for one, other in (("ResourceId", "ResourceType"), ("SubAccountId", "SubAccountType")):
        if (row[one] is None) != (row[other] is None):
            yield f"{one} without {other}, or the other way round"
    split = ("AllocatedMethodId", "AllocatedMethodDetails", "AllocatedResourceId", "AllocatedTags")
    if len({row[name] is None for name in split}) > 1:
        yield "some columns of a split charge are null, others are not"


CHECKS: tuple[Callable[[Row], Iterator[str]], ...] = (
    _needed,
    _enums,
    _numbers,
    _products,
    _issuer,
    _periods,
    _json,
    _together,
)


def sku_violations(rows: Iterable[Row]) -> list[str]:
    """A SkuPriceId has one SkuId, one unit price and one set of details."""
    seen: dict[str, tuple[Any, ...]] = {}
    found = []
    for row in rows:
        facts = (row["SkuId"], row["ListUnitPrice"], row["SkuPriceDetails"], row["BillingCurrency"])
        if seen.setdefault(row["SkuPriceId"], facts) != facts:
            found.append(f"{row['SkuPriceId']} means {facts} and {seen[row['SkuPriceId']]}")
    return found


def ratio_sums(rows: Iterable[Row]) -> dict[tuple[Any, ...], float]:
    """For each origin charge, what its split charges' ratios sum to; must be 1."""
    sums: dict[tuple[Any, ...], float] = {}
    for row in rows:
        if row["AllocatedMethodDetails"] is None:
            continue
        names = ("x_Output", "ResourceId", "ChargePeriodStart", "SubAccountId", "SkuPriceId")
        origin = tuple(row[name] for name in names)
        (element,) = json.loads(row["AllocatedMethodDetails"])["Elements"]
        sums[origin] = sums.get(origin, 0.0) + element["AllocatedRatio"]
    return sums


def far_from_list(rows: Iterable[Row]) -> list[str]:
    """Charges whose billed cost is not their price times quantity, but for rounding."""
    return [
        f"{row['x_Kind']}: billed {row['BilledCost']}, listed {row['ListCost']}"
        for row in rows
        if abs(row["BilledCost"] - row["ListCost"]) > _ROUNDED * max(1, row["x_Images"])
    ]
