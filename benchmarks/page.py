"""Writes docs/performance.md and its plot from the results, so that no number is typed by hand.

python -m benchmarks.page      # again, from docs/performance.json
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.contestants import WAYS
from benchmarks.goals import (
    TRITON_BATCH,
    UNMET,
    bare_share,
    goals,
    overlap,
    served,
    served_to,
    speedup,
    spread,
    steady_rate,
    whole_rate,
)
from benchmarks.plot import Bar, Panel, svg
from benchmarks.results import Results, Run, Share
from benchmarks.simulation import IN_BATCHES, PUBLISHED
from benchmarks.slow_store import SlowStore
from benchmarks.spread import Spread
from benchmarks.ways.imagemill import PRECISIONS
from benchmarks.workloads import GUIDANCE, KINDS, SAMPLERS, SIZES, STEPS
from jobs.configure import compose_mapping

DOCS = Path(__file__).parents[1] / "docs"
WORKLOADS = ("mixed", "uniform")
_MALLOC = {
    True: "the same settings of memory allocation (`cluster/worker_environment.py`)",
    False: "glibc's own settings of memory allocation, which ImageMill's worker changes",
}


def page(results: Results) -> str:
    """docs/performance.md"""
    asked = results.settings
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    text = templates.get_template("performance.md.j2").render(
        results=results,
        settings=asked,
        machine=results.machine,
        packages=_listed(
            f"{name} {number}" for name, number in results.machine["packages"].items()
        ),
        loads=_listed(f"{part} {load}" for part, load in results.load_average.items()),
        tables=_tables(results),
        unmet=any(goal.verdict == UNMET for goal in goals(results)),
        contests={name: found for name in WORKLOADS if (found := _contest(results, name))},
        group_rows=_group_rows(results),
        overlap=_overlap_facts(results),
        triton_rows=results.served[0].images if results.served else 0,
        triton_batch=TRITON_BATCH,
        published=_listed(f"{batch}: {seconds}" for batch, seconds in PUBLISHED.items()),
        fast=" ".join(PRECISIONS["bfloat16"]),
        malloc=_MALLOC[asked.same_malloc],
        steps=_listed(STEPS),
        guidance=_listed(GUIDANCE),
        samplers=_listed(SAMPLERS),
        sizes=_listed(f"{width}x{height}" for width, height in SIZES),
        kinds=len(STEPS) * len(GUIDANCE) * len(SAMPLERS) * len(SIZES),
        uniform=_uniform(),
    )
    return re.sub(r"\n+(?=## )", "\n\n", re.sub(r"\n{3,}", "\n\n", text))


def plot(results: Results) -> str | None:
    """docs/performance.svg; None when no way was run."""
    panels = [
        Panel(title=f"{workload} rows, {name}: images a second", bars=bars)
        for workload in WORKLOADS
        for name, measure in (("steady state", steady_rate), ("whole run", whole_rate))
        if (
            bars := [
                Bar(title=way.title, value=found, ours=way.module is None)
                for way in WAYS.values()
                if (found := spread(results, workload, way.name, measure))
            ]
        )
    ]
    return svg(panels) if panels else None


def write(results: Results, folder: Path = DOCS) -> None:
    """The page, the plot and the results themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    results.write(folder / "performance.json")
    (folder / "performance.md").write_text(page(results))
    drawn = plot(results)
    if drawn is not None:
        (folder / "performance.svg").write_text(drawn)


def _tables(results: Results) -> dict[str, str]:
    """The tables of the parts that were run, by part."""
    return {
        "goals": _goals(results),
        "shares": _shares(results),
        "overlaps": _overlaps(results),
        "peaks": _peaks(results),
        "served": _served(results),
        "simulated": _simulated(results),
    }


def _goals(results: Results) -> str:
    rows = [
        (goal.text, f"{goal.least:g}", goal.found.text() if goal.found else "–", goal.verdict)
        for goal in goals(results)
    ]
    return _table(("what", "at least", "found", ""), rows)


def _contest(results: Results, workload: str) -> str:
    rows = []
    for way in WAYS.values():
        runs = [run for run in results.runs if (run.way, run.workload) == (way.name, workload)]
        if runs:
            rows.append(_way(results, way.title, runs))
    heads = ("way", "steady, images/s", "to Ray Data", "whole run, images/s", "to Ray Data")
    more = ("start and end, s", "denoiser", "fill", "differs by")
    return _table((*heads, *more), rows)


