"""Reports over real small outputs: what they say must be what is there, and safe to open."""

from __future__ import annotations

import hashlib
import html.parser
import io
import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest
from PIL import Image

from cluster import layout
from cluster.lifetime import utc_now
from cluster.shard_log import ShardLog
from conf.errors import CorruptOutput
from jobs.figures import ReportFacts
from jobs.report import build_report, pick_samples, survey, top_reasons, write_report
from jobs.report.samples import spread
from tests.small_jobs import SmallJob, prepare_small_job, run_small_job, work_on

FORMATS = ("files", "webdataset", "parquet")


class _Page(html.parser.HTMLParser):
    """Collects the tags, their attributes and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._open.append(tag)
        self.sources += [value or "" for name, value in attrs if name == "src"]
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.styles += [value or "" for name, value in attrs if name == "style"]

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


def rows(count: int) -> list[dict[str, Any]]:
    samplers = ("ddim", "euler", "heun")
    return [
        {"prompt": f"picture {i}", "steps": 2 + i % 2, "sampler": samplers[i % 3], "seed": i}
        for i in range(count)
    ]


def page_of(small: SmallJob, facts: ReportFacts | None = None) -> _Page:
    page = build_report(
        small.store, small.job, small.plan, small.totals(), small.bill(), facts or ReportFacts()
    )
    return _Page(page.decode())


def write(small: SmallJob) -> list[str]:
    return write_report(
        small.store, small.job, small.plan, small.totals(), small.bill(), ReportFacts(wall_s=1.5)
    )


@pytest.mark.parametrize("output_format", FORMATS)
def test_samples_are_the_committed_images_spread_over_the_job(
    tmp_path: Path, output_format: str
) -> None:
    small = run_small_job(tmp_path, rows(24), **{"output.format": output_format})
    everything = pick_samples(small.store, small.plan, 100)
    assert [sample.row["prompt"] for sample in everything] == [f"picture {i}" for i in range(24)]
    metadata = _metadata(small)
    for sample in everything:
        assert sample.image is not None
        found = hashlib.sha256(sample.image).hexdigest()
        assert found == metadata[sample.row["image_id"]]["sha256"]
    few = pick_samples(small.store, small.plan, 6)
    assert len(few) == 6
    assert len({sample.row["row_id"] // 4 for sample in few}) == 6, "one of each shard"


def _metadata(small: SmallJob) -> dict[str, Any]:
    folder = small.store.path("metadata")
    table = pyarrow.dataset.dataset(folder, format="parquet").to_table()
    return {row["image_id"]: row for row in table.to_pylist()}


def test_samples_of_a_half_done_job_come_from_what_is_there(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, rows(40), shards=[7, 8])
    samples = pick_samples(small.store, small.plan, 6)
    assert len(samples) == 6
    assert {sample.row["row_id"] // 4 for sample in samples} == {7, 8}


def test_a_lost_or_broken_image_is_shown_as_such(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, rows(4))
    lost, broken = [s.row["object"] for s in pick_samples(small.store, small.plan, 2)]
    small.store.delete(lost)
    small.store.put(broken, b"not a picture")
    page = page_of(small)
    assert page.text.count("cannot be opened") == 2
    assert page.tags["img"] == 2


@pytest.mark.parametrize("container", ["shards", "data"])
def test_a_damaged_container_costs_the_pictures_not_the_report(
    tmp_path: Path, container: str
) -> None:
    kind = {"shards": "webdataset", "data": "parquet"}[container]
    small = run_small_job(tmp_path, rows(4), **{"output.format": kind})
    for entry in small.store.listing(f"{container}/"):
        small.store.put(entry.key, b"damaged" * 200)
    samples = pick_samples(small.store, small.plan, 4)
    assert [sample.image for sample in samples] == [None] * 4
    assert len(write(small)) == 3


def test_prompts_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    small = run_small_job(
        tmp_path,
        [
            {"prompt": evil, "id": evil, "negative_prompt": evil, "sampler": "ddim"},
            {"prompt": "fine", "id": evil, "negative_prompt": "", "sampler": evil},
        ],
        **{"job.name": evil, "job.tags": {evil: evil}},
    )
    page = page_of(small, ReportFacts(reason=evil, broken_files=(evil,)))
    assert page.tags["script"] == 0
    assert page.tags["img"] == 1
    assert evil in page.text


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = page_of(run_small_job(tmp_path, rows(4)))
    assert page.sources
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert page.tags["link"] == 0
    assert all(link.startswith("images/") for link in page.links)
    assert not any("url(" in style for style in page.styles)


def test_a_simulated_job_says_so_everywhere(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, rows(4))
    assert "SIMULATED ENGINE" in page_of(small).text
    write(small)
    note = (small.store.get(layout.README) or b"").decode()
    assert "SIMULATED ENGINE" in note
    asked = replace(small.config, engine=replace(small.config.engine, name="stepwise"))
    real = replace(small, job=replace(small.job, config=asked))
    assert "SIMULATED" not in page_of(real).text
    marked = replace(asked, model=replace(asked.model, name="simulated:sd15"))
    assert "SIMULATED" in page_of(replace(small, job=replace(small.job, config=marked))).text


def test_the_money_table_adds_up_to_the_bill(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, rows(8))
    text = page_of(small).text.partition("What an image cost")[0]
    amounts = [Decimal(found) for found in re.findall(r"\d+\.\d{9}(?! [A-Z])", text)]
    assert len(amounts) == 5
    assert sum(amounts[:4]) == amounts[4] == Decimal(small.bill().total_amount).scaleb(-9)
    assert "do not add up" not in text


def test_the_survey_counts_every_committed_image_and_quarantined_row(tmp_path: Path) -> None:
    asked = rows(30)
    asked[4]["prompt"] = asked[5]["prompt"] = asked[6]["prompt"] = asked[7]["prompt"] = " "
    asked[9]["steps"] = 0
    small = run_small_job(tmp_path, asked)
    good = [row for row in asked if row["prompt"].strip() and row["steps"]]
    found = survey(small.store, small.plan)
    assert found.mix["sampler"].counts == Counter((row["sampler"],) for row in good)
    assert found.mix["steps"].counts == Counter((row["steps"],) for row in good)
    assert found.mix["size"].counts == {(64, 64): len(good)}
    empty, steps = top_reasons(small.store, small.plan, 10)
    assert (empty.stage, empty.reason, empty.rows) == ("read", "empty_prompt", 4)
    assert [example.row_id for example in empty.examples] == [4, 5, 6]
    assert (steps.reason, steps.rows) == ("bad_steps", 1)
    assert len(top_reasons(small.store, small.plan, 1)) == 1
    page = page_of(small)
    assert "empty_prompt" in page.text
    assert "steps is 0" in page.text


def test_released_rows_are_no_longer_counted_as_quarantined(tmp_path: Path) -> None:
    asked = rows(8)
    asked[1]["prompt"] = ""
    small = run_small_job(tmp_path, asked)
    assert [reason.rows for reason in top_reasons(small.store, small.plan, 5)] == [1]
    ShardLog.open(small.store, 0, worker="retrying", generation=1, now=utc_now)
    assert top_reasons(small.store, small.plan, 5) == []
    again = work_on(small, generation=1)
    assert again.outcomes[-1].error is None
    assert [reason.rows for reason in top_reasons(small.store, small.plan, 5)] == [1]
    assert survey(small.store, small.plan).mix["size"].counts == {(64, 64): 7}


def test_a_missing_quarantine_table_is_an_error(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [{"prompt": ""}])
    (entry,) = small.store.listing("quarantine/")
    small.store.delete(entry.key)
    with pytest.raises(CorruptOutput, match="quarantine/"):
        top_reasons(small.store, small.plan, 5)


def test_an_empty_job_has_a_report(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [])
    assert small.totals().rows == 0
    assert write(small) == [layout.CONTACT_SHEET, layout.REPORT, layout.README]
    assert "No images were made" in page_of(small).text
    sheet = Image.open(io.BytesIO(small.store.get(layout.CONTACT_SHEET) or b""))
    assert sheet.width < 800, "a label, not a wide strip"


def test_a_job_that_never_began_has_a_report(tmp_path: Path) -> None:
    small = prepare_small_job(tmp_path, rows(5))
    page = page_of(small)
    assert "Unfinished: 5 rows pending" in page.text
    assert "No images yet" in page.text
    assert "imagemill resume" in page.text
    assert len(write(small)) == 3


def test_a_job_of_only_quarantined_rows_has_a_report(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, [{"prompt": ""}, {"prompt": None}, {"prompt": "  "}])
    page = page_of(small)
    assert small.totals().quarantined == 3
    assert "No images were made" in page.text
    assert "imagemill retry" not in page.text
    assert "no retry mends the quarantined rows" in page.text
    assert len(write(small)) == 3


def test_a_file_that_was_left_out_is_named_once(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, rows(2))
    page = page_of(small, ReportFacts(broken_files=("/a/b.parquet: /a/b.parquet is damaged: end",)))
    assert "/a/b.parquet is damaged: end" in page.text
    assert page.text.count("/a/b.parquet") == 1


def test_credentials_stay_out_of_the_page(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, rows(2))
    config = replace(
        small.config,
        storage=replace(small.config.storage, options={"secret": "hunter2"}),
        input=replace(small.config.input, path="s3://me:hunter2@bucket/prompts"),
    )
    page = page_of(replace(small, job=replace(small.job, config=config)))
    assert "hunter2" not in page.text
    assert "s3://…@bucket/prompts" in page.text


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_notes_pyarrow_lines_run_in_the_output_folder(
    tmp_path: Path, output_format: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    small = run_small_job(tmp_path, rows(4), **{"output.format": output_format})
    write(small)
    note = (small.store.get(layout.README) or b"").decode()
    blocks = re.findall(r"```python\n(.*?)```", note, re.DOTALL)
    (pyarrow_lines,) = [lines for lines in blocks if "pyarrow" in lines]
    root = small.store.local_root
    assert root is not None
    monkeypatch.chdir(root)
    exec(compile(pyarrow_lines, "README.md", "exec"), {})
    assert "picture 0" in capsys.readouterr().out
    assert {"files": "`images/`", "webdataset": "`shards/*.tar`", "parquet": "`data/*.parquet`"}[
        output_format
    ] in note


def test_the_contact_sheet_is_a_picture_and_reports_may_be_written_again(tmp_path: Path) -> None:
    small = run_small_job(tmp_path, rows(8))
    write(small)
    write(small)
    sheet = Image.open(io.BytesIO(small.store.get(layout.CONTACT_SHEET) or b""))
    assert sheet.width > 8 * 192


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 1000])
def test_the_spread_visits_everything_once_and_the_first_few_lie_apart(count: int) -> None:
    order = list(spread(count))
    assert sorted(order) == list(range(count))
    if count >= 97:
        first = sorted(order[:8])
        assert max(b - a for a, b in pairwise(first)) < count // 3
