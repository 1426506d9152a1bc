"""``imagemill plan`` and ``run --dry-run``: what a job would do, in words. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.input_files import InputFiles
from cluster.ray_session import refuse_offload
from cluster.store import Store
from cluster.store_access import LOOK_S
from conf.errors import ConfigError, OptionRefused, StoreUnavailable
from conf.schema import ModelConfig, RunConfig
from jobs.budget_preview import budget_lines
from jobs.compile_choice import JobSize, choose_compile
from jobs.deadline import refuse_passed
from jobs.figures import duration, plural, share
from jobs.maker import Maker, settle
from jobs.measured import device_name, is_cpu, rate_key, simulated_seconds
from jobs.plan import PlannedJob, make_plan
from jobs.preview import Preview, make_preview
from jobs.run import check_claimable, prepare
from jobs.unique_ids import check_unique_ids
from operators.guidance import has_two_pass_guidance
from operators.row_defaults import row_defaults

REFUSED = "refused   "
"""How the line begins that says that a run would not start."""


def dry_run_lines(overrides: Sequence[str]) -> list[str]:
    """Plan and count without writing anything.

    An output that a run would refuse is told in the last lines.

    Raises:
        ConfigError, InputError: what is wrong with the configuration, the model or the input.
    """
    maker = settle(refuse_passed(prepare(overrides)))
    config = maker.config
    planned = make_plan(config, None)
    files = InputFiles.of(config, None)
    if config.input.unique_ids:
        check_unique_ids(config, planned.inputs, None)
    preview = make_preview(
        planned.inputs,
        config.input.columns,
        row_defaults(config),
        files.open,
        two_pass_guidance=has_two_pass_guidance(config.model),
    )
    budget, refused = budget_lines(config, maker.model_revision, planned.shard_count)
    return [
        *_plan_lines(maker, planned),
        *_preview_lines(preview),
        _time_line(config, maker.model_revision, preview),
        *_compile_lines(maker.config, maker.model_revision, planned, preview),
        *budget,
        *(f"{REFUSED}a run would be refused: {why}" for why in refused),
        *_worker_lines(config),
        *_output_lines(config),
        "nothing was written",
    ]


def _plan_lines(maker: Maker, planned: PlannedJob) -> list[str]:
    config = maker.config
    simulated = " (SIMULATED: no model runs)" if config.engine.name == "simulated" else ""
    lines = [
        f"job       {config.job.name} -> {config.output.path}",
        f"model     {config.model.name}, revision {maker.model_revision}{simulated}",
        *_origin_lines(config.model),
        f"engine    {maker.engine_line}",
        f"input     {plural(planned.rows, 'row')} in {plural(len(planned.inputs), 'file')}, "
        f"{plural(planned.shard_count, 'shard')} of up to {plural(planned.shard_rows, 'row')}",
    ]
    lines += [f"left out  {problem}" for problem in planned.problems]
    told = {f"left out: {problem}" for problem in planned.problems}
    return lines + [f"warning   {text}" for text in planned.warnings if text not in told]


def _origin_lines(model: ModelConfig) -> list[str]:
    """Which commit of the hub a model is, so that it can be had again."""
    return [f"commit    {model.revision} of {model.path}"] if model.revision else []


def _output_lines(config: RunConfig) -> list[str]:
    """Whether the output could be claimed; it is only looked at."""
    try:
        store = Store.of(config, patience_s=LOOK_S)
        check_claimable(store, config)
        store.refuse_unwritable()
    except (ConfigError, StoreUnavailable) as error:
        return [f"{REFUSED}a run would be refused: {error}"]
    return []


def _worker_lines(config: RunConfig) -> list[str]:
    """What workers could not do, where it is known here what they will get."""
    asked = config.cluster.gpus_per_worker
    without = config.cluster.address == "local" and is_cpu(device_name())
    try:
        refuse_offload(config, gpus_per_worker=0.0 if asked == 0 or without else 1.0)
    except OptionRefused as error:
        return [f"{REFUSED}a run would be refused: {error}"]
    return []


def _preview_lines(preview: Preview) -> list[str]:
    lines = [
        f"images    {preview.images:,}, {preview.guided:,} with a guidance pass and "
        f"{preview.unguided:,} without"
    ]
    for (width, height), count in sorted(preview.shapes.items()):
        lines.append(
            f"shape     {width} x {height}: {plural(count, 'image')} in batches of their own"
        )
    lines.append(f"steps     {_counts(preview.steps)}")
    lines.append(f"samplers  {_counts(preview.samplers)}")
    for reason, count in sorted(preview.rejected.items()):
        lines.append(f"rejected  {plural(count, 'row')}, {reason}: {preview.examples[reason]}")
    return lines


def _counts(counts: Mapping[int, int] | Mapping[str, int]) -> str:
    return ", ".join(f"{key} ({count:,})" for key, count in sorted(counts.items())) or "none"


def _compile_lines(
    config: RunConfig, revision: str, planned: PlannedJob, preview: Preview
) -> list[str]:
    """Whether the denoiser would be compiled, and what that costs and saves."""
    if config.engine.name != "stepwise" or not preview.images:
        return []
    size = JobSize.of(preview, config, rows=planned.rows, workers=_crew(config))
    line = f"compile   {choose_compile(config, revision, lambda: size).why}"
    if config.engine.compile in ("regional", "full"):
        own = f"{config.model.width} x {config.model.height}"
        line += f"; {share(size.usual)} of the images are {own}, the one size that is compiled"
    return [line]


def _crew(config: RunConfig) -> int:
    return config.cluster.workers or config.cluster.max_workers or config.cluster.min_workers


def _time_line(config: RunConfig, revision: str, preview: Preview) -> str:
    if not preview.images:
        return "time      none: there is nothing to make, no row of the input can become an image"
    asked = f"{plural(_crew(config), 'worker')} asked for"
    seconds = preview.seconds(rate_key(config, revision), workers=1)
    if seconds is None and config.engine.name == "simulated":
        return (
            f"time      about {duration(simulated_seconds(config, preview))} of one worker's "
            f"waiting by the engine's table, plus starting up; {asked}"
        )
    if seconds is None:
        return (
            "time      not known: no run of this model was measured here yet; try a few rows first"
        )
    return (
        f"time      about {duration(seconds)} of one worker's denoising by the rate measured here "
        f"before, plus starting up; {asked}"
    )
