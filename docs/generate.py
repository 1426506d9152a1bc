"""Writes configuration.md, commands.md, samplers.md and metrics.md from the code.

Run as ``python -m docs.generate``; a test fails when the files are not what this writes.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cluster.series import HISTOGRAM, JOB_LABELS, RUN_SERIES, WORKER_SERIES, Series
from conf.keys import KeyInfo, known_keys
from conf.schema import MISSING
from conf.triton_server import TritonServerConfig
from jobs.cli import build_parser
from jobs.configure import GROUPS, choices, compose_mapping
from jobs.triton_export import server_keys
from operators.sampler_names import SPECS
from operators.samplers_left_out import LEFT_OUT

HERE = Path(__file__).parent
SAMPLERS_HEAD = """\
# Samplers

The column `sampler` and the key `sampling.sampler` take one of {count} names. Each means a
scheduler of diffusers with fixed options; all else (noise schedule, prediction type, timestep
spacing, shift) is the model's own configuration. Rows with different samplers share every
forward pass. Besides these, `default` means the model's own scheduler, exactly as it was saved.
This page is written by `python -m docs.generate`.

| name | what it is | spacings | models | model calls of n steps |
|---|---|---|---|---|"""
SAMPLERS_NOTES = """
- A spacing is a suffix: `dpmpp_2m_karras` is `dpmpp_2m` with Karras' noise levels. Without a suffix
  they are the plain ones, whatever the model's configuration says; EDM's plain ones are Karras'.
  On flow models only the `flow_match_…` names take suffixes.
- Models: `noise` are trained on a noise schedule (Stable Diffusion 1, 2, XL; PixArt), `flow` on
  straight flows (SD3, Flux), `edm` on EDM's noise; `own` fits models saved with that scheduler
  only. The kind is read from the model's scheduler configuration. A row whose sampler cannot follow
  the model is quarantined as `sampler_unfit`.
- A model's option that is not linear (`clip_sample`, `clip_denoised`, `thresholding`,
  `variance_type=learned…`) forbids the sampler: `sampler_not_linear` names scheduler and option.
  So does a table that differs from its scheduler in a replay. `engine=pipeline` needs no table and
  runs them; `engine=auto` takes it where the run's default sampler is one of these.
- A step count or option that diffusers itself refuses is `sampler_failed`: it knows
  `euler_ancestral`, `pndm`, `dpm2`, `dpm2_ancestral` and the `edm_…` names for epsilon and
  v-prediction only.
- One step is one model call, with every sampler.
- Beta spacing (`use_beta_sigmas`) needs SciPy, which ImageMill does not install.

## Left out

| name | scheduler | why |
|---|---|---|"""

METRICS_HEAD = """\
# Metrics

Each run tells Prometheus how it goes, through Ray's own exporter: one HTTP endpoint a node, at
`--metrics-export-port` (KubeRay: 8080, the port `metrics`). Ray lists its endpoints in
`/tmp/ray/prom_metrics_service_discovery.json` of the head. [k8s/monitoring](../k8s/monitoring) has
a PodMonitor, alerts ([runbook](runbook.md)) and two dashboards for Grafana. Nothing has to be
switched on, and nothing is sent anywhere. This page is written by `python -m docs.generate`.

On every series: {labels}, beside Ray's own labels (`NodeAddress`, `WorkerId`, `SessionName`, …).
Jobs of one project that run at the same time need names of their own (`job.name`). A label never
holds a row, a shard or a prompt.

## A run

Told by its coordinator, several times a second; what has no value is absent.
"""
METRICS_WORKERS = """
## Its workers

Told by each worker at every heartbeat (`cluster.heartbeat_s`); `WorkerId` and `NodeAddress` tell
them apart.
"""
METRICS_NOTES = """
## Good to know

- Processes report to Ray's exporter every 10 s (`metrics_report_interval_ms`); scrape every 15 s.
- **Gauges end with the run**, within two report intervals. Of one job two coordinators may be seen
  for a moment (a run that is resumed at once), so take the gauges of a run by
  `max by (job_name, project)`, and add up only after that.
- **Counters stay** as long as their node: Ray keeps what a process that ended had counted. Their
  first value is 1e-300, which is as good as 0, so that `increase` sees the first event.
- A value that is not known any more (the cost of a run that hired a worker without a price) becomes
  NaN.
- Ray keeps of histograms the counts of the classes only: `_bucket` and `_count` are exact, so
  quantiles are as good as the classes; `_sum` is an estimate.
- Metrics cost a worker 35 µs of CPU a heartbeat and 3.4 µs an object that it writes, and the
  coordinator 0.15 ms for each look of the driver, a few a second (measured once, on one core).
- The metrics tell how it goes; what counts is in the output. `imagemill status` and
  `imagemill cost` read it there, to the last row and the last 1e-9.
