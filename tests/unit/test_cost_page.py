"""``imagemill cost --html``: a page over many outputs, read and looked at in a browser."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.cli import main
from tests.browser import CHROMIUM, look
from tests.made_ledgers import NOON, image_line, made_output, other_line, worker_line


def some_outputs(folder: Path) -> Path:
    """Three outputs below a folder: of two projects, over four days, one in another currency."""
    for number, project in enumerate(("posters", "<script>shop", "posters")):
        start = NOON + timedelta(days=number)
        images = [
            image_line(n, start=start, project=project, amount_nano=10**6 * (number + 1))
            for n in range(5)
        ]
        others = [
            worker_line(kind, project=project, start=start, amount_nano=2 * 10**6)
            for kind in ("idle", "wasted", "overhead")
        ]
        others.append(other_line(project=project, start=start))
        made_output(folder / "all" / str(number), images, others)
    return folder / "all"


def page_of(capsys: pytest.CaptureFixture[str], path: Path, *words: str) -> str:
    capsys.readouterr()
    status = main(["cost", *words, "--html", str(path)])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert printed.out == f"wrote {path}: open it in a browser\n"
    return path.read_text()


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["cost", *words]) == 2
    return capsys.readouterr().err


def test_many_outputs_are_on_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = some_outputs(tmp_path)
    page = page_of(capsys, tmp_path / "c.html", str(folder))
    assert "Unpriced" not in page
    assert "Costs of 3 outputs" in page
    # 5 images at 1, 2 and 3 thousandths, 18 of other time, three times 40 of storage
    assert ">0.168 USD</b>" in page
    assert "0.030000000" in page
    assert "0.120000000" in page
    assert "Cost by project" in page
    assert "&lt;script&gt;shop" in page
    assert "<script" not in page
    assert "SIMULATED  3 of 3 outputs" in page
    assert "0.048 USD over 3 days (UTC), 0.016 USD a day; most, 0.021 USD, on 2026-03-03." in page
    assert str(folder / "2" / "output") in page


def test_it_groups_by_what_was_asked_and_spreads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = some_outputs(tmp_path)
    page = page_of(capsys, tmp_path / "c.html", str(folder), "--by", "model,day", "--spread")
    assert "Cost by model, day" in page
    assert "sdxl · 2026-03-01" in page
    assert "– · 2026" not in page
    assert "Waiting, loading, waste and storage are charged to the images" in page


def test_currencies_have_a_part_each_and_what_has_no_price_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_output(
        tmp_path,
        [image_line(0), image_line(1, currency="EUR"), image_line(2, amount_nano=None)],
    )
    page = page_of(capsys, tmp_path / "c.html", str(tmp_path))
    assert page.index("In EUR") < page.index("In USD")
    assert "unpriced   1 line with 0.000278 GPU hours" in page
    assert "Cost by day" not in page, "of one day there is no chart"


def test_groups_with_lines_without_a_price_are_marked_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [image_line(n, steps=n + 1) for n in range(42)]
    lines.append(image_line(0, steps=1, amount_nano=None))
    lines += [image_line(n, steps=99, amount_nano=None) for n in range(3)]
    made_output(tmp_path, [*lines, image_line(0, currency="EUR")])
    page = page_of(capsys, tmp_path / "c.html", str(tmp_path), "--by", "steps")
    dollars, euros = page.split("In EUR")
    assert "Unpriced</th>" in dollars
    assert "Unpriced</th>" not in euros, "nothing of it lacks a price"
    rows = [" ".join(re.sub("<[^>]+>", " ", row).split()) for row in dollars.split("<tr>")]
    assert "1 0.001 USD 2 1 – 0 % 0.000556" in rows
    assert "2 0.001 USD 1 0 0.001 USD 0 % 0.000278" in rows
    assert "3 more 0.002 USD 3" in rows
    assert "without 4 lines that no price is known for" in dollars
    assert ">all kinds<" in euros


def test_more_groups_than_a_page_takes_are_summed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_output(tmp_path, [image_line(n, steps=n + 1) for n in range(43)])
    page = page_of(capsys, tmp_path / "c.html", str(tmp_path), "--by", "steps")
    assert '3 more</td><td class="right">0.003 USD' in page


def test_an_output_without_any_line_has_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_output(tmp_path, [])
    assert "nothing was billed yet" in page_of(capsys, tmp_path / "c.html", str(tmp_path))


def test_a_page_goes_with_no_other_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_output(tmp_path, [image_line(0)])
    page = str(tmp_path / "c.html")
    for more in (("--format", "csv"), ("--out", page)):
        text = refused(capsys, str(tmp_path), "--html", page, *more)
        assert "--html writes a page and goes with neither --format nor --out" in text
    text = refused(capsys, str(tmp_path), "--html", page, "--focus", page)
    assert "goes with none of --by, --spread, --html, --format and --out" in text
    text = refused(capsys, str(tmp_path), "--html", f"{tmp_path}/none/c.html")
    assert f"there is no folder {tmp_path}/none; make it first" in text


LOOKED_AT = r"""(() => {
  const wide = [...document.querySelectorAll('main *')].filter(node => {
    const box = node.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !node.closest('.wide, pre');
  });
  return {
    page: [document.documentElement.scrollWidth, innerWidth],
    wide: wide.map(node => node.outerHTML.slice(0, 80)),
    hidden: [...document.querySelectorAll('.wide')].map(box => box.scrollWidth - box.clientWidth),
    titles: [...document.querySelectorAll('h1, h2')].map(node => node.innerText),
    shares: [...document.querySelectorAll('.bar i')].map(
      node => node.getBoundingClientRect().width),
    plots: [...document.querySelectorAll('svg.plot')].map(plot => ({
      box: [plot.getBoundingClientRect().width, plot.getBoundingClientRect().height],
      bars: [...plot.querySelectorAll('rect')].map(bar => ({
        fill: getComputedStyle(bar).fill,
        kind: bar.className.baseVal,
        height: bar.getBoundingClientRect().height,
      })),
    })),
    projects: [...document.querySelectorAll('td.name')].map(node => node.innerText),
    background: getComputedStyle(document.body).backgroundColor,
  };
})()"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), [(1200, True), (390, False)])
def test_the_page_in_a_browser(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], width: int, dark: bool
) -> None:
    path = tmp_path / "costs.html"
    page_of(capsys, path, str(some_outputs(tmp_path)))
    seen = look(path, LOOKED_AT, width=width, dark=dark)
    (tmp_path / "page.png").write_bytes(seen.picture)
    assert list(seen.requested) == [path.as_uri()]
    assert seen.complaints == ()
    found = seen.value
    assert found["wide"] == []
    assert found["page"][0] <= found["page"][1], "nothing is to be pushed sideways"
    assert max(found["hidden"]) <= 0, "all columns of all tables are in view"
    assert found["background"] == ("rgb(21, 23, 26)" if dark else "rgb(247, 247, 245)")
    assert found["titles"] == [
        "Costs of 3 outputs",
        "Where the money went",
        "Cost by day",
        "Cost by project",
        "What was asked",
    ]
    assert sorted(found["projects"]) == ["<script>shop", "posters"]
    # used, wasted, overhead, idle, storage: 30, 6, 6, 6 and 120 thousandths
    used, *_, storage = found["shares"]
    assert storage / used == pytest.approx(4, rel=0.05)
    days, projects = found["plots"]
    for plot, bars in ((days, 12), (projects, 10)):
        assert plot["box"][0] > width / 2
        assert plot["box"][1] == pytest.approx(120, abs=2)
        assert len(plot["bars"]) == bars
        assert len({bar["fill"] for bar in plot["bars"]}) == bars // (3 if bars == 12 else 2)
