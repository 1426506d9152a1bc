"""Lines over midnight: whatever the period, the days sum to the line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from cluster.ledger_days import days_of, in_one_part, on_days
from tests.made_ledgers import ledger_of, worker_line

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = st.timedeltas(timedelta(0), timedelta(days=9)).map(lambda passed: FIRST + passed)
AMOUNTS = st.none() | st.integers(-(10**12), 10**17)


@given(
    st.lists(
        st.tuples(
            MOMENTS,
            st.timedeltas(timedelta(0), timedelta(days=40)),
            AMOUNTS,
            st.integers(0, 10**17),
            st.none() | st.decimals(0, 10**6, places=9),
        ),
        max_size=5,
    )
)
def test_the_days_of_each_line_sum_exactly_to_it(
    lines: list[tuple[datetime, timedelta, int | None, int, Decimal | None]],
) -> None:
    whole = [
        worker_line(
            line_id=str(number),
            period_start=start,
            period_end=start + lasts,
            amount_nano=amount,
            gpu_ns=ns,
            quantity=quantity,
        )
        for number, (start, lasts, amount, ns, quantity) in enumerate(lines)
    ]
    parts = on_days(ledger_of(whole)).to_pylist()
    for line in ledger_of(whole).to_pylist():
        mine = sorted(
            (part for part in parts if part["line_id"] == line["line_id"]),
            key=lambda part: part["period_start"],
        )
        for name in ("amount_nano", "gpu_ns", "quantity"):
            values = [part[name] for part in mine]
            if line[name] is None:
                assert set(values) == {None}
            else:
                assert sum(values) == line[name]
        places = [part["part"] for part in mine]
        assert places.count(0) == 1 == 1 - min(places), "a line is counted once"
        months = {part["period_start"].month for part in mine}
        assert sum(place < 2 for place in places) == len(months)
        assert mine[0]["period_start"] == line["period_start"]
        assert mine[-1]["period_end"] == line["period_end"]
        for part in mine:
            last = part["period_end"] - timedelta(microseconds=1)
            assert last.date() <= part["period_start"].date()


def test_a_period_that_ends_at_midnight_has_no_part_on_the_next_day() -> None:
    end = FIRST + timedelta(days=1)
    assert list(days_of(FIRST, end)) == [(FIRST, end)]
    line = ledger_of([worker_line(period_start=FIRST, period_end=end)])
    assert on_days(line).equals(in_one_part(line))
