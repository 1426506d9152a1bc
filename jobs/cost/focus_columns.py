"""The columns of a FOCUS file: 1.2, with the columns for split costs of 1.3, and our own (x_…).

Each is an expression over a charge: a row of the table that ``jobs.cost.focus`` sums up.
https://focus.finops.org, FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec.
"""

from __future__ import annotations

from jobs.cost.ask import GPU_KINDS
from jobs.cost.dimensions import DAY_US

METHOD = "imagemill-device-time-1"
"""How shared time is split, described in docs/cost.md."""
GPU_HOURS = "GPU-Hours"
_GPU = "kind IN ('" + "', '".join(GPU_KINDS) + "')"
_PROVIDER = "coalesce(provider, 'not stated')"
_PRICING = """CASE purchase_option
    WHEN 'on-demand' THEN 'Standard' WHEN 'spot' THEN 'Dynamic' WHEN 'reserved' THEN 'Committed'
    ELSE 'Other' END"""
_TEXT = "CAST(NULL AS VARCHAR)"
_NUMBER = "CAST(NULL AS DECIMAL(38, 10))"
_PRICE = f"CASE WHEN {_GPU} THEN price_nano_per_hour ELSE price_nano_per_unit END"
_UNIT = f"""CASE WHEN {_GPU} THEN '{GPU_HOURS}' WHEN kind = 'storage' THEN 'GB-Months'
    WHEN kind = 'requests' THEN '1000 Requests' ELSE unit END"""
_METER = f"CASE WHEN {_GPU} THEN 'Worker time' ELSE concat_ws(' ', kind, unit) END"
_SKU = f"concat_ws('/', {_PROVIDER}, CASE WHEN {_GPU} THEN instance_type ELSE {_METER} END)"
_DETAILS = """json_object('x_PriceVersion', price_version, 'x_PriceDigest', price_digest,
    'x_PurchaseOption', purchase_option)"""
_METHOD_DETAILS = f"""json_object('Elements', json_array(json_object(
    'AllocatedRatio', coalesce(CAST(gpu_ns AS DOUBLE) / nullif(origin_ns, 0), 0),
    'UsageUnit', '{GPU_HOURS}',
    'UsageQuantity', CAST(gpu_ns AS DOUBLE) / 3600000000000)))"""


def derived() -> str:
    """Integers that columns are made of: ``quantity_e10`` and ``list_e10`` in 1e-10 units."""
    hours = _nearest("CAST(gpu_ns AS HUGEINT) * 10000000000", 3_600_000_000_000)
    quantity = f"CASE WHEN {_GPU} THEN {hours} ELSE quantity_nano * 10 END"
    listed = _nearest("CAST(unit_nano AS HUGEINT) * quantity_e10", 1_000_000_000)
    return f"({_PRICE}) AS unit_nano, ({quantity}) AS quantity_e10, ({listed}) AS list_e10"


def _nearest(number: str, divisor: int) -> str:
    """The quotient of integers rounded to the nearest, away from zero; SQL's // cuts off."""
    return f"sign({number}) * ((abs({number}) + {divisor // 2}) // {divisor})"


