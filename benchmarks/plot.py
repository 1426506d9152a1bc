"""Images a second of every way as horizontal bars, in SVG. Pure: numbers in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.spread import Spread

_WIDTH, _LEFT, _RIGHT = 760, 210, 70
_BAR, _GAP, _HEAD = 16, 8, 34
_OURS, _THEIRS = "#2a6f97", "#a9a9a9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """``ours``: in the colour of ImageMill."""

    title: str
    value: Spread
    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Some bars under a heading."""

    title: str
    bars: Sequence[Bar]


def svg(panels: Sequence[Panel]) -> str:
    """One drawing with a panel below the other, on one scale; whiskers from least to most."""
    most = max(bar.value.most for panel in panels for bar in panel.bars)
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    lines: list[str] = []
    top = 8
    for panel in panels:
        title = escape(panel.title)
        lines.append(f'<text x="8" y="{top + 16}" font-size="14">{title}</text>')
        top += _HEAD
        for bar in panel.bars:
            lines += _bar(bar, top, scale)
            top += _BAR + _GAP
        top += _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" '
        f'width="{_WIDTH}" height="{top}" font-family="sans-serif" font-size="12">'
    )
    background = f'<rect width="{_WIDTH}" height="{top}" fill="white"/>'
    return "\n".join([head, background, *lines, "</svg>"]) + "\n"


def _bar(bar: Bar, top: int, scale: float) -> Iterator[str]:
    middle, base = top + _BAR / 2, top + _BAR - 4
    end, low, high = (
        _LEFT + scale * n for n in (bar.value.median, bar.value.least, bar.value.most)
    )
    fill = _OURS if bar.ours else _THEIRS
    yield f'<text x="{_LEFT - 8}" y="{base}" text-anchor="end">{escape(bar.title)}</text>'
    yield (f'<rect x="{_LEFT}" y="{top}" width="{end - _LEFT:.1f}" height="{_BAR}" fill="{fill}"/>')
    yield (
        f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="black" '
        'stroke-width="1.5"/>'
    )
    yield f'<text x="{high + 6:.1f}" y="{base}">{bar.value.median:.2f}</text>'
