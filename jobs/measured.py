"""How fast this machine was: the rate that a finished run shows, remembered for later estimates."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.job_log import JobRecord
from cluster.plan_file import PlanReader
from cluster.store import Store
from cluster.tables import read_parquet
from cluster.totals import counted, states
from conf.schema import RunConfig
from jobs import rates

_MEASURED_COMMITS = 64
_COLUMNS = ["width", "height", "steps", "guidance_scale", "sampler", "gpu_seconds"]


def rate_key(config: RunConfig, revision: str) -> rates.RateKey:
    """Under what this machine's rate for a configuration is remembered."""
    device = "cuda" if Path("/dev/nvidia0").exists() else f"cpu{os.cpu_count()}"
    return rates.RateKey(
        engine=f"{config.engine.name}-{config.engine.precision}",
        model=config.model.name,
        revision=revision,
        device=device,
        max_batch=config.engine.max_batch or 0,
    )


def remember_rate(store: Store, job: JobRecord, plan: PlanReader) -> None:
    """Remember the rate that the first commits of a local job show, for later estimates."""
    if job.config.cluster.address != "local":
        return
    pixel_steps = seconds = 0.0
    seen = 0
    for state in states(store, plan):
        for commit, _ in counted(state):
            data = store.get(commit.metadata.key) if commit.metadata else None
            if data is None:
                continue
            for row in read_parquet(data, _COLUMNS).to_pylist():
                weight = rates.weighted_steps(
                    sampler=row["sampler"],
                    steps=row["steps"],
                    guidance_scale=row["guidance_scale"],
                )
                pixel_steps += weight * row["width"] * row["height"]
                seconds += row["gpu_seconds"]
            seen += 1
        if seen >= _MEASURED_COMMITS:
            break
    if seconds > 0:
        rates.remember(
            rate_key(job.config, job.model_revision), pixel_steps=pixel_steps, seconds=seconds
        )
