"""The settings of a job that costs one USD a second and commits often, for budgets of projects."""

from __future__ import annotations

COMMIT_S = 3
SETTINGS = (
    "engine=simulated",
    "engine.simulated_speed=6",
    "input.shard_rows=16",
    "job.commit_images=4",
    f"job.commit_seconds={COMMIT_S}",
    "job.project=shop",
    "cluster.heartbeat_s=0.2",
    "cluster.workers=1",
    "pricing.price_per_hour=3600",  # one USD a second
)
