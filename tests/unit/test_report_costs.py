"""What the report says of money: counted exactly, drawn in bars, looked at in a browser."""

from __future__ import annotations

import random
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.figures import ReportFacts
from jobs.report import build_report
from jobs.report.charts import Part, bars_svg, day_costs, dearest_rows, image_costs
from jobs.report.costs import CostSurvey, cost_survey
from tests.browser import CHROMIUM, look
from tests.made_ledgers import NOON, image_line, ledger_of, other_line, worker_line
from tests.small_jobs import SmallJob, run_small_job

KINDS = ("idle", "wasted", "overhead")


def surveyed(images: list[dict[str, Any]], others: list[dict[str, Any]] = ()) -> CostSurvey:  # type: ignore[assignment]
    found = CostSurvey()
    for first in range(0, len(images), 11):
        found.add_images(ledger_of(images[first : first + 11]))
    found.add_workers(ledger_of(list(others)))
    return found


def test_the_dearest_rows_are_those_whose_images_cost_most_together() -> None:
    lines = [image_line(n, amount_nano=100 + 7 * n % 20) for n in range(20)]
    lines += [image_line(99, line_id=f"w0:99-{i}", amount_nano=70, steps=50) for i in range(2)]
    rows = surveyed(sorted(lines, key=lambda line: line["row_id"])).dearest
    assert [row.row_id for row in rows] == [99, *(17, 14, 11, 8, 5, 2, 19, 16, 13)]
    assert (rows[0].amount_nano, rows[0].images, rows[0].steps) == (140, 2, 50)


def test_classes_hold_every_image_once_between_the_cheapest_and_the_dearest() -> None:
    chance = random.Random(1)
    amounts = sorted(int(chance.lognormvariate(12, 1)) for _ in range(500))
    found = surveyed([image_line(n, amount_nano=amount) for n, amount in enumerate(amounts)])
    for bars in (1, 7, 40):
        classes = found.histogram(bars)
        assert len(classes) <= bars
        assert sum(images for _, _, images in classes) == 500
        for low, high, images in classes:
            inside = sum(low <= amount < high for amount in amounts)
            assert abs(inside - images) <= 1, "an edge may round"
    assert (found.least, found.most) == (amounts[0], amounts[-1])
    assert found.quantile(0.5) == pytest.approx(amounts[249], rel=0.012)
    assert found.quantile(0.95) == pytest.approx(amounts[474], rel=0.012)


def test_images_that_cost_nothing_or_have_no_price_are_in_no_class() -> None:
    lines = [image_line(0, amount_nano=0), image_line(1, amount_nano=None), image_line(2)]
    assert surveyed(lines).images == 1
    nothing = surveyed(lines[:2])
    assert image_costs(nothing, "USD") is None
    assert dearest_rows(nothing, "USD") == []
    assert day_costs(nothing, "USD") is None


def test_days_sum_to_the_ledger_and_a_day_without_costs_has_its_place() -> None:
    idle = worker_line(period_end=NOON + timedelta(days=1), amount_nano=101)
    lines = [image_line(0), image_line(1, start=NOON + timedelta(days=3))]
    found = surveyed(lines, [idle])
    found.add_workers(ledger_of([other_line(), worker_line("wasted", amount_nano=None)]))
    days = list(found.by_day(62))
    assert days == [
        (date(2026, 3, 1), date(2026, 3, 1), {"used": 1_000_000, "idle": 50}),
        (date(2026, 3, 2), date(2026, 3, 2), {"idle": 51}),
        (date(2026, 3, 3), date(2026, 3, 3), {}),
        (date(2026, 3, 4), date(2026, 3, 4), {"used": 1_000_000}),
    ]
    wide = list(found.by_day(2))
    assert [(first.day, last.day) for first, last, _ in wide] == [(1, 2), (3, 4)]
    assert wide[0][2] == {"used": 1_000_000, "idle": 101}
    told = day_costs(found, "USD")
    assert told is not None
    assert "most, 0.001 USD, on 2026-03-01." in told["summary"]


def test_one_day_makes_no_chart_of_days() -> None:
    assert day_costs(surveyed([image_line(0), image_line(1)]), "USD") is None


def test_what_a_user_named_cannot_break_out_of_a_picture() -> None:
    drawn = bars_svg([[Part(kind='"><script>', size=1, title="</title><script>x")]], "<b>")
    assert "<script" not in drawn
    assert "<b>" not in drawn


def test_the_survey_of_a_real_job_sums_to_its_bill(tmp_path: Path) -> None:
    small = real_job(tmp_path)
    found = cost_survey(small.store, small.job, small.plan, small.totals())
    bill = small.bill()
    for kind in bill.amount:
        assert sum(a for (_, k), a in found.days.items() if k == kind) == bill.amount[kind]
    assert found.images == 12
    assert sum(row.amount_nano for row in found.dearest) <= bill.amount["used"]