def _way(results: Results, title: str, runs: Sequence[Run]) -> tuple[str, ...]:
    cells = [title]
    for measure in (steady_rate, whole_rate):
        cells.append(Spread.of([measure(run) for run in runs]).text())
        found = speedup(results, runs[0].workload, runs[0].way, "ray", measure)
        cells.append(found.text() if found else "–")
    beside_s = Spread.of([run.whole_s - run.images / run.steady_per_second for run in runs])
    return (
        *cells,
        beside_s.text(1),
        Spread.of([run.denoiser_share for run in runs]).percent(),
        Spread.of([run.fill for run in runs]).percent(),
        str(max(run.difference for run in runs)),
    )


def _group_rows(results: Results) -> str:
    """Rows of a call of the careful user on mixed rows; empty when he was not measured."""
    found = spread(results, "mixed", "sorted", lambda run: run.fill * results.settings.batch)
    return f"{found.median:.1f}" if found else ""


def _shares(results: Results) -> str:
    rows = []
    for precision in PRECISIONS:
        mine = [share for share in results.shares if share.precision == precision]
        if mine:
            rows.append(_precision(precision, mine))
    heads = ("precision", "bare, by batch", "engine, uniform rows", "of the best bare")
    more = ("inside the denoiser", "engine, mixed rows of one shape", "inside", "fill")
    return _table((*heads, *more), rows)


def _precision(precision: str, shares: Sequence[Share]) -> tuple[str, ...]:
    bare = {
        batch: Spread.of([share.bare_per_second[batch] for share in shares]).median
        for batch in shares[0].bare_per_second
    }
    return (
        precision,
        _listed(f"{batch}: {found:.0f}" for batch, found in bare.items()),
        Spread.of([share.uniform_per_second for share in shares]).text(0),
        Spread.of([bare_share(share) for share in shares]).percent(),
        Spread.of([share.uniform_denoiser_share for share in shares]).percent(),
        Spread.of([share.one_shape_per_second for share in shares]).text(0),
        Spread.of([share.one_shape_denoiser_share for share in shares]).percent(),
        Spread.of([share.fill for share in shares]).percent(),
    )


def _overlaps(results: Results) -> str:
    until = {
        "from the first step to the last image's byte": lambda one: one.worker_per_second,
        "from the opening of the first shard to the last record": (
            lambda one: one.whole_per_second
        ),
    }
    rows = [
        (text, found.percent())
        for text, measure in until.items()
        if (found := overlap(results.overlaps, measure))
    ]
    return _table(("the worker with the slow store", "of the engine alone"), rows)


def _overlap_facts(results: Results) -> dict[str, object]:
    if not results.overlaps:
        return {}
    io_threads = compose_mapping([])["cluster"]["io_threads"]
    return {
        "images": results.overlaps[0].images,
        "loop": Spread.of([one.loop_per_second for one in results.overlaps]).text(),
        "io_threads": io_threads,
        "most": f"{io_threads / SlowStore.put_s:.0f}",
    }


def _served(results: Results) -> str:
    rows = []
    for way in dict.fromkeys(one.way for one in results.served):
        mine = [one for one in results.served if one.way == way]
        rate = served(results, way, lambda one: one.images / one.flowing_s)
        beside = [served_to(results, way, other) for other in ("in process", "dynamic")]
        batches = [one.mean_batch for one in mine if one.mean_batch is not None]
        rows.append(
            (
                way,
                rate.text() if rate else "–",
                *(found.text() if found else "–" for found in beside),
                Spread.of([one.whole_s for one in mine]).text(0),
                Spread.of(batches).text(1) if batches else "–",
                Spread.of([one.step_rows for one in mine]).text(1),
                str(max(one.difference for one in mine)),
            )
        )
    heads = ("way", "images/s", "to in process", "to dynamic", "whole run, s")
    return _table((*heads, "executed batch", "rows of a step", "differs by"), rows)


def _peaks(results: Results) -> str:
    rows = [(one.engine, f"{one.rows:,}", f"{one.peak_mib:.0f}") for one in results.peaks]
    return _table(("engine", "rows", "peak MiB"), rows)


def _simulated(results: Results) -> str:
    base = {one.rows: one for one in results.simulated if one.way == IN_BATCHES}
    rows = [
        (
            f"{one.rows:,}",
            one.way,
            f"{one.images_per_second:.3f}",
            f"{one.images_per_second / base[one.rows].images_per_second:.2f}",
            f"{100 * one.fill:.0f} %",
        )
        for one in results.simulated
    ]
    return _table(("rows", "way", "images/s", f"to {IN_BATCHES}", "fill"), rows)


def _uniform() -> str:
    (steps,), (guidance,), (sampler,), ((width, height),) = KINDS["uniform"]
    return f"{steps} steps of {sampler}, guidance {guidance:g}, {width}x{height}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; empty without rows."""
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _listed(things: Iterable[object]) -> str:
    return ", ".join(str(thing) for thing in things)


if __name__ == "__main__":
    write(Results.read(DOCS / "performance.json"))
