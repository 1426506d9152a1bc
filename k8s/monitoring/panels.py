"""The shapes of panels that dashboards repeat: numbers and dials in a row of six, lines below."""

from __future__ import annotations

from k8s.monitoring.grafana import Panel, Query

_SIXTH = 4
_LOW = 5


def figure(
    title: str, about: str, *queries: Query, unit: str = "short", decimals: int | None = None
) -> Panel:
    """What is so now, as a number."""
    return Panel(
        title=title,
        about=about,
        queries=queries,
        kind="stat",
        unit=unit,
        decimals=decimals,
        width=_SIXTH,
        height=_LOW,
    )


def amount(title: str, about: str, *queries: Query) -> Panel:
    """What is so now, as an amount of the currency that its legend names."""
    return figure(title, about, *queries, unit="none", decimals=2)


def dial(title: str, about: str, *queries: Query) -> Panel:
    """What is so now, as a share of a whole."""
    return Panel(
        title=title,
        about=about,
        queries=queries,
        kind="gauge",
        unit="percentunit",
        most=1,
        width=_SIXTH,
        height=_LOW,
    )


def shares(title: str, about: str, *queries: Query, width: int = 8) -> Panel:
    """Shares of a whole over time."""
    return Panel(title=title, about=about, queries=queries, unit="percentunit", most=1, width=width)


def amounts(title: str, about: str, *queries: Query, stacked: bool = False) -> Panel:
    """Amounts over time, of the currencies that their legends name."""
    return Panel(title=title, about=about, queries=queries, unit="none", stacked=stacked)
