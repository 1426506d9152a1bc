"""The report page: one HTML file that needs nothing else, for a phone or a desktop, light or dark.

Turns sums, samples and counts into what the template shows. Every text of the user's is escaped by
the template; credentials in URLs and storage options are left out here.
"""

from __future__ import annotations

import base64
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from cluster.job_log import JobRecord
from cluster.money import as_decimal, split
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.totals import Bill, Totals
from conf.secrets import without_secrets
from jobs.figures import (
    UNPRICED,
    Figures,
    ReportFacts,
    cost_unknown,
    duration,
    exact_money,
    figures_of,
    is_simulated,
    model_label,
    money,
    named_once,
    number,
    plural,
    share,
    size,
    unpriced,
    why_empty,
)
from jobs.quote.against import against
from jobs.quote.kept import quote_of
from jobs.report.charts import day_costs, dearest_rows, image_costs
from jobs.report.costs import CostSurvey, cost_survey
from jobs.report.quoted import quoted
from jobs.report.rendering import render
from jobs.report.samples import Sample, pick_samples
from jobs.report.survey import Mix, Survey, survey
from operators.contact_sheet import THUMBNAIL_MEDIA_TYPE

GALLERY = 24
THUMBNAIL_PX = 384
_SHOWN_GROUPS = 8
_SHOWN_REASONS = 20
_SHOWN_FILES = 20
_LONGEST_PROMPT = 1000
_KINDS = {
    "used": "made the images that count",
    "wasted": "work that did not become an image",
    "overhead": "loading the model and warming up",
    "idle": "waiting for rows or the store",
    "requests": "what the store was asked",
    "egress": "what was read out of the store",
    "storage": "keeping the images",
}
_MIX_TITLES = {"sampler": "Sampler", "size": "Size", "steps": "Steps"}


def build_report(
    store: Store,
    job: JobRecord,
    plan: PlanReader,
    totals: Totals,
    closing: Bill,
    extra: ReportFacts,
    *,
    samples: Sequence[Sample] | None = None,
    counts: Survey | None = None,
    costs: CostSurvey | None = None,
) -> bytes:
    """The page as UTF-8 HTML.

    Args:
        samples: thumbnails for the gallery, from ``pick_samples`` with ``max_px``; picked from the
            output when None.
        counts, costs: the exact counts, and the ledger's; surveyed from the output when None.
    """
    if samples is None:
        samples = pick_samples(store, plan, GALLERY, max_px=THUMBNAIL_PX)
    counts = counts or survey(store, plan)
    costs = costs or cost_survey(store, job, plan, totals)
    figures = figures_of(totals, closing)
    config, currency = job.config, job.currency
    where = without_secrets(store.url)
    context = {
        "name": config.job.name or "job",
        "created_at": _minute(job.created_at),
        "simulated": is_simulated(config),
        "model": model_label(config),
        "finished": totals.pending == 0 and totals.sealed == totals.shards,
        "totals": totals,
        "tiles": _tiles(totals, closing, figures, currency),
        "facts": extra,
        "wall": duration(extra.wall_s) if extra.wall_s else "",
        "broken_files": [
            without_secrets(named_once(text)) for text in extra.broken_files[:_SHOWN_FILES]
        ],
        "money": _money(closing, currency),
        "prices": _prices(totals, currency),
        "unpriced": unpriced(closing),
        "against": quoted(against(quote_of(store), totals, closing, currency), currency),
        "image_costs": image_costs(costs, currency),
        "dearest": dearest_rows(costs, currency),
        "day_costs": day_costs(costs, currency),
        "gallery": [_card(sample, currency) for sample in samples],
        "files_apart": config.output.format == "files",
        "reasons": _reasons(counts, totals),
        "retryable": totals.quarantined - counts.rejected_at_read,
        "mix": [_mix(title, counts.mix[name], totals) for name, title in _MIX_TITLES.items()],
        "config": _flat(_shown(config.to_mapping())),
        "job": job,
        "where": where,
        "quoted": shlex.quote(where),
    }
    return render("page.html.j2", context)


def _tiles(
    totals: Totals, closing: Bill, figures: Figures, currency: str
) -> list[tuple[str, str, str]]:
    """The headline: (name, value, note) each. What is not known of some is no average."""
    per_image = None if closing.unpriced else figures.cost_per_image
    return [
        ("Rows committed", f"{totals.committed:,}", f"of {totals.rows:,}"),
        ("Quarantined", f"{totals.quarantined:,}", _part(totals.quarantined, totals.rows)),
        ("Pending", f"{totals.pending:,}", _part(totals.pending, totals.rows)),
        ("Images", f"{totals.images:,}", size(totals.image_bytes)),
        ("Time", duration(figures.active_s), "in which workers lived"),
        ("Images/s", _number_or_dash(figures.images_per_second), "over that time"),
        ("Batch fill", "—" if figures.fill is None else share(figures.fill), why_empty(figures)),
        _cost_tile(closing, figures, currency),
        ("Per image", _money_or_dash(per_image, 1, currency), "idle time included"),
        ("Per 1,000 images", _money_or_dash(per_image, 1000, currency), ""),
    ]


def _cost_tile(closing: Bill, figures: Figures, currency: str) -> tuple[str, str, str]:
    if cost_unknown(closing):
        return "Cost", UNPRICED, "no worker has a price"
    note = "what has a price of it" if closing.unpriced else "the whole bill"
    return "Cost", money(figures.cost, currency), note