def real_job(tmp_path: Path) -> SmallJob:
    rows = [{"prompt": f"a cat {i}", "steps": 2 + i % 3} for i in range(12)]
    return run_small_job(tmp_path, rows, **{"pricing.price_per_hour": "987.654"})


def test_the_page_of_one_day_has_costs_of_images_and_rows(tmp_path: Path) -> None:
    small = real_job(tmp_path)
    page = page_of(small).decode()
    assert "What an image cost" in page
    assert "Most expensive rows" in page
    assert "Cost by day" not in page or len(days_of(small)) > 1


def days_of(small: SmallJob) -> set[date]:
    return {day for day, _ in cost_survey(small.store, small.job, small.plan, small.totals()).days}


def page_of(small: SmallJob, costs: CostSurvey | None = None) -> bytes:
    return build_report(
        small.store,
        small.job,
        small.plan,
        small.totals(),
        small.bill(),
        ReportFacts(wall_s=3.0),
        costs=costs,
    )


LOOKED_AT = r"""(() => {
  const colour = (node, name) => getComputedStyle(node)[name];
  const plots = [...document.querySelectorAll('svg.plot')];
  const texts = [...document.querySelectorAll('.box p, .axis span, .legend span, td, th, h2')];
  const behind = node => {
    for (; node; node = node.parentElement) {
      const found = colour(node, 'backgroundColor');
      if (found !== 'rgba(0, 0, 0, 0)') return found;
    }
  };
  const wide = [...document.querySelectorAll('main *')].filter(node => {
    const box = node.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !node.closest('.wide, pre');
  });
  return {
    page: [document.documentElement.scrollWidth, innerWidth],
    wide: wide.map(node => node.outerHTML.slice(0, 80)),
    hidden: [...document.querySelectorAll('.wide')].map(box => box.scrollWidth - box.clientWidth),
    background: colour(document.body, 'backgroundColor'),
    plots: plots.map(plot => ({
      box: [plot.getBoundingClientRect().width, plot.getBoundingClientRect().height],
      bars: [...plot.querySelectorAll('rect')].map(bar => ({
        fill: colour(bar, 'fill'),
        kind: bar.className.baseVal,
        height: bar.getBoundingClientRect().height,
        bottom: bar.getBoundingClientRect().bottom - plot.getBoundingClientRect().bottom,
      })),
    })),
    texts: texts.map(node => [node.textContent.trim().slice(0, 40), colour(node, 'color'),
      behind(node), parseFloat(colour(node, 'fontSize'))]),
  };
})()"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390, 320])
def test_the_page_in_a_browser(tmp_path: Path, width: int, dark: bool) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(page_of(real_job(tmp_path), many_days()))
    seen = look(path, LOOKED_AT, width=width, dark=dark)
    (tmp_path / "page.png").write_bytes(seen.picture)
    assert [url for url in seen.requested if not url.startswith("data:")] == [path.as_uri()]
    assert seen.complaints == ()
    found = seen.value
    assert found["wide"] == []
    assert found["page"][0] <= found["page"][1], "nothing is to be pushed sideways"
    if width > 350:
        assert max(found["hidden"]) <= 0, "all columns of all tables are in view"
    assert found["background"] == ("rgb(21, 23, 26)" if dark else "rgb(247, 247, 245)")
    days, images = found["plots"]
    for plot in (days, images):
        assert plot["box"][0] > width / 2
        assert plot["box"][1] == pytest.approx(120, abs=2)
        assert max(bar["height"] for bar in plot["bars"]) > 5
        assert all(bar["bottom"] < 1 for bar in plot["bars"])
    kinds = {bar["kind"]: bar["fill"] for bar in days["bars"]}
    assert set(kinds) == {"used", "requests", *KINDS}
    assert len({*kinds.values(), found["background"], "rgb(0, 0, 0)"}) == 7, "seven colours apart"
    for text, front, back, size in found["texts"]:
        assert contrast(front, back) >= 4.5, (text, front, back)
        assert size >= 11, text


def many_days() -> CostSurvey:
    chance = random.Random(1)
    lines = [
        image_line(
            n,
            start=NOON + timedelta(days=chance.randrange(9)),
            amount_nano=int(chance.lognormvariate(13, 0.5)),
        )
        for n in range(300)
    ]
    end = NOON + timedelta(days=9)
    others = [worker_line(kind, period_end=end, amount_nano=20_000_000) for kind in KINDS]
    return surveyed(lines, [*others, other_line("requests", amount_nano=10_000_000)])


def contrast(front: str, back: str) -> float:
    """The contrast of two colours, as WCAG 2 counts it."""

    def light(colour: str) -> float:
        parts = [int(found) / 255 for found in re.findall(r"\d+", colour)[:3]]
        straight = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), straight, strict=True))

    dim, bright = sorted((light(front), light(back)))
    return (bright + 0.05) / (dim + 0.05)