"""


def configuration() -> str:
    """docs/configuration.md"""
    defaults = compose_mapping([])
    lines = [
        "# Configuration",
        "",
        "Every key is given as `key=value` on the command line. `imagemill run --cfg …` prints the",
        "composed configuration. An unknown key is refused and the nearest known ones are named.",
        "This page is written by `python -m docs.generate`.",
        "",
        "## Choices",
        "",
        "| choice | values | default |",
        "|---|---|---|",
    ]
    chosen = {"model": "shapes", "engine": "stepwise", "pricing": "local"}
    for group in GROUPS:
        names = ", ".join(f"`{name}`" for name in choices(group))
        lines.append(f"| `{group}=` | {names} | `{chosen[group]}` |")
    lines += [
        "",
        "`model=/path/to/folder`, `model=/path/to/file.safetensors` and `model=owner/name` are",
        "short for `model=custom model.path=…`, or for the choice that has the defaults of the",
        "model's family ([models](models.md)). A choice sets the keys of its group, which can be",
        "given one by one as well.",
    ]
    group = ""
    for info in known_keys():
        head = info.path.split(".", 1)[0]
        if head != group:
            group = head
            lines += [
                "",
                f"## {group}",
                "",
                "| key | what it is | type | default |",
                "|---|---|---|---|",
            ]
        lines.append(_key_row(info, _default(defaults, info.path)))
    lines += [
        "",
        "## triton export",
        "",
        "Keys of `imagemill triton export` alone ([Triton](triton.md)); no job has them.",
        "",
        "| key | what it is | type | default |",
        "|---|---|---|---|",
    ]
    own = {"triton": dataclasses.asdict(TritonServerConfig())}
    lines += [_key_row(info, _default(own, info.path)) for info in server_keys()]
    return "\n".join(lines) + "\n"


def _key_row(info: KeyInfo, default: str) -> str:
    kind = " \\| ".join(f"`{choice}`" for choice in info.choices) or info.type_name
    return f"| `{info.path}` | {info.help} | {kind} | {default} |"


def _default(defaults: Mapping[str, object], path: str) -> str:
    value: object = defaults
    for part in path.split("."):
        assert isinstance(value, Mapping)
        value = value[part]
    if value == MISSING:
        return "must be given"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value not in ("", {}) else "empty"


def commands() -> str:
    """docs/commands.md"""
    parser = build_parser()
    lines = [
        "# Commands",
        "",
        "This page is written by `python -m docs.generate` from `--help`.",
        "",
        "Exit status: 0 success (of a job: all rows committed, or quarantined within",
        "`job.max_quarantined`); 1 finished with too many quarantined rows or a left-out file,",
        "or `verify` found problems; 2 wrong usage, configuration or input, nothing started;",
        "3 stopped before the end, resumable.",
    ]
    for one in _below(parser):
        one.epilog = None
        one.formatter_class = _Formatter
        lines += ["", f"## {one.prog}", "", "```", one.format_help().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands, each before those of its own."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield one
                yield from _below(one)


class _Formatter(argparse.HelpFormatter):
    """Of the same width everywhere."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def samplers() -> str:
    """docs/samplers.md"""
    lines = [SAMPLERS_HEAD.format(count=len(SPECS))]
    for name, spec in SPECS.items():
        if not spec.spacing:
            suffixes = [f"_{one.spacing}" for one in SPECS.values() if one.spacing]
            spacings = [suffix for suffix in dict.fromkeys(suffixes) if name + suffix in SPECS]
            calls = {(2, 0): "2n - 1", (1, 1): "n + 1", (1, 0): "n"}
            cells = (
                f"`{name}`",
                f"{spec.about} (`{spec.scheduler}`)",
                ", ".join(f"`{spacing}`" for spacing in spacings) or "–",
                ", ".join(spec.models),
                calls[spec.calls_per_step, spec.extra_calls],
            )
            lines.append(f"| {' | '.join(cells)} |")
    lines.append(SAMPLERS_NOTES)
    lines += [f"| `{name}` | `{one.scheduler}` | {one.why} |" for name, one in LEFT_OUT.items()]
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """docs/metrics.md"""
    labels = " and ".join(f"`{label}`" for label in JOB_LABELS)
    return (
        METRICS_HEAD.format(labels=labels)
        + _series_table(RUN_SERIES)
        + METRICS_WORKERS
        + _series_table(WORKER_SERIES)
        + METRICS_NOTES
    )


def _series_table(series: Sequence[Series]) -> str:
    lines = ["", "| series | kind | labels | what it is |", "|---|---|---|---|"]
    for one in series:
        name = f"`{one.exported}`"
        if one.kind == HISTOGRAM:
            name = ", ".join(f"`{one.exported}_{part}`" for part in ("bucket", "sum", "count"))
        labels = ", ".join(f"`{label}`" for label in one.labels) or "–"
        lines.append(f"| {name} | {one.kind} | {labels} | {one.help} |")
    return "\n".join(lines) + "\n"


PAGES = {
    "configuration.md": configuration,
    "commands.md": commands,
    "samplers.md": samplers,
    "metrics.md": metrics,
}


def main() -> None:
    """Write all pages."""
    for name, make in PAGES.items():
        (HERE / name).write_text(make())


if __name__ == "__main__":
    main()
