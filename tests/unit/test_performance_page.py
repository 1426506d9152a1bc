"""docs/performance.md says what docs/performance.json holds, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from benchmarks.contestants import WAYS
from benchmarks.page import DOCS, page, plot, write
from benchmarks.plot import Bar, Panel, svg
from benchmarks.results import Overlap, Peak, Results, Share, Simulated
from benchmarks.spread import Spread
from tests.unit.test_benchmark_arithmetic import results, run


def whole() -> Results:
    share = Share(
        precision="float32",
        turn=0,
        bare_per_second={"4": 50.0, "16": 101.0},
        uniform_per_second=98.0,
        one_shape_per_second=90.0,
        uniform_denoiser_share=0.97,
        one_shape_denoiser_share=0.961,
        fill=0.99,
    )
    slow = Overlap(
        turn=0, images=8, loop_per_second=2.5, worker_per_second=2.4, whole_per_second=2.3
    )
    simulated = [
        Simulated(way=way, rows=100, batch=16, images_per_second=rate, fill=0.5)
        for way, rate in (("equal groups inside each batch", 0.2), ("tables", 0.4))
    ]
    runs = [
        run(way, turn, workload=workload, steady_per_second=1.0 + turn / 4 + number)
        for workload in ("mixed", "uniform")
        for number, way in enumerate(WAYS)
        for turn in range(2)
    ]
    return results(
        runs=runs,
        shares=[share],
        overlaps=[slow],
        simulated=simulated,
        peaks=[Peak(engine="simulated", rows=20_000, peak_mib=203.4)],
    )


def test_the_page_in_the_docs_is_what_its_results_give():
    measured = Results.read(DOCS / "performance.json")
    written = (DOCS / "performance.md").read_text()
    assert written == page(measured), "docs/performance.md is stale: python -m benchmarks.page"
    drawn = DOCS / "performance.svg"
    assert (drawn.read_text() if drawn.exists() else None) == plot(measured)


def test_results_are_read_as_they_were_written(tmp_path):
    measured = whole()
    write(measured, tmp_path / "docs")
    assert Results.read(tmp_path / "docs" / "performance.json") == measured


def test_every_part_that_was_measured_is_on_the_page():
    text = page(whole())
    for way in WAYS.values():
        assert text.count(f"| {way.title} | ") >= 2
    for part in ("4: 50, 16: 101", "98", "96 %", "20,000 | 203", "| 100 | tables | 0.400 | 2.00"):
        assert part in text
    assert "1.12 (1.00–1.25)" in text
    assert "\n\n\n" not in text
    assert text.count("\n## ") == text.count("\n\n## ") == 9


@pytest.mark.parametrize(
    ("part", "heading"),
    [
        ("runs", "## Mixed rows"),
        ("shares", "## The engine and the bare denoiser"),
        ("overlaps", "## A slow store"),
        ("peaks", "## Memory of a worker"),
        ("simulated", "## Simulation"),
    ],
)
def test_a_part_that_was_not_measured_is_not_on_the_page(part, heading):
    assert heading in page(whole())
    assert heading not in page(replace(whole(), **{part: []}))


def test_a_simulation_is_called_one():
    text = page(whole())
    assert "**Computed, not measured.**" in text[text.index("## Simulation") :]


def test_a_page_whose_goals_are_met_explains_no_failure():
    assert "Where the time goes instead" in page(whole())
    assert "Where the time goes instead" not in page(results())


def test_bars_are_as_long_as_their_values_and_titles_are_text():
    bars = [
        Bar(title="a < b", value=Spread(least=1.0, median=2.0, most=4.0), ours=True),
        Bar(title="c", value=Spread(least=1.0, median=1.0, most=1.0), ours=False),
    ]
    drawn = ET.fromstring(svg([Panel(title="both", bars=bars)]))
    rects = [float(one.get("width")) for one in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert rects[1] == pytest.approx(2 * rects[2], abs=0.2)
    assert rects[1] == pytest.approx((760 - 210 - 70) / 2, abs=0.2)
    assert "a < b" in [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