def _prices(totals: Totals, currency: str) -> list[str]:
    """What a worker cost, by kind of machine."""
    found: Counter[str] = Counter()
    for use in totals.workers.values():
        if use.stamp is not None:
            price = use.stamp.price
            names = (price.provider, price.region, price.instance_type, price.purchase_option)
            what = ", ".join(name for name in names if name) or "an unknown machine"
            hourly = (
                "no price"
                if price.nano_per_hour is None
                else f"{as_decimal(price.nano_per_hour).normalize():f} {currency} an hour"
            )
            found[f"{what}: {hourly} (prices {price.version})"] += 1
    return [f"{plural(count, 'worker')} on {text}" for text, count in found.most_common()]


def _part(count: int, whole: int) -> str:
    return share(count / whole) if whole else ""


def _number_or_dash(value: float | None) -> str:
    return "—" if value is None else number(value)


def _money_or_dash(amount: Decimal | None, times: int, currency: str) -> str:
    return "—" if amount is None else money(amount * times, currency)


def _money(closing: Bill, currency: str) -> dict[str, Any]:
    """The bill by kind; amounts with all digits, shares that sum to 100 %."""
    unknown = cost_unknown(closing)
    by_amount = closing.total_amount > 0 and not unknown
    kinds = [kind for kind in _KINDS if kind in closing.amount]
    weighed = closing.amount if by_amount else closing.ns
    weights = [weighed.get(kind, 0) for kind in kinds]
    shares = split(1000, weights) if sum(weights) else [0] * len(weights)
    amounts = {
        kind: UNPRICED if unknown and kind in closing.ns else exact_money(closing.amount[kind])
        for kind in kinds
    }
    lines = [
        {
            "kind": kind,
            "what": _KINDS[kind],
            "time": duration(closing.ns[kind] / 1e9) if kind in closing.ns else "",
            "amount": amounts[kind],
            "weight": weight,
            "percent": f"{tenths / 10:.1f} %",
        }
        for kind, weight, tenths in zip(kinds, weights, shares, strict=True)
    ]
    return {
        "lines": lines,
        "currency": currency,
        "total": UNPRICED if unknown else exact_money(closing.total_amount),
        "total_time": duration(closing.total_ns / 1e9),
        "any": sum(weights) > 0,
        "closed": sum(closing.amount.values()) == closing.total_amount,
    }


def _card(sample: Sample, currency: str) -> dict[str, Any]:
    row = sample.row
    facts = [
        f"{row['width']} × {row['height']}",
        f"{row['steps']} steps",
        f"guidance {row['guidance_scale']:g}",
        str(row["sampler"]),
        f"seed {row['seed']}",
        UNPRICED if row["cost"] is None else money(row["cost"], currency),
    ]
    return {
        "source": _data_uri(sample.image),
        "prompt": _clipped(row["prompt"] or ""),
        "negative": _clipped(row["negative_prompt"] or ""),
        "facts": facts,
        "image_id": row["image_id"],
        "label": _clipped(row["id"] or ""),
        "object": row["object"],
        "small": max(row["width"], row["height"]) < THUMBNAIL_PX // 2,
        "aspect": f"{row['width']} / {row['height']}",
    }


def _data_uri(image: bytes | None) -> str | None:
    if image is None:
        return None
    return f"data:{THUMBNAIL_MEDIA_TYPE};base64,{base64.b64encode(image).decode()}"


def _clipped(text: str) -> str:
    if len(text) <= _LONGEST_PROMPT:
        return text
    return f"{text[:_LONGEST_PROMPT]}… ({len(text):,} characters)"


def _reasons(counts: Survey, totals: Totals) -> dict[str, Any]:
    shown = counts.reasons(_SHOWN_REASONS)
    rest = sum(counts.rejected.values()) - sum(reason.rows for reason in shown)
    return {
        "shown": shown,
        "rest": rest,
        "part": [_part(reason.rows, totals.rows) for reason in shown],
    }


def _mix(title: str, mix: Mix, totals: Totals) -> dict[str, Any]:
    top, rest = mix.top(_SHOWN_GROUPS)
    lines = [(" × ".join(str(part) for part in value), images) for value, images in top]
    if rest:
        lines.append(("all others", rest))
    return {
        "title": title,
        "lines": [(name, f"{n:,}", _part(n, totals.images), n) for name, n in lines],
        "most": max((n for _, n in lines), default=1),
    }


def _shown(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without what may be a credential."""
    options = dict.fromkeys(config["storage"]["options"], "(not shown)")
    alert = config["budget"]["alert"] and "(not shown)"
    return {
        **config,
        "storage": {**config["storage"], "options": options},
        "budget": {**config["budget"], "alert": alert},
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The configuration as (key, value) lines."""
    lines: list[tuple[str, str]] = []
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            lines += _flat(value, f"{path}.")
        else:
            lines.append((path, without_secrets(_written(value))))
    return lines


def _written(value: Any) -> str:
    """A value as it is given on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _minute(timestamp: str) -> str:
    """An ISO 8601 time in UTC to the minute."""
    return f"{timestamp[:16].replace('T', ' ')} UTC"


__all__ = ["GALLERY", "THUMBNAIL_PX", "ReportFacts", "build_report"]