def columns(*, image: bool, text_times: bool) -> list[tuple[str, str]]:
    """(name, expression) of each column.

    Args:
        image: whether a charge is one image's, not a day's sum.
        text_times: times as text, for a format that has no type for them.
    """

    def time(microseconds: str) -> str:
        if text_times:
            return f"strftime(make_timestamp({microseconds}), '%Y-%m-%dT%H:%M:%SZ')"
        return f"make_timestamptz({microseconds})"

    month = f"date_trunc('month', make_timestamp(day * {DAY_US}))"
    billed, listed = _units("amount_nano"), _tenths("list_e10")
    quantity, price = _tenths("quantity_e10"), _units("unit_nano")
    plain = [
        ("BilledCost", billed),
        ("EffectiveCost", billed),
        ("ListCost", listed),
        ("ContractedCost", listed),
        ("BillingAccountId", "'imagemill'"),
        ("BillingAccountName", "'ImageMill ledger'"),
        ("BillingAccountType", "'Ledger'"),
        ("BillingCurrency", "currency"),
        ("BillingPeriodStart", time(f"epoch_us({month})")),
        ("BillingPeriodEnd", time(f"epoch_us({month} + INTERVAL 1 MONTH)")),
        ("ChargePeriodStart", time(f"day * {DAY_US}")),
        ("ChargePeriodEnd", time(f"(day + 1) * {DAY_US}")),
        ("ChargeCategory", "'Usage'"),
        ("ChargeClass", "CASE WHEN corrects THEN 'Correction' END"),
        ("ChargeDescription", f"CASE WHEN {_GPU} THEN 'Worker time for images' ELSE kind END"),
        ("ChargeFrequency", "'Usage-Based'"),
        ("InvoiceId", _TEXT),
        ("InvoiceIssuerName", _PROVIDER),
        ("ProviderName", _PROVIDER),
        ("PublisherName", _PROVIDER),
        ("ServiceCategory", "'AI and Machine Learning'"),
        ("ServiceSubcategory", "'Generative AI'"),
        ("ServiceName", "'ImageMill image generation'"),
        ("ConsumedQuantity", quantity),
        ("ConsumedUnit", _UNIT),
        ("PricingQuantity", quantity),
        ("PricingUnit", _UNIT),
        ("PricingCategory", _PRICING),
        ("ListUnitPrice", price),
        ("ContractedUnitPrice", price),
        ("PricingCurrency", "currency"),
        ("PricingCurrencyListUnitPrice", price),
        ("PricingCurrencyContractedUnitPrice", price),
        ("PricingCurrencyEffectiveCost", billed),
        ("SkuId", _SKU),
        ("SkuMeter", _METER),
        ("SkuPriceId", f"concat_ws('/', {_SKU}, region, purchase_option, price_digest, unit_nano)"),
        ("SkuPriceDetails", f"CAST({_DETAILS} AS VARCHAR)"),
        ("RegionId", "region"),
        ("RegionName", "region"),
        ("ResourceId", f"CASE WHEN {_GPU} THEN node ELSE output END"),
        ("ResourceName", f"CASE WHEN {_GPU} THEN node ELSE job END"),
        ("ResourceType", f"CASE WHEN {_GPU} THEN 'Node' ELSE 'Output' END"),
        ("SubAccountId", "nullif(project, '')"),
        ("SubAccountName", "nullif(project, '')"),
        ("SubAccountType", "CASE WHEN project <> '' THEN 'Project' END"),
        ("Tags", "tags"),
    ]
    return [*plain, *_discounts(), *_split(image), *_own(image)]


def _discounts() -> list[tuple[str, str]]:
    """What the ledger never has."""
    names = ("Id", "Name", "Type", "Unit", "Category", "Status")
    return [
        *((f"CommitmentDiscount{name}", _TEXT) for name in names),
        ("CommitmentDiscountQuantity", _NUMBER),
        ("CapacityReservationId", _TEXT),
        ("CapacityReservationStatus", _TEXT),
    ]


def _split(image: bool) -> list[tuple[str, str]]:
    """FOCUS 1.3: a node's time (the origin) is split over what it was spent on."""
    whom = "coalesce(output || '#' || image_id, output)" if image else "output"
    name = "coalesce(image_id, job)" if image else "job"

    def split(expression: str) -> str:
        return f"CASE WHEN {_GPU} THEN {expression} END"

    return [
        ("AllocatedMethodId", split(f"'{METHOD}'")),
        ("AllocatedMethodDetails", split(f"CAST({_METHOD_DETAILS} AS VARCHAR)")),
        ("AllocatedResourceId", split(whom)),
        ("AllocatedResourceName", split(name)),
        ("AllocatedTags", split("tags")),
        ("ServiceProviderName", _PROVIDER),
        ("HostProviderName", _PROVIDER),
    ]


def _own(image: bool) -> list[tuple[str, str]]:
    own = [
        ("x_Kind", "kind"),
        ("x_Job", "job"),
        ("x_JobState", "CASE WHEN finished THEN 'finished' ELSE 'unfinished' END"),
        ("x_Output", "output"),
        ("x_Model", "model"),
        ("x_Images", "CAST(images AS BIGINT)"),
        ("x_AmountNano", "CAST(amount_nano AS DECIMAL(38, 0))"),
        ("x_InstanceType", "instance_type"),
        ("x_PurchaseOption", "purchase_option"),
        ("x_PriceVersion", "price_version"),
        ("x_PriceDigest", "price_digest"),
    ]
    if image:
        own += [("x_LineId", "line_id"), ("x_ImageId", "image_id"), ("x_Worker", "worker")]
    return own


def _units(nano: str) -> str:
    """An integer of 1e-9 units as an exact decimal."""
    tenths = f"CAST({nano} AS HUGEINT) * 10"
    return _tenths(tenths)


def _tenths(e10: str) -> str:
    """An integer of 1e-10 units as an exact decimal."""
    return f"CAST({e10} AS DECIMAL(28, 0)) * CAST(0.0000000001 AS DECIMAL(10, 10))"
